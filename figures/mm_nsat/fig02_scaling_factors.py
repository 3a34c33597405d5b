"""Sample-weighting paper, figure 2: scaling factors of both players' gradients over the discriminator's output.

Nothing is trained. Each factor is measured as the derivative of the cost with respect to one sample's logit (by
automatic differentiation) and compared with equation 4.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.provenance import command_line, rounded, stamp

CURVES = {
    "mm": "G, minimax: $D_p$",
    "ns": "G, non-saturating: $1 - D_p$",
    "d-fake": "D, generated sample: $D_p$",
    "d-real": "D, real sample: $1 - D_p$",
}
REACH = 12.0
"""Largest logit: probabilities from 6e-6 to 1 - 6e-6."""


def measure(logits: Tensor) -> dict[str, Tensor]:
    """The size of each cost's derivative with respect to a sample's logit.

    Args:
        logits: ``[N]`` float64; each is a minibatch of its own, so that nothing is averaged.

    Returns:
        ``[N]`` per key of `CURVES`.
    """
    f = logits.detach()[:, None].requires_grad_()
    zero = torch.full_like(f, 0.0).detach()
    costs = {
        "mm": gk.losses["mm"].g_loss(f),
        "ns": gk.losses["ns"].g_loss(f),
        "d-fake": gk.losses["mm"].d_loss(zero, f),
        "d-real": gk.losses["mm"].d_loss(f, zero),
    }
    return {name: torch.autograd.grad(cost.sum(), f)[0].abs()[:, 0] for name, cost in costs.items()}


def compute(points: int = 121) -> dict[str, Any]:
    """The factors on a grid of logits.

    Args:
        points: number of logits, >= 3.

    Returns:
        "logit" and "factors" (a list per key of `CURVES`); "summary": the largest distance from equation 4, the
        largest distance of the two generator factors' sum from 1, each generator factor at D_p = 0.001, and the
        slope of its logarithm over log D_p at the lower end of the grid; "settings"; "provenance".

    Raises:
        ValueError: fewer than three points.
    """
    if points < 3:
        raise ValueError(f"points must be >= 3, got {points}")
    begin = time.perf_counter()
    logit = torch.linspace(-REACH, REACH, points, dtype=torch.float64)
    factors = measure(logit)
    p, q = torch.sigmoid(logit), torch.sigmoid(-logit)
    formula = {"mm": p, "ns": q, "d-fake": p, "d-real": q}
    nearly_sure = measure(torch.logit(torch.tensor([1e-3], dtype=torch.float64)))
    slope = {
        name: float((factors[name][1] / factors[name][0]).log() / (p[1] / p[0]).log()) for name in CURVES
    }
    return {
        "logit": rounded(logit.numpy()),
        "factors": {name: rounded(values.numpy()) for name, values in factors.items()},
        "summary": {
            "distance_from_equation_4": rounded(
                max(float((factors[k] - formula[k]).abs().max()) for k in CURVES), 2
            ),
            "sum_minus_one": rounded(float((factors["mm"] + factors["ns"] - 1).abs().max()), 2),
            "at_probability_1e-3": {k: rounded(float(nearly_sure[k][0])) for k in ("mm", "ns")},
            "slope_towards_zero": {name: rounded(slope[name], 3) for name in ("mm", "ns")},
        },
        "settings": {"points": points, "largest_logit": REACH},
        "provenance": stamp(time.perf_counter() - begin, packages=("numpy", "torch")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Both players' factors, from the result of :func:`compute`, over probabilities on a logit scale."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
    styles = {
        "mm": (0, gk.plotting.color_of("mm"), "-"),
        "ns": (0, gk.plotting.color_of("ns"), "-"),
        "d-fake": (1, "#555555", "--"),
        "d-real": (1, gk.plotting.color_of("real"), "-"),
    }
    for name, (panel, color, dash) in styles.items():
        axes[panel].semilogy(result["logit"], result["factors"][name], dash, color=color, label=CURVES[name])
    shown = np.array([1e-4, 1e-2, 0.5, 1 - 1e-2, 1 - 1e-4])
    for ax, title in zip(axes, ("generator", "discriminator"), strict=True):
        ax.set_xticks(np.log(shown / (1 - shown)), ["0.0001", "0.01", "0.5", "0.99", "0.9999"])
        ax.set(xlabel="$D_p$, probability of being real (logit scale)", title=title, ylim=(1e-5, 2))
        ax.legend(loc="lower center")
    axes[0].set_ylabel("scaling factor (no unit)")
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
