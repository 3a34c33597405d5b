"""Settings of the optimisers, as small records, and a step along a given gradient.

What steps is PyTorch's own optimiser wherever it can be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

PerReplica = float | tuple[float, ...]


class Optimizer(Protocol):
    """Anything that makes a `torch.optim.Optimizer` for given parameters; it may have a `schedule` (`RateSchedule`)."""

    def build(self, params: Sequence[nn.Parameter]) -> torch.optim.Optimizer: ...


class RateSchedule(Protocol):
    """How a learning rate changes over a run; without one it is constant."""

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied with in generator step `step` (0 is the first)."""
        ...


@dataclass(frozen=True)
class LinearDecay:
    """The learning rate falls in a straight line, as for SNGAN and WGAN-GP on CIFAR-10 (to 0 at the last step).

    Attributes:
        end: generator step from which on the rate stays at its last value, above `start`.
        start: generator step at which it begins to fall, at least 0.
        last: share of the rate that is left then, in [0, 1].
    """

    end: int
    start: int = 0
    last: float = 0.0

    def __post_init__(self) -> None:
        _check_fall(self.start, self.end, self.last)

    def factor(self, step: int) -> float:
        return 1 - (1 - self.last) * _done(self.start, self.end, step)


@dataclass(frozen=True)
class CosineDecay:
    """The learning rate falls along half a cosine wave: slowly, fast, slowly (Loshchilov and Hutter 2017).

    Attributes:
        end: generator step from which on the rate stays at its last value, above `start`.
        start: generator step at which it begins to fall, at least 0.
        last: share of the rate that is left then, in [0, 1].
    """

    end: int
    start: int = 0
    last: float = 0.0

    def __post_init__(self) -> None:
        _check_fall(self.start, self.end, self.last)

    def factor(self, step: int) -> float:
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * _done(self.start, self.end, step))) / 2


def _done(start: int, end: int, step: int) -> float:
    """The share of the way from start to end, in [0, 1]."""
    return min(max((step - start) / (end - start), 0.0), 1.0)


def _check_fall(start: int, end: int, last: float) -> None:
    if not 0 <= start < end:
        raise ValueError(f"start must be a step of at least 0, and end a later one, got {start} and {end}")
    if not 0 <= last <= 1:
        raise ValueError(f"last is a share of the learning rate and must lie in [0, 1], got {last}")


