"""`gankit sample`: a grid of samples as a PNG."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gankit import plotting
from gankit.commands import flags, runs
from gankit.files import replacing
from gankit.training import Trainer


def add(commands: flags.Commands) -> None:
    """The flags of `sample`."""
    command = commands.add_parser(
        "sample", parents=[flags.common(), flags.reading()], help="write a grid of samples"
    )
    command.add_argument(
        "-n", type=flags.positive, help="number of samples (default: 64 images or 2,000 points)"
    )
    command.add_argument("--to", type=Path, help="the PNG to write (default: FOLDER/samples.png)")
    command.set_defaults(run=sample)


def sample(arguments: argparse.Namespace) -> None:
    """Write a grid of samples as a PNG."""
    run = runs.opened(arguments, needs_data=False)
    target = arguments.to or arguments.folder / "samples.png"
    if target.suffix.lower() != ".png":
        raise ValueError(f"--to must name a .png file, got {target}")
    are_points = len(run.data.shape) == 1
    n = arguments.n or (2_000 if are_points else 64)
    samples = runs.sampler(run, arguments)(n)
    if are_points:
        picture = _scatter(samples, run)
    else:
        rows = samples if run.lead else samples[None]
        tiles = [_rgb(plotting.tile(images, pad=2)) for images in rows]
        picture = np.concatenate(tiles, axis=1)
        zoom = max(1, 512 // picture.shape[0])
        picture = picture.repeat(zoom, 0).repeat(zoom, 1)
    with replacing(target) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    print(f"{target}: {n} samples of {runs.network_in_words(run, arguments)}")


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


def _rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
