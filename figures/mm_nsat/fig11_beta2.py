"""Sample-weighting paper, figure 11: which memory of Adam lets minimax's gradient vanish.

beta2 of G and of D is 0.999 or 0.99, in all four pairs, for MM and, as a control, for NS and MM-nsat; and for MM G's
optimiser is also re-initialised at regular intervals (the paper does not say which). At quick scale on the digits,
in a setting chosen such that minimax saturates; with --setting mnist-fc4 on MNIST.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gankit as gk
from figures.mm_nsat import gradients, runs
from figures.mm_nsat.fig05_early_gradients import COLORS, axis
from figures.mm_nsat.runs import DEAD, Variant
from figures.provenance import command_line, rounded, stamp
from gankit.plotting import color_of
from gankit.scale import scale

MEMORIES = {0.999: "long", 0.99: "short"}
"""The two beta2, and their names in results."""

PAIRS = [(g, d) for g in MEMORIES for d in MEMORIES]
"""(beta2 of G, beta2 of D)."""

COSTS = {"mm": "MM", "ns": "NS", "mm-nsat": "MM-nsat"}
RESETS = (50, 100, 250, 1_000)
"""Steps between two re-initialisations of G's optimiser."""

READINGS = 100
"""Points per curve kept for drawing."""


def compute(setting: str = "", n_seeds: int = 10, steps: int = 0, resets: str = "") -> dict[str, Any]:
    """Train every cost with every pair, and MM with resets, and read the generator's gradient at every step.

    Args:
        setting: a key of `runs.SETTINGS`; "" takes "digits-saturating" at quick scale and "mnist-fc4" at full.
        n_seeds: seeds 0..n_seeds-1 for every variant; all variants of one seed share weights, z and data.
        steps: generator steps; 0 takes the recipe's, or 8 epochs of MNIST.
        resets: steps between two resets, several with commas between them; "" takes `RESETS`.

    Returns:
        "log_steps" `[T']`; per variant of MM "g_grad" `[T'][S]`, geometric means over equal stretches; "summary",
        per variant of every cost what `gradients.vanished` counts, and "final_logit", the median over seeds and the
        last `gradients.LAST` steps of the mean logit of generated samples; "names" of the variants with curves,
        "setting", "steps", "steps_per_epoch" and "provenance". Variants are named by `pair_name` and `reset_name`.
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits-saturating", full="mnist-fc4")
    recipe = runs.SETTINGS[setting]
    steps, per_epoch = gradients.length(setting, steps)
    read = {}
    for cost in COSTS:
        variants = {pair_name(cost, *pair): Variant(cost, COSTS[cost], *pair) for pair in PAIRS}
        read |= gradients.record(recipe, variants, range(n_seeds), steps)
    for every in [int(word) for word in resets.split(",")] if resets else RESETS:
        variants = {reset_name(every): Variant("mm", "MM")}
        callback = gradients.reset_generator(recipe, every)
        read |= gradients.record(recipe, variants, range(n_seeds), steps, callback)
    shown = [name for name in read if name.startswith("mm,")]
    curves = {
        name: {"g_grad": rounded(gradients.thin(read[name]["g_grad"], READINGS, geometric=True), 3)}
        for name in shown
    }
    return curves | {
        "setting": setting,
        "steps": steps,
        "steps_per_epoch": rounded(per_epoch),
        "names": shown,
        "log_steps": gradients.thin_steps(steps, READINGS),
        "summary": {
            name: gradients.vanished(one["g_grad"])
            | {"final_logit": rounded(np.median(one["fake_logit"][-gradients.LAST :]), 3)}
            for name, one in read.items()
        },
        "provenance": stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy")),
    }


def pair_name(cost: str, g_beta2: float, d_beta2: float) -> str:
    """Name of a variant with these two beta2, such as "mm, G long, D short"."""
    return f"{cost}, G {MEMORIES[g_beta2]}, D {MEMORIES[d_beta2]}"


def label_of(name: str) -> str:
    """A variant's name with numbers for its memories."""
    for beta2, word in MEMORIES.items():
        name = name.replace(word, str(beta2))
    return name


def reset_name(every: int) -> str:
    """Name of the variant of MM whose generator gets a new optimiser every so many steps."""
    return f"mm, reset every {every}"


def draw(result: Mapping[str, Any]) -> Figure:
    """The generator's gradient of each seed and its median: one panel per pair of beta2 and per interval of resets."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(2, 4, figsize=(8.4, 3.7), sharex=True, sharey=True)
    pairs = [name for name in result["names"] if "reset" not in name]
    resets = [name for name in result["names"] if "reset" in name]
    for ax, name in zip(axes[0], pairs, strict=True):
        _panel(ax, result, name, f"MM, $\\beta_2$: {label_of(name).removeprefix('mm, ')}")
    for ax, name in zip(axes[1], resets, strict=False):
        _panel(ax, result, name, f"MM, {name.removeprefix('mm, ')} steps")
    for above, below, shown in zip(*axes, np.arange(4) < len(resets), strict=True):
        below.set_visible(shown)
        lowest = below if shown else above
        lowest.xaxis.set_tick_params(labelbottom=True)
        lowest.set_xlabel(axis(result)[1])
    for ax in axes[:, 0]:
        ax.set_ylabel("norm of G's gradient")
    return figure


def _panel(ax: Axes, result: Mapping[str, Any], name: str, title: str) -> None:
    x, _ = axis(result)
    values, counts = np.array(result[name]["g_grad"], float), result["summary"][name]
    # The pair that figures 5 and 8 show as a cost of its own keeps the colour it has there.
    color = COLORS["mm-beta2"] if name == pair_name("mm", 0.99, 0.999) else color_of("mm")
    ax.semilogy(x, values, color=color, lw=0.5, alpha=0.5)
    ax.semilogy(x, np.median(values, 1), color=color, lw=2)
    ax.axhline(DEAD, color="black", lw=0.8, ls=":")
    ax.set_title(f"{title}\nsilent at the end: {counts['at_end']} of {counts['runs']}", fontsize=9)


def table(result: Mapping[str, Any]) -> str:
    """The counts as text, one line per variant: runs whose gradient was ever below `DEAD`, when first, and those
    silent at the end (`gradients.LAST`)."""
    last = f"in the median of the last {gradients.LAST}"
    lines = [f"{'cost, beta2 of G and D':28} below {DEAD:g} at any step   first (median)   {last}"]
    for name, row in result["summary"].items():
        first = f"step {row['first_step']:5.0f}" if row["first_step"] is not None else " " * 6 + "never"
        ever, at_end = (f"{row[key]:2} of {row['runs']:2}" for key in ("ever", "at_end"))
        lines.append(f"{label_of(name):28} {ever:>14}           {first:12} {at_end:>20}")
    return "\n".join(lines)


if __name__ == "__main__":
    command_line(compute, draw)
