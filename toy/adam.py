"""Adam under an exponential gradient: how a saturating cost stops an optimiser that normalises its gradient.

The sample-weighting paper (section 2.4, appendix G) lets one parameter see the gradient

    g_t = g0 exp(a t),    t = 1, 2, ...

and asks for the size of Adam's update (equation 8). Here are the update step by step (:func:`simulate`), its closed
form (:func:`exact`), the paper's approximation of that (:func:`approximate`, equations 18-21), and its exponent for
large t (:func:`exponent`, equation 22), which is all that decides whether a parameter freezes:

    exponent = max(a, log beta1) - max(a, log(beta2) / 2)

The momentum forgets no faster than beta1, the root of the second moment no faster than sqrt(beta2). The four cases of
equation 22 are the four ways in which the two maxima can fall. All functions broadcast over a, beta1 and beta2; the
update is counted as positive when it goes against a positive gradient. Logarithms are natural, rates are per step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_EXPONENT = 340.0
"""Largest abs(a) t: beyond it the square of the gradient leaves the range of float64."""

CASES = {
    1: "normalised: the update keeps its size",
    2: "momentum and second moment both lag behind the gradient",
    3: "the second moment lags behind the gradient",
    4: "the momentum lags behind the gradient",
}
"""The four cases of equation 22, in the paper's order."""


def exponent(a: ArrayLike, beta1: ArrayLike, beta2: ArrayLike) -> NDArray[np.float64]:
    """Growth rate of the update's size for large t and epsilon 0 (equation 22).

    Args:
        a: growth rate of the gradient, any sign.
        beta1: decay of the first moment, in (0, 1).
        beta2: decay of the second moment, in (0, 1).

    Returns:
        The broadcast shape, per step: 0 where updates keep their size, negative where they vanish.
    """
    a, beta1, beta2 = _settings(a, beta1, beta2)
    return np.maximum(a, np.log(beta1)) - np.maximum(a, np.log(beta2) / 2)


def case(a: ArrayLike, beta1: ArrayLike, beta2: ArrayLike) -> NDArray[np.int64]:
    """The case of equation 22, 1 to 4 (`CASES`), in the broadcast shape of the arguments of :func:`exponent`.

    On the borders, where the paper's case is not defined, the neighbouring cases have the same exponent, and the
    first of them is given.
    """
    a, beta1, beta2 = _settings(a, beta1, beta2)
    momentum_keeps_up = a >= np.log(beta1)
    second_moment_keeps_up = a >= np.log(beta2) / 2
    return np.select(
        [momentum_keeps_up & second_moment_keeps_up, momentum_keeps_up, second_moment_keeps_up], [1, 3, 4], 2
    )


