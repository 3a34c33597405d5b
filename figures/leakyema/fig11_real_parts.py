"""LeakyEMA paper, figure 11: largest real part of the Dirac-GAN's eigenvalues over alpha and beta.

Negative in the whole open square is Lemma 1; the paper shows the non-saturating and the Wasserstein loss. The paper's
running average has a gain below 1 in continuous time, so its rate does not vanish at beta = 1, where no real sample is
left; with an average of unit gain it does, and the fastest rate lies inside the square. Both are computed.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.provenance import command_line, rounded, stamp
from gankit.plotting import use_style
from toy.dirac import GAMES, max_real_part
from toy.mean_teacher import fastest

TITLES = {
    "ns-leakyema": "Non-saturating",
    "wgan-leakyema": "Wasserstein",
    "ns-leakyema-unit": "Non-saturating, unit gain",
    "wgan-leakyema-unit": "Wasserstein, unit gain",
}
KEPT = 50
"""Points per axis of the surfaces kept for drawing."""


def compute(points: int = 200) -> dict[str, Any]:
    """The surfaces on a grid of points x points, without the edges of the square.

    Args:
        points: per axis, >= 2.

    Returns:
        "alpha" and "beta", the axes of "surfaces" (``[alpha][beta]`` per game, per unit of time, thinned out to at
        most 50 x 50); "summary" from the full grid: "highest" and "lowest" value, the seconds it took, whether it is
        negative everywhere, the largest rate on each "edge" (at a distance of 1e-6, and alpha = 1e-250 for the edge
        alpha = 0, which unit gain reaches as slowly as 1 / log), and the "fastest" rate with its alpha and beta;
        "settings"; "provenance".

    Raises:
        ValueError: fewer than two points.
    """
    if points < 2:
        raise ValueError(f"points must be >= 2, got {points}")
    begin = time.perf_counter()
    axis = np.linspace(0, 1, points + 2)[1:-1]
    thin = slice(None, None, max(1, -(-points // KEPT)))
    near = 1e-6
    surfaces, summary = {}, {}
    for name in TITLES:
        game = GAMES[name]
        start = time.perf_counter()
        surface = max_real_part(game, alpha=axis[:, None], beta=axis[None, :])
        seconds = time.perf_counter() - start
        edges = {
            "alpha=0": max_real_part(game, alpha=1e-250, beta=axis),
            "alpha=1": max_real_part(game, alpha=1 - near, beta=axis),
            "beta=0": max_real_part(game, alpha=axis, beta=near),
            "beta=1": max_real_part(game, alpha=axis, beta=1 - near),
        }
        surfaces[name] = rounded(surface[thin, thin])
        summary[name] = {
            "highest": rounded(surface.max()),
            "lowest": rounded(surface.min()),
            "negative_everywhere": bool((surface < 0).all()),
            "seconds": rounded(seconds, 3),
            "fastest_on_edge": {edge: rounded(-values.min()) for edge, values in edges.items()},
            "fastest": {
                key: v if isinstance(v, bool) else rounded(v, 7) for key, v in vars(fastest(game)).items()
            },
        }
    return {
        "alpha": rounded(axis[thin]),
        "beta": rounded(axis[thin]),
        "surfaces": surfaces,
        "summary": summary,
        "settings": {"points": points},
        "provenance": stamp(time.perf_counter() - begin),
    }


def draw(result: dict[str, Any], games: tuple[str, ...] = ("ns-leakyema", "wgan-leakyema")) -> Figure:
    """One panel per game, from the result of :func:`compute`; a dot marks the fastest rate.

    One column per loss; its averages share a colour scale and its bar, so that they can be compared.

    Args:
        result: from :func:`compute`.
        games: keys of `TITLES`; the default are the paper's two.
    """
    use_style()
    losses = list(dict.fromkeys(name.split("-")[0] for name in games))
    shape = (-(-len(games) // len(losses)), len(losses))
    size = (4.4 * shape[1], 3.3 * shape[0])
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, sharex=True, sharey=True)
    surfaces = {name: np.array(result["surfaces"][name]) for name in games}
    for column, loss in zip(axes.T, losses, strict=True):
        averages = [name for name in games if name.split("-")[0] == loss]
        lowest = min(surfaces[name].min() for name in averages)
        highest = max(surfaces[name].max() for name in averages)
        levels = MaxNLocator(21).tick_values(lowest, highest)
        for ax, name in zip(column, averages, strict=True):
            filled = ax.contourf(
                result["alpha"], result["beta"], surfaces[name].T, levels=levels, cmap="viridis"
            )
            best = result["summary"][name]["fastest"]
            ax.plot(
                best["alpha"], best["beta"], "o", mfc="#FFFFFF", mec="#000000", ms=7, clip_on=False, zorder=5
            )
            ax.set(title=TITLES[name], xlim=(0, 1), ylim=(0, 1))
            ax.grid(False)
        column[-1].set_xlabel(r"$\alpha$ (per unit of time)")
        figure.colorbar(filled, ax=list(column), label=r"$\max\,\mathrm{Re}\,\lambda$ (per unit of time)")
    for ax in axes[:, 0]:
        ax.set_ylabel(r"$\beta$")
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
