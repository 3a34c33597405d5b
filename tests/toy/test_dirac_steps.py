import numpy as np
import pytest
import sympy as sp

from toy import dirac_steps as steps
from toy.dirac import GAMES, ZOO, alpha, beta, gamma, h
from toy.stability import schur_conditions, spectral_radius

ALL = GAMES | ZOO
SMOOTH = [name for name in ALL if name != "wgan-gp"]
UPDATES = {
    "simultaneous": (steps.simultaneous_step, steps.simultaneous_jacobian),
    "alternating": (steps.alternating_step, steps.alternating_jacobian),
}


@pytest.mark.parametrize("order", UPDATES)
@pytest.mark.parametrize("name", SMOOTH)
def test_symbolic_step_jacobian_is_that_of_the_numeric_step(name: str, order: str) -> None:
    game = ALL[name]
    make_step, symbolic = UPDATES[order]
    step, nudge, n = make_step(game, 0.3), 1e-5, len(game.states)
    columns = [(step(e) - step(-e)) / (2 * nudge) for e in nudge * np.eye(n)]
    numbers = {**game.parameters, h: 0.3}
    want = np.array(symbolic(game).subs(numbers).evalf(), dtype=float)
    np.testing.assert_allclose(np.stack(columns, axis=-1), want, atol=1e-8)
    got = steps.step_radius(game, symbolic(game), np.array([0.3, 0.3]))
    np.testing.assert_allclose(got, spectral_radius(want), rtol=1e-9)


def test_the_order_of_players() -> None:
    game = GAMES["wgan"]
    start = np.array([1.0, 2.0])
    np.testing.assert_allclose(steps.simultaneous_step(game, 0.1)(start), [1.2, 1.9])
    np.testing.assert_allclose(steps.alternating_step(game, 0.1)(start), [1.19, 1.9])


def test_the_teacher_averages_the_new_theta() -> None:
    game = GAMES["wgan-leakyema-unit"]
    for make_step, _ in UPDATES.values():
        new = make_step(game, 0.1, alpha=0.9, beta=0.5)(np.array([1.0, 2.0, 3.0]))
        assert new[2] == pytest.approx(0.9 * 3 + 0.1 * new[0])
        assert new[1] == pytest.approx(2 + 0.1 * (-1 + 0.5 * 3))


@pytest.mark.parametrize("order", UPDATES)
def test_clipping_comes_after_the_step(order: str) -> None:
    step = UPDATES[order][0](GAMES["wgan-clip"], 0.5, clip=0.25)
    path = steps.iterate(step, np.array([1.0, 0.2]), 50)
    assert np.abs(path[:, 1]).max() == 0.25
    if order == "alternating":
        np.testing.assert_allclose(step(np.array([1.0, 0.2])), [1 - 0.125, -0.25])


def test_small_steps_follow_the_ode() -> None:
    from toy.dirac import trajectory

    start = np.array([1.0, -0.5])
    for make_step, _ in UPDATES.values():
        path = steps.iterate(make_step(GAMES["r1"], 1e-3), start, 3000)
        exact = trajectory(GAMES["r1"], start, np.array([0.0, 3.0]))[-1]
        np.testing.assert_allclose(path[-1], exact, atol=2e-3)


def test_steps_work_on_many_starts_at_once() -> None:
    starts = np.random.default_rng(0).normal(size=(4, 5, 3))
    step = steps.alternating_step(GAMES["ns-leakyema"], 0.2)
    together = steps.iterate(step, starts, 3)
    assert together.shape == (4, 4, 5, 3)
    np.testing.assert_allclose(together[:, 2, 3], steps.iterate(step, starts[2, 3], 3))


# ---------------------------------------------------------------------------- the largest converging step


@pytest.mark.parametrize(("name", "strength"), [
    ("mm", 0.5), ("ns", 0.5), ("wgan", 1.0), ("wgan-clip", 1.0), ("rpgan", 0.5), ("spectral", 0.5),
])  # fmt: skip
def test_without_a_teacher_simultaneous_steps_leave_and_alternating_ones_circle(
    name: str, strength: float
) -> None:
    game = ALL[name]
    simultaneous, alternating = steps.simultaneous_jacobian(game), steps.alternating_jacobian(game)
    assert steps.converging_steps(game, simultaneous) == []
    assert steps.bounded_steps(game, simultaneous) == []
    assert steps.converging_steps(game, alternating) == []
    ((low, high),) = steps.bounded_steps(game, alternating)
    assert (low, high) == pytest.approx((0.0, 2 / strength))
    sizes = np.array([0.1, 1.0, 1.9]) / strength
    np.testing.assert_allclose(
        steps.step_radius(game, simultaneous, sizes), np.sqrt(1 + (strength * sizes) ** 2)
    )
    np.testing.assert_allclose(steps.step_radius(game, alternating, sizes), 1)


