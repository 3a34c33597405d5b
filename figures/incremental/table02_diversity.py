"""Incremental learning paper, table 2 and section 4: what truncation does to diversity, quality and to a classifier.

For each limit of |z|: similarity inside classes (MS-SSIM), FD[digits classifier] to the test images, the accuracy of a
classifier that learns from the samples, and the reverse, how many samples a classifier of real images gets right.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

import gankit as gk
from figures.book.measuring_damage import zoom
from figures.incremental import runs
from figures.incremental.runs import WORLDS
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.classifiers import synthetic
from gankit.classifiers.synthetic import Generated
from gankit.plotting import use_style

LIMITS = (None, 1.5, 1.0, 0.5)
"""Largest |z|; None is no truncation."""

PAPER = {"real": (40.5, 10.31), "none": (42.2, 16.97), "1.5": (44.5, 24.58), "0.5": (61.1, 76.95)}
"""MS-SSIM times 100 and FID of 5,000 samples, on CIFAR-10."""

SAMPLES = 1_000


def compute(n_seeds: int = 8, G: nn.Module | None = None) -> dict[str, Any]:
    """Measure an ensemble of generators at every limit.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        G: conditional generators, one replica for each seed; None trains.

    Returns:
        "limits"; "ms_ssim", "fd", "accuracy" and "reverse": limits x seeds; "real": both measures of real images;
        "comparisons" of the accuracy with that without a limit; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    setting, seeds = WORLDS["digits"], range(n_seeds)
    train, test = setting.load()
    judge = setting.judge(train, test)
    G = runs.train_gans(setting, train, seeds).teacher.net if G is None else G
    known = runs.features_of_digits(test.normalise(test.images))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("ms_ssim", "fd", "accuracy", "reverse")}
    for limit in LIMITS:
        images, labels = Generated(G, truncation=limit, seed=7).draw(SAMPLES)
        alike = [_similarity(x, y) for x, y in zip(images, labels, strict=True)]
        rows["ms_ssim"].append(np.array(alike))
        rows["fd"].append(metrics.frechet_distance(runs.features_of_digits(images), known).numpy())
        learned = runs.learn(setting, Generated(G, truncation=limit), test, seeds)
        rows["accuracy"].append(learned.last.numpy())
        rows["reverse"].append(1 - synthetic.mistakes(judge, images, labels).double().mean(-1).numpy())
    # FD between the two parts of the real images, as the paper's row for CIFAR-10.
    real = metrics.frechet_distance(runs.features_of_digits(train.normalise(train.images)), known)
    whole = gk.data.load("digits")
    compared = {
        str(x): runs.compare(a, rows["accuracy"][0]) for x, a in zip(LIMITS, rows["accuracy"], strict=True)
    }
    return {
        "limits": list(LIMITS),
        **{name: rounded(np.array(values)) for name, values in rows.items()},
        "real": {
            "ms_ssim": rounded(_similarity(whole.normalise(whole.images), whole.labels)),
            "fd": rounded(float(real)),
        },
        "comparisons": {name: value for name, value in compared.items() if name != "None"},
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy", "scipy")),
    }  # fmt: skip


def _similarity(images: Tensor, labels: Tensor) -> float:
    return float(metrics.ms_ssim_diversity(zoom(images), labels, pairs=25).mean)


def draw(result: dict[str, Any]) -> Figure:
    """Left: both accuracies over the limit. Right: MS-SSIM and FD over the limit."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.9))
    ticks = ["none" if limit is None else f"{limit:g}" for limit in result["limits"]]
    x = np.arange(len(ticks))
    names = {"accuracy": "learns from samples", "reverse": "judges samples"}
    for color, (name, label) in zip(("#D55E00", "#0072B2"), names.items(), strict=True):
        gk.plotting.band(axes[0], x, 100 * np.array(result[name]), label=label, color=color)
    axes[0].legend(fontsize=8)
    gk.plotting.band(axes[1], x, np.array(result["ms_ssim"]), color="#009E73")
    axes[1].axhline(result["real"]["ms_ssim"], color="black", lw=1, ls=":")
    gk.plotting.band(axes[2], x, np.array(result["fd"]), color="#009E73")
    axes[2].axhline(result["real"]["fd"], color="black", lw=1, ls=":")
    labels = ("accuracy (%)", "MS-SSIM within classes", "FD[digits classifier]")
    for ax, label in zip(axes, labels, strict=True):
        ax.set_xticks(x, ticks)
        ax.set(xlabel="largest |z|", ylabel=label)
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
