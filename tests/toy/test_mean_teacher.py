import time

import numpy as np
import pytest
import sympy as sp

from toy.dirac import GAMES, alpha, beta, eigenvalues, h, max_real_part, routh_hurwitz
from toy.dirac_steps import alternating_jacobian, converging_steps, simultaneous_jacobian
from toy.mean_teacher import (
    a,
    c,
    critical_steps,
    fastest,
    lemma_1,
    positive_on_open_square,
    slow_pair,
    small_c_rate,
)

TEACHERS = ["ns-leakyema", "wgan-leakyema", "ns-leakyema-unit", "wgan-leakyema-unit"]
INSIDE = np.linspace(0, 1, 202)[1:-1]


@pytest.mark.parametrize("name", TEACHERS)
def test_lemma_1_is_proved_and_its_inequalities_hold_on_a_grid(name: str) -> None:
    proof = lemma_1(GAMES[name])
    assert [step.statement for step in proof] == routh_hurwitz(GAMES[name])
    grid = np.meshgrid(INSIDE, INSIDE)
    for step in proof:
        assert step.holds, step
        assert np.all(sp.lambdify((alpha, beta), step.statement, "numpy")(*grid) > 0)


@pytest.mark.parametrize(
    "wrong",
    [alpha - beta, beta - 1, -sp.log(alpha) - 2 * beta * (1 - alpha), alpha**2 - alpha, sp.Integer(0)],
)
def test_a_false_inequality_is_not_proved(wrong: sp.Expr) -> None:
    assert not positive_on_open_square(wrong).holds


def test_proofs_are_about_alpha_and_beta() -> None:
    with pytest.raises(ValueError, match="alpha and beta only"):
        lemma_1(GAMES["r1"])


@pytest.mark.parametrize(("name", "width"), [("ns", 4), ("wgan", 1)])
@pytest.mark.parametrize("suffix", ["-leakyema", "-leakyema-unit"])
def test_the_rate_of_a_weak_teacher(name: str, width: int, suffix: str) -> None:
    game = GAMES[name + suffix]
    assert sp.simplify(small_c_rate(game) + c / (1 + width * a**2)) == 0
    series = sp.lambdify((a, c), slow_pair(game, 3), "numpy")
    for decay in (0.1, 0.7, 2.0):
        for strength in (2e-3, 1e-3):
            fed = 1 - np.exp(-decay) if suffix == "-leakyema" else decay
            got = eigenvalues(game, alpha=np.exp(-decay), beta=2 * strength / fed)
            pair = got[got.imag.argmax()]
            assert pair.real == pytest.approx(-strength / (1 + width * decay**2), rel=6 * strength / decay)
            # The fourth power of c is the first one missing.
            assert abs(pair - series(decay, strength)) < 1e3 * strength**4 + 1e-14


def test_next_to_alpha_one_the_real_root_takes_over_at_two_thirds() -> None:
    game, decay = GAMES["ns-leakyema"], 1e-4
    for share, pair_leads in ((0.65, True), (0.68, False)):
        values = eigenvalues(game, alpha=np.exp(-decay), beta=share)
        slowest = values[values.real.argmax()]
        assert (abs(slowest.imag) > 0.1) == pair_leads
        want = -decay * share / 2 if pair_leads else -decay * (1 - share)
        assert slowest.real == pytest.approx(want, rel=1e-3)


def test_the_fastest_rate_of_a_unit_gain_teacher_is_a_triple_eigenvalue() -> None:
    for name, decay in (("ns-leakyema-unit", np.sqrt(3) / 2), ("wgan-leakyema-unit", np.sqrt(3))):
        best = fastest(GAMES[name])
        assert best.inside
        assert best.rate == pytest.approx(decay / 3, rel=1e-5)
        assert best.alpha == pytest.approx(np.exp(-decay), rel=1e-4)
        assert best.beta == pytest.approx(8 / 9, rel=1e-4)


