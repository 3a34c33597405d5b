"""The Frechet distance between two sets of features, from the features or from their first two moments.

``FD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))`` is the squared 2-Wasserstein distance between Gaussians
with the means and covariances of the two sets (Dowson and Landau, 1982; Heusel et al., arXiv:1706.08500).
Covariances divide by n - 1. The space of the features is the caller's and belongs in the name of the result:
only pool features of the 2015 Inception network make it an "FID". The value depends on the numbers of samples,
so compare values of one protocol.

The trace of the square root is computed from symmetric problems alone, in one of two ways:

- `eigvalsh` of ``L^T S_1 L``, where ``S_2 = L L^T`` is a Cholesky factorisation: its eigenvalues are those of
  ``S_1 S_2``, and the sum of their square roots is the trace. This is the fast way, and it squares the conditioning:
  an eigenvalue that is known to ``eps`` times the largest has a square root that is known to ``sqrt(eps)`` times it
  if it is itself that small. The eigenvalues tell how much that may come to. Where it might exceed one millionth
  of the distance, and 1e-10 of the traces as well, the other way is taken.
- `svdvals` of ``F_1 F_2^T`` for any factors with ``S_i = F_i^T F_i``: the trace is the sum of the singular values
  (the nuclear norm), and each is known to ``eps`` times the largest. It takes four times as long and holds for
  singular covariances as well. Centred features are such factors; so are Cholesky factors and scaled eigenvectors.

So the distance has a relative error below 1e-6 or an absolute one below 1e-10 of the traces, whichever is larger;
in practice both are much smaller. One case is worse: of a singular covariance of which only statistics are left,
variances below ``d eps`` times the largest cannot be told from rounding errors and count as 0.

Other programs take square roots of the eigenvalues of ``S_1 S_2`` without asking, which loses half of the digits on
singular covariances, or a complex matrix square root, which fails on some of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

# Rows converted to float64 at a time, so that features of a large set are never copied whole.
_CHUNK = 1024
# A covariance whose squared Cholesky pivots span less than this is taken for singular.
_PIVOT_RATIO = 1e-10
# Shares of the distance and of the traces; where rounding in eigenvalues may exceed both, they are not used.
_TOLERANCES = (1e-6, 1e-10)
# Columns of a triangular factor multiplied at a time, so that its zeros are not.
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class FrechetStats:
    """Number, mean and scatter of a set of features; those of parts merge exactly.

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
    def from_features(cls, features: Tensor) -> FrechetStats:
        """Statistics of one set.

        Args:
            features: ``[N, d]``, floating point, N >= 1.

        Raises:
            ValueError: another shape or type, or features that are not finite.
        """
        return cls._of_checked(_checked(features, "features", 1))

    @classmethod
    def _of_checked(cls, features: Tensor) -> FrechetStats:
        stats = None
        # A chunk and its copy stay in the cache.
        for chunk in features.split(max(_CHUNK, features.shape[1])):
            chunk = chunk.to(torch.float64, copy=True)
            mean = chunk.mean(0)
            part = cls(len(chunk), mean, _gram(chunk.sub_(mean)))
            stats = part if stats is None else stats.merge(part)
        return stats

    @classmethod
    def from_moments(cls, mean: Tensor, cov: Tensor, n: int) -> FrechetStats:
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
    def freedom(self) -> int:
        """n - 1, by which the scatter is divided; a ValueError says so when there is a single sample."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.n - 1

    @property
    def cov(self) -> Tensor:
        """Unbiased covariance, float64 ``[d, d]``; a ValueError says so when there is a single sample."""
        return self.scatter / self.freedom

    def merge(self, other: FrechetStats) -> FrechetStats:
        """Statistics of the union of two sets (Chan, Golub and LeVeque, 1979).

        Raises:
            ValueError: different numbers of features.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"sets have different numbers of features, got {len(self.mean)} and {len(other.mean)}"
            )
        n = self.n + other.n
        if n == 0:
            return self
        step = other.mean - self.mean
        scatter = torch.addr(self.scatter + other.scatter, step, step, alpha=self.n * other.n / n)
        return FrechetStats(n, self.mean + step * (other.n / n), scatter)

    @cached_property
    def cholesky(self) -> Tensor | None:
        """L, lower triangular with ``L L^T`` the covariance; None if that is singular or too close to it.

        It is kept: a set that many others are compared with is factorised once.
        """
        if self.n <= len(self.mean):
            return None
        factor, failed = torch.linalg.cholesky_ex(self.cov)
        pivots = factor.diagonal().square()
        if bool(failed) or not bool(pivots.min() > _PIVOT_RATIO * pivots.max()):
            return None
        return factor


