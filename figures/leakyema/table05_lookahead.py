"""LeakyEMA paper, table 5: SNGAN with Lookahead-minmax, and with LeakyEMA.

Lookahead (`figures.leakyema.lookahead`) is the other method that trains from averaged weights. Both together are ours.

Quick scale trains on the digits, in minutes; --setting cifar10-sngan (GANKIT_SCALE=full) needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from figures.leakyema import runs
from figures.leakyema.runs import Variant
from figures.leakyema.table02_variants import START
from figures.provenance import command_line
from gankit.scale import scale

PAPER: Mapping[str, float] = {"conventional": 7.93, "lookahead": 6.06, "leakyema": 5.00}
"""FID on LSUN-Church."""

COLORS: Mapping[str, str] = {
    "conventional": runs.CONVENTIONAL,
    "lookahead": "#E69F00",
    "leakyema": runs.LEAKY,
    "both": "#CC79A7",
}


def variants(k: int = 5, start: str = str(START)) -> dict[str, Variant]:
    """Conventional training, either method, and both: name -> variant."""
    return {
        "conventional": Variant("SNGAN"),
        "leakyema": Variant("SNGAN + LeakyEMA", 0.5, float(start)),
        "lookahead": Variant("SNGAN + Lookahead", lookahead=k),
        "both": Variant("SNGAN + both", 0.5, float(start), lookahead=k),
    }


def compute(
    setting: str = "", k: int = 5, start: str = str(START), n_seeds: int = 10, **others: Any
) -> dict[str, Any]:
    """Train all four.

    Args:
        setting: "" takes "digits-sngan" at quick scale and "cifar10-sngan" at full.
        k: generator steps between two looks back.
        start: N as a share of all steps.
        n_seeds, others: as for `runs.experiment`.

    Returns:
        What `runs.experiment` returns, with "k".
    """
    setting = setting or scale(quick="digits-sngan", full="cifar10-sngan")
    return runs.experiment(variants(k, start), setting, n_seeds=n_seeds, **others) | {"k": k}


def draw(result: dict[str, Any]) -> Figure:
    """The distance of the average (left) and of the generator (right) during training: medians and bands over seeds."""
    return runs.draw_distances(result, variants(result["k"]), COLORS)


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
