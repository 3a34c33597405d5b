"""Sample-weighting paper, table 2: what each cost minimises in D, whom its generator listens to, and how loudly.

Nothing is trained. D's cost is compared with PyTorch's own functions; the emphasis is read off the weight of a sample
over its logit, and the size off the mean weight of a batch that D rejects ever more surely.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

import gankit as gk
from figures.provenance import command_line, rounded, stamp
from gankit.game.losses import Loss

PAPER = {
    "mm": ("Cross-entropy", "High-scoring", "Saturating"),
    "mm-nsat": ("Cross-entropy", "High-scoring", "≈ Non-saturating"),
    "mm-unit": ("Cross-entropy", "High-scoring", "Unit-normalized"),
    "mm-beta2": ("Cross-entropy", "High-scoring", "Saturating, adj. Adam"),
    "ns": ("Cross-entropy", "Low-scoring", "Non-saturating"),
    "ns-unit": ("Cross-entropy", "Low-scoring", "Unit-normalized"),
    "ls": ("Quadratic", "?", "-"),
    "hinge": ("Clipped linear", "Uniform", "-"),
}
"""The printed columns: D's cost, G's sample emphasis, G's gradient magnitude."""

REACH = 6.0
"""Largest logit at which weights are compared."""
SURE = 20.0
"""D's logit is -SURE where it is sure of a fake: s is then 2e-9."""


def discriminator_cost(loss: Loss) -> str:
    """Which of PyTorch's functions D's cost is, on 1,000 random logits."""
    real, fake = 3 * torch.randn(2, 1_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, zero = torch.ones_like(real), torch.zeros_like(fake)
    logistic = F.binary_cross_entropy_with_logits
    known = {
        "cross-entropy": logistic(real, one) + logistic(fake, zero),
        "quadratic": (F.mse_loss(real, one) + F.mse_loss(fake, zero)) / 2,
        "clipped linear": F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
    }
    cost = loss.d_loss(real, fake)
    return next((name for name, value in known.items() if torch.allclose(cost, value)), "another")


def emphasis(loss: Loss) -> str:
    """Whether a sample's weight rises or falls with its logit within a batch of logits from -REACH to REACH."""
    slope = loss.g_weight(torch.linspace(-REACH, REACH, 41, dtype=torch.float64)).diff()
    if bool((slope > 0).all()):
        return "high-scoring"
    if bool((slope < 0).all()):
        return "low-scoring"
    return "uniform" if bool((slope == 0).all()) else "mixed"


def magnitude(loss: Loss) -> str:
    """What becomes of the mean weight as D grows sure of every fake."""
    if loss.unit:
        return "unit"
    sure, undecided = (float(loss.g_weight(torch.full((8,), -f).double()).mean()) for f in (SURE, 0.0))
    if sure < 1e-3 * undecided:
        return "saturating"
    return "growing" if sure > 10 * undecided else "non-saturating"


def compute(points: int = 61) -> dict[str, Any]:
    """The table's columns, measured, and the weights that its third column is about.

    Args:
        points: logits on the figure's axis, at least 2.

    Returns:
        "costs": for each cost "d_cost", "emphasis" and "magnitude" in words and "weights", a list over "logit", in one
        batch; "provenance".

    Raises:
        ValueError: fewer than two points.
    """
    if points < 2:
        raise ValueError(f"points must be >= 2, got {points}")
    begun = time.perf_counter()
    logit = torch.linspace(-REACH, REACH, points, dtype=torch.float64)
    costs = {}
    for name in PAPER:
        loss = gk.losses[
            "mm" if name == "mm-beta2" else name
        ]  # β₂ is a matter of the optimiser, not of the cost
        costs[name] = {
            "d_cost": discriminator_cost(loss),
            "emphasis": emphasis(loss),
            "magnitude": magnitude(loss),
            "weights": rounded(_relative(loss.g_weight(logit)).numpy(), 4),
        }
    return {
        "logit": rounded(logit.numpy()),
        "costs": costs,
        "provenance": stamp(time.perf_counter() - begun, packages=("numpy", "torch")),
    }


def _relative(weights: Tensor) -> Tensor:
    """Weights divided by their mean size over the batch."""
    return weights / weights.abs().mean()


def draw(result: dict[str, Any]) -> Figure:
    """The weight of a sample over its logit, for the costs whose weights differ."""
    gk.plotting.use_style()
    figure, ax = plt.subplots(figsize=(5.6, 3.3))
    for name in ("ns", "mm", "hinge", "ls"):
        weights = np.array(result["costs"][name]["weights"])
        ax.plot(result["logit"], weights, color=gk.plotting.color_of(name), label=name)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="logit $f$ of a sample", ylabel="weight, relative to the batch (no unit)")
    ax.legend()
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
