"""Lecture, "Difference with previous generative models": one Gaussian fitted to a target with two modes.

Claims: KL covers all modes, inverse KL fits a single one, JS is a bit like a combination. The target is half
N(-s, 1) and half N(s, 1); the separation s decides who covers what.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm
from tqdm import tqdm

from figures.provenance import command_line, rounded, stamp
from gankit.plotting import use_style
from toy.divergences import OBJECTIVES, fit_gaussian, mixture_log_density

COLORS = {"kl": "#0072B2", "reverse-kl": "#D55E00", "js": "#009E73", "w1": "#CC79A7"}
TITLES = {"kl": r"KL$(p\,\|\,q)$", "reverse-kl": r"KL$(q\,\|\,p)$", "js": "JS", "w1": "Wasserstein-1"}
SHOWN = 3.0
GRID = np.linspace(-25, 25, 2001)


def covers(mean: float, separation: float) -> bool:
    """Whether a fit sits between the modes, not on one of them."""
    return abs(mean) < separation / 2


def compute(separations: int = 11) -> dict[str, Any]:
    """Fit under each divergence for separations from 1 to 6.

    Args:
        separations: how many, >= 2; with 11 they are 1, 1.5, ..., 6.

    Returns:
        "separations"; "fits": per divergence lists "mean", "std" and "value"; "summary": per divergence the first
        separation at which the best Gaussian leaves a mode out (None if it never does), and the fit at separation 3
        ("shown"); "settings" and "provenance".

    Raises:
        ValueError: fewer than two separations.
    """
    if separations < 2:
        raise ValueError(f"separations must be >= 2, got {separations}")
    begin = time.perf_counter()
    values = np.linspace(1, 6, separations)
    fits: dict[str, dict[str, list[float]]] = {
        name: {"mean": [], "std": [], "value": []} for name in OBJECTIVES
    }
    for s in tqdm(values, desc="separations"):
        target = mixture_log_density(GRID, [-s, s], [1, 1], [0.5, 0.5])
        for name, kept in fits.items():
            for key, number in vars(fit_gaussian(target, GRID, name)).items():
                kept[key].append(rounded(number))
    shown = mixture_log_density(GRID, [-SHOWN, SHOWN], [1, 1], [0.5, 0.5])
    summary = {}
    for name, kept in fits.items():
        dropped = [s for s, mean in zip(values, kept["mean"], strict=True) if not covers(mean, s)]
        best = {key: rounded(number) for key, number in vars(fit_gaussian(shown, GRID, name)).items()}
        summary[name] = {"drops_a_mode_from": rounded(dropped[0]) if dropped else None, "shown": best}
    return {
        "separations": rounded(values),
        "fits": fits,
        "summary": summary,
        "settings": {"shown": SHOWN, "stds": 1.0, "weights": 0.5},
        "provenance": stamp(time.perf_counter() - begin, packages=("numpy", "scipy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: the fits at one separation. Right: how the fitted mean and width follow the separation."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    s = result["settings"]["shown"]
    x = np.linspace(-10, 10, 600)
    left.fill_between(
        x, np.exp(mixture_log_density(x, [-s, s], [1, 1], [0.5, 0.5])), color="#BBBBBB", label="target $p$"
    )
    widths = {"kl": 3.6, "reverse-kl": 1.8, "js": 1.8, "w1": 1.8}
    for name, title in TITLES.items():
        fit = result["summary"][name]["shown"]
        style = {"color": COLORS[name], "label": title, "lw": widths[name]}
        left.plot(x, norm.pdf(x, fit["mean"], fit["std"]), ls="--" if name == "w1" else "-", **style)
        means = np.array(result["fits"][name]["mean"])
        # A dropped mode is a jump, and a line between its two sides would be a ramp that nobody measured.
        covered = np.array([covers(*pair) for pair in zip(means, result["separations"], strict=True)])
        for part in (covered, ~covered):
            right.plot(np.array(result["separations"])[part], np.abs(means[part]), "o-", ms=4, **style)
    left.set(xlabel="$x$", ylabel="density", title=f"modes at ±{s:g}")
    right.set(
        xlabel="separation $s$ (modes at ±s, standard deviation 1)",
        ylabel="distance of the fit's mean from 0",
    )
    left.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