def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """Frechet distance between two sets of features.

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
    # The statistics of a set are prepared once, however many pairs it takes part in.
    pairs = zip(_prepare(a, lead), _prepare(b, lead), strict=True)
    return torch.stack([_combine(x, y) for x, y in pairs]).reshape(lead)


def frechet_from_stats(a: FrechetStats, b: FrechetStats) -> Tensor:
    """Frechet distance between two sets of which only the statistics are left.

    Returns:
        float64 scalar, not negative, in squared units of the features.

    Raises:
        ValueError: different numbers of features, or a set of a single sample.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"a and b must have equally many features, got {len(a.mean)} and {len(b.mean)}")
    return _combine(_Set(a, lambda: _eigen_factor(a.cov)), _Set(b, lambda: _eigen_factor(b.cov)))


@dataclass(frozen=True, eq=False)
class _Set:
    """Statistics of a set and how to find a factor of a covariance that has no Cholesky factor."""

    stats: FrechetStats
    fallback: Callable[[], Tensor]

    @property
    def mean(self) -> Tensor:
        return self.stats.mean

    @property
    def trace(self) -> Tensor:
        """Of the covariance."""
        return self.stats.scatter.trace() / self.stats.freedom

    @cached_property
    def factor(self) -> Tensor:
        """F with ``F^T F`` the covariance."""
        cholesky = self.stats.cholesky
        return self.fallback() if cholesky is None else cholesky.T


