"""The Dirac-GAN: the smallest game in which a GAN's training can be solved, not only run.

The data are a point mass at 0, the generator is a point mass at ``theta`` and the discriminator is the line
``D(x) = psi * x`` (Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually converge?",
ICML 2018, section 2; LeakyEMA paper, appendix A). A :class:`Game` states the two players' losses as sympy
expressions; the vector field (LeakyEMA paper, eq. 5)

    d theta / dt = -dL_G / d theta,        d psi / dt = -dL_D / d psi

and everything else follows: numeric field, Jacobian, eigenvalues, characteristic polynomial, Routh-Hurwitz
conditions, trajectories, discrete steps and the Jacobian of those. Every game here has its equilibrium at 0.

A loss may contain the symbol `z`, a standard normal variable; it then means its expectation over `z`. To add a
game, write its losses::

    least_squares = Game("ls", "Least squares", (psi * theta - 1) ** 2 / 2, (psi * theta + 1) ** 2 / 2)

Time is in units in which a gradient step of size h lasts h. Logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import sympy as sp
from scipy.integrate import solve_ivp

from toy.logistic import NUMPY, softplus
from toy.stability import hurwitz_conditions

theta, psi, u = sp.symbols("theta psi u", real=True)
z = sp.Symbol("z", real=True)
alpha, beta, gamma, sigma, slope, clip = sp.symbols("alpha beta gamma sigma slope clip", positive=True)
h = sp.Symbol("h", positive=True)
eigenvalue = sp.Symbol("lambda")


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Memory:
    """A state that no player trains: a running average of theta.

    Attributes:
        rate: its time derivative.
        update: its next value in discrete time, in terms of its own last value and the *new* theta.
        average: the average it stands for.
    """

    rate: sp.Expr
    update: sp.Expr
    average: sp.Expr


@dataclass(frozen=True, eq=False)
class Game:
    """A Dirac-GAN, stated by its losses.

    Attributes:
        name: short name, the key in `GAMES`.
        title: name for a figure's legend.
        g_loss: what theta descends; in `theta`, `psi`, the parameters, and `z` if it is an expectation.
        d_loss: what psi descends; may also contain the memory's symbols.
        parameters: the game's parameters with default values.
        memory: further states, by symbol.
        bound: if given, psi is kept within [-bound, bound] (weight clipping).
    """

    name: str
    title: str
    g_loss: sp.Expr
    d_loss: sp.Expr
    parameters: Mapping[sp.Symbol, float] = field(default_factory=dict)
    memory: Mapping[sp.Symbol, Memory] = field(default_factory=dict)
    bound: sp.Expr | None = None

    @property
    def states(self) -> tuple[sp.Symbol, ...]:
        """`(theta, psi)` and the memory's symbols, in this order everywhere."""
        return (theta, psi, *self.memory)


# ----------------------------------------------------------------------------------------------- the games

_MM = (-softplus(psi * theta), softplus(psi * theta) + sp.log(2))
_NS = (softplus(-psi * theta), softplus(psi * theta) + sp.log(2))
_WGAN = (-psi * theta, psi * theta)

_RUNNING_SUM = Memory(rate=theta + sp.log(alpha) * u, update=alpha * u + theta, average=(1 - alpha) * u)
"""The paper's u (LeakyEMA paper, eq. 10). Its average has the gain (1 - alpha) / (-log alpha) in continuous time
and the gain 1 in discrete time."""

_UNIT_GAIN = Memory(rate=-sp.log(alpha) * (theta - u), update=alpha * u + (1 - alpha) * theta, average=u)
"""The average itself, with the gain 1 in continuous time as well."""


def with_consensus(base: Game, strength: sp.Symbol = gamma, value: float = 0.5) -> Game:
    """Consensus optimisation on top of a game: both players also descend ``strength / 2 * |field|^2``.

    Source: Mescheder, Nowozin and Geiger, "The numerics of GANs", NeurIPS 2017.

    Args:
        base: a game with neither noise, memory nor clipping.
        strength: symbol of the penalty's weight.
        value: its default, >= 0.

    Raises:
        ValueError: the base game has noise, memory or clipping.
    """
    if base.memory or base.bound is not None or z in base.g_loss.free_symbols | base.d_loss.free_symbols:
        raise ValueError(
            f"consensus needs a plain two-player game, got '{base.name}': use 'mm', 'ns' or 'wgan'"
        )
    energy = strength / 2 * sum(component**2 for component in vector_field(base))
    return Game(
        f"{base.name}-consensus",
        f"{base.title}, consensus",
        base.g_loss + energy,
        base.d_loss + energy,
        {**base.parameters, strength: value},
    )


