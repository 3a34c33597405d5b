"""What commands do with the folder of a run: open it, check it, sample it, write files into it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gankit.data import DataError, Dataset
from gankit.device import pick_device
from gankit.files import replacing
from gankit.models.sampling import Sampler, standing_statistics
from gankit.recipes import Recipe, from_dict, operations
from gankit.training import Trainer, checkpoints
from gankit.training.checkpoints import CheckpointError


def load_run(arguments: argparse.Namespace, *, needs_data: bool = True) -> Trainer:
    """The run in a folder, at its newest checkpoint, at its best one or at that of a step.

    Args:
        arguments: of a command with the flags of `flags.reading`.
        needs_data: False to do without the pictures that it was trained on, if they are not here.
    """
    folder = arguments.folder
    found = folder / checkpoints.BEST if arguments.best else checkpoints.latest(folder)
    if found is not None and arguments.step is not None:
        kept = [checkpoints.step_of(path) for path in checkpoints.saved(folder)]
        if arguments.step not in kept:
            raise CheckpointError(
                f"--step must be one of {', '.join(map(str, kept))} of {folder}, got {arguments.step}"
            )
        found = checkpoints.path_of(folder, arguments.step)
    if found is None:
        runs = sorted({str(path.parent) for path in folder.glob("*/checkpoint-*.pt")})
        hint = f"did you mean {' or '.join(runs[:3])}?" if runs else "`gankit train ... --out` writes one"
        raise CheckpointError(f"there is no checkpoint in {folder}; {hint}")
    recipe, seeds = stored_recipe(found)
    try:
        run = recipe.build(seeds, root=arguments.root, device=arguments.device)
    except DataError:
        if needs_data or (recipe.size is None and recipe.data not in operations.SHAPES):
            raise
        shape, _ = operations.sample_shape(recipe)
        blank = blank_pictures(shape, _classes(checkpoints.read(found)["G"]))
        run = recipe.build(seeds, device=arguments.device, data=blank)
    return run.load(found)


def blank_pictures(shape: tuple[int, ...], n_classes: int) -> Dataset:
    """Black pictures, one of each class: a run needs data, also if no step is taken on them."""
    images = torch.zeros(1, dtype=torch.uint8).expand(n_classes, *shape)
    return Dataset("blank", images, torch.arange(n_classes), tuple(map(str, range(n_classes))))


def _classes(G: Mapping[str, torch.Tensor]) -> int:
    """How many classes a stored generator knows; 1 for one that knows of none."""
    for name, value in G.items():
        # The shared embedding, or else the first table of gains; an ensemble has a leading dimension, and slashes.
        if name.replace("/", ".").endswith(("embedding.weight", "norm1.gain.weight")):
            return value.shape[-2]
    return 1


def stored_recipe(checkpoint: Path) -> tuple[Recipe, tuple[int, ...]]:
    """The recipe and the seeds of the run that wrote a checkpoint."""
    stored = json.loads(checkpoints.read(checkpoint)["recipe"])
    if stored is None:
        raise CheckpointError(
            f"{checkpoint} was written by a Trainer without a recipe, so its networks are not known"
        )
    return from_dict(stored)


def check_same_run(checkpoint: Path, recipe: Recipe, seeds: tuple[int, ...]) -> None:
    """Refuse to go on with a run under other settings; only `steps` may change."""
    # The checkpoint says what it is; recipe.json lies beside it for people to read.
    stored, stored_seeds = stored_recipe(checkpoint)
    differing = [
        f"{f.name} {getattr(stored, f.name)!r}"
        for f in dataclasses.fields(Recipe)
        if f.name not in ("steps", "about", "paper") and getattr(stored, f.name) != getattr(recipe, f.name)
    ]
    if stored_seeds != seeds:
        differing.append(f"seed {' '.join(map(str, stored_seeds))}")
    if differing:
        raise ValueError(
            f"{checkpoint} is of a run with {', '.join(differing)}; give the same to go on, or another --out"
        )


def own_device(device: str) -> torch.device:
    """The device of this process: of several that torchrun started, each has a GPU of its own."""
    found = pick_device(device)
    if found.type == "cuda" and found.index is None and "LOCAL_RANK" in os.environ:
        found = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(found)
    return found


def network_in_words(run: Trainer, arguments: argparse.Namespace) -> str:
    """What was sampled, in words; says so where the average is too young to be of use."""
    standing = f" with statistics of {arguments.standing} batches" if arguments.standing is not None else ""
    if arguments.network == "generator":
        return f"the generator at step {run.steps:,}{standing}"
    text = f"the averaged generator (teacher) at step {run.steps:,}{standing}"
    # After 2 / (1 - alpha) steps the initial weights still count for exp(-2), 14 %.
    if run.steps < 2 / (1 - run.teacher.alpha):
        text += "; it still remembers its initial weights, and --network generator may look better"
    return text


def sampler(run: Trainer, arguments: argparse.Namespace) -> Sampler:
    """What draws the samples that the flags of `flags.reading` ask for."""
    network = run.teacher.net if arguments.network == "teacher" else run.G
    if arguments.standing is not None:
        network = standing_statistics(network, batches=arguments.standing, truncation=arguments.truncation)
    return Sampler(network, arguments.sample_seed, truncation=arguments.truncation)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
