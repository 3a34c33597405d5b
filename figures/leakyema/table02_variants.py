"""LeakyEMA paper, table 2 and the end of section 4.1: where the samples come from that replace real ones.

"sync": the average, on the z of the minibatch's fakes. "async-noise": the average, on z of its own. "async-model": the
average of a finished conventional run, fixed. "generator": the generator itself. "most-realistic": those of the
generator's samples that D takes for real most. beta = 0.5, and N at the paper's share of the run, 0.4.

Quick scale trains on the digits, in minutes; --setting cifar10-sngan (GANKIT_SCALE=full) needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.leakyema import runs
from figures.leakyema.runs import Variant
from figures.provenance import command_line
from gankit.game.leak import SOURCES
from gankit.plotting import use_style

START = 0.4
"""N = 100,000 of 250,000 steps."""

PAPER: Mapping[str, float] = {"conventional": 7.93, "sync": 4.15, "async-noise": 4.16, "async-model": 5.85}
"""FID on LSUN-Church. Of the generator's samples, random or most realistic, the text says "equal or inferior to"
conventional training."""

LABELS: Mapping[str, str] = {
    "conventional": "conventional",
    "sync": "average, same z",
    "async-noise": "average, other z",
    "async-model": "a finished average",
    "generator": "generator, random",
    "most-realistic": "generator, most realistic",
}


def variants(beta: str = "0.5", start: str = str(START)) -> dict[str, Variant]:
    """Conventional training and the five sources: name -> variant."""
    sources = {s: Variant(LABELS[s], float(beta), float(start), s) for s in SOURCES}
    return {"conventional": Variant(LABELS["conventional"])} | sources


def compute(
    setting: str = "", beta: str = "0.5", start: str = str(START), n_seeds: int = 10, **others: Any
) -> dict[str, Any]:
    """Train all variants.

    Args:
        beta: share of the real samples replaced.
        start: N as a share of all steps.
        setting, n_seeds, others: as for `runs.experiment`.

    Returns:
        What `runs.experiment` returns, with "beta" and "start".
    """
    result = runs.experiment(variants(beta, start), setting, n_seeds=n_seeds, **others)
    return result | {"beta": float(beta), "start": float(start)}


def draw(result: dict[str, Any]) -> Figure:
    """Distance, precision and recall of the average at the end: a dot for each seed, a dash at the median."""
    use_style()
    keys = {"distance": "FD, classifier's features (no unit)", "precision": "precision", "recall": "recall"}
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), width_ratios=[1.4, 1, 1])
    for ax, (key, label) in zip(axes, keys.items(), strict=True):
        runs.draw_ends(ax, {LABELS[name]: result[name] for name in result["names"]}, key)
        ax.set(xlabel="what replaces real samples", ylabel=label)
    axes[0].set_yscale("log")
    return figure


def pairs(result: Mapping[str, Any], a: str, b: str) -> int:
    """In how many seeds the average of variant a ends at a smaller distance than that of variant b."""
    first, second = (np.array(result[name]["distance"], float)[-1] for name in (a, b))
    return int((first < second).sum())


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
