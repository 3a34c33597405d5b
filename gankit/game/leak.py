"""LeakyEMA: part of what D takes for real comes from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gankit.device import PRECISIONS, autocast, constant

if TYPE_CHECKING:
    from gankit.game.play import Play

SOURCES = ("sync", "async-noise", "async-model", "generator", "most-realistic")


@dataclass(frozen=True)
class Leak:
    """Which part of the real minibatch is replaced by generated samples (LeakyEMA, equations 3 and 4).

    Attributes:
        beta: share of real samples replaced, in [0, 1]; 0.5 is the paper's choice and 1 collapsed in its runs.
            `round(beta N)` samples of a minibatch of N are replaced. A tuple gives one share per replica.
        start: generator step N at which leaking begins. A tuple gives one step per replica.
        source: where the replacements come from (section 4.1):
            `sync`, the teacher, on the z of the minibatch's own fakes;
            `async-noise`, the teacher, on fresh z;
            `async-model`, a fixed generator given as `model`, on the z of the fakes;
            `generator`, the current generator, on fresh z;
            `most-realistic`, of N samples of the current generator on fresh z, those that D scores highest.
        model: the fixed generator of `async-model`.
        precision: "bfloat16" generates the replacements in that precision also where the run is in float32: on
            processors that multiply it natively, they then cost half. They are rounded to 8 bits, about as 8-bit
            pictures are. None generates them in the precision of the run.

    Raises:
        ValueError: if a value is out of range, or `model` and `source` do not fit together.
    """

    beta: float | Sequence[float]
    start: int | Sequence[int] = 0
    source: str = "sync"
    model: nn.Module | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)} or None, got {self.precision!r}"
            )
        for beta in _listed(self.beta):
            if not 0 <= beta <= 1:
                raise ValueError(
                    f"beta is the share of real samples replaced and must lie in [0, 1], got {beta}"
                )
        for start in _listed(self.start):
            if start < 0:
                raise ValueError(f"start must be a generator step of at least 0, got {start}")
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if (self.model is not None) != (self.source == "async-model"):
            raise ValueError(
                f"model goes with source='async-model' and only with it, got source={self.source!r} "
                f"{'with' if self.model is not None else 'without'} a model"
            )

    def replaced(self, step: int, batch_size: int, lead: tuple[int, ...] = ()) -> list[int]:
        """How many samples of a minibatch are replaced at `step`, for each replica (one number without `lead`).

        Raises:
            ValueError: if `beta` or `start` does not have one value per replica.
        """
        rows = lead[0] if lead else 1
        betas, starts = _rows("beta", self.beta, rows), _rows("start", self.start, rows)
        return [
            round(beta * batch_size) if step >= start else 0
            for beta, start in zip(betas, starts, strict=True)
        ]


@torch.no_grad()
def leak_batch(leak: Leak, play: Play, real: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Replace the first samples of a real minibatch as `leak` says; a label stays with its image.

    Args:
        leak: how many, since when, from where.
        play: whose step, latents, networks and streams decide what the replacements are.
        real: `[*lead, N, *shape]`; labels: int64 `[*lead, N]` or None.

    Returns:
        (real, labels) of the same shapes, new tensors where anything was replaced.
    """
    dim, n = len(play.lead), real.shape[len(play.lead)]
    counts = leak.replaced(play.step, n, play.lead)
    k = max(counts)
    if k == 0:
        return real, labels
    net = {"async-model": leak.model, "generator": play.G, "most-realistic": play.G}.get(
        leak.source, play.teacher
    )
    if leak.source in ("sync", "async-model"):
        z, y = play.z.narrow(dim, 0, k), None if play.labels is None else play.labels.narrow(dim, 0, k)
    else:
        fresh = n if leak.source == "most-realistic" else k
        z = play.streams.normal(fresh, play.z.shape[-1])
        y = None if play.labels is None else play.streams.integers(play.G.n_classes, fresh)
    with autocast(real.device, leak.precision) if leak.precision else nullcontext():
        taught = play.generate(z, y, net).to(real.dtype)
    if leak.source == "most-realistic":
        best = play.judge(taught, y).logits.topk(k, dim).indices
        taught = torch.take_along_dim(taught, best.reshape(*best.shape, *[1] * (taught.ndim - dim - 1)), dim)
        y = None if y is None else y.gather(dim, best)
    if min(counts) < k:  # replicas replace different numbers: keep the real sample past each one's count
        keep = (
            torch.arange(k, device=real.device) >= constant(tuple(counts), real.device, torch.long)[:, None]
        )
        shaped = keep.reshape(*keep.shape, *[1] * (real.ndim - dim - 1))
        taught = torch.where(shaped, real.narrow(dim, 0, k), taught)
        y = None if y is None else torch.where(keep, labels.narrow(dim, 0, k), y)
    mixed = torch.cat([taught, real.narrow(dim, k, n - k)], dim)
    return mixed, labels if y is None else torch.cat([y, labels.narrow(dim, k, n - k)], dim)


def _listed(value: float | Sequence[float]) -> Sequence[float]:
    return [value] if isinstance(value, int | float) else list(value)


def _rows(name: str, value: float | Sequence[float], rows: int) -> Sequence[float]:
    values = _listed(value)
    if isinstance(value, int | float):
        return values * rows
    if len(values) != rows:
        raise ValueError(f"{name} must be one value or one per replica ({rows}), got {len(values)}")
    return values
