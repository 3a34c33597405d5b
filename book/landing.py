"""The landing page's picture, drawn from the exact solution of the Dirac-GAN: `python -m book.landing` writes it.

Two dots follow the two games of the LeakyEMA paper's figure 10 in their own time, once, and then rest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toy.dirac import GAMES, trajectory

TARGET = Path(__file__).parent / "_static" / "landing.svg"
START, TIME, SECONDS = (1.0, 1.0), 60.0, 8.0
# Orange and blue of Okabe and Ito: told apart by colour-blind readers, on white and on black.
GAMES_DRAWN = (("ns", {}, "#E69F00"), ("ns-leakyema", {"alpha": 0.5, "beta": 0.5}, "#56B4E9"))
WIDTH, HEIGHT, UNIT = 640, 290, 125  # pixels; of one unit of a parameter


def path_of(name: str, values: dict[str, float], points: int) -> NDArray[np.float64]:
    """Where both parameters are, in pixels of the picture, at equally spaced times: [points, 2]."""
    game = GAMES[name]
    start = np.array([*START, *(0.0 for _ in game.memory)])
    found = trajectory(game, start, np.linspace(0, TIME, points), **values)[:, :2]
    return np.array([WIDTH / 2, HEIGHT / 2]) + UNIT * found * np.array([1.75, -1])


def svg() -> str:
    """The picture; its dots move once, for `SECONDS`, so that nothing moves beside a text that is read."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>The Dirac-GAN with and without a mean teacher</title>",
        f'<path d="M{WIDTH / 2 - 8} {HEIGHT / 2}h16m-8 -8v16" stroke="#888" stroke-width="2" fill="none"/>',
    ]
    for name, values, color in GAMES_DRAWN:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in path_of(name, values, 600))
        x, y = (";".join(f"{value:.1f}" for value in axis) for axis in path_of(name, values, 150).T)
        parts += [
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5" opacity="0.75"/>',
            f'<circle r="7" cx="{x.rpartition(";")[2]}" cy="{y.rpartition(";")[2]}" fill="{color}">',
            *(
                f'<animate attributeName="{axis}" dur="{SECONDS:g}s" fill="freeze" values="{at}"/>'
                for axis, at in (("cx", x), ("cy", y))
            ),
            "</circle>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(svg(), "utf-8")
    print(f"wrote {TARGET}")