def with_teacher(base: Game, real_loss: Callable[[sp.Expr], sp.Expr], memory: Memory, suffix: str) -> Game:
    """LeakyEMA on top of a game: the fraction beta of the real samples comes from the averaged generator.

    Source: LeakyEMA paper, eq. 9. Defaults: alpha = 0.5 per unit of time, beta = 0.5.

    Args:
        base: a game whose real sample at 0 adds a constant to `d_loss`.
        real_loss: D's loss on a real sample with the logit given.
        memory: how `u` follows theta.
        suffix: appended to the name.
    """
    leaked = beta * (real_loss(psi * memory.average) - real_loss(sp.Integer(0)))
    return Game(
        f"{base.name}-{suffix}",
        f"{base.title}, {'LeakyEMA' if suffix == 'leakyema' else 'LeakyEMA with unit gain'}",
        base.g_loss,
        base.d_loss + leaked,
        {**base.parameters, alpha: 0.5, beta: 0.5},
        memory={u: memory},
    )


def _games() -> dict[str, Game]:
    fake = psi * (theta + sigma * z)
    mm = Game("mm", "Minimax", *_MM)
    ns = Game("ns", "Non-saturating", *_NS)
    wgan = Game("wgan", "Wasserstein", *_WGAN)
    noise_d_loss = softplus(fake) + softplus(-psi * sigma * z)
    games = [
        mm,
        ns,
        wgan,
        Game("wgan-clip", "Wasserstein, clipping", *_WGAN, {clip: 1.0}, bound=clip),
        # D is linear, so its slope is psi at every point between data and samples.
        Game(
            "wgan-gp",
            "WGAN-GP",
            _WGAN[0],
            _WGAN[1] + gamma / 2 * (sp.Abs(psi) - slope) ** 2,
            {gamma: 1.0, slope: 1.0},
        ),
        Game("r1", "Non-saturating, R1", _NS[0], _NS[1] + gamma / 2 * psi**2, {gamma: 0.5}),
        Game("instance-noise", "Non-saturating, instance noise", softplus(-fake), noise_d_loss, {sigma: 1.0}),
        with_consensus(ns),
    ]
    for memory, suffix in ((_RUNNING_SUM, "leakyema"), (_UNIT_GAIN, "leakyema-unit")):
        games.append(with_teacher(ns, lambda logit: softplus(-logit), memory, suffix))
        games.append(with_teacher(wgan, lambda logit: -logit, memory, suffix))
    return {game.name: game for game in games}


def _zoo() -> dict[str, Game]:
    # D(0) = 0 whatever psi is, so the margin of a pair, D(theta) - D(0), is the logit of the generated sample alone.
    margin = psi * theta
    saturating, paired = (-softplus(margin), softplus(margin)), (softplus(-margin), softplus(margin))
    # D is linear: its slope is psi at the data and at the samples alike, so here R1 and R2 are one term.
    penalty = gamma / 2 * psi**2
    games = [
        Game("rpgan-zero-sum", "RpGAN, zero-sum", *saturating),
        Game("rpgan", "RpGAN", *paired),
        Game("rpgan-r1", "RpGAN, R1", paired[0], paired[1] + penalty, {gamma: 0.5}),
        Game("rpgan-r2", "RpGAN, R2", paired[0], paired[1] + penalty, {gamma: 0.5}),
        Game("rpgan-r1-r2", "RpGAN, R1 + R2", paired[0], paired[1] + 2 * penalty, {gamma: 0.25}),
        Game("spectral", "Non-saturating, |psi| at most 1", *_NS, bound=sp.Integer(1)),
    ]
    return {game.name: game for game in games}


# ------------------------------------------------------------------------------- from the losses to the field