def simulate(
    steps: int,
    a: ArrayLike,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
    *,
    lr: float = 1.0,
    g0: float = 1.0,
    eps: float = 0.0,
) -> NDArray[np.float64]:
    """Adam's update, step by step (equation 8, with both bias corrections).

    Args:
        steps: number of steps T, at least 1.
        a, beta1, beta2: as in :func:`exponent`.
        lr: learning rate.
        g0: the gradient's size before the first step, not 0.
        eps: Adam's epsilon, at least 0; 0 shows what the moments alone do.

    Returns:
        ``[T, ...]``: minus the change of the parameter at t = 1..T.

    Raises:
        ValueError: the gradient's square would leave the range of float64, or an argument is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if eps < 0 or g0 == 0:
        raise ValueError(f"eps must be at least 0 and g0 not 0, got eps = {eps} and g0 = {g0}")
    a, beta1, beta2 = _settings(a, beta1, beta2)
    _check_exponent(a, steps)
    shape = np.broadcast_shapes(a.shape, beta1.shape, beta2.shape)
    m, v = np.zeros(shape), np.zeros(shape)
    updates = np.empty((steps, *shape))
    for t in range(1, steps + 1):
        g = g0 * np.exp(a * t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        updates[t - 1] = lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return updates


def exact(
    t: ArrayLike,
    a: ArrayLike,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
    *,
    lr: float = 1.0,
    g0: float = 1.0,
) -> NDArray[np.float64]:
    """The update in closed form, without approximation, for epsilon 0.

    Equation 18 is a geometric series, so that the paper's integral is not needed:
    m_t = (1 - beta1) g0 (exp(a t) - beta1^t) / (1 - beta1 exp(-a)), and v_t alike.

    Args:
        t: steps, from 1 on.
        a, beta1, beta2: as in :func:`exponent`; t broadcasts against them.
        lr: learning rate.
        g0: the gradient's size, of which only the sign matters.

    Returns:
        The broadcast shape.
    """
    a, beta1, beta2 = _settings(a, beta1, beta2)
    t = _times(t, a)
    # Both moments in units of the gradient: the series' sum over beta^k exp(-a k), k = 0..t-1.
    m = (1 - beta1) * _geometric(np.log(beta1) - a, t)
    v = (1 - beta2) * _geometric(np.log(beta2) - 2 * a, t)
    return lr * np.sign(g0) * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / np.sqrt(v)


def approximate(
    t: ArrayLike,
    a: ArrayLike,
    beta1: ArrayLike = 0.9,
    beta2: ArrayLike = 0.999,
    *,
    lr: float = 1.0,
    g0: float = 1.0,
    bias_correction: bool = True,
) -> NDArray[np.float64]:
    """The paper's approximation: an integral in place of the sum (equation 19), epsilon 0.

    The integral replaces the constant 1 - beta exp(-a) by log(beta) - a and leaves the dependence on t alone, so
    the error is a constant factor, close to 1 while abs(a) and 1 - beta are small.

    Args:
        t, a, beta1, beta2, lr, g0: as in :func:`exact`.
        bias_correction: equation 20 with it, equation 21 without.

    Returns:
        The broadcast shape.

    Raises:
        ValueError: a is log(beta1) or log(beta2) / 2, where equation 19 divides by zero.
    """
    a, beta1, beta2 = _settings(a, beta1, beta2)
    t = _times(t, a)
    gap1, gap2 = a - np.log(beta1), 2 * a - np.log(beta2)
    if np.any(gap1 == 0) or np.any(gap2 == 0):
        raise ValueError(
            "a must differ from log(beta1) and log(beta2) / 2; `exact` knows these cases as well"
        )
    m = (1 - beta1) / gap1 * -np.expm1(-gap1 * t)
    v = (1 - beta2) / gap2 * -np.expm1(-gap2 * t)
    correction = np.sqrt(1 - beta2**t) / (1 - beta1**t) if bias_correction else 1.0
    return lr * np.sign(g0) * correction * m / np.sqrt(v)


def measured_exponent(updates: ArrayLike, last: float = 0.25) -> NDArray[np.float64]:
    """Growth rate of the update's size, by least squares on its logarithm over the last part of a run.

    Args:
        updates: ``[T, ...]``, from :func:`simulate`, one row per step.
        last: the part of the run that is used, in (0, 1].

    Returns:
        ``[...]``, per step.

    Raises:
        ValueError: fewer than two steps are left, or an update is 0.
    """
    sizes = np.abs(np.asarray(updates, dtype=float))
    used = sizes[-int(np.ceil(last * len(sizes))) :] if 0 < last <= 1 else sizes[:0]
    if len(used) < 2 or np.any(used == 0):
        raise ValueError(
            "a slope needs at least two steps with updates other than 0: give more steps or a larger last"
        )
    t = np.arange(len(used)) - (len(used) - 1) / 2
    return np.tensordot(t, np.log(used), axes=1) / (t @ t)


def _geometric(rate: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of exp(rate k) over k = 0..t-1, also where rate is 0."""
    nearly = np.where(rate == 0, -1.0, rate)
    return np.where(rate == 0, t, np.expm1(nearly * t) / np.expm1(nearly))


def _settings(a: ArrayLike, beta1: ArrayLike, beta2: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    a, beta1, beta2 = (np.asarray(value, dtype=float) for value in (a, beta1, beta2))
    for name, value in {"beta1": beta1, "beta2": beta2}.items():
        if not np.all((value > 0) & (value < 1)):
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
    return a, beta1, beta2


def _times(t: ArrayLike, a: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.asarray(t, dtype=float)
    if not np.all(t >= 1):
        raise ValueError("t must be at least 1: Adam's first update is at t = 1")
    _check_exponent(a, float(t.max(initial=1)))
    return t


def _check_exponent(a: NDArray[np.float64], steps: float) -> None:
    if (largest := float(np.abs(a).max(initial=0)) * steps) > LARGEST_EXPONENT:
        raise ValueError(
            f"abs(a) t reaches {largest:.0f}, where the squared gradient leaves float64's range; "
            f"keep it below {LARGEST_EXPONENT:.0f} with fewer steps"
        )
