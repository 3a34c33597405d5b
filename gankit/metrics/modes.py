"""Mode and class coverage: which modes of the data a generator reaches, how often, and how well inside each class.

Points, labels and frequencies may have leading dimensions (S replicas of a run, say); every function maps over
them. Labels of -1 mean "no mode".
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gankit.data import frequencies


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


def class_kl(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence ``KL(p || q)`` of two class distributions, in nats.

    Of generated against real classes it asks whether what is made should be made that often; classes that are
    never made cost it little. It is infinite where p has a class that q lacks. With n samples even a perfect
    generator of C equal classes scores about ``(C - 1) / 2n`` against the exact frequencies.

    Args:
        p, q: ``[..., C]``, frequencies or counts, not negative; each row is divided by its sum.

    Returns:
        float64 ``[...]``, from 0.

    Raises:
        ValueError: as `class_divergence`.
    """
    p, q = _distribution(p, "p"), _distribution(q, "q")
    _same_classes(p, q, "p", "q")
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1).clamp_min(0)


class IntraClass(NamedTuple):
    """A metric inside each class, ``[..., C]``, and its mean over the classes, ``[...]``; see `intra_class`."""

    mean: Tensor
    per_class: Tensor


def intra_class(
    metric: Callable[[Tensor, Tensor], Tensor],
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    *,
    least: int = 2,
) -> IntraClass:
    """A metric between real and fake samples of one class at a time, such as the intra-FID of conditional generators.

    A generator that ignores its label, or makes one image per class, may still match the data as a whole; inside
    the classes it does not. Intra-FID is the mean over classes of the Frechet distance (Miyato and Koyama, "cGANs with
    projection discriminator", arXiv:1802.05637; the lecture prints it for concatenation, AC-GAN, projection and SAGAN).
    A class has few samples, and the Frechet distance of few samples comes out too large: compare at equal numbers.

    Args:
        metric: (real samples ``[M_c, ...]``, fake samples ``[N_c, ...]``) to a scalar, such as `frechet_distance`.
        real: ``[M, ...]``, features or whatever the metric takes.
        real_labels: int64 ``[M]``; they define the classes, 0..C-1.
        fake: ``[..., N, ...]``, starting with the dimensions of `fake_labels`.
        fake_labels: int64 ``[..., N]`` in 0..C-1, the classes that were asked for.
        least: samples of each kind that every class must have.

    Returns:
        The mean over classes and the values of the classes, float64.

    Raises:
        ValueError: shapes that do not fit, labels that are no classes, a class with fewer than `least` samples (the
            message names it), or a metric that gives no scalar.
    """
    if real_labels.ndim != 1:
        raise ValueError(f"real_labels must be [M], got shape {list(real_labels.shape)}")
    for name, samples, labels in (("real", real, real_labels), ("fake", fake, fake_labels)):
        if samples.shape[: labels.ndim] != labels.shape or labels.ndim == 0 or labels.numel() == 0:
            raise ValueError(
                f"{name}_labels must give one label for each sample of {name}, "
                f"got shapes {list(labels.shape)} and {list(samples.shape)}"
            )
    n_classes = int(real_labels.max()) + 1
    _check_counts(real_labels, "real_labels", n_classes, least)
    _check_counts(fake_labels, "fake_labels", n_classes, least)
    groups = [real[real_labels == label] for label in range(n_classes)]
    lead = fake_labels.shape[:-1]
    replicas = zip(fake.flatten(0, len(lead)).split(fake_labels.shape[-1]), _rows(fake_labels), strict=True)
    values = [
        torch.as_tensor(metric(group, samples[labels == label]), dtype=torch.float64)
        for samples, labels in replicas
        for label, group in enumerate(groups)
    ]
    if values[0].ndim > 0:
        raise ValueError(f"metric must give a scalar, got shape {list(values[0].shape)}")
    per_class = torch.stack(values).reshape(*lead, n_classes)
    return IntraClass(per_class.mean(-1), per_class)


def _check_counts(labels: Tensor, name: str, n_classes: int, least: int) -> None:
    """Refuse labels out of 0..n_classes-1, and a class with fewer than `least` samples in any row."""
    share = frequencies(labels, n_classes)
    if int(labels.min()) < 0:
        raise ValueError(f"{name} must be classes from 0, got {int(labels.min())}")
    counts = (share * labels.shape[-1]).round().long().reshape(-1, n_classes)
    if int(counts.min()) < least:
        rare = int(counts.amin(0).argmin())
        raise ValueError(
            f"every class needs at least {least} samples, but class {rare} of {name} has {counts[:, rare].min()}"
        )


def _rows(labels: Tensor) -> Tensor:
    return labels.reshape(-1, labels.shape[-1])


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
