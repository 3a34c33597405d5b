"""Consistency: terms that ask D, or both players, to say the same of samples that are nearly the same.

Where an augmentation changes what D learns from, these leave the cost alone and add the squared difference of two
logits. So they can not leak through the cost, and (CR, on real images alone) they may through the difference: bCR adds
generated ones.

`gankit.game.transformations` has the names that `steps` may hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gankit.game.augment import Chain
from gankit.game.play import Play


@dataclass(frozen=True)
class CR:
    """weight times the mean of (D(x) - D(T x))^2 over real images; a term of D.

    Zero for a D that T does not change, whatever its logits. The gradient goes through both of them.

    Attributes:
        weight: strength lambda, at least 0 (10 in the paper).
        steps: transformations of T, each with its full probability; "flip,shift" is the paper's.

    Raises:
        ValueError: a negative weight, or an unknown transformation.

    Source: Zhang et al. 2020, "Consistency regularization for generative adversarial networks", algorithm 1.
    """

    weight: float = 10.0
    steps: str = "flip,shift"

    def __post_init__(self) -> None:
        _check_strengths(self, "weight")
        Chain(self.steps)

    def __call__(self, play: Play) -> Tensor:
        return self.weight * _real_difference(play, self.steps)


@dataclass(frozen=True)
class BCR:
    """CR, balanced: also (D(G(z)) - D(T G(z)))^2 over generated images; a term of D.

    Not to be made lazy (`Every`).

    Attributes:
        real: strength on real images, at least 0 (10 in the paper).
        fake: strength on generated ones, at least 0 (10 in the paper).
        steps: as in `CR`.

    Raises:
        ValueError: a negative strength, or an unknown transformation.

    Source: Zhao et al. 2021, "Improved consistency regularization for GANs", algorithm 1.
    """

    real: float = 10.0
    fake: float = 10.0
    steps: str = "flip,shift"

    def __post_init__(self) -> None:
        _check_strengths(self, "real", "fake")
        Chain(self.steps)

    def __call__(self, play: Play) -> Tensor:
        moved = Chain(self.steps)(play.fake, play.streams, play.states)
        other = play.judge(moved, play.labels).logits
        fake = _squares(play.fake_verdict.logits, other)
        return self.real * _real_difference(play, self.steps) + self.fake * fake


@dataclass(frozen=True)
class ZCR:
    """weight times the mean of (D(G(z)) - D(G(z + e)))^2, e from N(0, sigma^2); a term of D.

    Attributes:
        weight: strength lambda_dis, at least 0.
        sigma: of the noise on z, above 0.

    Raises:
        ValueError: a number out of range.

    Source: Zhao et al. 2021, "Improved consistency regularization for GANs", algorithm 2. Published programmes have
    other strengths and deviations (20 and 0.05 here).
    """

    weight: float = 20.0
    sigma: float = 0.05

    def __post_init__(self) -> None:
        _check_strengths(self, "weight")
        _check_sigma(self.sigma)

    def __call__(self, play: Play) -> Tensor:
        other = play.judge(_nearby(play, self.sigma), play.labels).logits
        return self.weight * _squares(play.fake_verdict.logits, other)


@dataclass(frozen=True)
class Diversity:
    """*minus* weight times the mean of |G(z) - G(z + e)|^2, e from N(0, sigma^2): zCR's term of G.

    The square is summed over an image's values: for G(z) = A z its mean is sigma^2 |A|_F^2.

    Attributes:
        weight: strength lambda_gen, at least 0 (0.5 in the paper).
        sigma: of the noise on z, above 0.

    Raises:
        ValueError: a number out of range.

    Source: Zhao et al. 2021, "Improved consistency regularization for GANs", algorithm 2.
    """

    weight: float = 0.5
    sigma: float = 0.05

    def __post_init__(self) -> None:
        _check_strengths(self, "weight")
        _check_sigma(self.sigma)

    def __call__(self, play: Play) -> Tensor:
        difference = (play.fake - _nearby(play, self.sigma)).float()
        return -self.weight * difference.square().flatten(len(play.lead) + 1).sum(-1).mean(-1)


def _real_difference(play: Play, steps: str) -> Tensor:
    moved = Chain(steps)(play.real, play.streams, play.states)
    return _squares(play.real_verdict.logits, play.judge(moved, play.real_labels).logits)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of logits `[*lead, N]`; costs are in float32, also where a step is not."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) - b.to(wide)).square().mean(-1)


def _nearby(play: Play, sigma: float) -> Tensor:
    """What G makes of z + e, with a gradient in G's step only."""
    z = play.z + sigma * play.streams.normal(play.n, play.z.shape[-1])
    with torch.set_grad_enabled(play.learner is play.G):
        return play.generate(z, play.labels)


def _check_strengths(record: object, *names: str) -> None:
    for name in names:
        if not 0 <= (value := getattr(record, name)) < float("inf"):
            raise ValueError(f"{name} is the term's strength and must be at least 0 and finite, got {value}")


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma must be above 0 and finite, got {sigma}")
