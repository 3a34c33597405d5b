from collections.abc import Callable

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.integrate import quad
from scipy.special import expit
from torch import Tensor
from torch.nn.functional import softplus

from toy import dirac, logistic
from toy.dirac import GAMES, ZOO, alpha, beta, gamma, psi, theta
from toy.stability import decay_rate

torch.set_num_threads(1)
ALL = GAMES | ZOO
SMOOTH = [name for name in ALL if name != "wgan-gp"]
CENTRES = ("mm", "ns", "wgan", "wgan-clip", "rpgan", "rpgan-zero-sum", "spectral")
"""Games whose eigenvalues lie on the imaginary axis."""
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))


def expected(values: Tensor) -> Tensor:
    return values @ (WEIGHTS / WEIGHTS.sum())


def ns(t: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    return softplus(-p * t), softplus(p * t)


def consensus(t: Tensor, p: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    g, d = ns(t, p)
    (v,) = torch.autograd.grad(g, t, create_graph=True)
    (w,) = torch.autograd.grad(d, p, create_graph=True)
    energy = strength / 2 * (v**2 + w**2)
    return g + energy, d + energy


# The losses once more, from the papers and not from the code: (theta, psi, u) -> (L_G, L_D) at the defaults.
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "mm": lambda t, p, m: (torch.log(1 - torch.sigmoid(p * t)), -torch.log(1 - torch.sigmoid(p * t))),
    "ns": lambda t, p, m: ns(t, p),
    "wgan": lambda t, p, m: (-p * t, p * t),
    "wgan-clip": lambda t, p, m: (-p * t, p * t),
    "wgan-gp": lambda t, p, m: (-p * t, p * t + (p.abs() - 1) ** 2 / 2),
    "r1": lambda t, p, m: (ns(t, p)[0], ns(t, p)[1] + 0.5 / 2 * p**2),
    "instance-noise": lambda t, p, m: (
        expected(softplus(-p * (t + NODES))),
        expected(softplus(p * (t + NODES)) + softplus(-p * NODES)),
    ),
    "ns-consensus": lambda t, p, m: consensus(t, p, 0.5),
    "ns-leakyema": lambda t, p, m: (ns(t, p)[0], softplus(p * t) + 0.5 * softplus(-p * 0.5 * m)),
    "wgan-leakyema": lambda t, p, m: (-p * t, p * t - 0.5 * p * 0.5 * m),
    "ns-leakyema-unit": lambda t, p, m: (ns(t, p)[0], softplus(p * t) + 0.5 * softplus(-p * m)),
    "wgan-leakyema-unit": lambda t, p, m: (-p * t, p * t - 0.5 * p * m),
    "spectral": lambda t, p, m: ns(t, p),
}


def relativistic(t: Tensor, p: Tensor, r1: float = 0.0, r2: float = 0.0) -> tuple[Tensor, Tensor]:
    """Huang et al. 2024, equation 2 with the real sample at 0, its non-saturating form, and R1 and R2 by autograd."""
    real, fake = torch.zeros((), dtype=t.dtype, requires_grad=True), t.detach().requires_grad_()
    slopes = [torch.autograd.grad(p * x, x, create_graph=True)[0] for x in (real, fake)]
    margin = p * t - p * real
    return softplus(-margin), softplus(margin) + r1 / 2 * slopes[0] ** 2 + r2 / 2 * slopes[1] ** 2


LOSSES |= {
    "rpgan-zero-sum": lambda t, p, m: (-relativistic(t, p)[1], relativistic(t, p)[1]),
    "rpgan": lambda t, p, m: relativistic(t, p),
    "rpgan-r1": lambda t, p, m: relativistic(t, p, r1=0.5),
    "rpgan-r2": lambda t, p, m: relativistic(t, p, r2=0.5),
    "rpgan-r1-r2": lambda t, p, m: relativistic(t, p, 0.25, 0.25),
}


def states_of(game: dirac.Game, count: int, seed: int = 0, spread: float = 0.9) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-spread, spread, (count, len(game.states)))


