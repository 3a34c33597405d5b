"""Learning curves of a run's folder: what it logged, and what was measured of its kept checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gankit.training.checkpoints import CheckpointError, loading, read_row

CURVE = "curve.json"
"""Where `gankit evaluate --curve` writes what it measured of the kept checkpoints."""


def read_curves(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The learning curves of a run: what it logged, and what was measured of its kept checkpoints afterwards.

    Args:
        folder: of the run.

    Returns:
        Name -> generator steps `[T]` and values `[T, S]`, S = 1 for a plain run.

    Raises:
        CheckpointError: the folder holds no log, or a damaged one; the message says where.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        raise CheckpointError(f"there is no log of a run at {path}")
    lines = path.read_text().splitlines()
    rows = [read_row(line) for line in lines]
    if rows and rows[-1] is None:  # a run that was killed, or is writing it just now
        rows.pop()
    if None in rows:
        line = rows.index(None)
        raise CheckpointError(f"line {line + 1} of {path} is damaged: {lines[line][:60]!r}")
    names = dict.fromkeys(key for row in rows for key in row if key not in ("step", "seconds"))
    curves = {}
    for name in names:
        held = [row for row in rows if name in row and np.ndim(row[name]) <= 1]
        if held:
            values = np.array([row[name] for row in held], float).reshape(len(held), -1)
            curves[name] = np.array([row["step"] for row in held]), values
    if (path := folder / CURVE).is_file():
        with loading(path, "scores"):
            measured = json.loads(path.read_text())
            steps = np.array(measured["steps"])
            for name, values in measured["scores"].items():
                if len(values) != len(steps):
                    raise ValueError(f"{name!r} has {len(values)} values for {len(steps)} steps")
                curves[name] = steps, np.array(values, float).reshape(len(steps), -1)
    return curves
