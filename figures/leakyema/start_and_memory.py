"""Not in the LeakyEMA paper: why an early start can ruin a run. The start N against the memory of the average.

The paper says that early averages "are poor and cannot reliably guide the training" (section 3.3). Two things can make
them poor: the generator has not learnt anything yet, or the average still remembers when it had not. The second is
known beforehand: after N steps the initial weights have the share alpha^N in the average. So N is varied, and
alpha with it; a teacher that is too young differs from one that remembers too long.

Trains on the digits, in minutes (beta = 0.5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.leakyema import runs
from figures.leakyema.runs import Variant
from figures.provenance import command_line, rounded, stamp
from gankit.plotting import use_style
from gankit.training.average import EMA

STARTS = (0, 125, 250, 500, 1_000, 2_000)
ALPHAS = (0.9, 0.99, 0.999)
COLORS = ("#56B4E9", "#882255", "#D55E00")


def compute(
    setting: str = "digits", n_seeds: int = 6, steps: int = 0, samples: int = 1_000
) -> dict[str, Any]:
    """Train every pair of a start and a decay, and conventional training.

    Args:
        setting: a key of `runs.SETTINGS`, whose decay is replaced.
        n_seeds: seeds 0..n_seeds-1.
        steps: generator steps; 0 takes the recipe's. Starts are kept as shares of the recipe's steps.
        samples: generated images per replica.

    Returns:
        "starts" (in steps) and "alphas"; "distance" and "g_distance" `[alphas][starts][S]` at the end;
        "conventional" and "g_conventional" `[alphas][S]`; "medians" of "g_distance" and "seeds_below", in how many
        seeds it is below the conventional one, both `[alphas][starts]`; "remembered", the share alpha^N of the initial
        weights, `[alphas][starts]`; "setting", "steps", "samples" and "provenance".
    """
    recipe = runs.SETTINGS[setting]
    steps = steps or recipe.steps
    variants = {"conventional": Variant("conventional")} | {
        str(start): Variant(f"N = {start}", 0.5, start / 4_000) for start in STARTS
    }
    tables: dict[str, list[Any]] = {
        k: [] for k in ("distance", "g_distance", "conventional", "g_conventional")
    }
    seconds = 0.0
    for alpha in ALPHAS:
        result = runs.train(
            dataclasses.replace(recipe, ema=EMA(alpha)),
            variants,
            range(n_seeds),
            steps,
            evaluations=1,
            samples=samples,
        )
        seconds += result["wall_time_s"]
        for key in ("distance", "g_distance"):
            tables[key].append([result[str(start)][key][-1] for start in STARTS])
        tables["conventional"].append(result["conventional"]["distance"][-1])
        tables["g_conventional"].append(result["conventional"]["g_distance"][-1])
    starts = [result["starts"][str(start)] for start in STARTS]
    return tables | {
        **compare(tables["g_distance"], tables["g_conventional"]),
        "starts": starts,
        "alphas": list(ALPHAS),
        "remembered": [[float(f"{alpha**start:.4g}") for start in starts] for alpha in ALPHAS],
        "setting": setting,
        "steps": steps,
        "samples": samples,
        "provenance": stamp(seconds, range(n_seeds), ("torch", "numpy")),
    }


def compare(leaky: Sequence[Any], conventional: Sequence[Any]) -> dict[str, Any]:
    """ "medians" and "seeds_below" of `compute`, from distances `[alphas][starts][S]` and `[alphas][S]`."""
    ended, plain = np.array(leaky, float), np.array(conventional, float)[:, None]
    return {"medians": rounded(np.median(ended, -1)), "seeds_below": (ended < plain).sum(-1).tolist()}


def draw(result: dict[str, Any]) -> Figure:
    """The generator's distance at the end, over N (left) and over what the average remembers of the start (right)."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    plain = np.array(result["g_conventional"], float)[0]
    for ax in axes:
        ax.axhspan(plain.min(), plain.max(), color=runs.CONVENTIONAL, alpha=0.15, lw=0)
        ax.axhline(np.median(plain), color=runs.CONVENTIONAL, lw=1.5, label="conventional")
        ax.set_yscale("log")
    for i, (alpha, color) in enumerate(zip(result["alphas"], COLORS, strict=True)):
        values = np.array(result["g_distance"][i], float)  # [starts, S]
        for ax, x in zip(axes, (np.arange(len(values)), np.array(result["remembered"][i])), strict=True):
            ax.plot(np.repeat(x, values.shape[1]), values.ravel(), ".", color=color, ms=4, alpha=0.6)
            ax.plot(x, np.median(values, 1), "-", color=color, lw=1.8, label=f"α = {alpha}")
    axes[0].set_xticks(range(len(result["starts"])), [f"{start:,}" for start in result["starts"]])
    axes[0].set(xlabel="N, generator steps", ylabel="FD of the generator (no unit)")
    axes[1].set_xscale("symlog", linthresh=1e-3, linscale=0.5)
    axes[1].set(xlim=(-2e-4, 1.5), xlabel=r"share $\alpha^N$ of the initial weights in the teacher at N")
    axes[0].legend()
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
