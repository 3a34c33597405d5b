"""The averaged generator, and its use as a teacher (LeakyEMA).

`Teacher` keeps an exponential moving average of a generator's parameters. `Leak` says how many of the real
samples in a discriminator step are replaced by the teacher's, from when on, and where they come from.

Source: "Mean Teachers Can Train Superior GANs", sections 3.2, 3.3 and 4.1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.models.sampling import generate, sample


@dataclass(frozen=True)
class EMA:
    """How fast the teacher forgets.

    Attributes:
        decay: alpha of equation 2, the share of the old average kept at each generator step, in [0, 1).
        half_life: instead of `decay`, the number of images (generator steps times batch size) after which an
            old parameter counts half. Independent of the batch size.
        start: generator step at which averaging begins; until then the teacher is a copy of the generator.

    Raises:
        ValueError: if a value is out of range, or both `decay` and `half_life` are given.
    """

    decay: float | None = None
    half_life: float | None = None
    start: int = 0

    def __post_init__(self) -> None:
        if self.decay is not None and self.half_life is not None:
            raise ValueError("give decay or half_life, not both: they say the same thing")
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")
        if self.half_life is not None and not self.half_life > 0:
            raise ValueError(f"half_life must be a positive number of images, got {self.half_life}")
        if self.start < 0:
            raise ValueError(f"start must be a generator step of at least 0, got {self.start}")

    def alpha(self, batch_size: int) -> float:
        """The decay per generator step (0.999 when neither is given, as in the LeakyEMA paper)."""
        if self.half_life is not None:
            return 0.5 ** (batch_size / self.half_life)
        return 0.999 if self.decay is None else self.decay


class Teacher(nn.Module):
    """A generator whose parameters are the moving average of another's (equation 2).

    Parameters are averaged; buffers are copied. Averaging buffers as well would be wrong for spectral
    normalisation, whose vectors u and v are no quantities that average, and for counters.

    Args:
        G: the generator, or an ensemble, to follow.
        ema: decay and start.
        batch_size: samples per generator step, which turns a half-life in images into a decay.
    """

    def __init__(self, G: nn.Module, ema: EMA, batch_size: int) -> None:
        super().__init__()
        self.net = copy.deepcopy(G).eval().requires_grad_(False)
        self.alpha = ema.alpha(batch_size)
        self.start = ema.start

    @torch.no_grad()
    def update(self, G: nn.Module, step: int) -> None:
        """Move towards `G` after generator step `step` (0 is the first)."""
        average, current = list(self.net.parameters()), list(G.parameters())
        if step < self.start:
            torch._foreach_copy_(average, current)
        else:
            torch._foreach_lerp_(average, current, 1 - self.alpha)
        for mine, other in zip(self.net.buffers(), G.buffers(), strict=True):
            if mine.shape != other.shape:
                mine.resize_(other.shape)
            mine.copy_(other)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return generate(self.net, z, labels)

    def sample(self, n: int, *, seed: int = 0, **settings) -> Tensor:
        """n samples of the averaged generator; settings as in `gankit.models.sampling.sample`."""
        return sample(self.net, n, seed=seed, **settings)

    def train(self, mode: bool = True) -> Teacher:
        """The teacher stays in evaluation mode: it uses the running statistics copied from the generator."""
        return super().train(False)
