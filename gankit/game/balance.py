"""Rules that balance the two players: BEGAN's proportional control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gankit.game.play import Play, States


@dataclass(frozen=True)
class BeganBalance:
    """BEGAN's k: how much D cares to rebuild generated samples badly, so that their error stays gamma times the real's.

    With L(x) the mean error of real samples in D's last step and L(G) that of generated ones in G's,
    k <- clip(k + rate (gamma L(x) - L(G)), 0, 1), from k = 0. Logged are `began_k`, and the measure of convergence
    M = L(x) + |gamma L(x) - L(G)| as `began_m`, which falls while training goes well.

    Attributes:
        gamma: the wanted ratio of the errors, in (0, 1]; less is sharper and less diverse (0.3 to 0.7 in the paper).
        rate: lambda_k of the paper, above 0.

    Raises:
        ValueError: if a number is out of range.

    Source: Berthelot, Schumm and Metz 2017, "BEGAN: Boundary equilibrium generative adversarial networks", sections 3.3
    and 3.4.
    """

    gamma: float = 0.5
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma is a ratio of errors and must lie in (0, 1], got {self.gamma}")
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate must be above 0 and finite, got {self.rate}")

    def init(self, lead: tuple[int, ...]) -> dict[str, Tensor]:
        return {"began_k": torch.zeros(lead), "began_m": torch.zeros(lead)}

    def observe(self, play: Play) -> dict[str, Tensor]:
        return {}  # what it needs is logged already

    def update(self, states: States, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        real, fake = -seen["real_logit"].detach(), seen["g_loss"].detach()
        short = self.gamma * real - fake
        k = (states["began_k"] + self.rate * short).clamp(0, 1)
        return {"began_k": k.to(states["began_k"]), "began_m": (real + short.abs()).to(states["began_m"])}
