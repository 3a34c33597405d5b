"""What the discriminator minimises and how the generator weighs its samples.

A cost is a pair of pure functions of *logits*, the discriminator's unbounded output f = D(x). Both
reduce the last dimension, the samples of a minibatch, and leave any leading dimensions alone, so the
same code scores one run (`[N]` -> `[]`) or S runs side by side (`[S, N]` -> `[S]`).

Every generator cost pushes a sample's logit up; costs differ in how hard they push *which* sample.
That is the generator weight w(f) = -N dJ_G/df, the "scaling factor" of the sample-weighting paper
(section 2.1, equation 4): MM pushes what already scores well, NS pushes what scores badly.

    >>> import gankit as gk
    >>> gk.losses["mm-nsat"].g_loss(torch.randn(64))
    >>> list(gk.losses)                                  # every name

Notation: s = sigmoid(f) is the probability of being real, and m its mean over the minibatch.
Source, unless a line says otherwise: "Sample weighting as an explanation for mode collapse in
generative adversarial networks" (ICLR 2021 submission), sections 2 and 3, appendices H, N and O.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus

from gankit import processes
from gankit.device import constant

if TYPE_CHECKING:
    from gankit.game.play import Game, Play

EPS = 1e-20
"""Smallest denominator of a rescaling factor: R never exceeds 1 / EPS (algorithm 1). It is far below any
probability that float32 training meets, so it prevents division by zero and changes nothing else."""


@dataclass(frozen=True)
class Loss:
    """One GAN cost.

    Attributes:
        name: the name under which `losses` lists it.
        d_loss: (real_logits `[..., N]`, fake_logits `[..., M]`) -> `[...]`, minimised by the discriminator.
        g_loss: fake_logits `[..., N]` -> `[...]`, minimised by the generator.
        g_weight: fake_logits `[..., N]` -> `[..., N]`, the weight -N dJ_G/df of each sample.
        unit: whether the generator's gradient is divided by its norm (`unit_rescaling`). A tuple gives one
            answer per replica. The `Trainer` honours it: a loss alone cannot see the gradient's norm.
    """

    name: str
    d_loss: Callable[[Tensor, Tensor], Tensor]
    g_loss: Callable[[Tensor], Tensor]
    g_weight: Callable[[Tensor], Tensor]
    unit: bool | tuple[bool, ...] = False

    def d_cost(self, play: Play) -> Tensor:
        """The discriminator's cost of a play, `[*lead]`."""
        return self.d_loss(play.real_verdict.logits, play.fake_verdict.logits)

    def g_cost(self, play: Play) -> Tensor:
        """The generator's cost of a play, `[*lead]`."""
        return self.g_loss(play.fake_verdict.logits)

    def check(self, game: Game) -> None:
        """Refuse a game in which this cost has no meaning.

        Raises:
            ValueError: saying what does not go with it.
        """

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"


@dataclass(frozen=True, repr=False)
class Relativistic(Loss):
    """A cost of pairs: D says how much more real a real sample looks than a generated one, and G turns that round.

    Sample i of the real minibatch is paired with sample i of the generated one; both are drawn independently. What
    `g_loss` and `g_weight` are functions of is the margin D(G(z)) - D(x) of each pair, `[..., N]`, in place of the
    logit. G's step therefore looks at real samples as well. The labels of a conditional game are independent too. A
    number added to all logits changes nothing, so D's last bias moves by rounding alone.

    Attributes:
        paired: whether the generator's cost is one of pairs; a tuple gives one answer per replica (`per_replica`).

    Source: Jolicoeur-Martineau 2020, "On relativistic f-divergences"; Huang et al. 2024, "The GAN is dead; long live
    the GAN!", equation 2.
    """

    paired: bool | tuple[bool, ...] = True

    def g_cost(self, play: Play) -> Tensor:
        with torch.no_grad():  # nothing of a real sample depends on G
            real = play.real_verdict.logits
        fake = play.fake_verdict.logits
        margin = fake - real
        if self.paired is not True:
            margin = torch.where(constant(self.paired, fake.device, torch.bool)[:, None], margin, fake)
        return self.g_loss(margin)

    def check(self, game: Game) -> None:
        leak = game.leak
        if leak is not None and leak.source in ("sync", "async-model"):
            raise ValueError(
                f"{self.name} compares generated samples with independent real ones, and a leak with "
                f"source={leak.source!r} makes both of a pair from the same z; use source='async-noise'"
            )


