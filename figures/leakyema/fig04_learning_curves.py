"""LeakyEMA paper, figure 4: the distance during training, with and without LeakyEMA (beta = 0.5, N at 0.4 of the run).

The paper reads two things off one pair of curves: LeakyEMA's ends lower, and it fluctuates less. Here are several
seeds, with a number for the second: the standard deviation, over the judgements after N, of the change of the
logarithm of the distance from one judgement to the next, which no trend can blow up.

Quick scale trains on the digits, in minutes; --setting cifar10-sngan (GANKIT_SCALE=full) needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from figures.leakyema import runs
from figures.leakyema.runs import Variant
from figures.leakyema.table02_variants import START
from figures.provenance import command_line, rounded


def variants(start: str = str(START)) -> dict[str, Variant]:
    """Both ways of training: name -> variant."""
    return {
        "conventional": Variant("conventional"),
        "leakyema": Variant("LeakyEMA, β = 0.5", 0.5, float(start)),
    }


def compute(setting: str = "", start: str = str(START), n_seeds: int = 10, **others: Any) -> dict[str, Any]:
    """Train both.

    Args:
        start: N as a share of all steps.
        setting, n_seeds, others: as for `runs.experiment`.

    Returns:
        What `runs.experiment` returns, with "fluctuation": for each variant `[S]`, see above, and
        "calmer", in how many seeds LeakyEMA's is the smaller.

    Raises:
        ValueError: fewer than three judgements come after N.
    """
    result = runs.experiment(variants(start), setting, n_seeds=n_seeds, **others)
    late = np.array(result["steps"]) > result["starts"]["leakyema"]
    if late.sum() < 3:
        raise ValueError(f"evaluations must be so many that three come after N, and {late.sum()} did")
    moves = {name: fluctuation(np.array(result[name]["distance"], float)[late]) for name in result["names"]}
    return result | {
        "fluctuation": {name: rounded(values) for name, values in moves.items()},
        "calmer": int((moves["leakyema"] < moves["conventional"]).sum()),
    }


def fluctuation(curves: np.ndarray) -> np.ndarray:
    """Standard deviation over time of the steps of log(curves): `[T, S]` -> `[S]`, no unit. T must be at least 3."""
    return np.diff(np.log(curves), axis=0).std(0, ddof=1)


def draw(result: dict[str, Any]) -> Figure:
    """On the left the average, on the right the generator itself: medians and bands over seeds."""
    colors = {"conventional": runs.CONVENTIONAL, "leakyema": runs.LEAKY}
    return runs.draw_distances(result, variants(), colors)


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
