"""The folder of a run: its checkpoints, the recipe in them, and the run itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from gankit.data import Dataset
from gankit.recipes import records
from gankit.recipes.recipe import Recipe, from_dict
from gankit.training import Trainer, checkpoints
from gankit.training.checkpoints import CheckpointError

BLANK = "blank"
"""Name of data that stand in for others, as those of an imported run do."""


def open_run(
    folder: str | Path,
    *,
    step: int | None = None,
    best: bool = False,
    device: str | torch.device = "auto",
    root: str | Path | None = None,
    data: Dataset | None = None,
    needs_data: bool = True,
) -> Trainer:
    """The run in a folder, at its newest checkpoint, at its best one or at that of a step.

    Args:
        folder: where `gankit train` wrote it.
        step: of a checkpoint that was kept.
        best: the checkpoint that `gankit train --best` kept.
        device: "auto", "cpu", "cuda" or "cuda:N".
        root: where datasets lie (see `gankit.data.load`).
        data: in place of what it was trained on.
        needs_data: False puts black pictures in place of those that it was trained on, which need not be here then.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged, or was written without a recipe.
        DataError: the data are missing.
    """
    found = find_checkpoint(Path(folder), step, best)
    recipe, seeds = stored_recipe(found)
    known = checkpoints.read(found)["data"]
    if data is None and not needs_data and len(known["shape"]) > 1:
        data = blank_pictures(tuple(known["shape"]), known["classes"])
    run = recipe.build(seeds, root=root, device=device, data=data)
    return run.load(found, same_data=data is None and not is_imported(found))


def is_imported(checkpoint: Path) -> bool:
    """Whether a checkpoint does not know the data of its run, as `gankit import-biggan` writes it."""
    return checkpoints.read(checkpoint)["data"]["name"] == BLANK


def find_checkpoint(folder: Path, step: int | None = None, best: bool = False) -> Path:
    """The newest checkpoint in a folder, its best one or that of a step.

    Raises:
        CheckpointError: there is none.
    """
    found = folder / checkpoints.BEST if best else checkpoints.latest(folder)
    if found is None:
        runs = sorted({str(path.parent) for path in folder.glob("*/checkpoint-*.pt")})
        hint = f"did you mean {' or '.join(runs[:3])}?" if runs else "`gankit train ... --out` writes one"
        raise CheckpointError(f"there is no checkpoint in {folder}; {hint}")
    if step is None:
        return found
    kept = [checkpoints.step_of(path) for path in checkpoints.saved(folder)]
    if step not in kept:
        raise CheckpointError(f"--step must be one of {', '.join(map(str, kept))} of {folder}, got {step}")
    return checkpoints.path_of(folder, step)


def stored_recipe(checkpoint: Path) -> tuple[Recipe, tuple[int, ...]]:
    """The recipe and the seeds of the run that wrote a checkpoint."""
    stored = json.loads(checkpoints.read(checkpoint)["recipe"])
    if stored is None:
        raise CheckpointError(
            f"{checkpoint} was written by a Trainer without a recipe, so its networks are not known"
        )
    with checkpoints.loading(checkpoint, "recipe"):
        return from_dict(stored)


def check_same_run(checkpoint: Path, recipe: Recipe, seeds: tuple[int, ...]) -> None:
    """Refuse to go on with a run under other settings; only `steps` may change.

    Raises:
        ValueError: naming what differs.
    """
    # The checkpoint says what it is; recipe.json lies beside it for people to read.
    stored, stored_seeds = stored_recipe(checkpoint)
    free = ("steps", "about", "paper")
    same = dataclasses.replace(recipe, **{name: getattr(stored, name) for name in free})
    differing = [f"{name} {value!r}" for name, value in records.differences(stored, same).items()]
    if stored_seeds != seeds:
        differing.append(f"seed {' '.join(map(str, stored_seeds))}")
    if differing:
        raise ValueError(
            f"{checkpoint} is of a run with {', '.join(differing)}; give the same to go on, or another --out"
        )


def blank_pictures(shape: tuple[int, ...], classes: Sequence[str]) -> Dataset:
    """Black pictures, one of each class: a run needs data, also if no step is taken on them."""
    images = torch.zeros(1, dtype=torch.uint8).expand(len(classes), *shape)
    return Dataset(BLANK, images, torch.arange(len(classes)), tuple(classes))
