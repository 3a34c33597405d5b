"""`gankit sample`: samples as one grid, as an array, or as a picture each."""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from gankit import plotting
from gankit.commands import flags, runs, ways
from gankit.files import replacing
from gankit.metrics.features import to_uint8
from gankit.models.sampling import Sampler
from gankit.recipes.saved import PATHS, label_numbers, path_sampler
from gankit.training import Trainer

BATCH = 500
"""Samples made at a time."""


ABOUT = """\
Write samples of a run; its training pictures need not be here. --to says what is written:

  NAME.png  a grid of all samples
  NAME.npz  arrays `images` (uint8 [N, H, W, C]), `labels` and `classes`
  NAME.zip  a PNG of each sample
  NAME      a folder of them

The PNGs of a run with classes lie in a folder for each class, as `gankit pack` and `--data` read them.
"""


def add(commands: flags.Commands) -> None:
    """The flags of `sample`."""
    command = commands.add_parser(
        "sample",
        parents=[flags.common(), flags.reading()],
        help="write samples: a grid, an array or a PNG each",
        description=ABOUT,
    )
    command.add_argument(
        "-n", "--n", type=flags.positive, help="number of samples (default: 64 images or 2,000 points)"
    )
    command.add_argument(
        "--labels",
        metavar="CLASS,...",
        help="classes, by name or number, that take turns (default: all at random)",
    )
    command.add_argument(
        "--interpolate",
        choices=PATHS,
        help="each row a way: z, from one latent to another; class, through the classes of --labels",
    )
    command.add_argument(
        "--ways",
        type=flags.positive,
        default=8,
        help="rows of --interpolate, n being a multiple (default: 8)",
    )
    ways.add_flags(command)
    command.add_argument("--to", type=Path, help="what to write, see above (default: FOLDER/samples.png)")
    command.set_defaults(run=sample)


def sample(arguments: argparse.Namespace) -> None:
    """Write samples: as one grid, as an array, or as a PNG each."""
    run = runs.opened(arguments, needs_data=False)
    if ways.asked(arguments):
        written, what = ways.draw(run, runs.sampler(run, arguments), arguments)
        print(f"{written}: {what} of {runs.network_in_words(run, arguments)}")
        return
    target = arguments.to or arguments.folder / "samples.png"
    are_points = len(run.data.shape) == 1
    kinds = (".png",) if are_points else (".png", ".npz", ".zip", "")
    if target.suffix.lower() not in kinds:
        allowed = "a .png file" if are_points else "a .png, .npz or .zip file, or a folder"
        raise ValueError(f"--to must name {allowed}, got {target}")
    n = arguments.n or (2_000 if are_points else 64)
    sampler = runs.sampler(run, arguments)
    if arguments.interpolate is not None:
        sampler = _ways(sampler, n, run, arguments)
    elif arguments.labels is not None:
        names = label_numbers(arguments.labels.split(","), n, run.data.classes, run.G)
        sampler = dataclasses.replace(sampler, labels=names)
    if target.suffix.lower() == ".png":
        columns = None if arguments.interpolate is None else n // arguments.ways
        _write_grid(sampler(n), run, target, columns)
    elif run.lead:
        raise ValueError(
            f"a run of {len(run.seeds)} seeds side by side is drawn as a grid: give a .png as --to"
        )
    else:
        write_each(sampler, n, run.data.classes, target, progress=not arguments.quiet)
    print(f"{target}: {n:,} samples of {runs.network_in_words(run, arguments)}")


def _ways(sampler: Sampler, n: int, run: Trainer, arguments: argparse.Namespace) -> Sampler:
    """What draws the samples along ways, row by row.

    Raises:
        ValueError: n is no multiple of the ways, another flag says how to draw z, or the labels do not fit.
    """
    if n % arguments.ways or n < 2 * arguments.ways:
        raise ValueError(
            f"--n must be a multiple of --ways, at least twice {arguments.ways}, for --interpolate, got {n}"
        )
    if arguments.truncation is not None:
        raise ValueError(
            "--interpolate walks between latents of the whole distribution: leave out --truncation"
        )
    labels = None if arguments.labels is None else arguments.labels.split(",")
    return path_sampler(
        sampler.G, arguments.interpolate, arguments.ways, n // arguments.ways, labels, run.data.classes,
        arguments.sample_seed,
    )  # fmt: skip


def _write_grid(samples: torch.Tensor, run: Trainer, target: Path, columns: int | None = None) -> None:
    are_points = len(run.data.shape) == 1
    picture = _scatter(samples, run) if are_points else plotting.sheet(samples, run.data.shape, columns)
    with replacing(target) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_each(
    sampler: Sampler, n: int, classes: Sequence[str], target: Path, *, progress: bool = True
) -> None:
    """Write n pictures as a .npz file, as a .zip file of PNGs, or into a new folder; whole or not at all.

    Raises:
        ValueError: the folder exists and is not empty.
    """
    batches = tqdm(sampler.batches(n, BATCH), total=-(-n // BATCH), unit="batch", disable=not progress)
    pictures = (
        (to_uint8(x).movedim(-3, -1).cpu().numpy(), None if y is None else y.cpu().numpy())
        for x, y in batches
    )
    if target.suffix.lower() == ".npz":
        parts, labels = zip(*pictures, strict=True)
        arrays = {"images": np.concatenate(parts)}
        if labels[0] is not None:
            arrays |= {"labels": np.concatenate(labels), "classes": np.array(classes)}
        with replacing(target) as temporary, open(temporary, "wb") as f:
            np.savez(f, **arrays)
    elif target.suffix.lower() == ".zip":
        with replacing(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, content in _pngs(pictures, classes):
                archive.writestr(name, content)
    else:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ValueError(f"--to must be a new or empty folder, and {target} is not")
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            for name, content in _pngs(pictures, classes):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _pngs(
    pictures: Iterable[tuple[np.ndarray, np.ndarray | None]], classes: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Name and content of a PNG of each picture; those of a class have its folder, those between classes have none."""
    number = 0
    for images, labels in pictures:
        for i, image in enumerate(images):
            folder = "" if labels is None or labels.ndim > 1 else f"{_file_name(classes[labels[i]])}/"
            buffer = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format="PNG")
            yield f"{folder}{number:06d}.png", buffer.getvalue()
            number += 1


def _file_name(name: str) -> str:
    """A class's name without what leads out of a folder."""
    return re.sub(r"[/\\\0]|^\.+", "_", name)


def _scatter(samples: torch.Tensor, run: Trainer) -> np.ndarray:
    """Generated points over real ones, one panel per replica, as an RGB array."""
    import matplotlib.pyplot as plt

    rows = samples if run.lead else samples[None]
    figure, axes = plt.subplots(1, len(rows), figsize=(4 * len(rows), 4), squeeze=False, layout="constrained")
    for ax, generated, seed in zip(axes[0], rows, run.seeds, strict=True):
        plotting.points(ax, run.data.images[:5000], generated, title=f"seed {seed}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    return np.asarray(Image.open(buffer).convert("RGB"))
