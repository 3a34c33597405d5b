"""Lecture, "Wasserstein distance": P = (3, 2, 1, 4) and Q = (1, 2, 4, 3) are 5 units of work apart.

The linear program's transport plan, its dual potential (what a perfect critic outputs) and the closed form on a line.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.provenance import command_line, rounded, stamp
from gankit.plotting import use_style
from toy.divergences import earth_mover

P, Q = (3, 2, 1, 4), (1, 2, 4, 3)
COLORS = {"p": "#0072B2", "q": "#D55E00", "plan": "#009E73"}


def compute() -> dict[str, Any]:
    """Solve the lecture's example.

    Returns:
        "p", "q", "plan" (``[i][j]``: mass from i to j), "potential"; "summary" with the "work", its value by the
        cumulative sums and by the potential; "settings" and "provenance".
    """
    begin = time.perf_counter()
    moved = earth_mover(np.array(P), np.array(Q))
    difference = np.subtract(P, Q)
    return {
        "p": list(P),
        "q": list(Q),
        "plan": rounded(moved.plan),
        "potential": rounded(moved.potential),
        "summary": {
            "work": rounded(moved.work),
            "work_by_cumulative_sums": float(np.abs(np.cumsum(difference)).sum()),
            "work_by_potential": rounded(moved.potential @ difference),
        },
        "settings": {},
        "provenance": stamp(time.perf_counter() - begin, packages=("numpy", "scipy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: both heaps and what moves between them. Right: the plan as a table."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), width_ratios=(1.6, 1))
    places = np.arange(len(result["p"])) + 1
    left.bar(places - 0.2, result["p"], 0.36, color=COLORS["p"], label="$P$")
    left.bar(places + 0.2, result["q"], 0.36, color=COLORS["q"], label="$Q$")
    plan = np.array(result["plan"])
    for i, j in zip(*np.nonzero(plan), strict=True):
        if i != j:
            top = max(result["p"][i], result["q"][j]) + 0.3
            arrow = {
                "arrowstyle": "->",
                "color": COLORS["plan"],
                "lw": 1.5,
                "connectionstyle": "arc3,rad=-0.3",
            }
            left.annotate("", (places[j] + 0.2, top), (places[i] - 0.2, top), arrowprops=arrow)
            left.text(
                (places[i] + places[j]) / 2, top + 0.55, f"{plan[i, j]:g}", color=COLORS["plan"], ha="center"
            )
    left.set(
        xlabel="position",
        ylabel="mass",
        xticks=places,
        ylim=(0, 6),
        title=f"work = {result['summary']['work']:g}",
    )
    left.legend(loc="upper left", ncols=2)
    right.imshow(plan, cmap="Greens", vmin=0, vmax=plan.max() * 1.5)
    for (i, j), mass in np.ndenumerate(plan):
        right.text(j, i, f"{mass:g}", ha="center", va="center")
    right.set(
        xlabel="to position (of $Q$)", ylabel="from position (of $P$)", title="transport plan: mass moved"
    )
    right.set_xticks(places - 1, places)
    right.set_yticks(places - 1, places)
    right.grid(False)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
