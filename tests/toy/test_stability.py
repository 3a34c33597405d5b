import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toy.stability import breakpoints, decay_rate, hurwitz_conditions, schur_conditions, spectral_radius

x = sp.Symbol("x")
b, c, d = sp.symbols("b c d")

polynomials = st.lists(st.integers(-6, 6), min_size=1, max_size=5).map(
    lambda tail: sp.Poly([4, *(sp.Rational(k, 2) for k in tail)], x)
)


def roots_of(polynomial: sp.Poly) -> np.ndarray:
    return np.roots([float(k) for k in polynomial.all_coeffs()])


@settings(max_examples=150, deadline=None)
@given(polynomials)
def test_hurwitz_conditions_decide_the_left_half_plane(polynomial: sp.Poly) -> None:
    largest = roots_of(polynomial).real.max()
    assume(abs(largest) > 1e-4)
    assert all(k > 0 for k in hurwitz_conditions(polynomial)) == (largest < 0)


@settings(max_examples=150, deadline=None)
@given(polynomials)
def test_schur_conditions_decide_the_unit_circle(polynomial: sp.Poly) -> None:
    largest = np.abs(roots_of(polynomial)).max()
    assume(abs(largest - 1) > 1e-4)
    assert all(k > 0 for k in schur_conditions(polynomial)) == (largest < 1)


def test_the_cubic_gives_the_textbook_conditions() -> None:
    conditions = hurwitz_conditions(sp.Poly(x**3 + b * x**2 + c * x + d, x))
    assert [sp.simplify(got - want) for got, want in zip(conditions, (1, b, b * c - d, d), strict=True)] == [
        0
    ] * 4


def test_a_root_at_minus_one_is_no_schur_polynomial() -> None:
    assert schur_conditions(sp.Poly(x + 1, x)) == [0]


def test_a_constant_has_no_roots_to_ask_about() -> None:
    with pytest.raises(ValueError, match="degree >= 1"):
        hurwitz_conditions(sp.Poly(3, x))


def test_breakpoints_are_the_positive_real_roots_once_each() -> None:
    found = breakpoints([x**2 * (x - 2), (x - 2) * (x - 5) * (x**2 + 1), sp.Integer(3), x + 1], x)
    assert found == pytest.approx([2.0, 5.0])
    with pytest.raises(ValueError, match="substitute numbers"):
        breakpoints([b * x], x)


def test_spectral_radius_of_a_stack() -> None:
    rotation = np.array([[0.0, -2.0], [2.0, 0.0]])
    assert spectral_radius(np.stack([rotation, np.diag([0.5, -0.25])])) == pytest.approx([2.0, 0.5])


@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_decay_rate_sees_through_an_oscillation(rate: float) -> None:
    times = np.linspace(0, 200, 20001)
    distances = np.exp(-rate * times) * np.hypot(np.cos(times), 0.3 * np.sin(times))
    assert decay_rate(times, distances) == pytest.approx(rate, rel=0.01)


def test_decay_rate_asks_for_positive_distances() -> None:
    with pytest.raises(ValueError, match="stop before"):
        decay_rate(np.arange(20.0), np.zeros(20))
