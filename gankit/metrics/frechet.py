"""The Frechet distance between two sets of features, from the features or from their first two moments.

``FD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))`` is the squared 2-Wasserstein distance between Gaussians
with the means and covariances of the two sets (Dowson and Landau, 1982; Heusel et al., arXiv:1706.08500).
Covariances divide by n - 1. The space of the features is the caller's and belongs in the name of the result:
only pool features of the 2015 Inception network make it an "FID". The value depends on the numbers of samples,
so compare values of one protocol.

The trace of the square root is computed without a matrix square root: it is the nuclear norm (sum of singular
values) of ``F_1 F_2^T`` for any factors with ``S_i = F_i^T F_i``. Centred features are such factors, and so are
Cholesky factors and scaled eigenvectors; the cases below differ in the factor alone. Square roots of eigenvalues
of ``S_1 S_2`` are shorter to write and lose half of the digits on singular covariances, because a rounding error
of 1e-16 becomes 1e-8.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows converted to float64 at a time, so that features of a large set are never copied whole.
_CHUNK = 8192
# A covariance whose squared Cholesky pivots span less than this is taken for singular.
_PIVOT_RATIO = 1e-10


@dataclass(frozen=True, eq=False)
class FrechetStats:
    """Number, mean and scatter of a set of features; batches and processes merge exactly.

    The scatter is kept about the set's own mean and merged by Chan's rule, so features far from the origin lose
    no digits, and no reference point has to be agreed on.

    Attributes:
        n: number of samples.
        mean: float64 ``[d]``.
        scatter: float64 ``[d, d]``, the sum of ``(x - mean)(x - mean)^T``.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def from_features(cls, features: Tensor) -> "FrechetStats":
        """Statistics of one set.

        Args:
            features: ``[N, d]``, floating point, N >= 1.

        Raises:
            ValueError: another shape or type, or features that are not finite.
        """
        features = _checked(features, "features", 1)
        stats = None
        for chunk in features.split(_CHUNK):
            chunk = chunk.to(torch.float64)
            mean = chunk.mean(0)
            centred = chunk - mean
            part = cls(len(chunk), mean, centred.T @ centred)
            stats = part if stats is None else stats.merge(part)
        return stats

    @classmethod
    def from_moments(cls, mean: Tensor, cov: Tensor, n: int) -> "FrechetStats":
        """Statistics from a stored mean ``[d]``, covariance ``[d, d]`` (divided by n - 1) and n >= 2.

        Raises:
            ValueError: shapes that do not fit, n < 2, values that are not finite, or a covariance that is not
                symmetric.
        """
        mean, cov = torch.as_tensor(mean).to(torch.float64), torch.as_tensor(cov).to(torch.float64)
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must be [d] and cov [d, d], got shapes {list(mean.shape)} and {list(cov.shape)}"
            )
        if n < 2:
            raise ValueError(f"a covariance needs n >= 2 samples, got n = {n}")
        if not (bool(mean.isfinite().all()) and bool(cov.isfinite().all())):
            raise ValueError("mean and cov must be finite, got NaN or infinity")
        if bool(((cov - cov.T).abs() > 1e-6 * cov.abs().max()).any()):
            raise ValueError("cov must be symmetric")
        return cls(int(n), mean, (cov + cov.T) * ((n - 1) / 2))

    @property
    def cov(self) -> Tensor:
        """Unbiased covariance, float64 ``[d, d]``; a ValueError says so when there is a single sample."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.scatter / (self.n - 1)

    def update(self, features: Tensor) -> "FrechetStats":
        """Statistics of this set and a further batch ``[N, d]`` together; this object stays as it is."""
        return self.merge(FrechetStats.from_features(features))

    def merge(self, other: "FrechetStats") -> "FrechetStats":
        """Statistics of the union of two sets (Chan, Golub and LeVeque, 1979).

        Raises:
            ValueError: different numbers of features.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"sets have different numbers of features, got {len(self.mean)} and {len(other.mean)}"
            )
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = torch.addr(self.scatter + other.scatter, step, step, alpha=self.n * other.n / n)
        return FrechetStats(n, self.mean + step * (other.n / n), scatter)


