"""Metrics during training: a callback for `Trainer.fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gankit.data import Dataset
from gankit.metrics.evaluation import Reference, evaluate, reference
from gankit.metrics.features import FeatureSpace
from gankit.models.sampling import Sampler

if TYPE_CHECKING:
    from gankit.training import Trainer

NETWORKS = ("teacher", "generator")


def watch(
    data: Dataset | Reference,
    metrics: Sequence[str] | None = None,
    features: FeatureSpace | None = None,
    *,
    n: int = 5_000,
    network: str = "teacher",
    seed: int = 0,
    **settings: Any,
) -> Callable[[Trainer], dict[str, Tensor]]:
    """Measure samples of a run while it trains, always from the same z and against the same real images.

        >>> fd = gk.metrics.watch(data, ["fd"], space, n=2_000)
        >>> run.fit(50_000, out="runs/a", callback=fd, callback_every=1_000, best="FD[digits classifier]")

    The random numbers of training are not touched: a watched run has the parameters of an unwatched one.

    Args:
        data, metrics, features: as for `evaluate`. The real images' features are computed once, here.
        n: number of samples of each replica.
        network: "teacher", the averaged generator, or "generator".
        seed: of z.
        settings: the others of `evaluate` (`k`, `splits`, `pairs`, `batch_size`).

    Returns:
        A callback: trainer -> name -> value, a number or one per replica, without errors.

    Raises:
        ValueError: an unknown network; what `evaluate` raises comes from the callback's first call.
    """
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
    known = data if isinstance(data, Reference) else reference(data, features, progress=False)

    def measure(run: Trainer) -> dict[str, Tensor]:
        sampler = Sampler(run.teacher.net if network == "teacher" else run.G, seed)
        scores = evaluate(sampler, known, metrics, n=n, errors=False, progress=False, **settings)
        return scores.values_only()

    return measure
