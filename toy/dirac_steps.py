"""The Dirac-GAN in discrete time: gradient steps of finite size, and the largest that still converge.

A converging flow is no promise for steps: what decides there is the spectral radius of the Jacobian of one whole
training step at the equilibrium (Mescheder et al. 2018, section 2.1 and appendix A). Without a teacher the
simultaneous steps of every unregularised game move away from the equilibrium and the alternating ones circle it.

Here alpha is the teacher's decay *per step*, as in training code and in LeakyEMA paper, eq. 2; in continuous time
(`toy.dirac`) it is the decay per unit of time, that is per 1 / step_size steps. The discrete average
``(1 - alpha) * sum alpha^k theta`` has unit gain, so 'ns-leakyema' and 'ns-leakyema-unit' are one game here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import sympy as sp

from toy.dirac import Game, h, jacobian, numeric_field, parameter_values
from toy.stability import breakpoints, schur_conditions, spectral_radius

Step = Callable[[np.ndarray], np.ndarray]


def simultaneous_step(game: Game, step_size: float, **values: float) -> Step:
    """Both players step from the same state; the teacher then averages the new theta.

    Args:
        game: the game.
        step_size: learning rate of both players, > 0.
        **values: parameters by name; the others keep their defaults.

    Returns:
        A function from states ``[..., n]`` to the next states ``[..., n]``.

    Raises:
        ValueError: unknown parameter, or step_size <= 0.
    """

    def players(states: np.ndarray, velocity: Step) -> np.ndarray:
        return states[..., :2] + step_size * velocity(states)[..., :2]

    return _step(game, step_size, values, players)


def alternating_step(game: Game, step_size: float, **values: float) -> Step:
    """D steps, then G steps against the new D, then the teacher averages: the order of training code.

    Starting the cycle with G instead changes no eigenvalue.

    Args, Returns, Raises: as :func:`simultaneous_step`.
    """

    def players(states: np.ndarray, velocity: Step) -> np.ndarray:
        moved = states.copy()
        moved[..., 1] = _clip(game, values, states[..., 1] + step_size * velocity(states)[..., 1])
        moved[..., 0] += step_size * velocity(moved)[..., 0]
        return moved[..., :2]

    return _step(game, step_size, values, players)


def _clip(game: Game, values: Mapping[str, float], numbers: np.ndarray) -> np.ndarray:
    if game.bound is None:
        return numbers
    bound = float(game.bound.subs(parameter_values(game, values)))
    return np.clip(numbers, -bound, bound)


def _step(
    game: Game,
    step_size: float,
    values: Mapping[str, float],
    players: Callable[[np.ndarray, Step], np.ndarray],
) -> Step:
    if step_size <= 0:
        raise ValueError(f"step_size must be > 0, got {step_size}")
    # Steps go where the gradient points and are clipped afterwards: the projected field of continuous time would
    # stop them at the bound before they reach it.
    velocity = numeric_field(game if game.bound is None else replace(game, bound=None), **values)
    numbers = parameter_values(game, values).values()
    updates = [memory.update for memory in game.memory.values()]
    update = sp.lambdify((*game.states, *game.parameters), updates, "numpy")

    def step(states: np.ndarray) -> np.ndarray:
        states = np.array(states, dtype=float)
        states[..., :2] = players(states, velocity)
        states[..., 1] = _clip(game, values, states[..., 1])
        for column, value in enumerate(update(*np.moveaxis(states, -1, 0), *numbers), start=2):
            states[..., column] = value
        return states

    return step


def iterate(step: Step, start: np.ndarray, steps: int) -> np.ndarray:
    """A run of `steps` steps.

    Args:
        step: from :func:`simultaneous_step` or :func:`alternating_step`.
        start: first states, ``[..., n]``.
        steps: number of steps, >= 0.

    Returns:
        ``[steps + 1, ..., n]``, the start first.

    Raises:
        ValueError: negative `steps`.
    """
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps}")
    states = [np.asarray(start, dtype=float)]
    for _ in range(steps):
        states.append(step(states[-1]))
    return np.stack(states)


@cache
def simultaneous_jacobian(game: Game) -> sp.ImmutableMatrix:
    """Jacobian of one :func:`simultaneous_step` at the equilibrium, in the step size `h` and the parameters.

    Returns:
        ``[n, n]``.

    Raises:
        ValueError: the field has no Jacobian at the equilibrium (see `toy.dirac.jacobian`).
    """
    return (
        (_teacher_update(game) * (sp.eye(len(game.states)) + _player(game, 0) + _player(game, 1)))
        .expand()
        .as_immutable()
    )


@cache
def alternating_jacobian(game: Game) -> sp.ImmutableMatrix:
    """Jacobian of one :func:`alternating_step` at the equilibrium.

    Returns, Raises: as :func:`simultaneous_jacobian`.
    """
    one = sp.eye(len(game.states))
    return (
        (_teacher_update(game) * (one + _player(game, 0)) * (one + _player(game, 1))).expand().as_immutable()
    )


def _player(game: Game, index: int) -> sp.Matrix:
    """h times the Jacobian of one player's velocity: clipping does not bite at 0."""
    rows = sp.zeros(len(game.states))
    rows[index, :] = h * jacobian(game)[index, :]
    return rows