def set_rates(optimizer: torch.optim.Optimizer, schedule: RateSchedule | None, step: int) -> None:
    """Give an optimiser the learning rates of this generator step; without a schedule it keeps its own."""
    if schedule is None:
        return
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * schedule.factor(step)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015). In an ensemble, lr, beta1 and beta2 may be tuples, one number per replica.

    Attributes:
        lr: learning rate, above 0.
        beta1, beta2: decays of the two running means, in [0, 1).
        eps: added to the root of the second mean.
        schedule: of the learning rate; None for a constant one.
    """

    lr: PerReplica = 2e-4
    beta1: PerReplica = 0.5
    beta2: PerReplica = 0.999
    eps: float = 1e-8
    schedule: RateSchedule | None = None

    def __post_init__(self) -> None:
        _check_range("lr", self.lr, 0, float("inf"))
        _check_range("beta1", self.beta1, 0, 1)
        _check_range("beta2", self.beta2, 0, 1)

    def lazy(self, interval: int) -> Adam:
        """These settings for a player with a term that is added in a step of its own every `interval` steps.

        With k + 1 steps in the place of k, the rate becomes lr c and the betas beta^c, c = k / (k + 1), so that as
        much happens in k steps as before.

        Raises:
            ValueError: if the interval is below 1.

        Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", appendix B.
        """
        if interval < 1:
            raise ValueError(f"interval must be at least 1 step, got {interval}")
        c = interval / (interval + 1)
        each = lambda f, x: tuple(map(f, x)) if isinstance(x, tuple) else f(x)  # noqa: E731
        power = lambda beta: float(beta) ** c  # noqa: E731
        return replace(
            self,
            lr=each(lambda x: x * c, self.lr),
            beta1=each(power, self.beta1),
            beta2=each(power, self.beta2),
        )

    def build(self, params: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        values = (self.lr, self.beta1, self.beta2)
        if all(isinstance(value, int | float) for value in values):
            # PyTorch refuses betas of two types, and 0 is whole.
            return torch.optim.Adam(
                params, self.lr, (float(self.beta1), float(self.beta2)), self.eps, fused=True
            )
        return ReplicaAdam(params, *values, eps=self.eps)


@dataclass(frozen=True)
class SGD:
    """Gradient descent with optional momentum.

    Attributes:
        lr: learning rate, above 0.
        momentum: in [0, 1).
        schedule: of the learning rate; None for a constant one.
    """

    lr: float
    momentum: float = 0.0
    schedule: RateSchedule | None = None

    def __post_init__(self) -> None:
        _check_range("lr", self.lr, 0, float("inf"))
        _check_range("momentum", self.momentum, 0, 1)

    def build(self, params: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, self.lr, self.momentum, fused=True)


@dataclass(frozen=True)
class RMSProp:
    """RMSProp, which the WGAN paper uses in place of Adam.

    Attributes:
        lr: learning rate, above 0.
        decay: decay of the running mean of squared gradients, in [0, 1).
        eps: added to its root.
        schedule: of the learning rate; None for a constant one.
    """

    lr: float = 5e-5
    decay: float = 0.99
    eps: float = 1e-8
    schedule: RateSchedule | None = None

    def __post_init__(self) -> None:
        _check_range("lr", self.lr, 0, float("inf"))
        _check_range("decay", self.decay, 0, 1)

    def build(self, params: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(params, self.lr, self.decay, self.eps, foreach=True)


def descend(
    optimizer: torch.optim.Optimizer, params: Sequence[nn.Parameter], gradient: Sequence[Tensor]
) -> None:
    """One optimiser step along a gradient that was computed for `params`.

    Fused optimisers read a gradient's memory in the order of the parameter's, so a gradient in another order
    (that of a stacked matrix comes out transposed) is first laid out like its parameter.
    """
    for p, g in zip(params, gradient, strict=True):
        p.grad = g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
    optimizer.step()


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue with a stored state, whose tensors are laid out in memory like their parameters (see `descend`).

    Raises:
        ValueError: the state is that of other parameters.
    """
    optimizer.load_state_dict(state)
    for p, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != p.shape:
                raise ValueError(f"{name} has shape {list(value.shape)}, and its parameter {list(p.shape)}")
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                values[name] = torch.empty_like(p).copy_(value)


def _check_range(name: str, value: PerReplica, low: float, high: float) -> None:
    for number in [value] if isinstance(value, int | float) else value:
        if not low <= number < high or (name == "lr" and number == 0):
            raise ValueError(
                f"{name} must lie in {'(' if name == 'lr' else '['}{low:g}, {high:g}), got {number}"
            )


class ReplicaAdam(torch.optim.Adam):
    """Adam on stacked parameters, with learning rates and betas that may differ between replicas.

    PyTorch's fused Adam takes one learning rate and one pair of betas for a tensor. Neighbouring replicas of equal
    settings are therefore handed to it as a parameter group of their own, a view of their rows.

    Args:
        params: parameters of shape `[S, ...]`, on the device where they will stay.
        lr, beta1, beta2: a number, or S numbers.
        eps: Adam's epsilon.

    Raises:
        ValueError: if a tuple does not have one number per replica.

    Source: Kingma and Ba 2015, algorithm 1.
    """

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        lr: float | Sequence[float],
        beta1: float | Sequence[float],
        beta2: float | Sequence[float],
        eps: float = 1e-8,
    ) -> None:
        self.stacked = list(params)
        s = self.stacked[0].shape[0]
        columns = []
        for name, value in {"lr": lr, "beta1": beta1, "beta2": beta2}.items():
            column = [value] * s if isinstance(value, int | float) else list(value)
            if len(column) != s:
                raise ValueError(f"{name} must be one number or one per replica ({s}), got {len(column)}")
            columns.append(column)
        self.rows: list[slice] = []
        groups = []
        start = 0
        for (lr, *betas), equal in itertools.groupby(zip(*columns, strict=True)):
            rows = slice(start, start := start + len(list(equal)))
            self.rows.append(rows)
            groups.append(
                {"params": [p.detach()[rows] for p in self.stacked], "lr": lr, "betas": tuple(betas)}
            )
        super().__init__(groups, eps=eps, fused=True)

    def step(self, closure: None = None) -> None:
        for group, rows in zip(self.param_groups, self.rows, strict=True):
            for view, p in zip(group["params"], self.stacked, strict=True):
                view.grad = None if p.grad is None else p.grad[rows]
        super().step()