class _Few:
    """At most d samples: centred, they are a factor of a covariance that is never multiplied out."""

    stats = None

    def __init__(self, features: Tensor) -> None:
        features = features.to(torch.float64)
        self.mean = features.mean(0)
        self.factor = (features - self.mean) / math.sqrt(len(features) - 1)
        self.trace = self.factor.square().sum()


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
    # NaN and infinity reach the ends, at a fraction of the price of looking at each number.
    if not all(bool(end.isfinite()) for end in features.aminmax()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return features


def _prepare(features: Tensor, lead: torch.Size) -> list[_Set | _Few]:
    """Each set ``[N, d]`` with its statistics, repeated along broadcast leading dimensions."""
    prepared = []
    for one in features.reshape(-1, *features.shape[-2:]):
        if one.shape[0] <= one.shape[1]:
            prepared.append(_Few(one))
            continue
        stats = FrechetStats._of_checked(one)
        prepared.append(_Set(stats, partial(_feature_factor, one, stats)))
    index = torch.arange(len(prepared)).reshape(features.shape[:-2]).expand(lead)
    return [prepared[i] for i in index.flatten().tolist()]


def _feature_factor(features: Tensor, stats: FrechetStats) -> Tensor:
    """F with ``F^T F`` the covariance and d rows, from more than d features themselves."""
    centred = (features.to(torch.float64) - stats.mean) / math.sqrt(stats.n - 1)
    # The R of a QR decomposition serves as well as all of them, and is square.
    return torch.linalg.qr(centred, mode="r").R


def _eigen_factor(cov: Tensor) -> Tensor:
    """F with ``F^T F`` the covariance, from statistics alone."""
    values, vectors = torch.linalg.eigh(cov)
    # Below this, eigenvalues are rounding errors of zero, whose square root would not be small.
    floor = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    return torch.where(values > floor, values, 0).sqrt()[:, None] * vectors.T


def _combine(a: _Set | _Few, b: _Set | _Few) -> Tensor:
    traces = a.trace + b.trace
    known = (a.mean - b.mean).square().sum() + traces
    # A set of few samples has a singular covariance, so that eigenvalues would not do.
    if a.stats is not None and b.stats is not None and min(a.stats.n, b.stats.n) > len(a.mean):
        for first, second, dropped in _easy_forms(a.stats, b.stats, traces):
            trace, error = _by_eigenvalues(first, second.cholesky)
            distance = known - 2 * trace
            of_distance, of_traces = _TOLERANCES
            if bool(2 * error + dropped <= torch.maximum(of_distance * distance, of_traces * traces)):
                return distance.clamp_min(0)
    trace = torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    # Rounding may leave -1e-16 of the traces; the clamp keeps NaN.
    return (known - 2 * trace).clamp_min(0)


def _easy_forms(
    a: FrechetStats, b: FrechetStats, traces: Tensor
) -> Iterator[tuple[FrechetStats, FrechetStats, Tensor | float]]:
    """Statistics of which the second covariance has a Cholesky factor, and what the distance may differ by.

    The sets themselves; or, if neither varies beyond a common subspace, both within it. With centred features
    ``X_i = Y_i Q^T + Z_i``, where ``Z_i Q = 0``, ``X_1 X_2^T`` is ``Y_1 Y_2^T + Z_1 Z_2^T``, and the nuclear norm of
    the last is at most the mean of the variances left out.
    """
    if b.cholesky is not None:
        yield a, b, 0.0
        return
    values, axes = torch.linalg.eigh(a.cov + b.cov)
    left_out = values.clamp_min(0).cumsum(0)
    rank = int((left_out > _TOLERANCES[1] / 4 * traces).sum())
    if rank < len(values):
        q, dropped = axes[:, -rank:], left_out[-rank - 1]
        first, second = (FrechetStats(s.n, q.T @ s.mean, q.T @ s.scatter @ q) for s in (a, b))
        if second.cholesky is not None:
            yield first, second, dropped


def _by_eigenvalues(stats: FrechetStats, cholesky: Tensor) -> tuple[Tensor, Tensor]:
    """Trace of the square root of ``S L L^T`` for a covariance S, and a bound of the rounding error in it."""
    values = torch.linalg.eigvalsh(_congruence(cholesky, stats.scatter)).clamp_min(0) / stats.freedom
    # Backward errors of n random roundings; of a square root the error is the smaller of two.
    error = math.sqrt(len(values)) * torch.finfo(values.dtype).eps * values[-1]
    return values.sqrt().sum(), (error / values.clamp_min(error).sqrt()).sum()


def _congruence(factor: Tensor, cov: Tensor) -> Tensor:
    """The lower triangle of ``L^T cov L`` for lower triangular L, at a quarter of the price of two full products."""
    half, product = torch.empty_like(cov), torch.zeros_like(cov)
    for j in range(0, len(cov), _BLOCK):
        # Low and wide products are the faster ones; of L^T cov, the upper triangle is needed.
        torch.mm(factor[j:, j : j + _BLOCK].T, cov[j:, j:], out=half[j : j + _BLOCK, j:])
    for i in range(0, len(cov), _BLOCK):
        stop = min(i + _BLOCK, len(cov))
        torch.mm(factor[i:, i:stop].T, half[:stop, i:].T, out=product[i:stop, :stop])
    return product


def _gram(x: Tensor) -> Tensor:
    """``x^T x``, exactly symmetric."""
    if x.device.type == "cpu":
        # NumPy knows the product of a matrix with its own transpose, and has BLAS form half of it.
        return torch.from_numpy(np.dot(x.numpy().T, x.numpy()))
    product = x.T @ x
    return product.triu() + product.triu(1).T
