"""Sample-weighting paper, figure 5: gradients early in training for NS, MM, MM-nsat, and MM with beta2 = 0.99 for G.

At quick scale on the digits, in a setting chosen such that minimax saturates (beta1 = 0.9; with --setting
digits-saturating-beta1-0.5 it does not). With --setting mnist-fc4 on the paper's data and its kind of network; the
paper prints neither width, learning rate nor beta1. The paper shows one run of each cost, here are several seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gankit as gk
from figures.mm_nsat import gradients, runs
from figures.mm_nsat.runs import DEAD, PAPER_COSTS
from figures.provenance import command_line, rounded, stamp
from gankit.plotting import color_of
from gankit.scale import scale

VARIANTS = {name: PAPER_COSTS[name] for name in ("ns", "mm", "mm-nsat", "mm-beta2")}
COLORS = {"mm-beta2": "#8B6BB1"}
READINGS = 120
"""Points per curve kept for drawing."""


def compute(setting: str = "", n_seeds: int = 10, steps: int = 0) -> dict[str, Any]:
    """Train the four costs and read the norms of both gradients at every step.

    Args:
        setting: a key of `runs.SETTINGS`; "" takes "digits-saturating" at quick scale and "mnist-fc4" at full.
        n_seeds: seeds 0..n_seeds-1 for every cost.
        steps: generator steps; 0 takes the recipe's, or 8 epochs of MNIST.

    Returns:
        "log_steps" `[T']`; per cost "g_grad" and "d_grad" `[T'][S]`, geometric means over equal stretches;
        "summary", per cost what `gradients.vanished` counts over all steps; "setting", "steps", "steps_per_epoch",
        "names" and "provenance".
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits-saturating", full="mnist-fc4")
    steps, per_epoch = gradients.length(setting, steps)
    read = gradients.record(runs.SETTINGS[setting], VARIANTS, range(n_seeds), steps)
    result: dict[str, Any] = {
        "setting": setting,
        "steps": steps,
        "steps_per_epoch": rounded(per_epoch),
        "names": list(VARIANTS),
        "log_steps": gradients.thin_steps(steps, READINGS),
        "summary": {name: gradients.vanished(one["g_grad"]) for name, one in read.items()},
    }
    for name, one in read.items():
        result[name] = {
            key: rounded(gradients.thin(one[key], READINGS, geometric=True), 3)
            for key in ("g_grad", "d_grad")
        }
    result["provenance"] = stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy"))
    return result


def from_coverage(coverage: Mapping[str, Any], epochs: float = 0) -> dict[str, Any]:
    """The same from a committed run of figure 8, which logged gradients on its way.

    Args:
        coverage: what `figures.mm_nsat.coverage.compute` returns, with all costs of `VARIANTS`.
        epochs: how much of the beginning is kept; 0 keeps all.

    Returns:
        As `compute`; gradients are single readings, every so many steps, and the counts are of these.
    """
    per_epoch = coverage["steps"][-1] / coverage["epochs"]
    steps = np.array(coverage["log_steps"])
    kept = steps <= (epochs * per_epoch if epochs else np.inf)
    result: dict[str, Any] = {
        "setting": coverage["setting"],
        "steps": int(steps[kept][-1]),
        "steps_per_epoch": rounded(per_epoch),
        "names": list(VARIANTS),
        "log_steps": steps[kept].tolist(),
        "summary": {},
        "provenance": coverage["provenance"],
    }
    for name in VARIANTS:
        curves = {key: np.array(coverage[name][key], float)[kept] for key in ("g_grad", "d_grad")}
        result[name] = {key: values.tolist() for key, values in curves.items()}
        result["summary"][name] = gradients.vanished(curves["g_grad"], steps[kept], last=5)
    return result


def draw(result: Mapping[str, Any]) -> Figure:
    """One panel for each of the "names": the norm of G's gradient for each seed and their median, D's as a median."""
    gk.plotting.use_style()
    n = len(result["names"])
    figure, axes = plt.subplots(1, n, figsize=(0.6 + 1.9 * n, 2.2), sharex=True, sharey=True)
    x, unit = axis(result)
    for ax, name in zip(axes, result["names"], strict=True):
        g, d = (np.array(result[name][key], float) for key in ("g_grad", "d_grad"))
        color, counts = COLORS.get(name) or color_of(name), result["summary"][name]
        ax.semilogy(x, g, color=color, lw=0.5, alpha=0.5)
        ax.semilogy(x, np.median(g, 1), color=color, lw=2, label="G")
        ax.semilogy(x, np.median(d, 1), color="black", lw=1, label="D")
        ax.axhline(DEAD, color="black", lw=0.8, ls=":")
        ax.set(xlabel=unit)
        ax.set_title(
            f"{VARIANTS[name].label}\nsilent at the end: {counts['at_end']} of {counts['runs']}", fontsize=9
        )
    axes[0].set_ylabel("norm of the gradient")
    axes[0].legend(loc="lower left", ncols=2)
    return figure


def axis(result: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Numbers `[T']` and label of the horizontal axis: epochs on MNIST, as in the paper, and steps on the digits."""
    steps = np.array(result["log_steps"])
    if result["setting"].startswith("mnist"):
        return steps / result["steps_per_epoch"], "epochs"
    return steps, "generator steps"


if __name__ == "__main__":
    command_line(compute, draw)
