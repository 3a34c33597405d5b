"""Real and generated images together: a classifier whose batches hold a share of generated images, and few or many real
ones. Shares 0 and 1 are the two sources alone; the GAN has seen all real training images, as in the papers."""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from figures.incremental import runs
from figures.incremental.runs import WORLDS
from figures.provenance import command_line, rounded, stamp
from gankit.classifiers.synthetic import FixedSet, Generated, Mixed
from gankit.data import Dataset
from gankit.plotting import band, use_style

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW = 100


def first_of_each_class(data: Dataset, n: int) -> Dataset:
    """n images of a dataset, equally many of each class, the first ones."""
    each = n // data.n_classes
    return data.subset(torch.cat([(data.labels == k).nonzero()[:each, 0] for k in range(data.n_classes)]))


def compute(n_seeds: int = 8, G: nn.Module | None = None, few_only_gan: int = 1) -> dict[str, Any]:
    """Train on every share, with all real images and with few.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        G: conditional generators of so many replicas, trained on all real images; None trains.
        few_only_gan: 1 to train GANs on the few images alone as well, 0 not to.

    Returns:
        "accuracy": "all", "few" and, if asked for, "few, GAN of few" -> shares x seeds; "comparisons": of each with
        share 0; "shares"; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    setting, seeds = WORLDS["digits"], range(n_seeds)
    train, test = setting.load()
    few = first_of_each_class(train, FEW)
    G = runs.train_gans(setting, train, seeds).teacher.net if G is None else G
    cases = {"all": (train, G), "few": (few, G)}
    if few_only_gan:
        cases["few, GAN of few"] = (few, runs.train_gans(setting, few, seeds).teacher.net)
    accuracy = {}
    for name, (real, generator) in cases.items():
        rows = []
        for share in SHARES:
            source = Mixed(Generated(generator), FixedSet.real(real, seeds), share)
            rows.append(runs.learn(setting, source, test, seeds).last.numpy())
        accuracy[name] = np.array(rows)
    return {
        "shares": list(SHARES),
        "few": FEW,
        "accuracy": {name: rounded(values) for name, values in accuracy.items()},
        "comparisons": {
            name: {
                str(share): runs.compare(row, values[0])
                for share, row in zip(SHARES, values, strict=True)
                if share
            }
            for name, values in accuracy.items()
        },
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy", "scipy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Accuracy over the share of generated images; a line for each set of real ones."""
    use_style()
    figure, ax = plt.subplots(figsize=(5.5, 3.1))
    labels = {"all": "all real images", "few": f"{result['few']} real images",
              "few, GAN of few": f"{result['few']}, and the GAN saw only these"}  # fmt: skip
    for name, values in result["accuracy"].items():
        band(ax, np.array(result["shares"]), 100 * np.array(values), label=labels[name])
    ax.set(xlabel="share of generated images", ylabel="test accuracy (%)")
    ax.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
