"""LeakyEMA paper, figure 3 again, for every reading of section 3.5: when do its four curves come in the paper's order?

The text leaves open whether 0.1 is a variance or a standard deviation, the scale of D's first parameters, whether the
teacher's samples share the generator's z, where the average starts, and (for those who would not train with a
saturating loss) the generator's loss. The result says for each reading how fast each set-up is, whether LeakyEMA leads
and whether its discriminator is the least confident one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from figures.leakyema.fig03_disjoint_supports import COLORS, SNAPSHOT, compare, summarise
from figures.provenance import command_line, stamp
from gankit.plotting import use_style
from gankit.scale import scale
from toy.gaussians import SETUPS, Choices, Run, train

ALTERNATIVES: Mapping[str, tuple[Any, Any]] = {
    "variance": (0.1, 0.01),
    "d_std": (1.0, 0.1),
    "loss": ("mm", "ns"),
    "shared_noise": (True, False),
    "teacher_start": (1.0, 0.0),
}
"""The two readings of each open choice, the default first."""

TEACHERS_ONLY = ("shared_noise", "teacher_start")


def one_at_a_time() -> list[Choices]:
    """The default reading, and those that differ from it in one choice."""
    return [Choices(), *(replace(Choices(), **{name: other}) for name, (_, other) in ALTERNATIVES.items())]


def all_readings() -> list[Choices]:
    """Every combination, 32 of them."""
    return [
        Choices(**dict(zip(ALTERNATIVES, values, strict=True)))
        for values in itertools.product(*ALTERNATIVES.values())
    ]


def describe(choices: Choices) -> str:
    """A reading in words: what differs from the default.

    "std 0.1" reads 0.1 as a standard deviation, "small D" starts D ten times smaller, "NS" is the non-saturating loss,
    "fresh z" gives the teacher its own z, "start at 0" is where the average starts.
    """
    words = {
        "variance": "std 0.1",
        "d_std": "small D",
        "loss": "NS",
        "shared_noise": "fresh z",
        "teacher_start": "start at 0",
    }
    return (
        ", ".join(words[n] for n, (default, _) in ALTERNATIVES.items() if getattr(choices, n) != default)
        or "default"
    )


def compute(seeds: int = 20, steps: int = 5000, readings: Iterable[Choices] | None = None) -> dict[str, Any]:
    """Train the four set-ups under each reading.

    Args:
        seeds: number of seeds, >= 1.
        steps: generator steps, >= 200.
        readings: which; None for :func:`one_at_a_time` at quick scale and :func:`all_readings` at full scale.

    Returns:
        "readings": per reading its name, "choices", "summary" and "comparison" as in `fig03_disjoint_supports`;
        "counts": in how many of the readings LeakyEMA is first, by each measure of speed; "settings", "provenance".

    Raises:
        ValueError: as `toy.gaussians.train`.
    """
    readings = list(readings) if readings is not None else scale(quick=one_at_a_time, full=all_readings)()
    done: dict[tuple[str, Choices], Run] = {}
    rows = []
    begin = time.perf_counter()
    for choices in tqdm(readings, desc="readings"):
        runs = {}
        for name, setup in SETUPS.items():
            # Without a teacher its two choices say nothing: such runs are shared between readings.
            default = {key: ALTERNATIVES[key][0] for key in TEACHERS_ONLY}
            key = (name, choices if setup.beta > 0 else replace(choices, **default))
            if key not in done:
                done[key] = train(setup, range(seeds), steps, choices, snapshot=SNAPSHOT)
            runs[name] = done[key]
        summary = {name: summarise(run) for name, run in runs.items()}
        rows.append(
            {
                "name": describe(choices),
                "choices": vars(choices),
                "summary": summary,
                "comparison": compare(runs),
            }
        )
    firsts = [row["comparison"]["leakyema_first"] for row in rows]
    return {
        "readings": rows,
        "counts": {
            "readings": len(rows),
            **{measure: sum(first[measure] for first in firsts) for measure in firsts[0]},
        },
        "settings": {"steps": steps, "snapshot": SNAPSHOT},
        "provenance": stamp(time.perf_counter() - begin, range(seeds), ("numpy", "torch")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """The mean norm of mu in each set-up and reading: points are medians, bars span the seeds."""
    use_style()
    rows = result["readings"]
    figure, ax = plt.subplots(figsize=(8.5, 1.4 + 0.3 * len(rows)))
    y = np.arange(len(rows))[::-1]
    for offset, (name, setup) in zip((0.24, 0.08, -0.08, -0.24), SETUPS.items(), strict=True):
        numbers = [row["summary"][name]["mean_norm"] for row in rows]
        middle = np.array([n["median"] for n in numbers])
        ends = np.abs(np.array([[n["min"], n["max"]] for n in numbers]).T - middle)
        ax.errorbar(
            middle, y + offset, xerr=ends, fmt="o", ms=4, lw=1.2, color=COLORS[name], label=setup.title
        )
    ax.set(xlabel=r"norm of the generator's mean $\|\mu\|$, averaged over training", xscale="log")
    ax.set_yticks(y, ["our reading" if row["name"] == "default" else row["name"] for row in rows], fontsize=8)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