@pytest.mark.parametrize("order", UPDATES)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("r1", {"gamma": 0.5}),
        ("r1", {"gamma": 3.0}),
        ("rpgan-r1-r2", {"gamma": 0.4}),
        ("instance-noise", {"sigma": 0.7}),
        ("ns-consensus", {"gamma": 1.0}),
        ("ns-leakyema", {"alpha": 0.9, "beta": 0.5}),
        ("ns-leakyema", {"alpha": 0.5, "beta": 0.9}),
        ("wgan-leakyema", {"alpha": 0.8, "beta": 0.75}),
    ],
)
def test_runs_converge_inside_the_interval_and_not_outside(
    name: str, values: dict[str, float], order: str
) -> None:
    game = ALL[name]
    make_step, symbolic = UPDATES[order]
    ((low, high),) = steps.converging_steps(game, symbolic(game), **values)
    assert low == 0.0
    start = 1e-6 * np.ones(len(game.states))
    inside = steps.iterate(make_step(game, 0.9 * high, **values), start, 4000)
    assert np.linalg.norm(inside[-1]) < 1e-9
    step, state, left = make_step(game, 1.1 * high, **values), start, False
    for _ in range(4000):
        state = step(state)
        left = left or bool(np.linalg.norm(state) > 1e-3)
        if left:
            break
    assert left


def test_r1_has_the_step_sizes_of_its_closed_form() -> None:
    # mu^2 - (2 - gamma h) mu + 1 - gamma h + h^2 / 4: the product of the roots reaches 1 at h = 4 gamma.
    game = GAMES["r1"]
    for strength in (0.2, 0.5, 0.9):
        ((_, high),) = steps.converging_steps(game, steps.simultaneous_jacobian(game), gamma=strength)
        assert high == pytest.approx(4 * strength)
    conditions = schur_conditions(steps.step_polynomial(steps.simultaneous_jacobian(game)))
    assert sp.factor(conditions[1] - h * (4 * gamma - h) / 2) == 0


def test_a_teacher_that_is_slow_enough_tames_simultaneous_steps() -> None:
    game = GAMES["ns-leakyema"]
    rng = np.random.default_rng(1)
    for a, b in rng.uniform(0.05, 0.95, (15, 2)):
        simultaneous = steps.converging_steps(game, steps.simultaneous_jacobian(game), alpha=a, beta=b)
        ((low, high),) = steps.converging_steps(game, steps.alternating_jacobian(game), alpha=a, beta=b)
        assert low == 0
        assert high == pytest.approx(4 / np.sqrt(1 - b * (1 - a) / (1 + a)))
        if b <= 1 - a:
            assert simultaneous == []
            continue
        ((low, high),) = simultaneous
        flip = 4 * np.sqrt((1 - a) / (1 + 3 * a - b * (1 - a)))
        assert low == 0
        assert high == pytest.approx(min(2 / a * np.sqrt((1 - a) * (b - 1 + a)), flip))


def test_both_forms_of_the_teacher_are_one_game_in_discrete_time() -> None:
    for order in UPDATES:
        symbolic = UPDATES[order][1]
        for name in ("ns", "wgan"):
            polynomials = [
                steps.step_polynomial(symbolic(GAMES[name + s])).as_expr()
                for s in ("-leakyema", "-leakyema-unit")
            ]
            assert sp.expand(polynomials[0] - polynomials[1]) == 0
            # With nothing but teacher samples the game forgets where the data are: an eigenvalue of exactly 1.
            mu = sp.Symbol("mu")
            assert sp.simplify(polynomials[0].subs({beta: 1, mu: 1})) == 0
    assert alpha in GAMES["ns-leakyema"].parameters


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="step_size must be > 0"):
        steps.simultaneous_step(GAMES["ns"], 0.0)
    with pytest.raises(ValueError, match="steps must be >= 0"):
        steps.iterate(steps.simultaneous_step(GAMES["ns"], 0.1), np.zeros(2), -1)
    with pytest.raises(ValueError, match="has no parameter"):
        steps.converging_steps(GAMES["ns"], steps.alternating_jacobian(GAMES["ns"]), gamma=1.0)
