"""Sample-weighting paper, figure 20: three digits in one picture, 1,000 classes, and mixtures of NS and MM-nsat.

D is regularised, as in the paper, by the zero-centred gradient penalty, here at two strengths. The paper's stronger
setting has spectral normalisation too; our fully connected networks have none, and the larger penalty stands in its
place. At full scale MNIST and Conv-4.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from scipy.stats import spearmanr

import gankit as gk
from figures.mm_nsat import runs
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line, rounded, stamp
from gankit.metrics.modes import class_divergence
from gankit.plotting import color_of
from gankit.scale import scale

SETTINGS = ("stacked-digits", "stacked-mnist")

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of MM-nsat in the cost; 0 is NS."""

BETWEEN = {0.25: "#882255", 0.5: "#CC6677", 0.75: "#DDAA33"}
"""Colours of the mixtures. They overlap here, so blends of the two ends would not be told apart."""

STRENGTHS = {"strong": 10.0, "relaxed": 0.01}
"""Lambda of the penalty; the paper prints neither of its two."""

N_CLASSES = 1_000


def variants_of(strength: float) -> dict[float, Variant]:
    """Share of MM-nsat -> variant, at one strength of the penalty."""
    costs = {0.0: "ns", 1.0: "mm-nsat"}
    return {
        a: Variant(
            costs.get(a, f"ns+mm-nsat({a:g})"),
            PAPER_COSTS[costs[a]].label if a in costs else f"NS+MM-nsat({a:g})",
            r1=strength,
        )
        for a in SHARES
    }


def compute(
    setting: str = "", n_seeds: int = 10, steps: int = 0, samples: int = 5_000, folder: str = ""
) -> dict[str, Any]:
    """Train the five mixtures at both strengths, in one ensemble run.

    Args:
        setting: one of `SETTINGS`; "" takes "stacked-digits" at quick scale and "stacked-mnist" at full.
        n_seeds: seeds 0..n_seeds-1, shared by mixtures and strengths.
        steps: generator steps; 0 takes the recipe's.
        samples: generated images per evaluation and replica.
        folder: where checkpoints go; a run that finds one goes on from it. "" keeps none.

    Returns:
        Under "strong" and "relaxed", for each share (as text) "divergence", "distance" and "covered" `[T][S]`; "steps"
        `[T]`, "epochs", "setting", "samples", "strengths", "perfect" (the mean D_JS of as many real samples),
        "summary" (`summarise`) and "provenance".

    Raises:
        ValueError: a setting that is not among `SETTINGS`.
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="stacked-digits", full="stacked-mnist")
    if setting not in SETTINGS:
        raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
    seeds = list(range(n_seeds))
    flat = {
        f"{name} {a:g}": variant
        for name, value in STRENGTHS.items()
        for a, variant in variants_of(value).items()
    }
    trained = runs.train(
        setting,
        flat,
        seeds,
        steps or runs.SETTINGS[setting].steps,
        evaluations=2,
        samples=samples,
        log_every=50,
        out=Path(folder) if folder else None,
    )
    kept = ("divergence", "distance", "covered")
    result: dict[str, Any] = {
        name: {f"{a:g}": {key: trained[f"{name} {a:g}"][key] for key in kept} for a in SHARES}
        for name in STRENGTHS
    }
    return result | {
        "steps": trained["steps"],
        "epochs": trained["epochs"],
        "setting": setting,
        "samples": samples,
        "strengths": STRENGTHS,
        "perfect": rounded(perfect(samples)),
        "summary": {name: summarise(result[name]) for name in STRENGTHS},
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy", "scipy")),
    }


def perfect(samples: int, n_classes: int = N_CLASSES, repeats: int = 50) -> float:
    """D_JS in bits that a perfect generator of equally frequent classes scores on average, by simulation.

    The formula of `coverage.perfect` needs many samples per class, and here there are few.
    """
    rng = np.random.default_rng(0)
    shares = rng.multinomial(samples, np.full(n_classes, 1 / n_classes), size=repeats) / samples
    uniform = torch.full((n_classes,), 1 / n_classes)
    return float(class_divergence(torch.from_numpy(shares), uniform).mean())


def summarise(one: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers that texts and ledgers quote, of one strength of the penalty.

    Returns:
        For each share, medians over the seeds of D_JS, distance and classes covered at the end; "order": Spearman's
        rank correlation of share and final D_JS over all runs, after each seed's mean was taken off;
        "seeds_below": in how many seeds MM-nsat's D_JS is below that of NS; "ratio" of their medians.
    """
    ends = np.array([np.array(one[f"{a:g}"]["divergence"], float)[-1] for a in SHARES])  # [shares, S]
    table: dict[str, Any] = {
        f"{a:g}": {
            "D_JS": rounded(np.median(ends[i])),
            "distance": rounded(np.median(np.array(one[f"{a:g}"]["distance"], float)[-1])),
            "covered": rounded(np.median(np.array(one[f"{a:g}"]["covered"])[-1])),
        }
        for i, a in enumerate(SHARES)
    }
    shares = np.repeat(np.array(SHARES)[:, None], ends.shape[1], 1)
    table["order"] = rounded(float(spearmanr(shares.ravel(), (ends - ends.mean(0)).ravel()).statistic), 3)
    table["seeds_below"] = int((ends[-1] < ends[0]).sum())
    table["ratio"] = rounded(np.median(ends[0]) / np.median(ends[-1]), 3)
    return table


def draw(result: Mapping[str, Any]) -> Figure:
    """D_JS against distance, a mark for each run, with a line fitted to the logarithms of each mixture's runs."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4))
    for ax, (name, value) in zip(axes, result["strengths"].items(), strict=True):
        for a, mark, dash in zip(SHARES, "os^Dv", ("-", ":", "--", "-.", "-"), strict=True):
            color = {0.0: color_of("ns"), 1.0: color_of("mm-nsat")}.get(a) or BETWEEN[a]
            x, y = (np.array(result[name][f"{a:g}"][key], float)[-1] for key in ("distance", "divergence"))
            slope, height = np.polyfit(np.log(x), np.log(y), 1)
            ends = np.array([x.min(), x.max()])
            ax.plot(x, y, mark, color=color, ms=3.5, alpha=0.7)
            ax.plot(ends, np.exp(height + slope * np.log(ends)), ls=dash, color=color, lw=1.6)
            ax.plot([], [], ls=dash, marker=mark, color=color, ms=4, label=variants_of(value)[a].label)
        ax.set(xscale="log", yscale="log", title=f"{name} penalty, λ = {value:g}")
        ax.set(
            xlabel=f"FD, {result['setting']} classifier (no unit)", ylabel="$D_{JS}$ of 1,000 classes (bits)"
        )
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axis.set_major_formatter("{x:g}")
            axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SHARES))
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
