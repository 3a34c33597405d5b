"""Sample-weighting paper, figure 4 (and appendix S): a ring of eight Gaussians, on which NS drops modes or hops.

The paper shows one run of NS and one of MM; here are twenty of each and of MM-nsat with the same seeds, and for the
argument of section 2.3 also every other weighting of appendix O. Two settings: "ring", where NS drops a mode or two,
and "ring-hopping", whose discriminator learns more slowly and where NS hops in most runs. The paper prints no widths,
batch sizes or learning rates for its figure; these settings are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

import gankit as gk
from figures.mm_nsat import fig16_scaling_factors, mixtures
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line
from gankit.plotting import band, color_of

_ALL: Mapping[str, Variant] = {
    **fig16_scaling_factors.VARIANTS,
    "ns+mm(0.5)": Variant("ns+mm(0.5)", "uniform"),
    "mm": PAPER_COSTS["mm"],
}


def slope_of_weight(name: str) -> float:
    """The logarithmic slope of a cost's weight where D is undecided, d log w / df at f = 0.

    Below 0, samples that score badly weigh more (NS: -1/2); above 0, samples that score well (MM: 1/2).
    """
    f = torch.zeros((), dtype=torch.float64, requires_grad=True)
    # Factors of a whole minibatch cancel in a ratio of two weights of the same minibatch.
    w = gk.losses[name].g_weight(torch.stack([f, torch.zeros_like(f)]))
    (slope,) = torch.autograd.grad((w[0] / w[1]).log(), f)
    return float(slope)


VARIANTS: Mapping[str, Variant] = {name: _ALL[name] for name in sorted(_ALL, key=slope_of_weight)}
"""From the weight that falls most steeply with the score to the one that rises so. "uniform" is half NS and half MM."""

THREE = ("ns", "mm", "mm-nsat")


def compute(
    setting: str = "ring", costs: str = "", n_seeds: int = 20, steps: int = 0, every: int = 50
) -> dict[str, Any]:
    """Train the costs on the ring (arguments and result: `mixtures.compute`)."""
    return mixtures.compute(VARIANTS, setting, costs, n_seeds, steps, every)


def draw(result: dict[str, Any]) -> Figure:
    """The paper's figure for one seed (points at the last readings), and the modes covered over training."""
    gk.plotting.use_style()
    names = [name for name in THREE if name in result["shown"]]
    figure = plt.figure(figsize=(10, 1.7 * len(names)))
    left, right = figure.subfigures(1, 2, width_ratios=[2.6, 1])
    draw_points(result, left, names)
    top, bottom = right.subplots(2, 1, sharex=True)
    for name in names:
        style = {"label": VARIANTS[name].label, "color": color_of(name)}
        band(top, result["steps"], np.array(result[name]["covered"]), **style)
        band(bottom, result["steps"], np.array(result[name]["divergence"], float), **style)
    top.set(ylabel="modes covered", ylim=(-0.2, 8.2))
    bottom.set(yscale="log", xlabel="generator steps", ylabel="$D_{JS}$ of modes (bits)")
    bottom.legend(fontsize=8)
    return figure


def draw_points(result: Mapping[str, Any], figure: Any, names: list[str]) -> None:
    """One seed's points at the readings that were kept, a row for each cost, over the modes (grey rings)."""
    shown = result["shown"]
    centers, _, std = gk.data.mixture("ring")
    axes = figure.subplots(len(names), len(shown["steps"]), sharex=True, sharey=True, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for ax, step, points in zip(row, shown["steps"], shown[name]["points"], strict=True):
            for center in centers.tolist():
                ax.add_patch(plt.Circle(center, 3 * std, color="#BBBBBB", lw=0))
            ax.plot(*np.array(points).T, ".", ms=2, color=color_of(name), alpha=0.6)
            ax.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
            if ax in axes[0]:
                ax.set_title(f"step {step:,}", fontsize=9)
            if ax in axes[-1]:
                ax.set_xlabel("$x_1$ (no unit)", fontsize=8)
        row[0].set_ylabel(f"{VARIANTS[name].label}\n$x_2$ (no unit)", fontsize=8)


def draw_weights(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Each run's D_JS at the end against the slope of its cost's weight, a panel for each result.

    Args:
        results: title -> result of `compute`.
    """
    gk.plotting.use_style()
    figure, axes = plt.subplots(
        1, len(results), figsize=(4.8 * len(results), 3.4), sharey=True, squeeze=False
    )
    for ax, (title, result) in zip(axes[0], results.items(), strict=True):
        for name in result["names"]:
            if name == "mm":  # the slope of MM-nsat
                continue
            style = fig16_scaling_factors.STYLES.get(name, {"color": "#777777"})
            ends = np.array(result[name]["divergence"], float)[-1]
            x = slope_of_weight(name)
            ax.plot(
                x + np.linspace(-0.025, 0.025, len(ends)), ends, ".", color=style["color"], ms=4, alpha=0.6
            )
            ax.plot(x, np.median(ends), "o", color=style["color"], mec="k", ms=7, label=VARIANTS[name].label)
        ax.axvline(0, color="k", lw=0.8, ls=":")
        ax.set(yscale="log", xlabel=r"slope of the weight, $w'(0)/w(0)$ (no unit)", title=title)
    axes[0][0].set_ylabel("$D_{JS}$ of modes at the end (bits)")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8, title="medians"
    )
    return figure


def table(result: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """The summary as text, one line per cost.

    Columns: median D_JS at the end with its range; in how many seeds it is below that of NS with the same seed, and the
    median of NS over this one's; modes covered at the end in the median and in the worst run; runs that still hop in
    the last third; the part of the small modes that were dropped 200 steps later, and of the missing ones that were
    found; points in no mode at the end; and runs whose generator gradient was ever read below `runs.DEAD`.

    Args:
        result: of `compute`.
        names: some of its costs; all if there are none.
    """
    lines = [
        f"{len(result['provenance']['seeds'])} seeds         D_JS of modes (bits)  below  NS over  modes"
        "        hop at  small,   missing,  no    gradient",
        f"{'':16} median (range)        NS in  this     median worst the end dropped  found     mode  < 0.001",
    ]
    for name in names or result["names"]:
        row = result["summary"][name]
        covered = np.array(result[name]["covered"])[-1]
        spread = f"{row['D_JS']:.3f} ({row['D_JS_min']:.3f}-{row['D_JS_max']:.3f})"
        pairs = f"{row['seeds_below']:5} {row['ratio']:8.1f}" if "ratio" in row else " " * 14
        dropped, found = (
            f"{row[part] / row[whole]:.0%}" if row[whole] else "-"
            for part, whole in (("dropped", "small"), ("found", "missing"))
        )
        lines.append(
            f"{VARIANTS[name].label:16} {spread:21} {pairs:14}  {np.median(covered):5.1f} {covered.min():5}"
            f"  {row['hopping']:6}  {dropped:>6}  {found:>8}  {row['outside']:5.0%}  {row['dead']:7}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command_line(compute, draw, mixtures.compute)
