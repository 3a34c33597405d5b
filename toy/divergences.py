"""Distances between distributions: what "close to the data" can mean, and what each meaning does to a generator.

Kullback-Leibler, reverse Kullback-Leibler, Jensen-Shannon and Wasserstein-1, on a grid, between samples and, for two
parallel lines, in closed form (AI602 lecture 4; Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, example 1).
Logarithms are natural: divergences are in nats, and JS lies in [0, log 2].

The lecture's formula for JS lacks the factor 1/2 before each of its two KL terms; its value log 2 for distributions
without overlap has it, and so has this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog, minimize
from scipy.spatial import cKDTree
from scipy.special import logsumexp, rel_entr
from scipy.stats import norm

# --------------------------------------------------------------------------------------------- on a grid


def _check_masses(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    for name, masses in (("p", p), ("q", q)):
        if masses.ndim < 1 or not (masses >= 0).all():
            raise ValueError(f"{name} must be probabilities [..., N], all >= 0, got shape {masses.shape}")
        worst = np.abs(masses.sum(-1) - 1).max()
        if worst > 1e-6:
            raise ValueError(
                f"{name} must sum to 1 over its last axis, it misses by {worst:.2g}: for densities on a grid "
                "use cell_probabilities first"
            )
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"p and q must have the same cells, got {p.shape[-1]} and {q.shape[-1]}")
    return p, q


def cell_probabilities(density: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Probabilities of the cells around grid points, from a density at these points.

    Args:
        density: ``[..., N]``, >= 0.
        x: increasing grid points, ``[N]``, N >= 2.

    Returns:
        ``[..., N]``, summing to 1.

    Raises:
        ValueError: the grid is not increasing, or holds less than 99.9 % or more than 100.1 % of the mass.
    """
    x = np.asarray(x, dtype=float)
    if x.ndim != 1 or len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"x must be an increasing grid [N] with N >= 2, got shape {x.shape}")
    masses = np.asarray(density, dtype=float) * np.gradient(x)
    total = masses.sum(-1, keepdims=True)
    if np.abs(total - 1).max() > 1e-3:
        raise ValueError(
            f"the grid from {x[0]:g} to {x[-1]:g} holds {total.flat[np.abs(total - 1).argmax()]:.4f} of the mass: "
            "make it wider or finer"
        )
    return masses / total


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence KL(p || q): maximum likelihood when p is the data.

    Args:
        p: probabilities, ``[..., N]``.
        q: probabilities, ``[..., N]``.

    Returns:
        ``[...]`` in nats, in [0, inf]; infinite where p > 0 meets q = 0.

    Raises:
        ValueError: negative entries, sums that are not 1, or different numbers of cells.
    """
    p, q = _check_masses(p, q)
    return rel_entr(p, q).sum(-1)


def reverse_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(q || p), the lecture's inverse KL. Args, Returns and Raises: as :func:`kl`."""
    return kl(q, p)


def js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence, the mean of KL(p || m) and KL(q || m) with m = (p + q) / 2.

    The minimax GAN's generator minimises this when the discriminator is optimal (Goodfellow et al. 2014).

    Args and Raises: as :func:`kl`.

    Returns:
        ``[...]`` in nats, in [0, log 2].
    """
    p, q = _check_masses(p, q)
    middle = (p + q) / 2
    return (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / 2


def w1(p: np.ndarray, q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance on the line: the area between the two cumulative distributions.

    Args:
        p: probabilities, ``[..., N]``.
        q: probabilities, ``[..., N]``.
        x: their increasing positions, ``[N]``.

    Returns:
        ``[...]`` in units of x, >= 0.

    Raises:
        ValueError: as :func:`kl`, or x does not fit.
    """
    p, q = _check_masses(p, q)
    x = np.asarray(x, dtype=float)
    if x.shape != p.shape[-1:] or not (np.diff(x) > 0).all():
        raise ValueError(f"x must be {p.shape[-1]} increasing positions, got shape {x.shape}")
    return (np.abs(np.cumsum(p - q, axis=-1))[..., :-1] * np.diff(x)).sum(-1)


