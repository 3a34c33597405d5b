"""Mode and class coverage: which modes of the data a generator reaches, and how often.

Points, labels and frequencies may have leading dimensions (S replicas of a run, say); every function maps over
them. Labels of -1 mean "no mode".
"""

import math

import torch
from torch import Tensor


def mode_assignment(points: Tensor, centers: Tensor, std: float, radius: float = 3.0) -> Tensor:
    """The mode that each point belongs to.

    A point belongs to its nearest mode if it lies within ``radius * std`` of it. Three standard deviations are
    the usual limit (VEEGAN, arXiv:1705.07761); it holds 98.9 % of a Gaussian in the plane.

    Args:
        points: ``[..., N, d]``, floating point. Points with NaN or infinity belong to no mode.
        centers: ``[K, d]``, the means of the modes.
        std: standard deviation of every mode, in the units of the points.
        radius: in standard deviations.

    Returns:
        int64 ``[..., N]`` in 0..K-1, or -1 for no mode.

    Raises:
        ValueError: shapes that do not fit, or `std` or `radius` not positive.
    """
    if points.ndim < 2 or centers.ndim != 2 or points.shape[-1] != centers.shape[1] or len(centers) == 0:
        raise ValueError(
            "points must be [..., N, d] and centers [K, d], "
            f"got shapes {list(points.shape)} and {list(centers.shape)}"
        )
    if not points.is_floating_point():
        raise ValueError(f"points must be floating point, got {points.dtype}")
    if not (std > 0 and radius > 0):
        raise ValueError(f"std and radius must be positive, got std={std} and radius={radius}")
    # Direct differences: the faster matrix product loses the small distances that decide here.
    distance = torch.cdist(points, centers.to(points), compute_mode="donot_use_mm_for_euclid_dist")
    nearest, label = distance.min(-1)
    return torch.where(nearest <= radius * std, label, -1)