def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """Frechet distance between two sets of features.

    With more samples than features and a well-conditioned covariance its Cholesky factor is used; otherwise the
    centred features themselves are the factor, which is exact for singular covariances too.

    Args:
        a: ``[..., N, d]``, floating point, N >= 2.
        b: ``[..., M, d]``, floating point, M >= 2; leading dimensions broadcast, so S generated sets
            ``[S, N, d]`` compare with one real set ``[M, d]``.

    Returns:
        float64 ``[...]``, not negative, in squared units of the features. Computed in float64.

    Raises:
        ValueError: shapes or types that do not fit, fewer than two samples, or features that are not finite.
    """
    a, b = _checked(a, "a", 2), _checked(b, "b", 2)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a and b must have equally many features, got {a.shape[-1]} and {b.shape[-1]}")
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    # The statistics and factor of a set are prepared once, however many pairs it takes part in.
    pairs = zip(_prepare(a, lead), _prepare(b, lead), strict=True)
    values = [_combine(stats_a, stats_b, f_a, f_b) for (stats_a, f_a), (stats_b, f_b) in pairs]
    return torch.stack(values).reshape(lead)


def frechet_from_stats(a: FrechetStats, b: FrechetStats) -> Tensor:
    """Frechet distance between two sets of which only the statistics are left.

    Returns:
        float64 scalar, not negative, in squared units of the features.

    Raises:
        ValueError: different numbers of features, or a set of a single sample.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"a and b must have equally many features, got {len(a.mean)} and {len(b.mean)}")
    factors = []
    for stats in (a, b):
        factor = _cholesky_factor(stats.cov)
        factors.append(_eigen_factor(stats.cov) if factor is None else factor)
    return _combine(a, b, *factors)


def _checked(features: Tensor, name: str, least: int) -> Tensor:
    if (
        features.ndim < 2
        or 0 in (*features.shape[:-2], features.shape[-1])
        or not features.is_floating_point()
    ):
        raise ValueError(
            f"{name} must be floating point features [..., N, d], "
            f"got {features.dtype} of shape {list(features.shape)}"
        )
    if features.shape[-2] < least:
        raise ValueError(f"{name} must hold at least {least} samples, got {features.shape[-2]}")
    if not bool(features.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return features


def _prepare(features: Tensor, lead: torch.Size) -> list[tuple[FrechetStats, Tensor]]:
    """Statistics and factor of each set ``[N, d]``, repeated along broadcast leading dimensions."""
    sets = features.reshape(-1, *features.shape[-2:])
    stats = [FrechetStats.from_features(one) for one in sets]
    prepared = [(one, _factor(points, one)) for points, one in zip(sets, stats, strict=True)]
    index = torch.arange(len(sets)).reshape(features.shape[:-2]).expand(lead)
    return [prepared[i] for i in index.flatten().tolist()]


def _factor(features: Tensor, stats: FrechetStats) -> Tensor:
    """F with ``F^T F`` the covariance and at most d rows."""
    if stats.n > features.shape[1]:
        factor = _cholesky_factor(stats.cov)
        if factor is not None:
            return factor
    centred = (features.to(torch.float64) - stats.mean) / math.sqrt(stats.n - 1)
    # Of a tall factor the R of its QR decomposition serves as well, and is square.
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred


def _cholesky_factor(cov: Tensor) -> Tensor | None:
    """F with ``F^T F`` the covariance, or None if it is singular or too close to it."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    pivots = factor.diagonal().square()
    if bool(failed) or not bool(pivots.min() > _PIVOT_RATIO * pivots.max()):
        return None
    return factor.T


def _eigen_factor(cov: Tensor) -> Tensor:
    """F with ``F^T F`` the covariance, for singular ones too."""
    values, vectors = torch.linalg.eigh(cov)
    # Below this, eigenvalues are rounding errors of zero, whose square root would not be small.
    floor = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    return torch.where(values > floor, values, 0).sqrt()[:, None] * vectors.T


def _combine(a: FrechetStats, b: FrechetStats, factor_a: Tensor, factor_b: Tensor) -> Tensor:
    trace_sqrt = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    shift = (a.mean - b.mean).square().sum()
    # Rounding may leave -1e-16 of the traces; the clamp keeps NaN.
    return (shift + a.cov.trace() + b.cov.trace() - 2 * trace_sqrt).clamp_min(0)
