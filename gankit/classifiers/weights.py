"""Weights of real images by what a generator already makes: the farther from it, the heavier.

Algorithm 1 of "Boosting generative networks for incremental learning" (Slim 2020): the distances of each real image
to all generated ones of its class (`class_distances`), brought to [0, 1] inside the class (`by_range`, or `by_maximum`
as printed), and a function of those (`METHODS`). The next generator draws its real images with these probabilities
(`gankit.data.Dataset.with_weights`; `ReplicaWeighted` for an ensemble).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gankit.data import Dataset

_TILE = 2**24  # float64 distances held at a time: 128 MiB
_TICKETS = 2**53  # equally likely numbers that float64 tells apart


def class_distances(real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor) -> Tensor:
    """Mean distance of each real image to the generated images of its class, in features.

    Algorithm 1 sums where this averages: normalisation takes the number out again.

    Args:
        real: features ``[..., N, d]``.
        real_labels: int64 ``[N]``.
        fake: features ``[..., M, d]``, with the leading dimensions of `real` or those that it lacks.
        fake_labels: int64 ``[..., M]``.

    Returns:
        float64 ``[..., N]``, exact to about ten digits whatever the features' mean.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, or a class with real images and no generated.
    """
    if real.ndim < 2 or fake.ndim < 2 or real.shape[-1] != fake.shape[-1]:
        raise ValueError(
            f"real and fake must be [..., N, d] of one d, got {list(real.shape)} and {list(fake.shape)}"
        )
    if real_labels.shape != real.shape[-2:-1] or fake_labels.shape[-1:] != fake.shape[-2:-1]:
        raise ValueError(
            f"real_labels must be [{real.shape[-2]}] and fake_labels [..., {fake.shape[-2]}], "
            f"got {list(real_labels.shape)} and {list(fake_labels.shape)}"
        )
    if not (bool(real.isfinite().all()) and bool(fake.isfinite().all())):
        raise ValueError("real and fake must be finite: the generator or the feature space has diverged")
    lead = torch.broadcast_shapes(real.shape[:-2], fake.shape[:-2], fake_labels.shape[:-1])
    sets = real.expand(*lead, -1, -1), fake.expand(*lead, -1, -1), fake_labels.expand(*lead, -1)
    if lead:
        rows = [x.reshape(-1, *x.shape[len(lead) :]) for x in sets]
        each = [class_distances(r, real_labels, f, y) for r, f, y in zip(*rows, strict=True)]
        return torch.stack(each).reshape(*lead, -1)
    result = torch.empty(len(real), dtype=torch.float64, device=real.device)
    for k in real_labels.unique().tolist():
        mine, theirs = real_labels == k, fake_labels == k
        if not bool(theirs.any()):
            raise ValueError(
                f"class {k} has {int(mine.sum())} real images and no generated one to measure from; "
                "generate images of every class"
            )
        result[mine] = _mean_distances(real[mine].double(), fake[theirs].double())
    return result


def _mean_distances(a: Tensor, b: Tensor) -> Tensor:
    """Mean Euclidean distance of each row of a to the rows of b."""
    center = b.mean(0)
    a, b = a - center, b - center
    b_norms = b.square().sum(1)
    means = []
    for part in a.split(max(1, _TILE // len(b))):
        norms = part.square().sum(1)[:, None] + b_norms
        squares = torch.addmm(norms, part, b.T, alpha=-2)
        # A product loses the digits of close pairs, and gives copies a distance: those are few, and subtracted anew.
        i, j = (squares < 1e-4 * norms).nonzero(as_tuple=True)
        if len(i):
            close = [
                (part[m] - b[n]).square().sum(1)
                for m, n in zip(i.split(_TILE // 256), j.split(_TILE // 256), strict=True)
            ]
            squares[i, j] = torch.cat(close)
        means.append(squares.clamp_min_(0).sqrt_().mean(1))
    return torch.cat(means)


def by_range(distances: Tensor, labels: Tensor) -> Tensor:
    """Distances brought to [0, 1] inside each class: ``(d - min) / (max - min)``, what Algorithm 1 means.

    A class whose distances are all equal gets 1: none of its images lies farther out than another.

    Args:
        distances: ``[..., N]``, from `class_distances`.
        labels: int64 ``[N]``.

    Returns:
        float64 ``[..., N]`` in [0, 1].
    """
    low, high = _extremes(distances, labels)
    return torch.where(high > low, (distances - low) / (high - low), 1.0)


def by_maximum(distances: Tensor, labels: Tensor) -> Tensor:
    """``(d - min) / max`` inside each class, as Algorithm 1 prints it.

    It prints the extremes over *generated* images, for which its d is not defined; over real ones, as here, the largest
    value is ``1 - min / max`` rather than 1, and a class of scattered images gets more weight than a compact one. A
    class whose distances are all equal gets 0, and could not be drawn.

    Args:
        distances: ``[..., N]``, from `class_distances`.
        labels: int64 ``[N]``.

    Returns:
        float64 ``[..., N]`` in [0, 1).
    """
    low, high = _extremes(distances, labels)
    return torch.where(high > 0, (distances - low) / high, 0.0)


def _extremes(distances: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest distance in the class of each image."""
    k, index = int(labels.max()) + 1, labels.expand(distances.shape)
    blank = distances.new_zeros(*distances.shape[:-1], k)
    return tuple(
        blank.scatter_reduce(-1, index, distances, how, include_self=False).gather(-1, index)
        for how in ("amin", "amax")
    )


