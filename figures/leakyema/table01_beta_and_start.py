"""LeakyEMA paper, table 1: how the share of replaced samples, beta, and the step N at which it begins matter.

The paper trains SNGAN on LSUN-Church for 250,000 steps. Here N is a share of the run: its 80,000 to 140,000 are 0.32 to
0.56. Distances are Frechet distances of the averaged generator in the features of this book's classifiers, not
the paper's FID, so rows and columns compare with each other and only their order compares with the paper.

Quick scale trains on the digits, in minutes. --setting mnist-conv4 needs the MNIST files (GANKIT_DATA) and an
hour, --setting cifar10-sngan (GANKIT_SCALE=full) CIFAR-10 and a GPU. With --folder an interrupted run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.leakyema import runs
from figures.leakyema.runs import Variant
from figures.provenance import command_line
from gankit.plotting import use_style

PAPER: Mapping[float, Mapping[str, tuple[float, float]]] = {
    0.32: {"0": (7.94, 2.40), "0.25": (5.33, 0.45), "0.5": (4.21, 0.21), "0.75": (5.05, 0.63)},
    0.40: {"0": (7.94, 2.40), "0.25": (5.26, 0.47), "0.5": (4.15, 0.31), "0.75": (5.01, 0.61)},
    0.48: {"0": (7.94, 2.40), "0.25": (5.25, 0.47), "0.5": (4.17, 0.24), "0.75": (4.83, 0.35)},
    0.56: {"0": (7.94, 2.40), "0.25": (6.13, 1.83), "0.5": (5.62, 2.52), "0.75": (6.06, 2.04)},
}
"""N as a share of 250,000 steps -> beta -> FID, mean and standard deviation of five runs."""


def variants(betas: str = "0.25,0.5,0.75,1", starts: str = "0,0.125,0.25,0.5") -> dict[str, Variant]:
    """Conventional training, and every pair of a beta and a start: name -> variant.

    Args:
        betas: shares above 0, with commas between them.
        starts: N as shares of the run, with commas between them.
    """
    grid = {
        name_of(beta, start): Variant(f"β = {beta:g}, N at {start:.0%}", beta, start)
        for start in _numbers(starts)
        for beta in _numbers(betas)
    }
    return {"conventional": Variant("conventional")} | grid


def name_of(beta: float, start: float) -> str:
    """Name of a cell of the table, such as "beta 1/2 start 1/8" (the ledger's keys must hold no point)."""
    return f"beta {_fraction(beta)} start {_fraction(start)}" if beta else "conventional"


def compute(
    setting: str = "",
    betas: str = "0.25,0.5,0.75,1",
    starts: str = "0,0.125,0.25,0.5",
    n_seeds: int = 6,
    **others: Any,
) -> dict[str, Any]:
    """Train the grid.

    Args:
        betas: shares of real samples replaced, with commas between them.
        starts: N as shares of all steps, with commas between them.
        setting, n_seeds, others: as for `runs.experiment`.

    Returns:
        What `runs.experiment` returns, with "betas" and "start_shares".
    """
    result = runs.experiment(variants(betas, starts), setting, n_seeds=n_seeds, **others)
    return result | {"betas": _numbers(betas), "start_shares": _numbers(starts)}


def draw(result: dict[str, Any]) -> Figure:
    """On the left the distance at the end for every cell (dots are seeds, lines join medians); then the average's
    distance during training for each start, thin lines for the seeds and a thick one for their median.

    Args:
        result: of `compute`.
    """
    use_style()
    shares = result["start_shares"]
    figure, axes = plt.subplots(
        1, 1 + len(shares), figsize=(3.2 + 2.5 * len(shares), 3.5), sharey=True, squeeze=False
    )
    colors = dict(zip(result["betas"], runs.BETAS, strict=False))
    _draw_ends(axes[0, 0], result, colors)
    for ax, share in zip(axes[0, 1:], shares, strict=True):
        curves = {"conventional": runs.CONVENTIONAL} | {
            name_of(beta, share): color for beta, color in colors.items()
        }
        for name, color in curves.items():
            distance = np.array(result[name]["distance"], float)
            ax.plot(result["steps"], distance, color=color, lw=0.6, alpha=0.5)
            ax.plot(result["steps"], np.median(distance, 1), color=color, lw=2)
        ax.axvline(share * result["steps"][-1], color="black", lw=0.8, ls=":")
        ax.set(title=f"N at {share:.0%} of the steps", xlabel="generator steps", yscale="log")
    handles = [
        plt.Line2D([], [], color=runs.CONVENTIONAL),
        *(plt.Line2D([], [], color=c) for c in colors.values()),
    ]
    labels = ["conventional", *(f"β = {beta:g}" for beta in colors)]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    axes[0, 0].set_ylabel("FD, classifier's features (no unit)")
    return figure


def _draw_ends(ax: Axes, result: Mapping[str, Any], colors: Mapping[float, str]) -> None:
    """The distance in which each run ended, over N."""
    shares = result["start_shares"]
    plain = np.array(result["conventional"]["distance"], float)[-1]
    ax.axhspan(plain.min(), plain.max(), color=runs.CONVENTIONAL, alpha=0.15, lw=0)
    ax.axhline(np.median(plain), color=runs.CONVENTIONAL, lw=1.8)
    for i, (beta, color) in enumerate(colors.items()):
        places = np.arange(len(shares)) + 0.12 * (i - (len(colors) - 1) / 2)
        ends = np.array([result[name_of(beta, share)]["distance"][-1] for share in shares], float)
        ax.plot(np.repeat(places, ends.shape[1]), ends.ravel(), ".", color=color, ms=4, alpha=0.7)
        ax.plot(places, np.median(ends, 1), "-", color=color, lw=1.8)
    ax.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
    ax.set(title="at the end", xlabel="N, share of all steps", yscale="log")


def _fraction(share: float) -> Fraction:
    return Fraction(share).limit_denominator(1_000)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