def vector_field(game: Game) -> sp.Matrix:
    """The field whose flow is gradient descent with vanishing steps (LeakyEMA paper, eq. 5 and 11).

    Returns:
        A column, one entry per state; an expression in `z` means its expectation over a standard normal z.
    """
    v_psi = -sp.diff(game.d_loss, psi)
    if game.bound is not None:
        leaving = sp.Or(sp.And(psi >= game.bound, v_psi > 0), sp.And(psi <= -game.bound, v_psi < 0))
        v_psi = sp.Piecewise((0, leaving), (v_psi, True))
    return sp.Matrix([-sp.diff(game.g_loss, theta), v_psi, *(m.rate for m in game.memory.values())])


def _expectation(expression: sp.Expr) -> sp.Expr:
    """Exact expectation of a polynomial in z: E z^k = (k - 1)!! for even k, and 0 for odd k."""
    terms = sp.Poly(expression, z).terms()
    return sum((c * sp.factorial2(k - 1) for (k,), c in terms if k % 2 == 0), sp.Integer(0))


@cache
def jacobian(game: Game) -> sp.ImmutableMatrix:
    """The field's Jacobian at the equilibrium 0, exact in the parameters.

    Returns:
        ``[n, n]`` with n the number of states.

    Raises:
        ValueError: the field jumps at the equilibrium (WGAN-GP does: the penalty pulls |psi| to its target slope,
            so psi = 0 is an edge), so it has no Jacobian there.
    """
    at_zero = {state: 0 for state in game.states}
    matrix = vector_field(game).jacobian(game.states)
    if matrix.has(sp.DiracDelta):
        raise ValueError(
            f"the field of '{game.name}' jumps at psi = 0, so there is no Jacobian at the equilibrium: "
            "follow a trajectory or the steps instead"
        )
    return matrix.subs(at_zero).applyfunc(_expectation).as_immutable()


def characteristic_polynomial(game: Game) -> sp.Poly:
    """``det(lambda I - J)`` at the equilibrium, monic in `eigenvalue`.

    Raises:
        ValueError: as :func:`jacobian`.
    """
    matrix = jacobian(game)
    return sp.Poly((eigenvalue * sp.eye(matrix.rows) - matrix).det(method="berkowitz"), eigenvalue)


def routh_hurwitz(game: Game) -> list[sp.Expr]:
    """Expressions, all positive exactly where every eigenvalue has a negative real part.

    Raises:
        ValueError: as :func:`jacobian`.
    """
    return [sp.factor(c) for c in hurwitz_conditions(characteristic_polynomial(game))]


def parameter_values(
    game: Game, values: Mapping[str, float | np.ndarray]
) -> dict[sp.Symbol, float | np.ndarray]:
    """The game's defaults, overridden by name.

    Raises:
        ValueError: a name the game does not have.
    """
    known = {str(symbol): symbol for symbol in game.parameters}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"game '{game.name}' has no parameter {unknown}; it has {sorted(known)}")
    return {**game.parameters, **{known[name]: value for name, value in values.items()}}


def eigenvalues(game: Game, **values: float | np.ndarray) -> np.ndarray:
    """Eigenvalues at the equilibrium: the roots of the characteristic polynomial.

    Args:
        game: the game.
        **values: parameters by name, numbers or arrays that broadcast together to a shape ``[...]``.

    Returns:
        ``[..., n]``, complex.

    Raises:
        ValueError: unknown parameter, or as :func:`jacobian`.
    """
    numbers = parameter_values(game, values).values()
    shape = np.broadcast_shapes(*(np.shape(number) for number in numbers))
    coefficients = np.stack([np.broadcast_to(c, shape) for c in _coefficients(game)(*numbers)], axis=-1)
    n = coefficients.shape[-1] - 1
    companion = np.zeros((*coefficients.shape[:-1], n, n))
    companion[..., range(1, n), range(n - 1)] = 1.0
    companion[..., 0, :] = -coefficients[..., 1:] / coefficients[..., :1]
    return np.linalg.eigvals(companion).astype(complex)


@cache
def _coefficients(game: Game) -> Callable[..., list[np.ndarray]]:
    polynomial = characteristic_polynomial(game)
    return sp.lambdify(tuple(game.parameters), [sp.sympify(c) for c in polynomial.all_coeffs()], "numpy")


