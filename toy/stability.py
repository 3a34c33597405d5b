"""When do all roots of a polynomial lie in the left half plane, or inside the unit circle?

The first question decides whether a continuous-time game converges near its equilibrium, the second whether
the same game converges in discrete steps. Both are answered without computing a root:

* Routh-Hurwitz: all roots of a real polynomial have negative real parts if and only if its leading
  coefficient, its Hurwitz determinants and its constant coefficient are positive (Hurwitz, 1895).
* The substitution ``z = (1 + s) / (1 - s)`` maps the open unit disc to the open left half plane, so the same
  test decides about the unit circle.

Nothing here knows what a GAN is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

_ROUNDING = 1e-9
"""Roots of a condition that differ by less than this, relative to their size, count as one root."""


def hurwitz_conditions(polynomial: sp.Poly) -> list[sp.Expr]:
    """Expressions that are all positive if and only if every root has a negative real part.

    For ``a_0 x^n + a_1 x^(n-1) + ... + a_n`` these are ``a_0``, the Hurwitz determinants
    ``D_1, ..., D_(n-1)`` and ``a_n`` (``D_n = a_n D_(n-1)`` adds nothing). The cubic
    ``x^3 + a x^2 + b x + c`` gives ``1, a, a b - c, c``.

    Args:
        polynomial: univariate, real coefficients, degree n >= 1.

    Returns:
        n + 1 expressions in the coefficients' symbols.

    Raises:
        ValueError: the polynomial is constant or has several generators.
    """
    if len(polynomial.gens) != 1 or polynomial.degree() < 1:
        raise ValueError(
            f"polynomial must have one variable and degree >= 1, got variables {polynomial.gens} "
            f"and degree {polynomial.degree()}: pass sp.Poly(expression, variable)"
        )
    coefficients = polynomial.all_coeffs()
    n = polynomial.degree()

    def entry(row: int, column: int) -> sp.Expr:
        index = 2 * (column + 1) - (row + 1)
        return coefficients[index] if 0 <= index <= n else sp.Integer(0)

    determinants = [sp.Matrix(k, k, entry).det(method="berkowitz") for k in range(1, n)]
    return [sp.expand(c) for c in (coefficients[0], *determinants, coefficients[-1])]


def schur_conditions(polynomial: sp.Poly) -> list[sp.Expr]:
    """Expressions that are all positive if and only if every root lies inside the unit circle.

    The polynomial's leading coefficient must be positive; ``z = (1 + s) / (1 - s)`` turns the question into
    that of :func:`hurwitz_conditions`.

    Args:
        polynomial: univariate, real coefficients, positive leading coefficient, degree n >= 1.

    Returns:
        n + 1 expressions in the coefficients' symbols.

    Raises:
        ValueError: as :func:`hurwitz_conditions`.
    """
    s = sp.Dummy("s")
    n = polynomial.degree()
    transformed = sum(
        (
            coefficient * (1 + s) ** (n - k) * (1 - s) ** k
            for k, coefficient in enumerate(polynomial.all_coeffs())
        ),
        sp.Integer(0),
    )
    # The leading coefficient is P(-1) up to its sign. Where it vanishes (a root at -1) the degree drops, so it
    # is read off, not taken from a polynomial that may have lost it.
    coefficients = sp.Poly(sp.expand(transformed), s)
    padded = [coefficients.coeff_monomial(s**k) for k in range(n, -1, -1)]
    if padded[0] == 0:
        return [sp.Integer(0)]
    return hurwitz_conditions(sp.Poly(padded, s))


def breakpoints(conditions: Sequence[sp.Expr], symbol: sp.Symbol) -> np.ndarray:
    """The positive values of `symbol` at which one of the polynomial conditions changes its sign or touches 0.

    Args:
        conditions: polynomials in `symbol` with numeric coefficients; those that are constant give no value.
        symbol: the variable.

    Returns:
        Sorted values > 0, shape ``[k]``, values closer than 1e-9 (relative) merged.

    Raises:
        ValueError: a condition contains another symbol.
    """
    found: list[float] = []
    for condition in conditions:
        others = condition.free_symbols - {symbol}
        if others:
            raise ValueError(
                f"conditions may contain {symbol} only, got {sorted(map(str, others))} in {condition}: "
                "substitute numbers first"
            )
        polynomial = sp.Poly(condition, symbol)
        if polynomial.degree() < 1:
            continue
        roots = np.roots([float(c) for c in polynomial.all_coeffs()])
        real = roots.real[np.abs(roots.imag) <= 1e-7 * np.maximum(1.0, np.abs(roots))]
        found.extend(real[real > _ROUNDING])
    merged: list[float] = []
    for value in sorted(found):
        if not merged or value - merged[-1] > _ROUNDING * max(1.0, value):
            merged.append(float(value))
    return np.array(merged)


def spectral_radius(matrix: np.ndarray) -> np.ndarray:
    """Largest absolute eigenvalue of each matrix.

    Args:
        matrix: ``[..., n, n]``, real or complex.

    Returns:
        ``[...]``, >= 0.
    """
    return np.abs(np.linalg.eigvals(matrix)).max(axis=-1)


def decay_rate(times: np.ndarray, distances: np.ndarray) -> float:
    """Linear rate at which a distance shrinks along a trajectory, measured.

    A distance that oscillates while it shrinks is replaced by its envelope, the largest value still to come, and a
    line is fitted to the logarithm of that over the first four fifths of the times: the last oscillations have no
    future to look at.

    Args:
        times: increasing, ``[T]``, T >= 10.
        distances: ``[T]``, > 0.

    Returns:
        The rate per unit of time: positive where the distance shrinks.

    Raises:
        ValueError: shapes differ, too few times, or a distance that is not positive.
    """
    times, distances = np.asarray(times, dtype=float), np.asarray(distances, dtype=float)
    if times.shape != distances.shape or times.ndim != 1 or len(times) < 10:
        raise ValueError(
            f"times and distances must be [T] with T >= 10, got {times.shape} and {distances.shape}"
        )
    if not (distances > 0).all():
        raise ValueError(
            f"distances must be > 0, got a smallest of {distances.min()}: stop before they reach 0"
        )
    envelope = np.maximum.accumulate(distances[::-1])[::-1]
    kept = 4 * len(times) // 5
    slope, _ = np.polyfit(times[:kept], np.log(envelope[:kept]), 1)
    return -float(slope)
