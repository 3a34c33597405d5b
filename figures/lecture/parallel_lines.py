"""Lecture, "Comparison between Wasserstein distance and other distance metrics": two parallel lines (WGAN, example 1).

W = |theta|; JS = log 2 and KL infinite unless theta = 0. The closed forms are put beside estimates from samples of the
two lines: the optimal assignment for W, and a histogram for JS and KL.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.provenance import command_line, rounded, stamp
from gankit.plotting import use_style
from toy.divergences import js, kl, parallel_lines, w1_samples

COLORS = {"w1": "#CC79A7", "js": "#009E73", "kl": "#0072B2"}
BINS = (np.linspace(-1.025, 1.025, 42), np.linspace(0, 1, 6))
"""Cells 0.05 wide in theta, with 0 in the middle of one."""


def compute(samples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Closed forms and estimates for theta from -1 to 1 in steps of 0.1.

    Args:
        samples: points on each line, >= 2.
        seed: of their heights.

    Returns:
        "theta"; "closed" and "sampled" with "w1", "js" and "kl" per theta (None for infinity); "summary": the values
        "together" (theta = 0) and "apart" (theta = 0.5), and the largest error of the sampled W1; "settings" and
        "provenance".

    Raises:
        ValueError: fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"samples must be >= 2, got {samples}")
    begin = time.perf_counter()
    rng = np.random.default_rng(seed)
    theta = np.round(np.linspace(-1, 1, 21), 10)
    closed = parallel_lines(theta)
    sampled: dict[str, list[float]] = {"w1": [], "js": [], "kl": []}
    for shift in theta:
        # Independent heights on the two lines: W1 is then a little more than |theta|, and at 0 not quite 0.
        lines = [np.stack([np.full(samples, x), rng.uniform(size=samples)], axis=1) for x in (0.0, shift)]
        cells = [np.histogramdd(line, BINS)[0].ravel() / samples for line in lines]
        sampled["w1"].append(w1_samples(*lines))
        sampled["js"].append(float(js(*cells)))
        sampled["kl"].append(float(kl(*cells)))
    at = {
        name: {k: rounded(v) for k, v in parallel_lines(t).items()}
        for name, t in (("together", 0.0), ("apart", 0.5))
    }
    for values in at.values():
        values.update({f"{k}_is_infinite": values[k] is None for k in ("kl", "reverse-kl")})
    return {
        "theta": rounded(theta),
        "closed": {key: rounded(closed[key]) for key in sampled},
        "sampled": {key: rounded(np.array(values)) for key, values in sampled.items()},
        "summary": {
            **at,
            "largest_w1_error": rounded(np.abs(np.array(sampled["w1"]) - closed["w1"]).max()),
        },
        "settings": {"samples": samples},
        "provenance": stamp(time.perf_counter() - begin, [seed], ("numpy", "scipy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Lines are closed forms, points are estimates from samples; where KL is infinite nothing can be drawn."""
    use_style()
    figure, ax = plt.subplots(figsize=(5.2, 3.6))
    theta = np.array(result["theta"])
    ax.plot(theta, result["closed"]["w1"], color=COLORS["w1"], label="Wasserstein-1")
    apart = theta != 0
    for side in (theta < 0, theta > 0):
        ax.plot(theta[side], np.array(result["closed"]["js"])[side], color=COLORS["js"])
    ax.plot([], [], color=COLORS["js"], label="JS (nats)")
    ax.plot(0, 0, "o", ms=5, color=COLORS["js"])
    for key in ("w1", "js"):
        ax.plot(theta[apart], np.array(result["sampled"][key])[apart], ".", color=COLORS[key], alpha=0.6)
    ax.plot(0, 0, "s", ms=9, mfc="none", color=COLORS["kl"], label="KL: 0 here, infinite elsewhere")
    ax.set(xlabel=r"distance of the lines $\theta$", ylabel="divergence", ylim=(-0.05, 1.3))
    ax.legend(fontsize=8, loc="upper center")
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
