"""NS, MM and MM-nsat on the digits, ten seeds each: what saturates and what drops classes.

Two settings of the same fully connected GAN. In `dropping`, the usual beta1 = 0.5, training goes on long enough for
NS to lose classes; in `saturating`, beta1 = 0.9 and deeper networks, minimax's gradient dies. Each setting is one
ensemble run of 3 costs x S seeds: replicas of one seed share initial weights, z and data, so costs are compared
pair by pair. Both settings together take about a minute.

The small counterpart of figures 5 and 8 of "Sample weighting as an explanation for mode collapse in GANs".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import gankit as gk
from figures.mm_nsat.runs import DEAD
from figures.provenance import command_line, rounded, stamp
from gankit import classifiers
from gankit.classifiers import Classifier
from gankit.data import Dataset
from gankit.metrics.evaluation import evaluate_classes
from gankit.models.sampling import sample
from gankit.plotting import band, color_of, use_style
from gankit.recipes import recipes

COSTS = ("ns", "mm", "mm-nsat")
SETTINGS = {"dropping": "-digits", "saturating": "-digits-saturating"}
"""Setting -> ending of the recipes' names."""

NAMES = {"dropping": "gentle setting", "saturating": "rough setting"}
"""Setting -> its name in chapter 1 and in the figure."""

LABELS = {"ns": "NS", "mm": "MM", "mm-nsat": "MM-nsat"}

SAMPLES = 1_000

THIN = 10
"""Of so many readings of the gradient, a result keeps one: what a picture can show."""


def train(setting: str, seeds: Sequence[int], steps: int, evaluations: int = 8) -> dict[str, Any]:
    """One setting: all costs and seeds in one ensemble run.

    Args:
        setting: "dropping" or "saturating".
        seeds: S seeds, used once per cost.
        steps: generator steps.
        evaluations: how often samples are judged, the end included.

    Returns:
        "steps" `[T]` and "gradient_steps" `[T']`; for each cost, "divergence" and "distance" `[T, S]` (D_JS of the
        classes and the Frechet distance in the digits classifier's features, of samples of the current
        generator) and "gradient" `[T', S]` (norm of the generator's gradient); "wall_time_s".
    """
    data, judge = gk.data.load("digits"), classifiers.load("digits", train=True)
    result = gk.study.run(
        COSTS[0] + SETTINGS[setting],
        {cost: {"loss": cost} for cost in COSTS},
        seeds,
        steps,
        measures=[lambda run: measure(run.G, data, judge)],
        evaluations=evaluations,
        log_every=5,
        data=data,
    )
    keys = {"divergence": "D_JS[classes]", "distance": "FD[digits classifier]", "gradient": "g_grad"}
    curves = {
        cost: {key: rounded(np.array(one[name], float)) for key, name in keys.items()}
        for cost, one in result["curves"].items()
    }
    clocks = {"steps": result["steps"], "gradient_steps": result["log_steps"]}
    return {"wall_time_s": result["wall_time_s"], **clocks, **curves}


def measure(G: nn.Module, data: Dataset, judge: Classifier) -> dict[str, torch.Tensor]:
    """Class statistics of every replica's samples, `[S]` each (`gankit.metrics.evaluation.evaluate_classes`)."""
    return evaluate_classes(sample(G, SAMPLES), data, judge)


def compute(n_seeds: int = 10, steps: int = 0) -> dict[str, Any]:
    """Both settings, one after the other.

    Args:
        n_seeds: seeds 0..n_seeds-1 for each cost.
        steps: generator steps of each setting; 0 takes the recipes' own, 4,000 and 3,000.

    Returns:
        For each setting what `train` returns, with every `THIN`-th reading of the gradient, and under "summary" what
        `summarise` does with all readings; JSON-able.
    """
    begun = time.perf_counter()
    seeds = list(range(n_seeds))
    result: dict[str, Any] = {
        name: train(name, seeds, steps or recipes[COSTS[0] + ending].steps)
        for name, ending in SETTINGS.items()
    }
    summary = {name: summarise(result[name]) for name in SETTINGS}
    for setting in result.values():
        setting["gradient_steps"] = setting["gradient_steps"][::THIN]
        for cost in COSTS:
            setting[cost]["gradient"] = rounded(np.array(setting[cost]["gradient"])[::THIN], 3)
    return result | {
        "summary": summary,
        "samples": SAMPLES,
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy")),
    }


def summarise(setting: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The counts and medians that the text quotes, for each cost.

    Returns:
        Per cost: "dead" (seeds whose generator gradient ever fell below `DEAD`), median and range of the final
        D_JS and distance, and for MM and MM-nsat "seeds_below_ns", the number of seeds whose final D_JS is below
        that of NS with the same seed.
    """
    final = {cost: np.array(setting[cost]["divergence"])[-1] for cost in COSTS}
    table: dict[str, dict[str, float]] = {}
    for cost in COSTS:
        distance = np.array(setting[cost]["distance"])[-1]
        table[cost] = {
            "dead": int((np.array(setting[cost]["gradient"]) < DEAD).any(0).sum()),
            "D_JS": rounded(np.median(final[cost])),
            "D_JS_min": rounded(final[cost].min()),
            "D_JS_max": rounded(final[cost].max()),
            "distance": rounded(np.median(distance)),
        }
        if cost != "ns":
            table[cost]["seeds_below_ns"] = int((final[cost] < final["ns"]).sum())
    return table


def draw(result: dict[str, Any]) -> Figure:
    """Left: the generator's gradient, with `DEAD` dotted; right: D_JS of classes. One row per setting."""
    use_style()
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.6), sharex="row")
    for row, name in zip(axes, SETTINGS, strict=True):
        setting = result[name]
        for cost in COSTS:
            style = {"label": LABELS[cost], "color": color_of(cost)}
            band(row[0], setting["gradient_steps"], np.array(setting[cost]["gradient"]), **style)
            band(row[1], setting["steps"], np.array(setting[cost]["divergence"]), **style)
        row[0].set(yscale="log", ylabel="norm of G's gradient", title=f"{NAMES[name]}: gradient")
        row[1].set(yscale="log", ylabel="$D_{JS}$ of classes (bits)", title=f"{NAMES[name]}: class coverage")
        row[1].set_yticks([0.01, 0.03, 0.1, 0.3, 0.76], ["0.01", "0.03", "0.1", "0.3", "0.76"])
        row[1].minorticks_off()
        row[0].axhline(DEAD, color="black", lw=0.8, ls=":")
        for ax in row:
            ax.set_xlabel("generator steps")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(COSTS))
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
