"""Sample-weighting paper, figure 3: Adam's update under a gradient that vanishes exponentially, and the four cases.

The paper's setting is g_t = exp(-0.001 t) with beta1 = 0.99, beta2 = 0.999 and a learning rate of 1, simulated
(equation 8) and approximated (equation 11). Nothing is random. The four cases of equation 22 are run as well, with
epsilon 0, and the exponent of each is measured.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gankit as gk
from figures.provenance import command_line, rounded, stamp
from toy import adam

PAPER = {"a": -0.001, "beta1": 0.99, "beta2": 0.999}
SETTINGS: dict[int, tuple[dict[str, float], int]] = {
    1: ({"a": -0.0002, "beta1": 0.9, "beta2": 0.999}, 40_000),
    2: ({"a": -0.2, "beta1": 0.9, "beta2": 0.999}, 1_500),
    3: ({"a": -0.002, "beta1": 0.9, "beta2": 0.999}, 12_000),
    4: ({"a": -0.02, "beta1": 0.99, "beta2": 0.9}, 2_000),
}
"""One setting and a number of steps for each case of equation 22."""
KEPT = 120
"""Points per curve kept for drawing."""


def asymptote(t: np.ndarray, a: float, beta1: float, beta2: float) -> np.ndarray:
    """Equation 11 with its constant C, for case 3: what equation 21 tends to.

    Args:
        t: ``[T]`` steps.
        a, beta1, beta2: a setting with log(beta1) < a < log(beta2) / 2.

    Returns:
        ``[T]``, for a learning rate of 1.
    """
    constant = (1 - beta1) / (a - np.log(beta1)) / np.sqrt((1 - beta2) / (np.log(beta2) - 2 * a))
    return constant * np.exp((a - np.log(beta2) / 2) * t)


def compute(steps: int = 12_000) -> dict[str, Any]:
    """Simulate the paper's setting and the four cases.

    Args:
        steps: of the paper's setting, >= 100; 12,000 let its slope be measured to 2 %.

    Returns:
        "paper": "t", "gradient", "simulated" and "approximated" (at most 120 points each) with the "measured" and the
        "predicted" exponent per step and the two curves' "ratio" at the end; "cases": per case its setting, "t",
        "simulated", "measured", "predicted" and "holds" (within 2 % of the prediction, or of abs(a) where that is 0);
        "provenance".

    Raises:
        ValueError: fewer than 100 steps.
    """
    if steps < 100:
        raise ValueError(f"steps must be >= 100, got {steps}")
    begin = time.perf_counter()
    t = np.arange(1, steps + 1)
    updates = adam.simulate(steps, **PAPER)
    limit = asymptote(t, **PAPER)
    thin = _thin(steps)
    paper = {
        "t": t[thin].tolist(),
        "gradient": rounded(np.exp(PAPER["a"] * t[thin])),
        "simulated": rounded(updates[thin]),
        "approximated": rounded(limit[thin]),
        "measured": rounded(float(adam.measured_exponent(updates)), 4),
        "predicted": rounded(float(adam.exponent(**PAPER)), 4),
        "ratio": rounded(updates[-1] / limit[-1], 4),
    }
    cases = {}
    for number, (setting, length) in SETTINGS.items():
        updates = adam.simulate(length, **setting)
        measured = float(adam.measured_exponent(updates))
        predicted = float(adam.exponent(**setting))
        thin = _thin(length)
        cases[str(number)] = setting | {
            "t": (thin + 1).tolist(),
            "simulated": rounded(updates[thin]),
            "measured": rounded(measured, 4),
            "predicted": rounded(predicted, 4),
            "holds": abs(measured - predicted) < 0.02 * (abs(predicted) or abs(setting["a"])),
        }
    return {
        "paper": paper,
        "cases": cases,
        "settings": {"steps": steps, **PAPER, "lr": 1, "eps": 0},
        "provenance": stamp(time.perf_counter() - begin, packages=("numpy",)),
    }


def draw(result: dict[str, Any]) -> Figure:
    """The paper's figure on the left, one panel per case on the right, from the result of :func:`compute`."""
    gk.plotting.use_style()
    figure, axes = plt.subplot_mosaic("pp12;pp34", figsize=(10, 4.2))
    color = gk.plotting.color_of("mm")
    paper, left = result["paper"], axes["p"]
    left.semilogy(paper["t"], paper["gradient"], "k:", label="gradient")
    left.semilogy(paper["t"], paper["approximated"], "--", color="#777777", lw=3, label="update, equation 11")
    left.semilogy(paper["t"], paper["simulated"], color=color, label="update, simulated")
    left.set(
        xlabel="step $t$",
        ylabel="size (update: in learning rates)",
        title=r"$g_t = e^{-0.001 t}$, $\beta_1 = 0.99$, $\beta_2 = 0.999$",
    )
    left.legend()
    for number, one in result["cases"].items():
        ax = axes[number]
        t, updates = np.array(one["t"]), np.array(one["simulated"])
        ax.semilogy(t, updates, color=color)
        ax.semilogy(t, updates[-1] * np.exp(one["predicted"] * (t - t[-1])), "--", color="#777777", lw=1)
        ax.set(xlabel="step $t$", title=f"case {number}: rate {round(one['measured'], 4) + 0.0:.4f} per step")
        ax.title.set_fontsize(9)
        if np.ptp(np.log(updates)) < 1:
            ax.set_ylim(0.1, 10)
        ax.margins(y=0.15)
    for number in "13":
        axes[number].set_ylabel("update (learning rates)", fontsize=8)
    return figure


def _thin(steps: int) -> np.ndarray:
    return np.unique(np.linspace(0, steps - 1, KEPT).astype(int))


if __name__ == "__main__":
    command_line(compute, draw)