def _teacher_update(game: Game) -> sp.Matrix:
    updates = [sp.Symbol("new"), sp.Symbol("same"), *(memory.update for memory in game.memory.values())]
    matrix = sp.Matrix(updates).jacobian(game.states)
    matrix[0, 0] = matrix[1, 1] = 1
    return matrix


def step_polynomial(step_jacobian: sp.Matrix) -> sp.Poly:
    """Characteristic polynomial of a step's Jacobian, monic in `mu`; it converges where all roots have |mu| < 1."""
    mu = sp.Symbol("mu")
    return sp.Poly((mu * sp.eye(step_jacobian.rows) - step_jacobian).det(method="berkowitz"), mu)


def step_radius(game: Game, step_jacobian: sp.Matrix, step_sizes: np.ndarray, **values: float) -> np.ndarray:
    """Spectral radius of a step: the factor by which the distance to the equilibrium changes, per step.

    Args:
        game: the game.
        step_jacobian: from :func:`simultaneous_jacobian` or :func:`alternating_jacobian`.
        step_sizes: ``[...]``, > 0.
        **values: parameters by name.

    Returns:
        ``[...]``: below 1 the steps converge at a linear rate, at 1 they neither converge nor move away.

    Raises:
        ValueError: unknown parameter.
    """
    matrix = step_jacobian.subs(parameter_values(game, values))
    sizes = np.asarray(step_sizes, dtype=float)
    entries = sp.lambdify(h, list(matrix), "numpy")(sizes)
    stacked = np.stack([np.broadcast_to(entry, sizes.shape) for entry in entries], axis=-1)
    return spectral_radius(stacked.reshape(*sizes.shape, matrix.rows, matrix.rows))


def converging_steps(game: Game, step_jacobian: sp.Matrix, **values: float) -> list[tuple[float, float]]:
    """The step sizes at which the steps converge to the equilibrium at a linear rate.

    Args, Raises: as :func:`step_radius`.

    Returns:
        Open intervals in increasing order; empty if no step size converges. The largest converging step size is
        the end of the last.
    """
    return _intervals(game, step_jacobian, values, lambda radius: radius < 1 - 1e-10)


def bounded_steps(game: Game, step_jacobian: sp.Matrix, **values: float) -> list[tuple[float, float]]:
    """The step sizes at which the steps, linearised, do not move away: they converge or circle (radius <= 1).

    Args, Returns, Raises: as :func:`converging_steps`.
    """
    return _intervals(game, step_jacobian, values, lambda radius: radius < 1 + 1e-10)


def _intervals(
    game: Game, step_jacobian: sp.Matrix, values: Mapping[str, float], accept: Callable[[float], bool]
) -> list[tuple[float, float]]:
    # Exact rationals: the conditions have h^2 as a factor, which rounding would turn into two small roots.
    numbers = {s: sp.nsimplify(float(v), rational=True) for s, v in parameter_values(game, values).items()}
    polynomial = step_polynomial(step_jacobian.subs(numbers))
    # An eigenvalue can cross the unit circle only where one of these vanishes; in between one look decides.
    edges = [0.0, *breakpoints(schur_conditions(polynomial), h)]
    middles = [(low + high) / 2 for low, high in pairwise(edges)] + [edges[-1] + 1.0]
    found: list[tuple[float, float]] = []
    for low, high, middle in zip(edges, [*edges[1:], np.inf], middles, strict=True):
        if not accept(float(step_radius(game, step_jacobian, np.array(middle), **values))):
            continue
        if (
            found
            and found[-1][1] == low
            and accept(float(step_radius(game, step_jacobian, np.array(low), **values)))
        ):
            low = found.pop()[0]
        found.append((float(low), float(high)))
    return found
