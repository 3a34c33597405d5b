"""A step's gradient on its way from autograd to the optimiser: averaged, measured, brought to unit size.

A gradient is what `torch.autograd.grad` returns, a list with a tensor for each parameter. In an ensemble each tensor
has a leading S, and every function here treats the S replicas apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from gankit import processes
from gankit.device import constant
from gankit.game.losses import unit_rescaling

GRADIENTS = ("g_grad", "d_grad")
"""What of a step's statistics is a gradient, a list of tensors; the rest is one number per replica."""


def gradient_norm(gradient: Sequence[Tensor], lead: tuple[int, ...] = ()) -> Tensor:
    """Euclidean norm over all tensors of a gradient, one per replica: `[*lead]`, float64.

    In float64, because the squares of a saturated generator's gradient underflow in float32.
    """
    norms = [torch.linalg.vector_norm(g.reshape(*lead, -1), dim=-1, dtype=torch.float64) for g in gradient]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def unit_gradient(
    gradient: Sequence[Tensor], lead: tuple[int, ...] = (), unit: Literal[True] | tuple[bool, ...] = True
) -> list[Tensor]:
    """A gradient at unit size (`gankit.game.losses.unit_rescaling`: norm n for n parameters).

    Args:
        gradient: of one network or, with `lead`, of S.
        lead: (S,) for an ensemble, () for a plain network.
        unit: of an ensemble, a tuple says which replicas' gradients to rescale; the others stay as they are.
    """
    n_params = sum(g.numel() for g in gradient) // (lead[0] if lead else 1)
    factor = unit_rescaling(gradient_norm(gradient, lead), n_params)
    if isinstance(unit, tuple):
        factor = torch.where(constant(unit, factor.device, torch.bool), factor, torch.ones_like(factor))
    return [g * factor.reshape(*lead, *[1] * (g.ndim - len(lead))).to(g) for g in gradient]


def averaged(minibatch: Callable[[], dict[str, Any]], accumulate: int = 1) -> dict[str, Any]:
    """Statistics and gradients of `accumulate` minibatches of each process, averaged over all of them.

    Args:
        minibatch: draws one and returns its statistics, `[*lead]` each, and its gradients (`GRADIENTS`).
        accumulate: how many a process draws, at least 1.

    Returns:
        The same keys.
    """
    total = minibatch()
    for _ in range(accumulate - 1):
        for key, value in minibatch().items():
            total[key] = torch._foreach_add(total[key], value) if key in GRADIENTS else total[key] + value
    if accumulate > 1:
        total = {
            key: torch._foreach_div(value, accumulate) if key in GRADIENTS else value / accumulate
            for key, value in total.items()
        }
    return _over_processes(total)


def _over_processes(stats: dict[str, Any]) -> dict[str, Any]:
    """Statistics and gradients averaged over the processes, in one message."""
    if processes.world_size() == 1:
        return stats
    lengths = {key: len(value) for key, value in stats.items() if key in GRADIENTS}
    flat = [x for key, value in stats.items() for x in (value if key in GRADIENTS else [value])]
    means = iter(processes.means(flat))
    return {
        key: [next(means) for _ in range(lengths[key])] if key in lengths else next(means) for key in stats
    }