# ------------------------------------------------------------------------------------------ between samples


def _log_ratio(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """log p(x_i) / q(x_i) from distances to the k-th neighbour in either sample."""
    n, d = x.shape
    if not 1 <= k < min(n, len(y) + 1):
        raise ValueError(f"k must lie in [1, {min(n, len(y) + 1) - 1}] for {n} and {len(y)} samples, got {k}")
    own = cKDTree(x).query(x, [k + 1])[0][:, 0]
    other = cKDTree(y).query(x, [k])[0][:, 0]
    if (own == 0).any() or (other == 0).any():
        raise ValueError("x and y must be samples of continuous distributions, got repeated points")
    return d * np.log(other / own) + np.log(len(y) / (n - 1))


def _as_points(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, dtype=float)
    return samples[:, None] if samples.ndim == 1 else samples


def kl_samples(x: np.ndarray, y: np.ndarray, k: int = 5) -> float:
    """Estimate KL(p || q) from samples by nearest neighbours (Wang, Kulkarni and Verdu, 2009, eq. 5).

    The reverse divergence is `kl_samples(y, x)`.

    Args:
        x: samples of p, ``[n]`` or ``[n, d]``.
        y: samples of q, ``[m]`` or ``[m, d]``.
        k: which neighbour, >= 1: a larger k varies less and blurs more.

    Returns:
        The estimate in nats; it may be slightly negative, and it is too small where p reaches far beyond the samples
        of q: it stays finite where the true value is infinite.

    Raises:
        ValueError: k does not fit the numbers of samples, or repeated points.
    """
    return float(_log_ratio(_as_points(x), _as_points(y), k).mean())


def js_samples(x: np.ndarray, y: np.ndarray, k: int = 50) -> float:
    """Estimate JS(p, q) from samples, with the density ratios of :func:`kl_samples` put into its definition.

    The ratio enters through a curved function here, so k should grow with the samples (their square root is a fair
    choice); the estimate never exceeds log 2.

    Args and Raises: as :func:`kl_samples`.

    Returns:
        The estimate in nats.
    """
    x, y = _as_points(x), _as_points(y)
    # log(p / m) = log 2 - log(1 + q / p)
    from_x = np.log(2) - np.logaddexp(0, -_log_ratio(x, y, k))
    from_y = np.log(2) - np.logaddexp(0, -_log_ratio(y, x, k))
    return float((from_x.mean() + from_y.mean()) / 2)


def w1_samples(x: np.ndarray, y: np.ndarray) -> float:
    """Exact Wasserstein-1 distance between two samples.

    On the line it is the area between the two step functions; in more dimensions an optimal assignment, which asks
    for equally many points and takes time n^3.

    Args:
        x: ``[n]`` or ``[n, d]``.
        y: ``[m]`` or ``[n, d]``.

    Returns:
        Distance in units of x, >= 0.

    Raises:
        ValueError: different numbers of points, or of dimensions, in more than one dimension.
    """
    x, y = _as_points(x), _as_points(y)
    if x.shape[1] != y.shape[1] or (x.shape[1] > 1 and len(x) != len(y)):
        raise ValueError(f"x and y must be [n, d] of one shape for d > 1, got {x.shape} and {y.shape}")
    if x.shape[1] > 1:
        cost = np.linalg.norm(x[:, None] - y[None], axis=-1)
        return float(cost[linear_sum_assignment(cost)].mean())
    x, y = np.sort(x[:, 0]), np.sort(y[:, 0])
    points = np.sort(np.concatenate([x, y]))
    below_x = np.searchsorted(x, points[:-1], side="right") / len(x)
    below_y = np.searchsorted(y, points[:-1], side="right") / len(y)
    return float((np.abs(below_x - below_y) * np.diff(points)).sum())


# ------------------------------------------------------------------- the best single Gaussian for a target


def mixture_log_density(
    x: np.ndarray, means: Sequence[float], stds: Sequence[float], weights: Sequence[float]
) -> np.ndarray:
    """Log density of a mixture of Gaussians on the line.

    Args:
        x: points, ``[N]``.
        means: ``[K]``.
        stds: ``[K]``, > 0.
        weights: ``[K]``, summing to 1.

    Returns:
        ``[N]``; stays finite where the density underflows.

    Raises:
        ValueError: weights that do not sum to 1.
    """
    if abs(sum(weights) - 1) > 1e-9:
        raise ValueError(f"weights must sum to 1, got {sum(weights)}")
    parts = norm.logpdf(np.asarray(x, dtype=float)[:, None], means, stds)
    return logsumexp(parts, axis=1, b=np.asarray(weights, dtype=float))


Objective = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def _kl_of_logs(log_p: np.ndarray, log_q: np.ndarray, x: np.ndarray) -> float:
    return float(np.exp(log_p) @ (log_p - log_q))


def _js_of_logs(log_p: np.ndarray, log_q: np.ndarray, x: np.ndarray) -> float:
    middle = np.logaddexp(log_p, log_q) - np.log(2)
    return (_kl_of_logs(log_p, middle, x) + _kl_of_logs(log_q, middle, x)) / 2


OBJECTIVES: Mapping[str, Objective] = {
    "kl": _kl_of_logs,
    "reverse-kl": lambda log_p, log_q, x: _kl_of_logs(log_q, log_p, x),
    "js": _js_of_logs,
    "w1": lambda log_p, log_q, x: float(w1(np.exp(log_p), np.exp(log_q), x)),
}
"""What to minimise, from the log probabilities of target and model in the grid's cells. Logarithms keep KL finite
where a probability underflows but is not 0."""


@dataclass(frozen=True)
class GaussianFit:
    """The Gaussian closest to a target: its mean and standard deviation, and how far away it still is."""

    mean: float
    std: float
    value: float


def gaussian_log_probabilities(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Log probabilities ``[N]`` of a Gaussian in the cells of the evenly spaced grid x ``[N]``, summing to 1."""
    log_density = -0.5 * ((x - mean) / std) ** 2
    return log_density - logsumexp(log_density)


def fit_gaussian(log_target: np.ndarray, x: np.ndarray, objective: str) -> GaussianFit:
    """The Gaussian that minimises one divergence to a target: Nelder-Mead from fifteen starts.

    Args:
        log_target: log density of the target up to a constant, ``[N]``.
        x: evenly spaced grid, ``[N]``, wide enough to hold target and fit.
        objective: a key of `OBJECTIVES`.

    Returns:
        The best of the local minima found; of equal ones that with the smallest mean.

    Raises:
        ValueError: unknown objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {list(OBJECTIVES)}, got '{objective}'")
    distance = OBJECTIVES[objective]
    log_p = log_target - logsumexp(log_target)
    p = np.exp(log_p)
    mean = p @ x
    std = np.sqrt(p @ (x - mean) ** 2)
    narrowest = 2 * (x[1] - x[0])

    def loss(parameters: np.ndarray) -> float:
        # A Gaussian thinner than the grid would be seen as one cell.
        if np.exp(parameters[1]) < narrowest or not x[0] < parameters[0] < x[-1]:
            return np.inf
        return distance(log_p, gaussian_log_probabilities(x, parameters[0], np.exp(parameters[1])), x)

    quantiles = np.interp([0.05, 0.25, 0.5, 0.75, 0.95], np.cumsum(p), x)
    fits = []
    for start in ((m, np.log(scale * std)) for m in quantiles for scale in (0.2, 0.5, 1.0)):
        found = minimize(
            loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-11, "maxiter": 2000}
        )
        fits.append(GaussianFit(float(found.x[0]), float(np.exp(found.x[1])), float(found.fun)))
    best = min(fit.value for fit in fits)
    return min((fit for fit in fits if fit.value < best + 1e-9), key=lambda fit: fit.mean)


# --------------------------------------------------------------------------- two parallel lines in the plane


def parallel_lines(theta: np.ndarray) -> dict[str, np.ndarray]:
    """Divergences between the points (0, Z) and (theta, Z), Z uniform on [0, 1], in closed form.

    Source: Arjovsky et al. 2017, example 1; the lecture quotes it. Only W1 has a slope in theta to learn from.

    Args:
        theta: distance of the lines, any shape.

    Returns:
        "kl", "reverse-kl", "js", "w1", each of theta's shape.
    """
    theta = np.asarray(theta, dtype=float)
    apart = theta != 0
    return {
        "kl": np.where(apart, np.inf, 0.0),
        "reverse-kl": np.where(apart, np.inf, 0.0),
        "js": np.where(apart, np.log(2), 0.0),
        "w1": np.abs(theta),
    }


# -------------------------------------------------------------------------------- the discrete earth mover


@dataclass(frozen=True)
class Transport:
    """A cheapest way to turn one heap into another.

    Attributes:
        work: mass times distance, summed: W1 times the total mass.
        plan: ``[N, M]``, the mass moved from position i of p to position j of q.
        potential: ``[N]``, a 1-Lipschitz function f on p's positions; where p and q share their positions
            ``sum f (p - q) = work`` (Kantorovich and Rubinstein), and f is what a perfect WGAN critic outputs.
    """

    work: float
    plan: np.ndarray
    potential: np.ndarray


def earth_mover(
    p: np.ndarray, q: np.ndarray, x: np.ndarray | None = None, y: np.ndarray | None = None
) -> Transport:
    """Solve the transport problem as the linear program it is (lecture: the infimum over joint distributions).

    Args:
        p: masses, ``[N]``, >= 0.
        q: masses, ``[M]``, >= 0, with the same total.
        x: positions of p on the line, ``[N]``; None for 0, 1, 2, ...
        y: positions of q, ``[M]``; None for x, or 0, 1, 2, ... if that is None as well.

    Returns:
        Work, plan and potential. The lecture's p = (3, 2, 1, 4), q = (1, 2, 4, 3) take 5 units of work.

    Raises:
        ValueError: negative masses, different totals, or positions that do not fit.
        RuntimeError: the solver failed.
    """
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    x = np.arange(len(p), dtype=float) if x is None else np.asarray(x, dtype=float)
    if y is None:
        y = x if len(q) == len(x) else np.arange(len(q), dtype=float)
    y = np.asarray(y, dtype=float)
    if (p < 0).any() or (q < 0).any() or abs(p.sum() - q.sum()) > 1e-9 * max(1.0, p.sum()):
        raise ValueError(f"p and q must be >= 0 with equal totals, got totals {p.sum():g} and {q.sum():g}")
    if x.shape != p.shape or y.shape != q.shape:
        raise ValueError(
            f"positions must match masses, got {x.shape} for {p.shape} and {y.shape} for {q.shape}"
        )
    cost = np.abs(x[:, None] - y[None, :])
    n, m = cost.shape
    leaves = np.kron(np.eye(n), np.ones(m))
    arrives = np.kron(np.ones(n), np.eye(m))
    solution = linprog(
        cost.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=np.concatenate([p, q]), method="highs"
    )
    if not solution.success:
        raise RuntimeError(f"the transport program was not solved: {solution.message}")
    prices = solution.eqlin.marginals[n:]
    # The smallest of 1-Lipschitz functions is 1-Lipschitz, also at positions that no mass leaves.
    return Transport(float(solution.fun), solution.x.reshape(n, m), (cost - prices).min(axis=1))
