"""LeakyEMA paper, figure 10: the Dirac-GAN with and without a mean teacher, in continuous time (appendix A).

The paper draws (theta, psi) for the non-saturating game and (theta, psi) and (theta_EMA, psi) for LeakyEMA; it names
neither alpha and beta nor the starting point. Ours are stated in the result. (Appendix A calls the figure number 16.)
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from figures.provenance import command_line, rounded, stamp
from gankit.plotting import use_style
from toy.dirac import GAMES, averaged, max_real_part, trajectory
from toy.stability import decay_rate

START = (1.0, 1.0)
ALPHA, BETA = 0.5, 0.5
COLORS = {"ns": "#0072B2", "ns-leakyema": "#CC79A7", "average": "#E69F00"}


def compute(time_units: int = 100, points: int = 2001) -> dict[str, Any]:
    """Integrate both games from the same start.

    Args:
        time_units: length of the trajectories, >= 10.
        points: number of times, >= 50.

    Returns:
        "times"; per game "theta" and "psi", for LeakyEMA also "average"; "summary" with the first and last distance to
        the equilibrium, the decay rate measured after the first tenth and minus the largest real part it should equal
        (0 without a teacher), and for the game without a teacher ``t |x|^2``, which tends to 8; "settings" and
        "provenance".

    Raises:
        ValueError: fewer points or time units than stated.
    """
    if time_units < 10 or points < 50:
        raise ValueError(f"need time_units >= 10 and points >= 50, got {time_units} and {points}")
    begin = time.perf_counter()
    times = np.linspace(0, time_units, points)
    result: dict[str, Any] = {"times": rounded(times), "summary": {}}
    for name in ("ns", "ns-leakyema"):
        game = GAMES[name]
        values = {"alpha": ALPHA, "beta": BETA} if game.memory else {}
        start = np.array([*START, *(0.0 for _ in game.memory)])
        path = trajectory(game, start, times, **values)
        distances = np.linalg.norm(path, axis=1)
        late = slice(points // 10, None)
        result[name] = {"theta": rounded(path[:, 0]), "psi": rounded(path[:, 1])}
        if game.memory:
            result[name]["average"] = rounded(averaged(game, path, **values))
        result["summary"][name] = {
            "first_distance": rounded(distances[0]),
            "last_distance": rounded(distances[-1]),
            "measured_rate": rounded(decay_rate(times[late], distances[late])),
            "linear_rate": rounded(0.0 - max_real_part(game, **values)),
        }
    result["summary"]["ns"]["time_times_squared_distance"] = rounded(
        time_units * result["summary"]["ns"]["last_distance"] ** 2
    )
    return {
        **result,
        "settings": {"start": START, "alpha": ALPHA, "beta": BETA, "time_units": time_units},
        "provenance": stamp(time.perf_counter() - begin),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Both phase portraits side by side, from the result of :func:`compute`."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 4), sharex=True, sharey=True)
    for ax, name, title in zip(axes, ("ns", "ns-leakyema"), ("Conventional", "LeakyEMA"), strict=True):
        path = result[name]
        ax.plot(path["theta"], path["psi"], color=COLORS[name], lw=1.2, label=r"$(\theta, \psi)$")
        if "average" in path:
            label = r"$(\theta^{\mathrm{EMA}}, \psi)$"
            ax.plot(path["average"], path["psi"], color=COLORS["average"], lw=1.2, ls="--", label=label)
        ax.plot(*result["settings"]["start"], "o", color="#000000", ms=5, label="start")
        ax.plot(0, 0, "+", color="#000000", ms=9, label="equilibrium")
        ax.set(xlabel=r"generator $\theta$ (no unit)", title=title, aspect="equal")
    axes[0].set_ylabel(r"discriminator $\psi$ (no unit)")
    axes[1].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
