"""Networks that grow: they begin with small pictures and fade in layers for larger ones (Karras et al. 2018, ProGAN).

Samples keep their full size all the time. A growing generator copies the pixels of its small picture, and a growing
discriminator averages them again, so that every stage fits the same data, metrics and penalties. This is also how the
authors' code is built: a penalty's slope is taken at pictures of full size, where a small picture's step is spread over
the copies of a pixel and has 1 / factor of its slope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.models.blocks import positive
from gankit.models.style_blocks import copied, pooled


@dataclass(frozen=True)
class Phases:
    """When a network grows: `phases(images)` gives the values of its buffers.

    A stage is the number of the largest feature map in use, 0 for the smallest. The first stage lasts `phase` images,
    and every other one twice as many: for the first half of them alpha goes from 0 to 1.

    Attributes:
        phase: real images that the discriminator sees in a phase (600,000 in the paper).
        first, last: stages.
    """

    phase: int
    first: int
    last: int

    def __post_init__(self) -> None:
        positive(phase=self.phase)
        if not 0 <= self.first <= self.last:
            raise ValueError(f"first must lie in 0..{self.last}, the last stage, got {self.first}")

    def __call__(self, images: int) -> dict[str, float]:
        """Stage and alpha after so many images."""
        past = max(0, images - self.phase) / (2 * self.phase)  # 0 until the first fade begins
        if images < self.phase or self.first == self.last:
            return {"stage": self.first, "alpha": 1.0}
        stage = self.first + 1 + int(past)
        if stage > self.last:
            return {"stage": self.last, "alpha": 1.0}
        return {"stage": stage, "alpha": min(1.0, 2 * (past % 1))}

    @property
    def images(self) -> int:
        """Images until the last stage is faded in."""
        return self.phase * 2 * (self.last - self.first)


class Growing(nn.Module):
    """A network with a stage and an alpha, buffers that lie on the host: they decide what is computed.

    Attributes:
        growth: `Phases`; the `Trainer` asks it before each step.
        stage, alpha: of the present, stored in checkpoints.
    """

    static_buffers = ("stage", "alpha")

    def __init__(self, phases: Phases) -> None:
        super().__init__()
        self.growth = phases
        now = phases(0)
        # On the CPU also where another device is the default: a forward pass reads them without waiting for a GPU.
        self.register_buffer("stage", torch.tensor(now["stage"], device="cpu"))
        self.register_buffer("alpha", torch.tensor(now["alpha"], device="cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Growing:
        kept = self.stage, self.alpha
        super()._apply(fn, recurse)
        self.stage, self.alpha = kept
        return self

    def now(self) -> tuple[int, float]:
        """Stage and alpha as numbers."""
        return int(self.stage), float(self.alpha)


def faded(below: Callable[[], Tensor], x: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) below + alpha x, where `below` is not computed for alpha = 1."""
    return x if alpha == 1 else torch.lerp(below(), x, alpha)


def as_grown(G: nn.Module, x: Tensor) -> Tensor:
    """Real samples with the detail that a growing generator can make by now; any other generator's as they are.

    Args:
        G: a generator, or an ensemble of some.
        x: samples `[*lead, N, C, H, W]`.

    Source: Karras et al. 2018, appendix A: real images are faded as the generator's are.
    """
    if not isinstance(phases := getattr(G, "growth", None), Phases):
        return x
    buffers = {name.replace("/", ".").rpartition(".")[2]: buffer for name, buffer in G.named_buffers()}
    stage, alpha = (float(buffers[name].reshape(-1)[0]) for name in Growing.static_buffers)
    factor = 2 ** (phases.last - int(stage))
    small = pooled(x, factor)
    if stage > phases.first:
        # The layer for the first stage is never faded in.
        small = faded(lambda: copied(pooled(small, 2), 2), small, alpha)
    return copied(small, factor)
