"""`gankit plot`: learning curves of runs as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gankit import plotting
from gankit.commands import flags
from gankit.files import replacing
from gankit.training.curves import read_curves

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]

LOGGED = ("images", "d_loss", "g_loss", "real_logit", "fake_logit", "g_grad", "d_grad")
"""What every run logs; anything else was measured."""

ABOUT = """\
Draw what runs logged and what was measured of them: one panel for each quantity, one colour for each run, the median
of several seeds as a line and their range as a band.

By default the panels are the two costs, G's gradient, and everything that was measured: with `train --best`, or with
`evaluate --curve` of the checkpoints that `train --keep-every` kept.
"""


def add(commands: flags.Commands) -> None:
    """The flags of `plot`."""
    command = commands.add_parser(
        "plot",
        help="draw the learning curves of runs",
        description=ABOUT,
    )
    command.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folder of a run")
    command.add_argument(
        "--curves", nargs="+", metavar="NAME", help="what to draw; a wrong name gets a list of what there is"
    )
    command.add_argument(
        "--to",
        type=Path,
        help="the picture to write, .png, .svg or .pdf (default: curves.png in the first FOLDER)",
    )
    command.set_defaults(run=plot)


def plot(arguments: argparse.Namespace) -> None:
    """Write a picture of the learning curves of one or more runs."""
    import matplotlib.pyplot as plt

    target = arguments.to or arguments.folders[0] / "curves.png"
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--to must name a .png, .svg or .pdf file, got {target}")
    runs = {label: read_curves(path) for label, path in labels(arguments.folders).items()}
    figure = plotting.curves(runs, arguments.curves or default_names(runs))
    with replacing(target) as temporary:
        figure.savefig(temporary, format=target.suffix[1:])
    plt.close(figure)
    print(f"{target}: {', '.join(runs)}")


def labels(folders: list[Path]) -> dict[str, Path]:
    """A label for each folder: its own name, or the whole path where two have the same.

    Raises:
        ValueError: a folder is given twice.
    """
    names = [path.resolve().name for path in folders]
    found = {
        name if names.count(name) == 1 else str(path): path for name, path in zip(names, folders, strict=True)
    }
    if len(found) < len(folders):
        raise ValueError(f"each folder must be given once, got {' '.join(map(str, folders))}")
    return found


def default_names(runs: Mapping[str, Curves]) -> list[str]:
    """The costs, G's gradient and what was measured, in this order."""
    held = dict.fromkeys(name for curves in runs.values() for name in curves)
    return [name for name in ("d_loss", "g_loss", "g_grad") if name in held] + [
        name for name in held if name not in LOGGED
    ]