def max_real_part(game: Game, **values: float | np.ndarray) -> np.ndarray:
    """Largest real part of the eigenvalues: minus the linear rate of convergence where negative.

    Figure 11 of the LeakyEMA paper is this over a grid of alpha and beta.

    Args and Raises: as :func:`eigenvalues`.

    Returns:
        ``[...]``, per unit of time.
    """
    return eigenvalues(game, **values).real.max(axis=-1)


# ----------------------------------------------------------------------------------------- continuous time


@cache
def _compiled(game: Game) -> Callable[..., list[np.ndarray]]:
    return sp.lambdify((*game.states, *game.parameters, z), list(vector_field(game)), NUMPY)


def numeric_field(game: Game, **values: float) -> Callable[[np.ndarray], np.ndarray]:
    """The vector field as a function of arrays.

    An expectation over z is a 64-point Gauss-Hermite sum: exact for polynomials up to degree 127, and to 1e-5 for
    logits of spread |psi| sigma up to 4.

    Args:
        game: the game.
        **values: parameters by name; the others keep their defaults.

    Returns:
        A function from states ``[..., n]`` to their velocities ``[..., n]``.

    Raises:
        ValueError: unknown parameter.
    """
    function = _compiled(game)
    numbers = tuple(parameter_values(game, values).values())
    noisy = vector_field(game).has(z)

    def velocity(states: np.ndarray) -> np.ndarray:
        states = np.asarray(states, dtype=float)
        if states.shape[-1] != len(game.states):
            raise ValueError(
                f"the last axis of states must hold {game.states} for '{game.name}', got shape {states.shape}"
            )
        columns = np.moveaxis(states, -1, 0)
        if not noisy:
            components = function(*columns, *numbers, 0.0)
            return np.stack([np.broadcast_to(c, states.shape[:-1]) for c in components], axis=-1)
        components = function(*columns[..., None], *numbers, _NODES)
        at_nodes = (*states.shape[:-1], len(_NODES))
        return np.stack([np.broadcast_to(c, at_nodes) @ _WEIGHTS for c in components], axis=-1)

    return velocity


def trajectory(game: Game, start: np.ndarray, times: np.ndarray, **values: float) -> np.ndarray:
    """The continuous-time training run, by an eighth-order Runge-Kutta method (relative tolerance 1e-9).

    Args:
        game: the game.
        start: first state, ``[n]``.
        times: increasing times, ``[T]``; the first is that of `start`.
        **values: parameters by name.

    Returns:
        States, ``[T, n]``.

    Raises:
        ValueError: unknown parameter or wrong shape of `start`.
        RuntimeError: the integrator gave up.
    """
    velocity = numeric_field(game, **values)
    solution = solve_ivp(
        lambda _, state: velocity(state),
        (float(times[0]), float(times[-1])),
        np.asarray(start, dtype=float),
        method="DOP853",
        t_eval=times,
        rtol=1e-9,
        atol=1e-12,
    )
    if not solution.success:
        raise RuntimeError(
            f"the integrator stopped at t = {solution.t[-1]:.3g} for '{game.name}': {solution.message}"
        )
    return solution.y.T


def averaged(game: Game, states: np.ndarray, **values: float) -> np.ndarray:
    """The averaged generator along a trajectory.

    Args:
        game: a game with a teacher.
        states: ``[..., n]``.
        **values: parameters by name.

    Returns:
        ``[...]``: theta's running average.

    Raises:
        ValueError: the game has no teacher, or an unknown parameter.
    """
    if not game.memory:
        raise ValueError(f"game '{game.name}' has no teacher; 'ns-leakyema' and 'wgan-leakyema' have one")
    (memory,) = game.memory.values()
    readout = sp.lambdify((*game.states, *game.parameters), memory.average, "numpy")
    return readout(
        *np.moveaxis(np.asarray(states, dtype=float), -1, 0), *parameter_values(game, values).values()
    )


GAMES = _games()
"""Every game by its short name."""

ZOO = _zoo()
"""More games by short name: the costs of pairs (Huang et al. 2024), whose theorems are about the zero-sum form and
whose programme trains the non-saturating one, and what spectral normalisation promises of D, a slope of at most 1."""
