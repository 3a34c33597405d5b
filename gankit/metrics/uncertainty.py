"""Standard errors of scores: how far a value would move with other samples of the same generator.

The usual bootstrap (draw N of the N samples with replacement, score them, repeat) is right for counts: class and
mode frequencies. For a Frechet distance it is not. A resampled set repeats a third of its members, so it looks less
diverse than the set it came from: its distance is larger (5.7 becomes 7.4 for 200 samples in 64 dimensions), and a
percentile interval need not even hold the value. Precision and recall suffer more, since a repeated sample is its own
nearest neighbour. Scoring halves has the bias of half the samples and says little with two values. Hence:

- counts: the bootstrap, `bootstrap_counts`;
- Frechet distance: its derivative in the direction of every sample, `frechet_error`;
- precision, recall, density, coverage: leaving out a tenth of the samples at a time, `jackknife`, repeats nothing;
- kernel distance, Inception Score, MS-SSIM: what comes with their sums, splits and pairs.

The reference set counts as fixed, as it is part of the protocol (only the kernel distance's error includes it); so
does training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gankit.metrics.frechet import FrechetStats

# Samples whose influence is computed at a time.
_CHUNK = 1024


def bootstrap_counts(
    statistic: Callable[[Tensor], Tensor], shares: Tensor, n: int, *, draws: int = 200, seed: int = 0
) -> Tensor:
    """Standard deviation of a statistic of class frequencies under resampling of the n samples.

    Args:
        statistic: frequencies `[draws, ..., K]` -> `[draws, ...]`.
        shares: observed frequencies `[..., K]`; they sum to less than one where samples belong to no class.
        n: number of samples behind them.
        draws: bootstrap samples.
        seed: of the draws.

    Returns:
        float64 `[...]` on the device of `shares`.
    """
    p = shares.detach().double().cpu().numpy()
    p = np.concatenate([p, np.maximum(0, 1 - p.sum(-1, keepdims=True))], -1)  # none of the classes
    p = p / p.sum(-1, keepdims=True)
    counts = np.random.default_rng(seed).multinomial(n, p, size=(draws, *p.shape[:-1]))
    values = statistic(torch.from_numpy(counts[..., :-1] / n).to(shares.device))
    return values.double().std(0)


def jackknife(statistic: Callable[[Tensor], Tensor], n: int, *, groups: int = 10) -> Tensor:
    """Standard error of a smooth statistic of n samples, from leaving out one group of them at a time.

    ``sqrt((g - 1) / g * sum_j (t_j - mean t)^2)``, with t_j the statistic without group j (Efron and Tibshirani,
    "An introduction to the bootstrap", 1993, section 11.5). With ten groups the error is itself known to about a
    quarter. Group j holds every g-th sample from the j-th on, so samples in the order of their classes do no harm.

    Args:
        statistic: indices int64 of the samples that are kept -> `[...]`.
        n: number of samples.
        groups: g, at least 2 and at most n.

    Returns:
        float64 `[...]`.

    Raises:
        ValueError: a number of groups out of range.
    """
    if not 2 <= groups <= n:
        raise ValueError(f"groups must be from 2 to the number of samples, {n}, got {groups}")
    every = torch.arange(n)
    values = torch.stack([statistic(every[every % groups != j]).double() for j in range(groups)])
    return (values.var(0, correction=0) * (groups - 1)).sqrt()


def frechet_error(fake: Tensor, real: Tensor) -> Tensor:
    """Standard error of ``frechet_distance(fake, real)`` over draws of the fake samples.

    The distance is a smooth function of the fake distribution. Moving a little of its mass to x changes it at the
    rate of the influence function (m, S: fake mean and covariance; T: the matrix that transports the centred fake
    Gaussian to the real one, S_real = T S T)

        I(x) = 2 (m - m_real)^T (x - m) + (x - m)^T (1 - T) (x - m) - const,

    and the variance over N samples is Var(I) / N (the infinitesimal jackknife; Efron and Tibshirani 1993, section
    21.3). It costs one more decomposition instead of hundreds of distances. Exact for many samples; up to a third too
    large with fewer than three samples per dimension, or where the two distributions nearly agree.

    Args:
        fake: `[..., N, d]`, floating point and finite, N >= 2.
        real: `[M, d]`, M >= 2.

    Returns:
        float64 `[...]`, in squared units of the features.
    """
    sets = fake.reshape(-1, *fake.shape[-2:])
    if fake.shape[-2] <= fake.shape[-1]:
        errors = [
            _influence(one, FrechetStats.from_features(seen)).std() for one, seen in _spanned(sets, real)
        ]
    else:
        target = FrechetStats.from_features(real)
        errors = [_influence(one, target).std() for one in sets]
    return torch.stack(errors).reshape(fake.shape[:-2]) / math.sqrt(fake.shape[-2])


def _spanned(sets: Tensor, real: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each set of few samples, and the real ones, within the space that these samples span about their mean.

    The influence of a sample depends on nothing beyond, and d x d matrices become N x N.
    """
    for one in sets.to(torch.float64):
        mean = one.mean(0)
        axes = torch.linalg.svd(one - mean, full_matrices=False).Vh.T
        seen = torch.cat([(part.to(torch.float64) - mean) @ axes for part in real.split(_CHUNK)])
        yield (one - mean) @ axes, seen


def _influence(fake: Tensor, target: FrechetStats) -> Tensor:
    """I(x) of every sample, up to a constant: float64 ``[N]``."""
    stats = FrechetStats.from_features(fake)
    values, axes = torch.linalg.eigh(stats.cov)
    floor = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    root = torch.where(values > floor, values, 0).sqrt()
    # T = S^(-1/2) (S^(1/2) S_real S^(1/2))^(1/2) S^(-1/2). Along axes without any fake variance every sample lies at
    # the mean, so the inverse is not needed there.
    half, inverse = axes * root, axes * torch.where(root > 0, 1 / root, 0)
    inner, directions = torch.linalg.eigh(half.T @ target.cov @ half)
    factor = inverse @ directions * inner.clamp_min(0).sqrt().sqrt()
    rest = torch.eye(len(values), dtype=values.dtype, device=values.device) - factor @ factor.T
    shift = 2 * (stats.mean - target.mean)
    parts = []
    for chunk in fake.split(_CHUNK):
        centred = chunk.to(torch.float64) - stats.mean
        parts.append(((centred @ rest + shift) * centred).sum(-1))
    return torch.cat(parts)