@pytest.mark.parametrize("name", ALL)
def test_the_field_is_the_gradient_of_its_losses(name: str) -> None:
    game = ALL[name]
    for state in states_of(game, 8):
        t, p = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in state[:2])
        m = torch.tensor(state[-1], dtype=torch.float64)
        g_loss, d_loss = LOSSES[name](t, p, m)
        (want_t,) = torch.autograd.grad(g_loss, t, retain_graph=True)
        (want_p,) = torch.autograd.grad(d_loss, p)
        got = dirac.numeric_field(game)(state)
        np.testing.assert_allclose(got[:2], [-want_t.item(), -want_p.item()], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("psi_value", "theta_value", "moves"), [(1.0, -0.5, False), (1.0, 0.5, True), (-1.0, 0.5, False)]
)
def test_clipping_stops_psi_at_the_bound_only_on_its_way_out(
    psi_value: float, theta_value: float, moves: bool
) -> None:
    velocity = dirac.numeric_field(GAMES["wgan-clip"])(np.array([theta_value, psi_value]))
    assert velocity[1] == (-theta_value if moves else 0.0)
    path = dirac.trajectory(GAMES["wgan-clip"], np.array([2.0, 0.0]), np.linspace(0, 20, 201), clip=0.3)
    assert np.abs(path[:, 1]).max() == pytest.approx(0.3, abs=1e-3)


def test_memory_follows_theta_as_in_the_papers_equation_10() -> None:
    times = np.linspace(0, 5, 2001)
    path = dirac.trajectory(GAMES["ns-leakyema"], np.array([1.0, 0.5, 0.0]), times, alpha=0.3, beta=0.7)
    # eq. 7, by the trapezoidal rule
    integrand = 0.3 ** (times[-1] - times) * path[:, 0]
    average = 0.7 * np.trapezoid(integrand, times)
    got = dirac.averaged(GAMES["ns-leakyema"], path[-1], alpha=0.3)
    assert got == pytest.approx(average, abs=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_field_broadcasts_and_checks_its_input(name: str) -> None:
    game = ALL[name]
    states = states_of(game, 6).reshape(2, 3, -1)
    velocity = dirac.numeric_field(game)
    np.testing.assert_allclose(velocity(states)[1, 2], velocity(states[1, 2]))
    with pytest.raises(ValueError, match="last axis of states"):
        velocity(np.zeros(len(game.states) + 1))
    with pytest.raises(ValueError, match="has no parameter"):
        dirac.numeric_field(game, momentum=0.9)


def test_field_does_not_overflow() -> None:
    far = np.array([[1e3, 1e3], [1e3, -1e3]])
    for name in ("mm", "ns", "r1", "ns-consensus"):
        assert np.isfinite(dirac.numeric_field(GAMES[name])(far)).all()


@pytest.mark.parametrize("state", [(0.5, 0.8), (-1.0, 3.0), (2.0, -4.0)])
def test_instance_noise_is_an_expectation(state: tuple[float, float]) -> None:
    t, p = state

    def normal(x: float) -> float:
        return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    want_t = quad(lambda x: p * expit(-p * (t + x)) * normal(x), -12, 12, epsabs=1e-12)[0]
    want_p = quad(
        lambda x: (-(t + x) * expit(p * (t + x)) + x * expit(-p * x)) * normal(x), -12, 12, epsabs=1e-12
    )[0]
    assert dirac.numeric_field(GAMES["instance-noise"])(np.array(state)) == pytest.approx(
        [want_t, want_p], abs=1e-5
    )


# ------------------------------------------------------------------------------------- linear analysis


def finite_difference_jacobian(game: dirac.Game) -> np.ndarray:
    velocity, n, step = dirac.numeric_field(game), len(game.states), 1e-5
    return np.stack([(velocity(e) - velocity(-e)) / (2 * step) for e in step * np.eye(n)], axis=-1)


def sort(values: np.ndarray) -> np.ndarray:
    return values[np.lexsort((np.round(values.real, 8), np.round(values.imag, 8)))]


@pytest.mark.parametrize("name", SMOOTH)
def test_eigenvalues_of_sympy_numpy_and_the_companion_matrix_agree(name: str) -> None:
    game = ALL[name]
    got = sort(dirac.eigenvalues(game))
    by_numpy = sort(np.linalg.eigvals(finite_difference_jacobian(game)))
    numbers = {symbol: sp.Rational(str(value)) for symbol, value in game.parameters.items()}
    exact = sp.Poly(dirac.characteristic_polynomial(game).as_expr().subs(numbers), dirac.eigenvalue)
    by_sympy = sort(np.array([complex(root) for root in exact.nroots(n=20)]))
    np.testing.assert_allclose(got, by_sympy, atol=1e-12)
    np.testing.assert_allclose(got, by_numpy, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in SMOOTH if n not in CENTRES])
def test_decay_measured_from_the_ode_is_the_largest_real_part(name: str) -> None:
    game = ALL[name]
    rate = -dirac.max_real_part(game)
    times = np.linspace(0, 12 / rate, 6000)
    path = dirac.trajectory(game, 1e-4 * np.ones(len(game.states)), times)
    assert decay_rate(times, np.linalg.norm(path, axis=1)) == pytest.approx(rate, rel=0.02)


