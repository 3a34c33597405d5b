"""Terms for a discriminator that names classes beside its logit (`gankit.models.conditioning`, "class-head").

The auxiliary classifier GAN adds L_C = E log P(C = c | x) + E log P(C = c | G(z, c)) to what both players maximise: D
maximises L_S + lambda_1 L_C and G maximises -L_S + lambda_2 L_C. Here both minimise, so the terms are cross-entropies.

    >>> from gankit.game.classes import LearnClasses, ShowClasses
    >>> G, D = gk.models.mlp(data.shape, condition=gk.models.Condition(10, d="class-head"))
    >>> run = gk.Trainer(G, D, data, d_terms=[LearnClasses(1.0)], g_terms=[ShowClasses(1.0)])

Source: Odena, Olah and Shlens 2017, "Conditional image synthesis with auxiliary classifier GANs", equations 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from gankit.device import constant
from gankit.game.play import Play, Verdict
from gankit.models.blocks import HALVES


@dataclass(frozen=True)
class LearnClasses:
    """weight (CE(real) + fake CE(generated)): D learns the classes of real samples, and of generated ones as asked for.

    Attributes:
        weight: lambda_1, at least 0; in an ensemble also a tuple, one number per replica.
        fake: weight of the generated samples' part, at least 0. AC-GAN has 1; with 0 D learns from real samples alone,
            as several programs have it.
    """

    weight: float | tuple[float, ...] = 1.0
    fake: float = 1.0

    def __post_init__(self) -> None:
        _check("weight", self.weight)
        _check("fake", self.fake)

    def __call__(self, play: Play) -> Tensor:
        cost = class_entropy(play.real_verdict, play.real_labels)
        if self.fake:
            cost = cost + self.fake * class_entropy(play.fake_verdict, play.labels)
        return _weighted(self.weight, cost)


@dataclass(frozen=True)
class ShowClasses:
    """weight CE(generated): G makes samples whose class D recognises.

    Attributes:
        weight: lambda_2, at least 0; in an ensemble also a tuple, one number per replica.
    """

    weight: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        _check("weight", self.weight)

    def __call__(self, play: Play) -> Tensor:
        return _weighted(self.weight, class_entropy(play.fake_verdict, play.labels))


def class_entropy(verdict: Verdict, labels: Tensor | None) -> Tensor:
    """Mean cross-entropy -log P(C = label | x) of a minibatch, `[*lead]`, in nats: log K for a uniform head.

    Args:
        verdict: with class logits `[*lead, N, K]`.
        labels: int64 `[*lead, N]`.

    Raises:
        ValueError: D has no class head, or samples have no labels.
    """
    if verdict.classes is None or labels is None:
        what = "a discriminator with a class head" if verdict.classes is None else "a conditional generator"
        raise ValueError(f"the cost of classes needs {what}: networks with d_condition 'class-head' have one")
    logits = verdict.classes
    logits = logits.float() if logits.dtype in HALVES else logits
    each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.unflatten(0, labels.shape).mean(-1)


def _weighted(weight: float | tuple[float, ...], cost: Tensor) -> Tensor:
    return cost * constant(weight, cost.device, cost.dtype)


def _check(name: str, weight: float | tuple[float, ...]) -> None:
    for value in weight if isinstance(weight, tuple) else (weight,):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")