@dataclass(frozen=True, repr=False)
class Began(Loss):
    """BEGAN's cost for a D that rebuilds samples and whose logit is minus the error, f = -L (`models.began`).

    D lowers L(x) - k L(G(z)), with k a state that `gankit.game.balance.BeganBalance` keeps, and G lowers L(G(z)). At
    k = 1, `d_loss`, D's cost is that of Wasserstein.

    Source: Berthelot, Schumm and Metz 2017, section 3.3.
    """

    def d_cost(self, play: Play) -> Tensor:
        real, fake = _logit_pair(play.real_verdict.logits, play.fake_verdict.logits)
        return play.states["began_k"] * fake.mean(-1) - real.mean(-1)

    def check(self, game: Game) -> None:
        if not any("began_k" in rule.init(()) for rule in game.rules):
            raise ValueError(
                f"{self.name} weighs generated samples by a state: add rules=[gankit.game.balance.BeganBalance()]"
            )


# --- Discriminator costs -------------------------------------------------------------------------------------


def d_logistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy -log s(real) - log(1 - s(fake)) (Goodfellow et al. 2014, equation 1): `[..., N]` -> `[...]`."""
    real, fake = _logit_pair(real_logits, fake_logits)
    return softplus(-real).mean(-1) + softplus(fake).mean(-1)


def d_least_squares(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """(f(real) - 1)^2 / 2 + f(fake)^2 / 2 (Mao et al. 2017, equation 9): `[..., N]` -> `[...]`."""
    real, fake = _logit_pair(real_logits, fake_logits)
    return (real - 1).square().mean(-1) / 2 + fake.square().mean(-1) / 2


def d_hinge(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """max(0, 1 - f(real)) + max(0, 1 + f(fake)) (Lim and Ye 2017; Miyato et al. 2018): `[..., N]` -> `[...]`."""
    real, fake = _logit_pair(real_logits, fake_logits)
    return relu(1 - real).mean(-1) + relu(1 + fake).mean(-1)


def d_wasserstein(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """f(fake) - f(real) (Arjovsky et al. 2017): `[..., N]` -> `[...]`. Needs a Lipschitz constraint on D."""
    real, fake = _logit_pair(real_logits, fake_logits)
    return fake.mean(-1) - real.mean(-1)


def d_relativistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log s(f(real) - f(fake)), pair by pair (Jolicoeur-Martineau 2019): `[..., N]` -> `[...]`.

    Raises:
        ValueError: if there are not as many real as generated samples.
    """
    real, fake = _logit_pair(real_logits, fake_logits)
    if real.shape != fake.shape:
        raise ValueError(
            "real_logits and fake_logits are compared pair by pair and must have one shape, got "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )
    return softplus(fake - real).mean(-1)


# --- Generator costs ------------------------------------------------------------------------------------------
# Each `g_<name>` is followed by its weight `w_<name>`, which a test compares with autograd.


def g_mm(logits: Tensor) -> Tensor:
    """Minimax, log(1 - s) (equation 1): the discriminator's own cost, turned round."""
    return -softplus(_logits("fake_logits", logits)).mean(-1)


def w_mm(logits: Tensor) -> Tensor:
    """s: vanishes where D is sure of a fake, which is why minimax saturates."""
    return _logits("fake_logits", logits).sigmoid()


def g_ns(logits: Tensor) -> Tensor:
    """Non-saturating, -log s (equation 1)."""
    return softplus(-_logits("fake_logits", logits)).mean(-1)