def _above_mean(w: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.where(w < mean, 0.0, w)


def _above_one_below(w: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.where(w < mean - std, 0.0, w)


def _sigmoid(w: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.sigmoid(2 * torch.where(std > 0, (w - mean) / std, 0.0))


def _same(w: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return w


METHODS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "A_mu": _above_mean,
    "A_sigma": _above_one_below,
    "B": _sigmoid,
    "C": _same,
}
"""f(w; mean, std) of section 5.1: zero below the mean, zero below one deviation less, a sigmoid, the identity."""


def transform(normalised: Tensor, labels: Tensor, method: str) -> Tensor:
    """The function f of a method, with mean and (population) standard deviation of each class.

    Args:
        normalised: ``[..., N]`` in [0, 1], from `by_range` or `by_maximum`.
        labels: int64 ``[N]``.
        method: a key of `METHODS`.

    Returns:
        float64 ``[..., N]`` in [0, 1].

    Raises:
        ValueError: an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    mean = _class_means(normalised, labels)
    variance = _class_means((normalised - mean).square(), labels)
    return METHODS[method](normalised, mean, variance.sqrt())


def _class_means(values: Tensor, labels: Tensor) -> Tensor:
    """The mean over the class of each image, in its place."""
    sums = values.new_zeros(*values.shape[:-1], int(labels.max()) + 1).index_add_(-1, labels, values)
    return (sums / labels.bincount().clamp_min(1)).index_select(-1, labels)


def balance(weights: Tensor, labels: Tensor) -> Tensor:
    """The same weights inside each class, with every class drawn as often as it occurs.

    Normalisation inside the class does not do that: a class is drawn in proportion to its *mean* weight.

    Args:
        weights: ``[..., N]``, in every class some of them positive.
        labels: int64 ``[N]``.

    Returns:
        float64 ``[..., N]``, of which the largest is 1.

    Raises:
        ValueError: a class without a positive weight.
    """
    means = _class_means(weights, labels)
    if not bool((means > 0).all()):
        k = int(labels.expand(means.shape)[means <= 0][0])
        raise ValueError(f"class {k} has no positive weight, so that it could never be drawn")
    balanced = weights / means
    return balanced / balanced.amax(-1, keepdim=True)


def density_ratio_weights(ratio: Tensor, n: int = 2) -> Tensor:
    """Weights under which the n-th generator would complete the others: ``max(0, 1 - (1 - 1/n) q/p)``.

    If n - 1 generators make the density q together, and the n-th is drawn 1/n of the time, the mixture is p exactly if
    the n-th makes ``n p - (n - 1) q``, where that is not negative; relative to p this is the weight, times n.

    Args:
        ratio: q/p at each real image, ``[..., N]``, at least 0: ``exp(-logit)`` of an optimal discriminator.
        n: number of the generator to train next, at least 2.

    Returns:
        float64 ``[..., N]`` in [0, 1].

    Raises:
        ValueError: a ratio that is negative or NaN, or n below 2.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, for the first generator has nothing to complete, got {n}")
    if not bool((ratio >= 0).all()):
        raise ValueError("ratio must be q/p, at least 0 everywhere and not NaN")
    return (1 - (1 - 1 / n) * ratio.double()).clamp_min(0)


def effective_sample_size(weights: Tensor) -> Tensor:
    """``(sum w)^2 / sum w^2``: of how many equally weighted images a mean over weighted ones has the variance (Kish).

    Args:
        weights: ``[..., N]``, not negative and not all zero.

    Returns:
        float64 ``[...]`` in [1, N].
    """
    weights = weights.double()
    return weights.sum(-1).square() / weights.square().sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class ReplicaWeighted(Dataset):
    """A dataset whose replicas draw by weights of their own: what an ensemble of generators trains on.

    `draw` gives tickets, numbers from 0 to 2^53 - 1, and `batch` redeems those of replica s by row s of
    `replica_weights`. Replicas of one seed get the same tickets, so their comparison is paired.

    Attributes:
        replica_weights: float64 ``[S, N]``, not negative, in every row some positive.
    """

    replica_weights: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.replica_weights
        if weights.ndim != 2 or weights.shape[1] != len(self) or not bool(weights.isfinite().all()):
            raise ValueError(f"weights must be finite [S, {len(self)}], got shape {list(weights.shape)}")
        if bool((weights < 0).any()) or not bool((weights.sum(1) > 0).all()):
            raise ValueError("weights must be at least 0 and in every row some above 0")

    @classmethod
    def of(cls, data: Dataset, weights: Tensor) -> ReplicaWeighted:
        """`data` with weights ``[S, N]``."""
        parts = {name: getattr(data, name) for name in ("name", "images", "labels", "classes", "levels")}
        return cls(**parts, replica_weights=weights.to(data.device, torch.float64))

    def to(self, device: torch.device | str) -> ReplicaWeighted:
        """The same dataset with every tensor on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "labels", "replica_weights")}
        return replace(self, **moved)

    def draw(self, size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Tickets of that shape, int64."""
        size = (size,) if isinstance(size, int) else tuple(size)
        return torch.randint(_TICKETS, size, generator=generator, device=generator.device).to(self.device)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[S, n, *shape]`` and labels ``[S, n]`` of tickets ``[S, n]``."""
        cumulative = self.replica_weights.cumsum(1)
        u = indices.double() / _TICKETS * cumulative[:, -1:]
        # The last image of positive weight: u may round up to the total.
        last = len(self) - 1 - (self.replica_weights.flip(1) > 0).int().argmax(1, keepdim=True)
        return super().batch(torch.searchsorted(cumulative, u, right=True).minimum(last))