@pytest.mark.parametrize("name", TEACHERS)
def test_no_point_of_a_dense_grid_is_faster_than_the_fastest(name: str) -> None:
    best = fastest(GAMES[name])
    grid = np.meshgrid(np.linspace(0.002, 0.998, 300), np.linspace(0.002, 1, 300))
    slowest = max_real_part(GAMES[name], alpha=grid[0], beta=grid[1])
    assert -slowest.min() <= best.rate + 1e-12
    assert -slowest.min() > best.rate - 0.02
    assert best.rate == pytest.approx(-max_real_part(GAMES[name], alpha=best.alpha, beta=best.beta))
    assert best.inside == name.endswith("unit")


def test_the_surface_is_negative_inside_and_falls_to_zero_on_the_edges() -> None:
    near = 1e-5
    for name in TEACHERS:
        game = GAMES[name]
        begin = time.process_time()
        surface = max_real_part(game, alpha=INSIDE[:, None], beta=INSIDE[None, :])
        # A busy machine may be several times slower than the 0.07 s of an idle core.
        assert time.process_time() - begin < 1
        assert surface.shape == (200, 200)
        assert (surface < 0).all()
        assert (np.abs(max_real_part(game, alpha=INSIDE, beta=near)) < near).all()
        assert (np.abs(max_real_part(game, alpha=1 - near, beta=INSIDE)) < near).all()
        # Towards alpha = 0 the rate falls only like a power of 1 / log(1 / alpha).
        ends = [np.abs(max_real_part(game, alpha=10.0**-k, beta=INSIDE)).max() for k in (5, 50, 250)]
        assert ends[0] > 2 * ends[1] > 4 * ends[2]
        assert ends[2] < 2e-3
        last = np.abs(max_real_part(game, alpha=INSIDE, beta=1 - near))
        if name.endswith("unit"):
            assert (last < 10 * near).all()
        else:
            # The paper's running sum has a gain below 1, so at beta = 1 the data still pull: the fourth edge is not 0.
            assert last.max() > 0.15


def test_the_surface_agrees_with_other_root_finders() -> None:
    rng = np.random.default_rng(0)
    for al, be in rng.uniform(0.02, 0.98, (50, 2)):
        decay, strength = -np.log(al), be * (1 - al) / 2
        want = np.roots([1, decay, 0.25, decay / 4 - strength / 2]).real.max()
        assert max_real_part(GAMES["ns-leakyema"], alpha=al, beta=be) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("name", "strength"), [("ns-leakyema", 0.5), ("wgan-leakyema", 1.0)])
def test_critical_steps_are_closed_forms_of_the_largest_converging_step(name: str, strength: float) -> None:
    game = GAMES[name]
    for symbolic in (simultaneous_jacobian(game), alternating_jacobian(game)):
        forms = [sp.lambdify((alpha, beta), form, "numpy") for form in critical_steps(symbolic)]
        for al, be in ((0.9, 0.5), (0.6, 0.7), (0.99, 0.25)):
            ((_, high),) = converging_steps(game, symbolic, alpha=al, beta=be)
            assert min(form(al, be) for form in forms) == pytest.approx(high)
    edge = (1 - alpha) * (beta - (1 - alpha)) / (alpha * strength) ** 2
    assert any(sp.simplify(form**2 - edge) == 0 for form in critical_steps(simultaneous_jacobian(game)))
    assert not any(form.has(h) for form in critical_steps(alternating_jacobian(game)))


def test_bad_arguments_are_refused() -> None:
    for function in (fastest, slow_pair):
        with pytest.raises(ValueError, match="game with a teacher"):
            function(GAMES["ns"])
    with pytest.raises(ValueError, match="order must be >= 0"):
        slow_pair(GAMES["ns-leakyema"], -1)
    with pytest.raises(ValueError, match="rounds must be >= 1"):
        fastest(GAMES["ns-leakyema"], 0)