def w_ns(logits: Tensor) -> Tensor:
    """1 - s: strongest on the samples that D rejects most clearly."""
    return (-_logits("fake_logits", logits)).sigmoid()


def mm_nsat_factor(logits: Tensor) -> Tensor:
    """R = (1 - m) / (m + EPS), the factor that gives minimax the gradient size of NS (algorithm 1).

    It is a constant of the minibatch: no gradient flows through it (equation 23).

    Args:
        logits: D's output for generated samples, `[..., N]`.

    Returns:
        `[...]`, positive, at most 1 / EPS.
    """
    s, q = _probabilities(_logits("fake_logits", logits).detach())
    return _mean(q) / (_mean(s) + EPS)


def g_mm_nsat(logits: Tensor) -> Tensor:
    """R times the minimax cost (equation 6): minimax weights at the size of the non-saturating gradient."""
    return mm_nsat_factor(logits) * g_mm(logits)


def w_mm_nsat(logits: Tensor) -> Tensor:
    """R s."""
    return mm_nsat_factor(logits)[..., None] * w_mm(logits)


def g_hinge(logits: Tensor) -> Tensor:
    """-f, the generator's side of the hinge and of the Wasserstein cost."""
    return -_logits("fake_logits", logits).mean(-1)


def w_hinge(logits: Tensor) -> Tensor:
    """1: every sample alike."""
    return torch.ones_like(_logits("fake_logits", logits))


def g_least_squares(logits: Tensor) -> Tensor:
    """(f - 1)^2 / 2 (Mao et al. 2017, equation 9)."""
    return (_logits("fake_logits", logits) - 1).square().mean(-1) / 2


def w_least_squares(logits: Tensor) -> Tensor:
    """1 - f: pulls a sample *down* once D scores it above the target 1."""
    return 1 - _logits("fake_logits", logits)


# --- Steeper and flatter weights (appendix O) -----------------------------------------------------------------


def g_ns_exp_2(logits: Tensor) -> Tensor:
    """(ns + s) / (1 - m), equation 31 (whose printed minus sign would not give the weight it names)."""
    f = _logits("fake_logits", logits)
    s, q = _probabilities(f)
    # The slope of ns + s is -q + s q = -q^2. In float32 that difference loses all digits for small q, so
    # the gradient goes through q (detached) times ns, whose slope is the same -q^2 without a difference.
    cost = _value_with_slope_of(softplus(-f) + s, q.detach() * softplus(-f))
    return cost.mean(-1) / (_mean(q.detach()) + EPS)


def w_ns_exp_2(logits: Tensor) -> Tensor:
    """(1 - s)^2 / (1 - m)."""
    _, q = _probabilities(_logits("fake_logits", logits))
    return q.square() / (_mean(q) + EPS)[..., None]


def g_mm_nsat_exp_2(logits: Tensor) -> Tensor:
    """(1 - m) / m^2 (mm + s), equation 32."""
    f = _logits("fake_logits", logits)
    s, q = _probabilities(f)
    cost = _value_with_slope_of(s - softplus(f), -s.detach() * softplus(f))
    return _mean(q.detach()) / (_mean(s.detach()).square() + EPS) * cost.mean(-1)


def w_mm_nsat_exp_2(logits: Tensor) -> Tensor:
    """(1 - m) / m^2 s^2."""
    s, q = _probabilities(_logits("fake_logits", logits))
    return (_mean(q) / (_mean(s).square() + EPS))[..., None] * s.square()


def g_ns_exp_half(logits: Tensor) -> Tensor:
    """sqrt(1 - m) 2 asinh(exp(-f / 2)), equation 33."""
    f = _logits("fake_logits", logits)
    _, q = _probabilities(f.detach())
    return _mean(q).sqrt() * 2 * _asinh_exp(-f / 2).mean(-1)