def test_the_unregularised_games_rotate() -> None:
    for name, frequency in (("mm", 0.5), ("ns", 0.5), ("wgan", 1.0)):
        np.testing.assert_allclose(
            sort(dirac.eigenvalues(GAMES[name])), [-1j * frequency, 1j * frequency], atol=1e-15
        )
    # Minimax and Wasserstein keep |(theta, psi)| for ever: the field is perpendicular to the position.
    for name in ("mm", "wgan"):
        states = states_of(GAMES[name], 20, spread=3)
        velocities = dirac.numeric_field(GAMES[name])(states)
        np.testing.assert_allclose((states * velocities).sum(-1), 0, atol=1e-12)


def test_the_non_saturating_game_converges_like_one_over_the_root_of_time() -> None:
    # d|x|^2/dt = -2 k tanh(k / 2), k = theta psi; averaged over a turn -|x|^4 / 8, so t |x|^2 -> 8.
    state = np.array([1.3, -0.4])
    velocity = dirac.numeric_field(GAMES["ns"])(state)
    k = state.prod()
    assert state @ velocity == pytest.approx(-k * np.tanh(k / 2))
    path = dirac.trajectory(GAMES["ns"], np.array([1.0, 0.0]), np.array([0.0, 4_000.0]))
    assert 4_000 * (path[-1] @ path[-1]) == pytest.approx(8, rel=0.01)


def test_known_eigenvalues_of_regularised_games() -> None:
    # Mescheder et al. 2018, lemmas on R1 and instance noise, with f'(0) = 1/2 and f''(0) = -1/4.
    for strength in (0.3, 1.0, 2.5):
        want = (-strength + np.array([-1, 1]) * np.emath.sqrt(strength**2 - 1)) / 2
        np.testing.assert_allclose(
            sort(dirac.eigenvalues(GAMES["r1"], gamma=strength)), sort(want + 0j), atol=1e-7
        )
        want = -(strength**2) / 4 + np.array([-1, 1]) * np.emath.sqrt(strength**4 / 16 - 1 / 4)
        got = dirac.eigenvalues(GAMES["instance-noise"], sigma=strength)
        np.testing.assert_allclose(sort(got), sort(want + 0j), atol=1e-7)
        got = dirac.eigenvalues(GAMES["ns-consensus"], gamma=strength)
        np.testing.assert_allclose(got.real, -strength / 4)


# What Huang et al. 2024 prove (propositions I and II), for any cost f of the margin with a slope at 0.
f = sp.Function("f")
zero_sum_penalty = sp.Symbol("penalty", nonnegative=True)
"""gamma_1 + gamma_2, of R1 and R2 together."""
pairs_of_any_cost = dirac.Game(
    "rpgan-f", "RpGAN, any f", -f(psi * theta), f(psi * theta) + zero_sum_penalty / 2 * psi**2,
    {zero_sum_penalty: 0.0},
)  # fmt: skip


def test_a_cost_of_pairs_alone_keeps_its_distance_for_ever() -> None:
    """d(theta^2 + psi^2)/dt = -2 penalty psi^2, whatever f: without a penalty no orbit comes nearer."""
    velocity = dirac.vector_field(pairs_of_any_cost)
    change = 2 * (theta * velocity[0] + psi * velocity[1])
    assert sp.simplify(change.doit() + 2 * zero_sum_penalty * psi**2) == 0
    times = np.linspace(0, 200, 50)
    path = dirac.trajectory(ZOO["rpgan-zero-sum"], np.array([1.0, 0.5]), times)
    np.testing.assert_allclose((path**2).sum(-1), 1.25, rtol=1e-6)


def test_with_penalties_a_cost_of_pairs_converges_from_anywhere() -> None:
    """Eigenvalues left of the axis; and the distance falls but where psi = 0, where psi stays only at theta = 0."""
    a, lam = sp.Symbol("a", positive=True), dirac.eigenvalue  # a = f'(0)
    linear = dirac.Game(
        "f", "f", -a * psi * theta, a * psi * theta + zero_sum_penalty / 2 * psi**2, {zero_sum_penalty: 1.0}
    )
    polynomial = dirac.characteristic_polynomial(linear).as_expr()
    assert sp.expand(polynomial - (lam**2 + zero_sum_penalty * lam + a**2)) == 0
    assert dirac.routh_hurwitz(linear) == [1, zero_sum_penalty, a**2]
    stays = dirac.vector_field(pairs_of_any_cost)[1].doit().subs(psi, 0).doit()
    assert sp.simplify(stays + theta * sp.Subs(f(sp.Symbol("x")).diff(), sp.Symbol("x"), 0).doit()) == 0
    for name in ("rpgan-r1", "rpgan-r2", "rpgan-r1-r2"):
        path = dirac.trajectory(ZOO[name], np.array([4.0, -3.0]), np.array([0.0, 400.0]))
        assert np.linalg.norm(path[-1]) < 1e-6


