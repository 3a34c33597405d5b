"""Augmentations: how D sees every sample, and the rule that finds how often it should.

>>> G, D = gk.models.mlp(data.shape)
>>> run = gk.Trainer(G, D, data, augment=gk.augment.ADA(), rules=[gk.augment.AdaptP()])
>>> run = gk.Trainer(G, D, data, augment=gk.augment.DiffAugment("translation,cutout"))

An augmentation of all that D sees, real or generated, in its own steps and in G's, does not change what G should learn
as long as it can be undone in distribution (`gankit.game.transformations`). One of real images alone
(`Trainer(data_augment=...)`) does: the augmented images are the data then, which is wanted for mirror images
(`Chain("flip")`) and hardly anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gankit.data import Dataset
from gankit.device import constant
from gankit.game.transformations import NAMES, Draw, Probability, transformed
from gankit.streams import Streams

if TYPE_CHECKING:
    from gankit.game.play import Play

P = "augment_p"
"""Name of the state that holds a probability for every replica (`AdaptP`)."""


@dataclass(frozen=True)
class Chain:
    """Random transformations one after another, each with probability p by itself, for each sample.

    Attributes:
        steps: names of gankit.game.transformations, the first one first, with commas between them.
        p: probability of each, in [0, 1]; a tuple gives one per replica; None takes that of a rule (`AdaptP`).

    Raises:
        ValueError: an unknown name, or a p outside of [0, 1].
    """

    steps: str = "flip"
    p: float | tuple[float, ...] | None = 1.0

    def __post_init__(self) -> None:
        _names("steps", self.steps, dict.fromkeys(NAMES))
        _check_p(self.p)

    def __call__(self, x: Tensor, streams: Streams, states: Mapping[str, Tensor]) -> Tensor:
        return augmented(x, self.steps.split(","), self.p, streams, states)


@dataclass(frozen=True)
class Flips:
    """Mirror images: left and right change places, with probability p.

    Attributes:
        p: probability, in [0, 1]; 0.5 makes a picture and its mirror image equally frequent.

    Raises:
        ValueError: a p outside of [0, 1].
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_p(self.p)

    def __call__(self, x: Tensor, streams: Streams, states: Mapping[str, Tensor]) -> Tensor:
        lead = len(streams.lead)
        chosen = streams.uniform(x.shape[lead]).to(x.device) < self.p
        return torch.where(chosen.reshape(*chosen.shape, *[1] * (x.ndim - lead - 1)), x.flip(-1), x)


DIFFAUGMENT = {
    "color": ("uniform-brightness", "uniform-saturation", "uniform-contrast"),
    "translation": ("translation",),
    "cutout": ("cutout",),
}
"""A policy of `DiffAugment` -> its transformations."""


@dataclass(frozen=True)
class DiffAugment:
    """Differentiable augmentation: the same strong transformations always, of all that D sees.

    In [-1, 1], per sample and not clipped: brightness + U(-0.5, 0.5), saturation times U(0, 2) and contrast times
    U(0.5, 1.5) ("color"); up to an eighth of the side in whole pixels, filled with 0 ("translation"); a square of half
    the side becomes 0 ("cutout").

    Attributes:
        policy: any of color, translation, cutout, in the order in which they happen, with commas between them.

    Raises:
        ValueError: an unknown policy.

    Source: Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", section 3 and 4.
    """

    policy: str = "color,translation,cutout"

    def __post_init__(self) -> None:
        _names("policy", self.policy, DIFFAUGMENT)

    def __call__(self, x: Tensor, streams: Streams, states: Mapping[str, Tensor]) -> Tensor:
        return augmented(x, _names("policy", self.policy, DIFFAUGMENT), 1.0, streams, states)