def w_ns_exp_half(logits: Tensor) -> Tensor:
    """sqrt(1 - m) sqrt(1 - s)."""
    _, q = _probabilities(_logits("fake_logits", logits))
    return _mean(q).sqrt()[..., None] * q.sqrt()


def g_mm_nsat_exp_half(logits: Tensor) -> Tensor:
    """(1 - m) / sqrt(m) (-2 asinh(exp(f / 2))), equation 34."""
    f = _logits("fake_logits", logits)
    s, q = _probabilities(f.detach())
    return _mean(q) / (_mean(s) + EPS).sqrt() * -2 * _asinh_exp(f / 2).mean(-1)


def w_mm_nsat_exp_half(logits: Tensor) -> Tensor:
    """(1 - m) / sqrt(m) sqrt(s)."""
    s, q = _probabilities(_logits("fake_logits", logits))
    return (_mean(q) / (_mean(s) + EPS).sqrt())[..., None] * s.sqrt()


# --- Families with a parameter --------------------------------------------------------------------------------


def ns_plus(a: float, other: Loss) -> Loss:
    """(1 - a) NS + a `other` (equation 24); `other` is `losses["mm"]` or `losses["mm-nsat"]`.

    Args:
        a: share of the other cost, in [0, 1]. With MM and a = 1/2 every sample weighs 1/2.
        other: the cost to mix in; its discriminator must be the logistic one, as for NS.

    Raises:
        ValueError: if a is outside [0, 1].
    """
    if not 0 <= a <= 1:
        raise ValueError(f"a is the share of {other.name} in the mixture and must lie in [0, 1], got {a}")
    return Loss(
        name=f"ns+{other.name}({a:g})",
        d_loss=d_logistic,
        g_loss=lambda f: (1 - a) * g_ns(f) + a * other.g_loss(f),
        g_weight=lambda f: (1 - a) * w_ns(f) + a * other.g_weight(f),
    )


def ns_add(a: float) -> Loss:
    """(1 - m) / (a + 1 - m) (ns - a f), weight proportional to 1 - s + a (equation 28).

    Raises:
        ValueError: if a is negative (some weights would be) or not finite.
    """
    return _add(f"ns-add-{a:g}", g_ns, w_ns, a)


def mm_nsat_add(a: float) -> Loss:
    """(1 - m) / (a + m) (mm - a f), weight proportional to s + a (equation 29).

    Raises:
        ValueError: if a is negative (some weights would be) or not finite.
    """
    return _add(f"mm-nsat-add-{a:g}", g_mm, w_mm, a)


def _add(
    name: str, g_loss: Callable[[Tensor], Tensor], g_weight: Callable[[Tensor], Tensor], a: float
) -> Loss:
    """A cost whose weight w becomes w + a, at the size of the non-saturating gradient."""
    if not 0 <= a < float("inf"):
        raise ValueError(f"a is added to every sample's weight and must be at least 0 and finite, got {a}")

    def factor(logits: Tensor) -> Tensor:
        f = _logits("fake_logits", logits).detach()
        return _mean(w_ns(f)) / (a + _mean(g_weight(f)) + EPS)

    return Loss(
        name,
        d_logistic,
        g_loss=lambda f: factor(f) * (g_loss(f) - a * _logits("fake_logits", f).mean(-1)),
        g_weight=lambda f: factor(f)[..., None] * (g_weight(f) + a),
    )


# --- Pieces ---------------------------------------------------------------------------------------------------


