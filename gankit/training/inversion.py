"""Which w makes a given picture: projection into W by gradient descent (GAN inversion)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.models.stylegan import each_layer
from gankit.models.walking import check_styles, evaluating
from gankit.streams import Streams

RISE, FALL, NOISY = 0.05, 0.25, 0.75
"""Shares of the steps in which the rate rises, in which it falls, and in which w is disturbed."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` found.

    Attributes:
        w: `[N, w_dim]`, or `[N, layers, w_dim]` with a w of its own for each layer.
        pictures: what the generator makes of it, `[N, *shape]`.
        distances: to the targets before each step, and at the end, `[steps + 1, N]`.
    """

    w: Tensor
    pictures: Tensor
    distances: Tensor


def invert(
    G: nn.Module,
    targets: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int = 1_000,
    lr: float = 0.1,
    disturbance: float = 0.05,
    each: bool = False,
    n_mean: int = 10_000,
    labels: Tensor | None = None,
    seed: int = 0,
) -> Inversion:
    """Look for the w whose pictures are nearest to given ones, from the mean w on.

    Adam's rate rises in the first twentieth of the steps and falls along a cosine in the last quarter. In the first
    three quarters w is disturbed by normal numbers of `disturbance` times the deviation of w, which fall to zero.

    A perceptual or a classifier's distance finds pictures with the same content; the squared distance of pixels, the
    blurred mean of many. The noise of the layers stays as it is: the paper optimises it as well, with a regularisation
    that keeps signal out of it.

    >>> import gankit as gk
    >>> from gankit.metrics.similarity import squared_distance
    >>> from gankit.training.inversion import invert
    >>> G, _ = gk.models.stylegan2((1, 8, 8), z_dim=4, width=4, mapping=2)
    >>> found = invert(G, gk.sampling.sample(G, 2), squared_distance, steps=4, n_mean=10)
    >>> found.w.shape, found.distances.shape
    (torch.Size([2, 4]), torch.Size([5, 2]))

    Args:
        G: one generator with `mapping` and `synthesis`.
        targets: `[N, *shape]` in [-1, 1].
        distance: of two batches, `[N]`, which can be differentiated: `gankit.metrics.similarity.feature_distance` of a
            classifier's features, or LPIPS.
        steps: of Adam, at least 1.
        lr: its largest rate, above 0.
        disturbance: at least 0.
        each: give each layer a w of its own (W+), which fits more closely and leaves what the generator has learned.
        n_mean: latents from which the mean and the deviation of w are estimated, at least 2.
        labels: int64 `[1]`, the class of a conditional generator.
        seed: of those latents and of the disturbance.

    Raises:
        ValueError: if the generator has no mapping, the targets have another shape, or a number is out of range.

    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", section 5 and appendix D.
    """
    check_styles(G)
    if tuple(targets.shape[1:]) != tuple(G.shape) or len(targets) < 1:
        raise ValueError(f"targets must be [N, {', '.join(map(str, G.shape))}], got {list(targets.shape)}")
    for name, value, least in (("steps", steps, 1), ("n_mean", n_mean, 2), ("disturbance", disturbance, 0)):
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be above 0 and finite, got {lr}")
    weight = next(G.parameters())
    streams = Streams([seed], (), weight.device, name="inversion")
    targets = targets.to(weight)
    with evaluating(G):
        mean, deviation = _moments(G, streams, n_mean, labels)
        w = mean.expand(len(targets), -1)
        if each:
            w = each_layer(w, G.synthesis.layers)
        w = w.clone().requires_grad_(True)
        adam = torch.optim.Adam([w], lr)
        distances = []
        for step in range(steps):
            share = step / steps
            adam.param_groups[0]["lr"] = lr * rate_at(share)
            size = disturbance * deviation * max(0.0, 1 - share / NOISY) ** 2
            moved = w + size * streams.normal(len(w), *w.shape[1:]).to(w)
            found = distance(G.synthesis(moved), targets)
            distances.append(found.detach())
            (w.grad,) = torch.autograd.grad(found.sum(), [w])
            adam.step()
        with torch.no_grad():
            pictures = G.synthesis(w)
            distances.append(distance(pictures, targets))
    return Inversion(w.detach(), pictures, torch.stack(distances))


def rate_at(share: float) -> float:
    """The learning rate at a share of the steps in [0, 1), as a share of the largest."""
    rise = min(1.0, (share + 1e-3) / RISE)  # not zero in the first step
    fall = min(1.0, (1 - share) / FALL)
    return rise * (0.5 - 0.5 * math.cos(math.pi * fall))


@torch.no_grad()
def _moments(G: nn.Module, streams: Streams, n: int, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean of w `[1, w_dim]`, and the root of its mean squared distance from there."""
    z = streams.normal(n, G.z_dim).to(next(G.parameters()))
    w = G.mapping(z, labels.expand(n)) if getattr(G, "n_classes", 0) else G.mapping(z)
    if w.ndim == 3:
        w = w[:, 0]
    mean = w.mean(0, keepdim=True)
    return mean, (w - mean).square().sum(1).mean().sqrt()