ADA_PARTS = {
    "blit": ("flip", "turn", "shift"),
    "geometric": ("scale", "rotate-half", "stretch", "rotate-half", "drift"),
    "colour": ("brightness", "contrast", "luma-flip", "hue", "saturation"),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
"""A part of `ADA`'s pipeline -> its transformations."""


@dataclass(frozen=True)
class ADA:
    """Adaptive augmentation: eighteen-odd transformations in a fixed order, each with the same probability p.

    Geometry is one interpolation, colours are one matrix. The pipeline's filters in frequency bands are left out: their
    bank needs images of at least 22 pixels, and the source's best pipeline does without them.

    Attributes:
        parts: any of blit, geometric, colour, noise, cutout, with commas between them.
        p: probability of each transformation, in [0, 1]; a tuple gives one per replica; None takes that of `AdaptP`.

    Raises:
        ValueError: an unknown part, or a p outside of [0, 1].

    Source: Karras et al. 2020, "Training generative adversarial networks with limited data", appendix B.
    """

    parts: str = "blit,geometric,colour"
    p: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _names("parts", self.parts, ADA_PARTS)
        _check_p(self.p)

    def __call__(self, x: Tensor, streams: Streams, states: Mapping[str, Tensor]) -> Tensor:
        return augmented(x, _names("parts", self.parts, ADA_PARTS), self.p, streams, states)


def augmented(
    x: Tensor,
    names: Sequence[str],
    p: float | tuple[float, ...] | None,
    streams: Streams,
    states: Mapping[str, Tensor],
) -> Tensor:
    """Images `[*lead, M, C, H, W]` after transformations of these names, computed in float32 (float64 stays).

    Raises:
        ValueError: x are no images, p is None and no rule keeps one, or p is a tuple of another length.
    """
    lead = len(streams.lead)
    if x.ndim != lead + 4:
        raise ValueError(f"an augmentation is of images [*lead, M, C, H, W], got shape {list(x.shape)}")
    n = x.shape[lead]
    with torch.autocast(x.device.type, enabled=False):
        images = (x if x.dtype == torch.float64 else x.float()).flatten(0, lead)
        draw = Draw(streams, n, images)
        return transformed(images, names, draw, _each(p, n, streams, states)).reshape(x.shape).to(x.dtype)


def _each(
    p: float | tuple[float, ...] | None, n: int, streams: Streams, states: Mapping[str, Tensor]
) -> Probability:
    """p as a number, or for every sample, `[B]`."""
    if isinstance(p, float | int):
        return p
    if p is None:
        if P not in states:
            raise ValueError("p is None, which takes p from a rule: give rules=[AdaptP()], or a number as p")
        per_replica = states[P]
    else:
        if (len(p),) != streams.lead:
            raise ValueError(f"p must have one number for each replica, {list(streams.lead)}, got {len(p)}")
        per_replica = constant(p, streams.device, torch.float32)
    return per_replica[..., None].expand(*streams.lead, n).flatten()


# --- How often ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdaptP:
    """ADA's rule: the probability p rises while D is surer of its training images than it should be, and else falls.

    How sure it is, is r_t = E sign D(T x) on real training images: 1 for a D that knows all of them, 0 for one that
    guesses. (That p rises with an r_t *above* the target is the paper's text and its programme; a slide that has it
    the other way round is a slip.)

    States, `[*lead]`: `augment_p`, and sums since its last change, `augment_sum` and `augment_count`.

    Attributes:
        target: of r_t, in [-1, 1].
        images: real images in which p may go from 0 to 1, at least 1.
        interval: generator steps between two changes, over which r_t is averaged, at least 1.
        start: p at the beginning, in [0, 1].

    Raises:
        ValueError: a number out of range.

    Source: Karras et al. 2020, "Training generative adversarial networks with limited data", section 3.
    """

    target: float = 0.6
    images: int = 500_000
    interval: int = 4
    start: float = 0.0

    def __post_init__(self) -> None:
        _check_rule(self)

    def init(self, lead: tuple[int, ...]) -> dict[str, Tensor]:
        return {P: torch.full(lead, float(self.start)), **_zeros(lead, "augment_sum", "augment_count")}

    def observe(self, play: Play) -> dict[str, Tensor]:
        """`r_t` of this minibatch, in D's step."""
        return {"r_t": play.real_verdict.logits.float().sign().mean(-1)} if play.learner is play.D else {}

    def update(self, states: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        total, count = states["augment_sum"] + seen["r_t"], states["augment_count"] + 1
        due = count >= self.interval
        p = _changed(self, states[P], total / count, due, seen)
        zero = torch.zeros_like(count)
        return {
            P: p,
            "augment_sum": torch.where(due, zero, total),
            "augment_count": torch.where(due, zero, count),
        }


@dataclass(frozen=True)
class AdaptPHeldOut:
    """ADA's rule by held-out images: r_v = (D on training - D on validation) / (D on training - D on generated).

    r_v is 0 for a D to which held-out images look like training ones, and 1 for one to which they look generated. Its
    logits are those of augmented images, averaged between two changes of p. Looking at held-out images draws
    random numbers from the run's streams, and moves what D's layers remember (spectral normalisation's vectors).

    Attributes:
        validation: images that training does not see; a recipe can not store them.
        target: of r_v.
        images, interval, start: as in `AdaptP`.

    Raises:
        ValueError: a number out of range.

    Source: Karras et al. 2020, "Training generative adversarial networks with limited data", section 3.
    """

    validation: Dataset
    target: float = 0.5
    images: int = 500_000
    interval: int = 4
    start: float = 0.0

    def __post_init__(self) -> None:
        _check_rule(self)

    def init(self, lead: tuple[int, ...]) -> dict[str, Tensor]:
        sums = ("augment_real", "augment_held_out", "augment_fake", "augment_count")
        return {P: torch.full(lead, float(self.start)), **_zeros(lead, *sums)}

    def observe(self, play: Play) -> dict[str, Tensor]:
        """`held_out_logit` of as many validation images as a minibatch has, in D's step."""
        if play.learner is not play.D:
            return {}
        validation = self.validation.to(play.z.device)
        x, labels = validation.batch(play.streams.rows(play.n, validation.draw))
        with torch.no_grad():
            said = play.judge(x.to(play.real.dtype), labels).logits
        return {"held_out_logit": said.float().mean(-1)}

    def update(self, states: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = {
            "augment_real": "real_logit",
            "augment_held_out": "held_out_logit",
            "augment_fake": "fake_logit",
        }
        sums = {name: states[name] + seen[logit].float() for name, logit in parts.items()}
        count = states["augment_count"] + 1
        due = count >= self.interval
        real, held_out, fake = sums.values()
        # Where D rates both kinds alike it can not be said to overfit.
        ratio = torch.where(real == fake, 0.0, (real - held_out) / (real - fake))
        zero = torch.zeros_like(count)
        return {P: _changed(self, states[P], ratio, due, seen)} | {
            name: torch.where(due, zero, value) for name, value in (sums | {"augment_count": count}).items()
        }


def _changed(
    rule: AdaptP | AdaptPHeldOut, p: Tensor, heuristic: Tensor, due: Tensor, seen: Mapping[str, Tensor]
) -> Tensor:
    """p after a change, where one is due: by as much as the images seen since the last one allow, within [0, 1]."""
    by = rule.interval * seen["step_images"] / rule.images
    return torch.where(due, (p + (heuristic - rule.target).sign() * by).clamp(0, 1), p)


def _zeros(lead: tuple[int, ...], *names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(lead) for name in names}


def _check_rule(rule: AdaptP | AdaptPHeldOut) -> None:
    for name in ("images", "interval"):
        if getattr(rule, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(rule, name)}")
    if not -1 <= rule.target <= 1:
        raise ValueError(f"target must lie in [-1, 1], got {rule.target}")
    if not 0 <= rule.start <= 1:
        raise ValueError(f"start is a probability and must lie in [0, 1], got {rule.start}")


def _check_p(p: float | tuple[float, ...] | None) -> None:
    for value in () if p is None else [p] if isinstance(p, int | float) else p:
        if not 0 <= value <= 1:
            raise ValueError(f"p is a probability and must lie in [0, 1], got {value}")


def _names(field: str, text: str, known: Mapping[str, Sequence[str] | None]) -> list[str]:
    """The transformations that a text with commas names."""
    found: list[str] = []
    for word in text.split(","):
        if word not in known:
            raise ValueError(f"{field} must be names out of {', '.join(known)} with commas, got {text!r}")
        found += known[word] or [word]
    return found
