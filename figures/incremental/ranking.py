"""Does a better FD mean a better classifier? (Ravuri and Vinyals 2019.) Generators of two ages, averaged ones, and
truncated ones, ranked by FD[digits classifier] and by the accuracy of what learns from them; all, and some only."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import nn

from figures.incremental import runs
from figures.incremental.runs import WORLDS
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.classifiers.synthetic import Generated
from gankit.plotting import use_style

SAMPLES = 1_000
LIMITS = (1.5, 1.0)
"""Of |z|, for the oldest averaged generators."""


def compute(n_seeds: int = 8, G: Mapping[str, nn.Module] | None = None) -> dict[str, Any]:
    """Measure several ensembles of generators both ways.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        G: kind -> conditional generators, one replica for each seed, of which the last are truncated, too; None trains.

    Returns:
        "fd", "intra_fd" and "accuracy": kind -> one for each seed; "correlation": Spearman's, of which distance and
        which generators -> "rho", "p", "n"; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    setting, seeds = WORLDS["digits"], range(n_seeds)
    _, test = setting.load()
    G = of_two_ages(n_seeds) if G is None else dict(G)
    known = runs.features_of_digits(test.normalise(test.images))
    *_, oldest = G
    kinds = {name: (net, None) for name, net in G.items()}
    kinds |= {f"{oldest}, |z| < {limit:g}": (G[oldest], limit) for limit in LIMITS}
    fd, intra, accuracy = {}, {}, {}
    for name, (net, limit) in kinds.items():
        images, labels = Generated(net, truncation=limit, seed=7).draw(SAMPLES)
        fake = runs.features_of_digits(images)
        fd[name] = metrics.frechet_distance(fake, known).tolist()
        intra[name] = metrics.intra_class(
            metrics.frechet_distance, known, test.labels, fake, labels
        ).mean.tolist()
        accuracy[name] = runs.learn(setting, Generated(net, truncation=limit), test, seeds).last.tolist()
    sets = {
        "all": list(kinds),
        "without young averages": [name for name in kinds if name != "young average"],
        "old ones": [name for name in kinds if "young" not in name],
        "old averages": [oldest],
    }
    return {
        "fd": {name: rounded(values) for name, values in fd.items()},
        "intra_fd": {name: rounded(values) for name, values in intra.items()},
        "accuracy": {name: rounded(values) for name, values in accuracy.items()},
        "correlation": {
            f"{distance}, {which}": _rank(score, accuracy, names)
            for which, names in sets.items()
            for distance, score in (("FD", fd), ("intra-FD", intra))
        },
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy", "scipy")),
    }


def of_two_ages(n_seeds: int) -> dict[str, nn.Module]:
    """Generators of one run at half of its steps and at its end, and their averages at both.

    At half the averages are too young: with a decay of 0.999 they still remember their initial weights.
    """
    setting = WORLDS["digits"]
    run = runs.train_gans(setting, setting.load()[0], range(n_seeds), steps=setting.steps // 2)
    young = {"young average": copy_of(run.teacher.net), "young G": copy_of(run.G)}
    run.fit(setting.steps - run.steps, progress=False)
    return young | {"old G": run.G, "old average": run.teacher.net}


def copy_of(net: nn.Module) -> nn.Module:
    """The same generators, which training no longer changes."""
    return copy.deepcopy(net)


def _rank(
    score: dict[str, list[float]], accuracy: dict[str, list[float]], names: list[str]
) -> dict[str, float]:
    a, b = (np.concatenate([of[name] for name in names]) for of in (score, accuracy))
    found = spearmanr(a, b)
    return {"rho": rounded(found.statistic), "p": rounded(found.pvalue), "n": len(a)}


def draw(result: dict[str, Any]) -> Figure:
    """Accuracy over both distances; a colour for each kind of generator."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True)
    for i, name in enumerate(result["fd"]):
        for ax, score in zip(axes, ("fd", "intra_fd"), strict=True):
            marker = "o" if "|z|" not in name else "^"
            ax.scatter(result[score][name], 100 * np.array(result["accuracy"][name]), s=16, marker=marker,
                       color=f"C{i}", lw=0, label=name)  # fmt: skip
    axes[0].set(xlabel="FD[digits classifier]", ylabel="accuracy (%)", xscale="log")
    axes[1].set(xlabel="intra-FD[digits classifier]", xscale="log")
    axes[1].legend(fontsize=8, bbox_to_anchor=(1, 1))
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
