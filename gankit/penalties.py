"""Gradient penalties: callables that a `Trainer` adds to the discriminator's cost.

A penalty is called as `penalty(score, real, fake, streams)` and returns one number per replica, `[...]`:

* `score` maps samples `[..., N, *shape]` to logits `[..., N]` (labels, where there are any, are bound in it);
* `real` and `fake` are the minibatch, `[..., N, *shape]`, without gradient;
* `streams` gives random numbers that depend on the replica's seed alone.

Each sample's gradient is exact because a logit depends on its own sample only. That fails for a discriminator
with batch normalisation, where a penalty of this kind has no clear meaning (Gulrajani et al. 2017, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gankit.sampling import Streams

Score = Callable[[Tensor], Tensor]
Penalty = Callable[[Score, Tensor, Tensor, Streams], Tensor]


@dataclass(frozen=True)
class R1:
    """gamma / 2 times the mean squared gradient norm on real samples (zero-centred penalty).

    Attributes:
        gamma: strength, at least 0; in an ensemble also a tuple, one number per replica.

    Source: Mescheder, Geiger and Nowozin 2018, equation 9.
    """

    gamma: float | tuple[float, ...]

    def __post_init__(self) -> None:
        for value in [self.gamma] if isinstance(self.gamma, int | float) else self.gamma:
            _check_strength("gamma", value)

    def __call__(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        penalty = _squared_gradient_norm(score, real).mean(-1) / 2
        return penalty * torch.as_tensor(self.gamma, dtype=penalty.dtype, device=penalty.device)


@dataclass(frozen=True)
class WganGP:
    """weight times the mean of (|gradient| - 1)^2 at random points between real and fake samples.

    Attributes:
        weight: strength lambda, at least 0 (10 in the paper).

    Source: Gulrajani et al. 2017, equation 3.
    """

    weight: float = 10.0

    def __post_init__(self) -> None:
        _check_strength("weight", self.weight)

    def __call__(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        dim = len(streams.lead)
        u = streams.uniform(real.shape[dim]).to(real)
        between = torch.lerp(fake, real, u.reshape(*u.shape, *[1] * (real.ndim - u.ndim)))
        squared = _squared_gradient_norm(score, between)
        # sqrt has an infinite slope at zero; adding the smallest normal number keeps 0 * inf out of the step.
        norm = (squared + torch.finfo(squared.dtype).tiny).sqrt()
        return self.weight * (norm - 1).square().mean(-1)


def _squared_gradient_norm(score: Score, x: Tensor) -> Tensor:
    """|df/dx|^2 for each sample: x `[..., N, *shape]` -> `[..., N]`, differentiable in D's parameters."""
    x = x.detach().requires_grad_()
    logits = score(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().flatten(logits.ndim).sum(-1) if x.ndim > logits.ndim else gradient.square()


def _check_strength(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is the penalty's strength and must be at least 0 and finite, got {value}")