def test_both_penalties_are_one_twice_as_strong_here() -> None:
    both = dirac.eigenvalues(ZOO["rpgan-r1-r2"], gamma=0.3)
    np.testing.assert_allclose(sort(both), sort(dirac.eigenvalues(ZOO["rpgan-r1"], gamma=0.6)))
    want = (-0.6 + np.array([-1, 1]) * np.emath.sqrt(0.6**2 - 1)) / 2
    np.testing.assert_allclose(sort(both), sort(want + 0j), atol=1e-12)
    np.testing.assert_allclose(dirac.eigenvalues(ZOO["rpgan"]).real, 0, atol=1e-15)


def test_a_bounded_slope_changes_nothing_at_the_equilibrium() -> None:
    np.testing.assert_allclose(sort(dirac.eigenvalues(ZOO["spectral"])), [-0.5j, 0.5j], atol=1e-15)
    path = dirac.trajectory(ZOO["spectral"], np.array([3.0, 0.0]), np.linspace(0, 60, 1201))
    assert np.abs(path[:, 1]).max() == pytest.approx(1, abs=1e-3)


def test_wgan_gp_has_no_jacobian_and_does_not_settle() -> None:
    with pytest.raises(ValueError, match="jumps at psi = 0"):
        dirac.jacobian(GAMES["wgan-gp"])
    path = dirac.trajectory(GAMES["wgan-gp"], np.array([0.1, 0.1]), np.linspace(0, 100, 1001))
    assert np.linalg.norm(path[-300:], axis=1).min() > 0.5


def test_leakyema_polynomials_are_those_of_the_paper() -> None:
    decay, pull = -sp.log(alpha), beta * (1 - alpha) / 2
    lam = dirac.eigenvalue
    want = lam**3 + decay * lam**2 + lam / 4 + (decay / 4 - pull / 2)
    assert sp.expand(dirac.characteristic_polynomial(GAMES["ns-leakyema"]).as_expr() - want) == 0
    want = (lam + decay) * (lam**2 + 1) - beta * (1 - alpha)
    assert sp.expand(dirac.characteristic_polynomial(GAMES["wgan-leakyema"]).as_expr() - want) == 0
    # eq. 14
    half = sp.Rational(1, 2)
    paper = sp.Matrix([[0, half, 0], [-half, 0, beta * (1 - alpha) / 2], [1, 0, sp.log(alpha)]])
    assert sp.simplify(dirac.jacobian(GAMES["ns-leakyema"]) - paper) == sp.zeros(3)


def test_adding_a_game_takes_its_losses() -> None:
    game = dirac.Game(
        "ls",
        "Least squares",
        (psi * theta - 1) ** 2 / 2,
        (psi * theta + 1) ** 2 / 2 + gamma * psi**2,
        {gamma: 0.2},
    )
    assert dirac.jacobian(game) == sp.Matrix([[0, 1], [-1, -2 * gamma]])
    assert dirac.routh_hurwitz(game) == [1, 2 * gamma, 1]
    assert dirac.max_real_part(game, gamma=np.array([0.1, 0.5])) == pytest.approx([-0.1, -0.5])


def test_functions_refuse_games_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match="plain two-player game"):
        dirac.with_consensus(GAMES["ns-leakyema"])
    with pytest.raises(ValueError, match="has no teacher"):
        dirac.averaged(GAMES["ns"], np.zeros(2))


@pytest.mark.parametrize("function", [logistic.sigmoid, logistic.softplus])
def test_logistic_functions_are_what_they_say(function: type[sp.Function]) -> None:
    x = sp.Symbol("x")
    written_out = function(x).rewrite(sp.exp)
    for value in (-2, sp.Rational(1, 3), 5):
        assert float(written_out.subs(x, value)) == pytest.approx(
            float(sp.lambdify(x, function(x), logistic.NUMPY)(float(value)))
        )
        difference = (sp.diff(function(x), x).rewrite(sp.exp) - sp.diff(written_out, x)).subs(x, value)
        assert abs(float(difference)) < 1e-12
    assert function(sp.Integer(0)) == sp.simplify(written_out.subs(x, 0))