def _by_row(functions: Sequence[Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """Apply `functions[i]` to row i of every argument, each distinct function once."""
    rows: dict[Callable[..., Tensor], list[int]] = {}
    for i, function in enumerate(functions):
        rows.setdefault(function, []).append(i)
    order = [i for group in rows.values() for i in group]
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    in_order = order == sorted(order)

    def apply(*arguments: Tensor) -> Tensor:
        for x in arguments:
            if x.ndim < 2 or x.shape[0] != len(functions):
                raise ValueError(
                    f"logits must have one leading row per replica, {len(functions)} in all, got {tuple(x.shape)}"
                )
        parts = [f(*(_take(x, group) for x in arguments)) for f, group in rows.items()]
        joined = torch.cat(parts)
        return joined if in_order else joined[constant(back, joined.device, torch.long)]

    return apply


def _take(x: Tensor, rows: list[int]) -> Tensor:
    """Rows of x; a run of neighbours comes as a view, without a copy."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return x[rows[0] : rows[-1] + 1]
    return x[constant(tuple(rows), x.device, torch.long)]


def _logits(name: str, logits: Tensor) -> Tensor:
    """The logits, checked; half precision is raised to float32, where exp and log are safe."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"{name} must be a floating-point tensor of D's raw outputs, got {kind}")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape [..., N] with at least one sample, got {tuple(logits.shape)}"
        )
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _logit_pair(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    real, fake = _logits("real_logits", real_logits), _logits("fake_logits", fake_logits)
    if real.shape[:-1] != fake.shape[:-1]:
        raise ValueError(
            "real_logits and fake_logits must agree in all but the last dimension, got "
            f"{tuple(real.shape)} and {tuple(fake.shape)}"
        )
    return real, fake


def _probabilities(f: Tensor) -> tuple[Tensor, Tensor]:
    """s = sigmoid(f) and 1 - s = sigmoid(-f), each to full relative precision."""
    return f.sigmoid(), (-f).sigmoid()


def _mean(x: Tensor) -> Tensor:
    """Mean over the minibatch, and over the minibatches of all processes where several train together: a factor
    from one process's part alone would change the weights of samples in different parts (appendix H)."""
    return processes.mean(x.mean(-1))


def _value_with_slope_of(value: Tensor, slope_of: Tensor) -> Tensor:
    """A tensor equal to `value` whose gradient is that of `slope_of`."""
    return value.detach() + (slope_of - slope_of.detach())


def _asinh_exp(x: Tensor) -> Tensor:
    """asinh(exp(x)), without overflow for large x and with full relative precision for small."""
    up, down = x.detach().clamp(min=0), x.detach().clamp(max=0)
    value = torch.where(x > 0, up + torch.log(1 + torch.sqrt(1 + (-2 * up).exp())), down.exp().asinh())
    # The slope e^x / sqrt(e^2x + 1) = sqrt(sigmoid(2x)) is written down: autograd would form inf / inf.
    slope = torch.exp(logsigmoid(2 * x.detach()) / 2)
    return _value_with_slope_of(value, slope * x)


# --- The table ------------------------------------------------------------------------------------------------


class LossTable(dict[str, Loss]):
    """The costs by name. A name with a number in it (`ns+mm(0.3)`, `ns-add-0.1`) is made on demand.

    Beside them, as attributes, the functions that the book's text speaks of by themselves.
    """

    d_logistic = staticmethod(d_logistic)
    d_wasserstein = staticmethod(d_wasserstein)
    mm_nsat_factor = staticmethod(mm_nsat_factor)

    def __missing__(self, name: str) -> Loss:
        number = r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)"
        families: dict[str, Callable[[float], Loss]] = {
            rf"ns\+mm\({number}\)": lambda a: ns_plus(a, self["mm"]),
            rf"ns\+mm-nsat\({number}\)": lambda a: ns_plus(a, self["mm-nsat"]),
            rf"ns-add-{number}": ns_add,
            rf"mm-nsat-add-{number}": mm_nsat_add,
        }
        for pattern, make in families.items():
            if match := re.fullmatch(pattern, str(name)):
                return make(float(match.group(1)))
        near = difflib.get_close_matches(str(name), self, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise UnknownLoss(
            f"loss {name!r} is unknown{hint} known are {', '.join(self)}, and for any number a: ns+mm(a), "
            "ns+mm-nsat(a), ns-add-a, mm-nsat-add-a"
        )


class UnknownLoss(KeyError, ValueError):
    """A name that `losses` does not hold."""

    def __str__(self) -> str:  # KeyError would print the sentence in quotes
        return str(self.args[0])


def _table() -> LossTable:
    mm = Loss("mm", d_logistic, g_mm, w_mm)
    mm_nsat = Loss("mm-nsat", d_logistic, g_mm_nsat, w_mm_nsat)
    costs = [
        mm,
        Loss("ns", d_logistic, g_ns, w_ns),
        mm_nsat,
        Loss("mm-unit", d_logistic, g_mm, w_mm, unit=True),
        Loss("ns-unit", d_logistic, g_ns, w_ns, unit=True),
        *(ns_plus(a, other) for other in (mm, mm_nsat) for a in (0.25, 0.5, 0.75)),
        *(make(a) for make in (ns_add, mm_nsat_add) for a in (0.1, 1.0)),
        Loss("ns-exp-2", d_logistic, g_ns_exp_2, w_ns_exp_2),
        Loss("mm-nsat-exp-2", d_logistic, g_mm_nsat_exp_2, w_mm_nsat_exp_2),
        Loss("ns-exp-0.5", d_logistic, g_ns_exp_half, w_ns_exp_half),
        Loss("mm-nsat-exp-0.5", d_logistic, g_mm_nsat_exp_half, w_mm_nsat_exp_half),
        Loss("ls", d_least_squares, g_least_squares, w_least_squares),
        Loss("hinge", d_hinge, g_hinge, w_hinge),
        Loss("wgan", d_wasserstein, g_hinge, w_hinge),
        Relativistic("rpgan", d_relativistic, g_ns, w_ns),
        Began("began", d_wasserstein, g_hinge, w_hinge),
    ]
    return LossTable({cost.name: cost for cost in costs})


losses: LossTable = _table()
"""Every cost of the book by name: `losses["mm-nsat"]`. An unknown name lists the known ones."""


def per_replica(costs: Sequence[str | Loss]) -> Loss:
    """One cost for S replicas that do not share theirs: replica i of `[S, N]` logits is scored by `costs[i]`.

    Args:
        costs: S names or `Loss` records. Replicas of equal cost are scored together. If one of them is `Relativistic`,
            G's step draws real samples for all, which others would not draw if they were alone.

    Returns:
        A `Loss` for logits whose leading dimension is S; its `unit` is a tuple of S answers.

    Raises:
        ValueError: if `costs` is empty, names an unknown loss, mixes BEGAN with others, or the logits do not have S
            leading rows.
    """
    table = [losses[cost] if isinstance(cost, str) else cost for cost in costs]
    if not table:
        raise ValueError("costs is empty: give one loss per replica")
    if all(cost == table[0] for cost in table):
        return table[0]
    if any(isinstance(cost, Began) for cost in table):
        raise ValueError(
            f"began needs a D that rebuilds samples, so no replica beside it has another cost: {costs}"
        )
    unit = tuple(bool(cost.unit) for cost in table)
    paired = tuple(isinstance(cost, Relativistic) for cost in table)
    return (partial(Relativistic, paired=paired) if any(paired) else Loss)(
        name="|".join(cost.name for cost in table),
        d_loss=_by_row([cost.d_loss for cost in table]),
        g_loss=_by_row([cost.g_loss for cost in table]),
        g_weight=_by_row([cost.g_weight for cost in table]),
        unit=unit if any(unit) else False,
    )


def unit_rescaling(gradient_norm: Tensor, n_params: int) -> Tensor:
    """R = n / (EPS n + |g|): scales a gradient to norm n, the number of parameters (algorithm 2).

    n rather than 1, so that Adam's own epsilon matters equally little in small and in large networks.

    Args:
        gradient_norm: Euclidean norm |g| of the generator's gradient, `[...]`, at least 0.
        n_params: number of parameters that the norm runs over.

    Returns:
        `[...]`, at most 1 / EPS.
    """
    return n_params / (EPS * n_params + gradient_norm)
