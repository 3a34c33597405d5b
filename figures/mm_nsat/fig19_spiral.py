"""Sample-weighting paper, figure 19 and table 3: a spiral of twelve Gaussians whose weights grow outwards.

The paper shows one run of NS and one of MM; here are twenty of each and of MM-nsat with the same seeds, and the mean
share of each mode over them. A point belongs to the nearest mode if it lies within three standard deviations of it,
and to none otherwise. The paper's weights are those of its row "Data"; its radii, widths, batch size, learning rate
and length of training are not printed, and ours are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gankit as gk
from figures.mm_nsat import mixtures
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line, rounded
from gankit.plotting import color_of
from gankit.scale import scale

VARIANTS: Mapping[str, Variant] = {name: PAPER_COSTS[name] for name in ("ns", "mm", "mm-nsat")}

PAPER: Mapping[str, tuple[float, ...]] = {
    "ns": (4.3, 1.4, 8.6, 12, 1.0, 0.6, 0.6, 0.0, 0.0, 25, 19, 27, 1.2),
    "mm": (2.5, 2.7, 2.5, 3.3, 6.8, 5.5, 8.0, 7.8, 8.6, 11, 13, 14, 15),
}
"""Table 3 as printed, in percent: points in no mode, then modes 1 to 12."""

PAPER_DATA = (2.0, 3.1, 4.3, 5.4, 6.6, 7.7, 8.9, 10, 11, 12, 13, 15)
"""Its row "Data", in percent."""

LONG = 24_000
"""Steps after which fewer than a tenth of the points lie outside every mode."""


def compute(n_seeds: int = 20, steps: int = 0, every: int = 50, costs: str = "") -> dict[str, Any]:
    """Train the three costs on the spiral.

    Args:
        n_seeds, every, costs: as in `mixtures.compute`.
        steps: generator steps; 0 takes the recipe's 4,000 at quick scale, in which half of the points still lie
            outside every mode, and `LONG` at full.

    Returns:
        What `mixtures.compute` returns, with "table3" (`table3`) and "data", the mixture's weights in percent.
    """
    steps = steps or scale(quick=mixtures.SETTINGS["spiral"].steps, full=LONG)
    result = mixtures.compute(VARIANTS, "spiral", costs, n_seeds, steps, every)
    weights = gk.data.mixture("spiral")[1]
    return result | {
        "table3": {name: table3(result[name]) for name in result["names"]},
        "data": rounded((100 * weights / weights.sum()).numpy(), 3),
    }


def table3(curves: Mapping[str, Any]) -> dict[str, list[float]]:
    """A row of table 3 from what is kept of one cost: shares in percent, 13 numbers each.

    Args:
        curves: "frequencies" ``[S][12]`` and "divergence" ``[T][S]``.

    Returns:
        "mean", "min" and "max" over the seeds, and "typical": the run whose D_JS is the (lower) median at the end, one
        run as in the paper. Points in no mode first, then modes 1 to 12.
    """
    shares = np.array(curves["frequencies"])
    rows = 100 * np.concatenate([1 - shares.sum(1, keepdims=True), shares], 1)
    ranked = np.argsort(np.array(curves["divergence"], float)[-1], kind="stable")
    return {
        "mean": rounded(rows.mean(0), 3),
        "min": rounded(rows.min(0), 3),
        "max": rounded(rows.max(0), 3),
        "typical": rounded(rows[ranked[(len(rows) - 1) // 2]], 3),
    }


def draw(result: dict[str, Any]) -> Figure:
    """The paper's figure for one seed, and below it the shares of the modes: mean and range over the seeds."""
    gk.plotting.use_style()
    names, shown = [name for name in VARIANTS if name in result["names"]], result["shown"]
    figure = plt.figure(figsize=(9, 5.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    centers, _, std = gk.data.mixture("spiral")
    for ax, name in zip(top.subplots(1, len(names), sharey=True), names, strict=True):
        for number, center in enumerate(centers.tolist(), start=1):
            ax.add_patch(plt.Circle(center, 3 * std, color="#BBBBBB", lw=0))
            ax.annotate(str(number), center, fontsize=6, ha="center", va="center")
        ax.plot(*np.array(shown[name]["points"][-1]).T, ".", ms=3, color=color_of(name), alpha=0.6)
        covered = result[name]["covered"][-1][shown["seed"]]
        ax.set(
            aspect="equal", xlabel="$x_1$ (no unit)", title=f"{VARIANTS[name].label}: {covered} of 12 modes"
        )
        ax.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
    top.axes[0].set_ylabel("$x_2$ (no unit)")
    ax = bottom.subplots()
    x = np.arange(13)
    for i, name in enumerate(names):
        row = {key: np.array(values) for key, values in result["table3"][name].items()}
        at, error = x + 0.22 * (i - 1), np.stack([row["mean"] - row["min"], row["max"] - row["mean"]])
        ax.bar(at, row["mean"], 0.22, color=color_of(name), label=VARIANTS[name].label)
        ax.errorbar(at, row["mean"], error, fmt="none", color="k", lw=0.6)
    ax.step(np.arange(0.5, 13), [*result["data"][:1], *result["data"]], color="k", where="pre", label="data")
    ax.set_xticks(x, ["none", *map(str, range(1, 13))])
    ax.set(xlabel="mode", ylabel="share of points (%)")
    ax.legend(ncols=4, fontsize=8)
    return figure


def table(result: Mapping[str, Any]) -> str:
    """Table 3 as text, in percent: the paper's runs, our runs with the median D_JS, and our means over seeds."""

    def line(label: str, values: Sequence[float]) -> str:
        return f"{label:18}" + "".join(f"{value:6.1f}" for value in values).replace("nan", "  -")

    lines = [f"{'share in %':18}{'none':>6}" + "".join(f"{mode:6}" for mode in range(1, 13))]
    lines.append(line("data, paper", (np.nan, *PAPER_DATA)))
    lines.append(line("data, ours", (np.nan, *result["data"])))
    for name in result["names"]:
        label = VARIANTS[name].label
        if name in PAPER:
            lines.append(line(f"{label}, paper", PAPER[name]))
        lines.append(line(f"{label}, one run", result["table3"][name]["typical"]))
        lines.append(line(f"{label}, mean", result["table3"][name]["mean"]))
    return "\n".join(lines)


if __name__ == "__main__":
    command_line(compute, draw, mixtures.compute)