def frequencies(labels: Tensor, n_classes: int) -> Tensor:
    """Share of each class among all N labels.

    Labels of -1 count in N and in no class, so the result sums to the fraction of labels that are not -1. To
    count "no mode" as a class of its own, use ``frequencies(labels + 1, n_classes + 1)``.

    Args:
        labels: integers ``[..., N]`` in -1..n_classes-1.
        n_classes: number of classes, those that do not occur included.

    Returns:
        float64 ``[..., n_classes]``.

    Raises:
        ValueError: no labels, labels that are not integers, or labels out of range.
    """
    if labels.ndim < 1 or labels.numel() == 0:
        raise ValueError(f"labels must be [..., N] with N > 0, got shape {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    low, high = (int(limit) for limit in labels.aminmax())
    if low < -1 or high >= n_classes:
        raise ValueError(f"labels must lie in -1..{n_classes - 1}, got {low}..{high}")
    rows = labels.reshape(-1, labels.shape[-1]).long()
    # One bincount for all rows: row r counts its labels -1, 0, ... at r * (n_classes + 1) + 0, 1, ...
    slots = rows + 1 + torch.arange(len(rows), device=rows.device)[:, None] * (n_classes + 1)
    counts = torch.bincount(slots.flatten(), minlength=len(rows) * (n_classes + 1))
    counts = counts.reshape(*labels.shape[:-1], n_classes + 1)[..., 1:]
    return counts.to(torch.float64) / labels.shape[-1]


def high_quality_fraction(points: Tensor, centers: Tensor, std: float, radius: float = 3.0) -> Tensor:
    """Fraction of the points that belong to some mode (see `mode_assignment` for arguments and errors).

    Returns:
        float64 ``[...]`` in [0, 1] for points ``[..., N, d]``. Samples of the mixture itself score less than 1:
        ``1 - exp(-radius**2 / 2)`` in the plane, if the modes are far apart.
    """
    assigned = mode_assignment(points, centers, std, radius)
    return frequencies(assigned, len(centers)).sum(-1)


def classes_covered(frequencies: Tensor, expected: Tensor | None = None, share: float = 0.1) -> Tensor:
    """Number of classes that come up at least at `share` of their expected frequency.

    Args:
        frequencies: ``[..., K]``, the shares of the classes among the samples, as `frequencies` gives them.
        expected: ``[K]`` or ``[..., K]``, frequencies of the data, on any scale; None is uniform. Classes
            that are not expected do not count.
        share: in [0, 1]; at 0 a single sample covers its class.

    Returns:
        int64 ``[...]`` in 0..K.

    Raises:
        ValueError: negative, non-finite or missing frequencies, or `share` out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    frequencies = _checked(frequencies, "frequencies")
    if expected is None:
        expected = torch.ones_like(frequencies[..., :1]).expand_as(frequencies)
    expected = _distribution(expected, "expected").to(frequencies.device)
    _same_classes(frequencies, expected, "frequencies", "expected")
    # 10 % of one tenth is a hair more than 1/100 in floating point: the margin keeps exact hits in.
    enough = frequencies >= share * expected - 1e-12
    return (enough & (frequencies > 0) & (expected > 0)).sum(-1)


def modes_covered(
    points: Tensor,
    centers: Tensor,
    std: float,
    *,
    weights: Tensor | None = None,
    radius: float = 3.0,
    share: float = 0.1,
) -> Tensor:
    """Number of modes that receive at least `share` of the points they should receive.

    Args:
        points: ``[..., N, d]``, floating point.
        centers: ``[K, d]``.
        std: standard deviation of every mode.
        weights: ``[K]``, frequencies of the modes in the data, on any scale; None is uniform.
        radius: in standard deviations, see `mode_assignment`.
        share: in [0, 1], see `classes_covered`.

    Returns:
        int64 ``[...]`` in 0..K.

    Raises:
        ValueError: as `mode_assignment` and `classes_covered`.
    """
    assigned = mode_assignment(points, centers, std, radius)
    return classes_covered(frequencies(assigned, len(centers)), weights, share)


def class_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two class distributions, in bits.

    ``D_JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2`` with ``m = (p + q) / 2`` and base-2 logarithms: 0 for equal
    distributions, 1 for disjoint ones. It is the square of scipy's ``jensenshannon(p, q, base=2)``. With n
    samples even a perfect generator of C equal classes scores about ``(C - 1) / (8 n ln 2)`` against the exact
    frequencies. The measure of mode dropping of "Sample weighting as an explanation for mode collapse".

    Args:
        p: ``[..., C]``, frequencies or counts, not negative; each row is divided by its sum.
        q: ``[..., C]``, the same; leading dimensions broadcast.

    Returns:
        float64 ``[...]`` in [0, 1].

    Raises:
        ValueError: different numbers of classes, negative or non-finite entries, or a row that sums to zero
            (no sample in any class; count such samples as a class of their own, see `frequencies`).
    """
    p, q = _distribution(p, "p"), _distribution(q, "q")
    _same_classes(p, q, "p", "q")
    m = (p + q) / 2
    entropy_gap = torch.xlogy(p, p) + torch.xlogy(q, q) - 2 * torch.xlogy(m, m)
    return (entropy_gap.sum(-1) / (2 * math.log(2))).clamp(0, 1)


def _checked(values: Tensor, name: str) -> Tensor:
    values = torch.as_tensor(values).to(torch.float64)
    if values.ndim < 1 or values.shape[-1] == 0:
        raise ValueError(f"{name} must be [..., C] with C > 0, got shape {list(values.shape)}")
    if not bool(values.isfinite().all()) or bool((values < 0).any()):
        raise ValueError(f"{name} must be finite and not negative, got {values.min()} to {values.max()}")
    return values


def _distribution(values: Tensor, name: str) -> Tensor:
    values = _checked(values, name)
    # Divided by the maximum first, so that huge counts cannot overflow their sum.
    peak = values.amax(-1, keepdim=True)
    if bool((peak == 0).any()):
        raise ValueError(f"{name} must have a positive entry in every row, got a row of zeros")
    values = values / peak
    return values / values.sum(-1, keepdim=True)


def _same_classes(a: Tensor, b: Tensor, name_a: str, name_b: str) -> None:
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"{name_a} and {name_b} must have the same number of classes, got {a.shape[-1]} and {b.shape[-1]}"
        )
