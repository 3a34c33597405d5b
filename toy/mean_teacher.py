"""LeakyEMA on the Dirac-GAN: why a mean teacher makes the game converge, how fast, and for which steps.

Continuous time: Lemma 1 of the LeakyEMA paper (appendix A), whose eigenvalues the paper leaves to a solver, proved
by Routh-Hurwitz; the rate for a weak teacher by perturbation; the (alpha, beta) of the fastest rate. Discrete time:
the step sizes at which one training step changes from converging to not, in closed form.

Two slips in the appendix: phi(x) = log(1 + exp(-x)) has the derivative -1 / (1 + exp(x)), the paper prints it without
its minus (the field that follows is right); and its running sum u has the gain (1 - alpha) / (-log alpha) and not 1,
so that even at beta = 1, where no real sample is left, the game seems to converge. In discrete time, and with an
average of unit gain, it does not: there one eigenvalue is exactly 1 (or 0), for any theta is then an equilibrium.

Symbols: a = -log(alpha) is the teacher's rate of forgetting and c the strength of its pull on D. For the paper's
running sum c = beta (1 - alpha) / 2; for an average of unit gain c = beta a / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp

from toy.dirac import (
    Game,
    alpha,
    beta,
    characteristic_polynomial,
    eigenvalue,
    h,
    max_real_part,
    routh_hurwitz,
    theta,
    u,
)
from toy.dirac_steps import step_polynomial
from toy.stability import schur_conditions

a = sp.Symbol("a", positive=True)
c = sp.Symbol("c", positive=True)
s, r = sp.symbols("s r", positive=True)

OPEN_SQUARE = {alpha: 1 / (1 + s), beta: 1 / (1 + r)}
"""The open unit square as the image of s > 0, r > 0: the declared assumptions of every proof here."""


@dataclass(frozen=True)
class Inequality:
    """One inequality of a proof, with the argument that discharges it.

    Attributes:
        statement: the expression claimed positive for alpha, beta in (0, 1).
        substituted: the same with `OPEN_SQUARE` put in, factored.
        slope: its derivative by s, factored, where the argument needs it, else None.
        argument: why it is positive, in words.
        holds: whether sympy discharged it.
    """

    statement: sp.Expr
    substituted: sp.Expr
    slope: sp.Expr | None
    argument: str
    holds: bool


def positive_on_open_square(expression: sp.Expr) -> Inequality:
    """Have sympy show that an expression in alpha and beta is positive on the open unit square.

    Two arguments are tried: every factor is positive; or the expression tends to 0 at alpha = 1 (s = 0) and grows
    with s. The second is how ``-log(alpha) > beta (1 - alpha)`` is seen.

    Args:
        expression: in `toy.dirac.alpha` and `toy.dirac.beta` only.

    Returns:
        The inequality; `holds` is False where neither argument applies, which does not mean that it is wrong.

    Raises:
        ValueError: other symbols in the expression.
    """
    others = expression.free_symbols - {alpha, beta}
    if others:
        raise ValueError(f"expression may contain alpha and beta only, got {sorted(map(str, others))}")
    substituted = sp.factor(sp.expand_log(expression.subs(OPEN_SQUARE)))
    if substituted.is_positive:
        return Inequality(expression, substituted, None, "every factor is positive", True)
    slope = sp.factor(sp.diff(substituted, s))
    holds = sp.limit(substituted, s, 0) == 0 and slope.is_positive is True
    return Inequality(expression, substituted, slope, "zero at alpha = 1 and growing as alpha falls", holds)


def lemma_1(game: Game) -> list[Inequality]:
    """Proof that the game with a teacher converges at a linear rate for all alpha, beta in (0, 1).

    Source: LeakyEMA paper, Lemma 1, there for the non-saturating loss and, by a remark, the Wasserstein loss.

    Args:
        game: a game whose parameters are alpha and beta.

    Returns:
        One inequality per Routh-Hurwitz condition: the lemma is proved if all hold.

    Raises:
        ValueError: the game has other parameters.
    """
    return [positive_on_open_square(condition) for condition in routh_hurwitz(game)]


def _in_a_and_c(game: Game) -> sp.Expr:
    """The characteristic polynomial in `a` and `c`."""
    if set(game.parameters) != {alpha, beta} or u not in game.memory:
        raise ValueError(f"needs a game with a teacher, such as 'ns-leakyema', got '{game.name}'")
    memory = game.memory[u]
    gain = sp.diff(memory.average, u) * sp.diff(memory.rate, theta)
    polynomial = characteristic_polynomial(game).as_expr().subs(beta, 2 * c / gain)
    return sp.expand(sp.simplify(polynomial.subs(alpha, sp.exp(-a))))


def slow_pair(game: Game, order: int = 1) -> sp.Expr:
    """The oscillating eigenvalue for a weak teacher, as a power series in c.

    Without a teacher (c = 0) it is the rotation ``+i/2`` (non-saturating) or ``+i`` (Wasserstein); the real part of
    the first-order term is the rate, ``-c / (1 + 4 a^2)`` or ``-c / (1 + a^2)``.

    Args:
        game: a game with a teacher.
        order: highest power of c kept, >= 0.

    Returns:
        A polynomial in `c` with coefficients in `a`.

    Raises:
        ValueError: no teacher in the game, or a negative order.
    """
    if order < 0:
        raise ValueError(f"order must be >= 0, got {order}")
    polynomial = _in_a_and_c(game)
    at_rest = [root for root in sp.roots(polynomial.subs(c, 0), eigenvalue) if sp.im(root) > 0]
    root = at_rest[0]
    for power in range(1, order + 1):
        # The next coefficient enters the residual at this power linearly, with the slope of the polynomial at rest.
        unknown = sp.Dummy("coefficient")
        residual = sp.expand(polynomial.subs(eigenvalue, root + unknown * c**power))
        (value,) = sp.solve(residual.coeff(c, power), unknown)
        root += sp.factor(value) * c**power
    return root


def small_c_rate(game: Game) -> sp.Expr:
    """Real part of the slow pair to first order in c, negative: minus the linear rate of a weak teacher.

    Raises:
        ValueError: no teacher in the game.
    """
    first = sp.diff(slow_pair(game, 1), c)
    return sp.factor(sp.simplify(sp.re(first))) * c


@dataclass(frozen=True)
class Fastest:
    """Where convergence is fastest.

    Attributes:
        alpha: decay per unit of time, in (0, 1).
        beta: fraction of teacher samples, in (0, 1].
        rate: minus the maximal real part there, per unit of time.
        inside: whether beta < 1: if not, the rate is a supremum that no game in the open square reaches.
    """

    alpha: float
    beta: float
    rate: float
    inside: bool


def fastest(game: Game, rounds: int = 40) -> Fastest:
    """The (alpha, beta) of the fastest linear rate.

    Growing beta speeds the rotating pair up and slows the real eigenvalue down, so for each alpha the best beta is
    found by bisection-like narrowing; the best alpha by grids that zoom in. Derivatives would not do: at the best
    point eigenvalues meet. For unit gain that point is a triple eigenvalue, known in closed form (non-saturating:
    ``a = sqrt(3) / 2``, ``beta = 8 / 9``, rate ``1 / (2 sqrt(3))``).

    Args:
        game: a game with a teacher.
        rounds: number of grids of 21 alphas, each 0.7 times as wide as the one before, >= 1.

    Returns:
        The best point found.

    Raises:
        ValueError: no teacher in the game, or fewer than one round.
    """
    if set(game.parameters) != {alpha, beta}:
        raise ValueError(f"needs a game with a teacher, such as 'ns-leakyema', got '{game.name}'")
    if rounds < 1:
        raise ValueError(f"rounds must be >= 1, got {rounds}")
    centre, width, best = 0.5, 0.5, Fastest(0.5, 0.5, -np.inf, True)
    for _ in range(rounds):
        alphas = np.linspace(max(centre - width, 1e-6), min(centre + width, 1 - 1e-6), 21)
        betas = _best_beta(game, alphas)
        rates = -max_real_part(game, alpha=alphas, beta=betas)
        i = int(rates.argmax())
        if rates[i] > best.rate:
            best = Fastest(float(alphas[i]), float(betas[i]), float(rates[i]), bool(betas[i] < 1))
        centre, width = best.alpha, 0.7 * width
    return best


def _best_beta(game: Game, alphas: np.ndarray) -> np.ndarray:
    """For each alpha the beta in (0, 1] of the fastest rate, by ternary search."""
    low, high = np.zeros_like(alphas), np.ones_like(alphas)
    for _ in range(80):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        drop_left = max_real_part(game, alpha=alphas, beta=left) > max_real_part(
            game, alpha=alphas, beta=right
        )
        low, high = np.where(drop_left, left, low), np.where(drop_left, high, right)
    middle = (low + high) / 2
    at_edge = max_real_part(game, alpha=alphas, beta=np.ones_like(alphas))
    return np.where(at_edge <= max_real_part(game, alpha=alphas, beta=middle), 1.0, middle)


def critical_steps(step_jacobian: sp.Matrix) -> list[sp.Expr]:
    """Closed forms of the step sizes at which a step changes from converging to not converging.

    For 'ns-leakyema' and simultaneous steps one of them is ``(2 / alpha) sqrt((1 - alpha)(beta - (1 - alpha)))``: real,
    and the largest converging step, only if ``beta > 1 - alpha``. For alternating steps it is
    ``4 / sqrt(1 - beta (1 - alpha) / (1 + alpha))``, always more than the 4 up to which the game without a teacher
    circles.

    Args:
        step_jacobian: from `toy.dirac_steps`, symbolic in alpha, beta and h.

    Returns:
        Solutions h of "a Schur condition is zero" in closed form, without those that are imaginary on the whole open
        square of alpha and beta.
    """
    found: list[sp.Expr] = []
    for condition in schur_conditions(step_polynomial(step_jacobian)):
        lowest = min((monomial[0] for monomial in sp.Poly(condition, h).monoms()), default=0)
        for square in map(sp.factor, sp.solve(sp.factor(condition / h**lowest), h**2)):
            if not positive_on_open_square(-square).holds:
                found.append(sp.sqrt(square))
    return found
