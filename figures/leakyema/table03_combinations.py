"""LeakyEMA paper, table 3: LeakyEMA together with a gradient penalty (WGAN-GP) and with spectral normalisation (SNGAN).

beta = 0.25 for WGAN-GP (appendix B) and 0.5 for SNGAN; N at the share 0.4 of the run (the paper takes the step at which
conventional training was best, up to 140,000 of 250,000).

Quick scale trains on the digits, in minutes; GANKIT_SCALE=full trains on CIFAR-10 and needs a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.leakyema import runs
from figures.leakyema.runs import Variant
from figures.leakyema.table02_variants import START
from figures.provenance import command_line, stamp
from gankit.plotting import band, use_style
from gankit.scale import scale

BETAS: Mapping[str, float] = {"wgan-gp": 0.25, "sngan": 0.5}

TITLES: Mapping[str, str] = {"wgan-gp": "WGAN-GP", "sngan": "SNGAN"}

PAPER: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "wgan-gp": {"conventional": (9.51, 12.66), "leakyema": (8.62, 11.61)},
    "sngan": {"conventional": (7.93, 13.48), "leakyema": (4.15, 4.67)},
}
"""FID on LSUN-Church and LSUN-Bedroom at 128 pixels. On FFHQ, SNGAN: 14.80, with LeakyEMA 11.87."""


def variants(stabiliser: str) -> dict[str, Variant]:
    """Conventional training, and LeakyEMA, with one of `BETAS`: name -> variant."""
    return {
        "conventional": Variant(TITLES[stabiliser]),
        "leakyema": Variant(f"{TITLES[stabiliser]} + LeakyEMA", BETAS[stabiliser], START),
    }


def compute(data: str = "", n_seeds: int = 8, folder: str = "", **others: Any) -> dict[str, Any]:
    """Train both, each with and without LeakyEMA.

    Args:
        data: "digits" or "cifar10"; "" goes by the scale.
        folder: where checkpoints go; "" keeps none.
        n_seeds, others: as for `runs.experiment`.

    Returns:
        "wgan-gp" and "sngan", results of `runs.experiment`; "summary" of both, and "provenance".
    """
    data = data or scale(quick="digits", full="cifar10")
    results = {
        name: runs.experiment(
            variants(name),
            f"{data}-{name}",
            n_seeds=n_seeds,
            folder=f"{folder}/{name}" if folder else "",
            **others,
        )
        for name in BETAS
    }
    seconds = sum(result.pop("provenance")["wall_time_s"] for result in results.values())
    return results | {
        "data": data,
        "summary": {name: result.pop("summary") for name, result in results.items()},
        "provenance": stamp(seconds, range(n_seeds), ("torch", "numpy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """The distance of the average during training, with and without LeakyEMA: medians and bands over seeds."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2))
    for ax, name in zip(axes, BETAS, strict=True):
        one = result[name]
        for variant, color in (("conventional", runs.CONVENTIONAL), ("leakyema", runs.LEAKY)):
            curves = np.array(one[variant]["distance"], float)
            band(ax, np.array(one["steps"]), curves, color=color, label=variants(name)[variant].label)
        ax.axvline(one["starts"]["leakyema"], color="black", lw=0.8, ls=":")
        ax.set(xlabel="generator steps", ylabel="FD, classifier's features (no unit)", yscale="log")
        ax.legend()
    return figure


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
