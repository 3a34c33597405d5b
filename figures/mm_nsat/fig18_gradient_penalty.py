"""Sample-weighting paper, figure 18: NS and MM-nsat under a zero-centred gradient penalty of growing strength.

The penalty is lambda times the mean squared norm of D's gradient at real samples. At quick scale the digits' fully
connected networks, at full scale CIFAR-10 and Conv-4 as in the paper. Besides class divergence and distance we
measure how far the sample weights of the two costs, 1 - s and s, still differ: by the cosine between them, over a
batch of generated samples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.mm_nsat import coverage, runs
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line, rounded, stamp
from gankit.models.sampling import sample
from gankit.plotting import color_of
from gankit.scale import scale
from gankit.training import Trainer

COSTS = ("ns", "mm-nsat")
KEPT = ("distance", "divergence", "weight_cosine")
"""What is judged of each run."""

STRENGTHS = {
    "digits": (0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    "cifar10-conv4": (1e-5, 1e-3, 1e-1, 1.0, 10.0, 100.0, 1000.0),
}
"""Lambda by setting. The paper's text names 1e-5, 1, 10 (as the usual choice) and "stronger"."""


def variants_of(strengths: Sequence[float]) -> dict[str, Variant]:
    """Both costs at each strength: "ns 0.1" and so on."""
    return {
        f"{cost} {value:g}": Variant(cost, f"{PAPER_COSTS[cost].label}, λ = {value:g}", r1=value)
        for cost in COSTS
        for value in strengths
    }


def compute(setting: str = "", n_seeds: int = 10, steps: int = 0, folder: str = "") -> dict[str, Any]:
    """Train both costs at all strengths, in one ensemble run.

    Args:
        setting: a key of `STRENGTHS`; "" takes "digits" at quick scale and "cifar10-conv4" at full.
        n_seeds: seeds 0..n_seeds-1, shared by costs and strengths.
        steps: generator steps; 0 takes the recipe's.
        folder: where checkpoints go; a run that finds one goes on from it. "" keeps none.

    Returns:
        What `runs.train` returns, with "weight_cosine" `[T][S]` for each variant, and "setting", "samples",
        "strengths", "names", "summary" (`summarise`) and "provenance".

    Raises:
        ValueError: a setting without strengths.
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits", full="cifar10-conv4")
    if setting not in STRENGTHS:
        raise ValueError(f"setting must be one of {', '.join(STRENGTHS)}, got {setting!r}")
    variants, seeds = variants_of(STRENGTHS[setting]), list(range(n_seeds))
    samples = coverage.SAMPLES.get(setting, 2_000)
    result = runs.train(
        setting,
        variants,
        seeds,
        steps or runs.SETTINGS[setting].steps,
        evaluations=4,
        samples=samples,
        log_every=20,
        callback=compare_weights,
        out=Path(folder) if folder else None,
    )
    names = list(variants)
    few = coverage.thinned(result, names, 10)
    return few | {
        "setting": setting,
        "samples": samples,
        "strengths": list(STRENGTHS[setting]),
        "names": names,
        "summary": summarise(result, STRENGTHS[setting]),
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy")),
    }


@torch.no_grad()
def compare_weights(run: Trainer) -> dict[str, Tensor]:
    """The cosine between the weights 1 - s and s of 500 generated samples, `[S]`: 1 if all scores are equal."""
    logits = run.D(sample(run.G, 500)).double()
    return {"weight_cosine": torch.cosine_similarity((-logits).sigmoid(), logits.sigmoid(), dim=-1)}


def summarise(result: Mapping[str, Any], strengths: Sequence[float]) -> dict[str, Any]:
    """The numbers that texts and ledgers quote.

    Returns:
        For each variant: mean over the seeds of D_JS and of the distance at the end, of the last "weight_cosine",
        and "dead" as in `runs.summarise`. Under "below", for each strength, in how many seeds MM-nsat's D_JS is
        below NS's; under "ratio" the ratio of their means; under "best", the strength with the least mean
        distance, and with the least D_JS, of each cost.
    """
    table: dict[str, Any] = {}
    for name in variants_of(strengths):
        ends = {key: np.array(result[name][key], float)[-1] for key in KEPT}
        table[name] = {
            "D_JS": rounded(ends["divergence"].mean()),
            "distance": rounded(ends["distance"].mean()),
            "weight_cosine": rounded(ends["weight_cosine"].mean()),
            "dead": int((np.array(result[name]["g_grad"]) < runs.DEAD).any(0).sum()),
        }
    table["below"], table["ratio"] = {}, {}
    for value in strengths:
        ns, nsat = (np.array(result[f"{cost} {value:g}"]["divergence"], float)[-1] for cost in COSTS)
        table["below"][f"{value:g}"] = int((nsat < ns).sum())
        table["ratio"][f"{value:g}"] = rounded(ns.mean() / nsat.mean(), 3)
    table["best"] = {
        cost: {
            key: min(strengths, key=lambda value: table[f"{cost} {value:g}"][key])
            for key in ("distance", "D_JS")
        }
        for cost in COSTS
    }
    return table


def draw(result: Mapping[str, Any]) -> Figure:
    """For each cost a dot for each run and a circle at the mean of each strength, joined in order of lambda (the other
    cost's runs in grey); on the right how alike the two costs' weights are, over lambda."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), width_ratios=[1.2, 1.2, 1])
    strengths = result["strengths"]
    last = {name: {k: np.array(result[name][k], float)[-1] for k in KEPT} for name in variants_of(strengths)}
    for ax, cost in zip(axes, COSTS, strict=False):
        color, label = color_of(cost), PAPER_COSTS[cost].label
        for name, ends in last.items():
            mine = name.startswith(f"{cost} ")
            ax.plot(ends["distance"], ends["divergence"], ".", color=color if mine else "#CCCCCC", ms=4)
        x, y = ([last[f"{cost} {value:g}"][key].mean() for value in strengths] for key in KEPT[:2])
        ax.plot(x, y, "o:", color=color, ms=8, mfc="white")
        for i, value in enumerate(strengths):
            # By turns on either side of the path, with a thin line to the circle: some lie close together.
            offset = (-16, 12) if i % 2 else (18, -16)
            ax.annotate(
                f"{value:g}",
                (x[i], y[i]),
                offset,
                textcoords="offset points",
                ha="center",
                fontsize=8,
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": color, "shrinkB": 4},
            )
        ax.set(xscale="log", yscale="log", title=label, ylabel="$D_{JS}$ of classes (bits)")
        ax.set_xlabel(f"FD, {coverage.space_of(result['setting'])} (no unit)")
        ax.axhline(coverage.perfect(result["samples"]), color="black", ls=":", lw=0.8)
        coverage.label_bits(ax)
        cosine = np.array([last[f"{cost} {value:g}"]["weight_cosine"] for value in strengths])
        gk.plotting.band(axes[2], np.arange(len(strengths)), cosine, color=color, label=f"runs of {label}")
    axes[2].set_xticks(range(len(strengths)), [f"{value:g}" for value in strengths])
    axes[2].set(xlabel="penalty λ (no unit)", ylabel="cosine of 1 - s and s (no unit)", ylim=(0, 1.02))
    axes[2].legend(loc="lower right")
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
