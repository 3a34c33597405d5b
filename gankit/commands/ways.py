"""What `gankit sample` draws other than samples: a walk as an animated picture, styles mixed, truncation in W."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor, nn

from gankit import plotting
from gankit.commands import flags
from gankit.files import replacing
from gankit.models.sampling import Sampler, generate
from gankit.models.walking import RANGES, check_styles, evaluating, mixed_styles, truncation_sweep, walk
from gankit.recipes.saved import label_numbers
from gankit.streams import Streams
from gankit.training import Trainer

ANIMATED = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP"}
"""Endings of animated pictures, and Pillow's names of what they are."""
SECONDS = 4.0
"""Length of a walk."""


def add_flags(command: argparse.ArgumentParser) -> None:
    """The flags that draw something else than samples."""
    ways = command.add_mutually_exclusive_group()
    ways.add_argument(
        "--walk",
        metavar="FRAMES",
        type=flags.positive,
        help=f"an animated picture of a walk through the latents and back, {SECONDS:g} s long, to a .gif, .png (APNG) "
        "or .webp (default: FOLDER/walk.gif, of 16 pictures)",
    )
    ways.add_argument(
        "--mix",
        metavar="LAYERS",
        type=layers,
        help="pictures with the styles that others have in some layers: coarse, middle, fine, or FIRST-LAST counted "
        "from 0 (stylegan; default: FOLDER/mixed.png, of 6 by 6)",
    )
    ways.add_argument(
        "--psi",
        metavar="PSI,...",
        type=psis,
        help="a row of pictures for each truncation in W, 0 for the mean and 1 for none (stylegan; default: "
        "FOLDER/truncated.png, of 8 pictures)",
    )


def layers(text: str) -> slice:
    """Layers by a name of `RANGES`, or by the first and the last."""
    if text in RANGES:
        return RANGES[text]
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (0, -1) if found is None else (int(found[1]), int(found[2] or found[1]))
    if last < first:
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(RANGES)}, or FIRST-LAST as in 2-5, got {text!r}"
        )
    return slice(first, last + 1)


def psis(text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers with commas between them, as in 0,0.5,1, got {text!r}"
        ) from None


def asked(arguments: argparse.Namespace) -> bool:
    """Whether a flag of this module was given."""
    return any(value is not None for value in (arguments.walk, arguments.mix, arguments.psi))


def draw(run: Trainer, sampler: Sampler, arguments: argparse.Namespace) -> tuple[Path, str]:
    """Draw what was asked for; the file, and what is in it in words.

    Raises:
        ValueError: the run makes points, its generator has no styles, or another flag does not fit.
    """
    flag = "--walk" if arguments.walk else "--mix" if arguments.mix else "--psi"
    if len(run.data.shape) != 3:
        raise ValueError(f"{flag} draws pictures, and this run makes points")
    if arguments.interpolate is not None:
        raise ValueError(f"--interpolate and {flag} ask for two pictures: give one of them")
    if sampler.truncation is not None:
        raise ValueError(f"--truncation is of single latents, and {flag} draws its own: leave it out")
    if flag == "--walk":
        return _walk(run, sampler, arguments)
    check_styles(sampler.G)
    return (_mix if flag == "--mix" else _truncate)(run, sampler, arguments)


def _labels(run: Trainer, G: nn.Module, streams: Streams, n: int, text: str | None) -> Tensor | None:
    """Labels of n pictures: those that --labels names, else drawn; None for a generator without classes."""
    if text is not None:
        return label_numbers(text.split(","), n, run.data.classes, G).to(streams.device)
    n_classes = getattr(G, "n_classes", 0)
    return streams.integers(n_classes, n) if n_classes else None


def _streams(sampler: Sampler) -> Streams:
    return Streams([sampler.seed], (), next(sampler.G.parameters()).device, name="sample")


def _walk(run: Trainer, sampler: Sampler, arguments: argparse.Namespace) -> tuple[Path, str]:
    target, n, frames = arguments.to or arguments.folder / "walk.gif", arguments.n or 16, arguments.walk
    kind = animation_of(target)
    labels = None
    if arguments.labels is not None:
        labels = label_numbers(arguments.labels.split(","), n, run.data.classes, sampler.G)
    moments = walk(sampler.G, frames, n, seed=sampler.seed, labels=labels)
    write_animation([plotting.sheet(images, run.data.shape) for images in moments], target, kind)
    return target, f"{frames} frames of {n:,} pictures"


def _mix(run: Trainer, sampler: Sampler, arguments: argparse.Namespace) -> tuple[Path, str]:
    target, n = arguments.to or arguments.folder / "mixed.png", arguments.n or 6
    G, streams = sampler.G, _streams(sampler)
    rows, columns = streams.normal(n, G.z_dim), streams.normal(n, G.z_dim)
    label = _labels(run, G, streams, 1, arguments.labels)
    mixed = mixed_styles(G, rows, columns, arguments.mix, label)
    # A row's own picture stands before it, and a column's above it.
    beside, above = _pictures(G, rows, label)[:, None], _pictures(G, columns, label)[None]
    corner = torch.ones_like(above[:, :1])
    sheet = torch.cat([torch.cat([corner, above], 1), torch.cat([beside, mixed], 1)])
    _write(sheet.flatten(0, 1), n + 1, target)
    return target, f"{n} by {n} pictures with mixed styles"


@torch.no_grad()
def _pictures(G: nn.Module, z: Tensor, label: Tensor | None) -> Tensor:
    with evaluating(G):
        return generate(G, z, None if label is None else label.expand(len(z)))


def _truncate(run: Trainer, sampler: Sampler, arguments: argparse.Namespace) -> tuple[Path, str]:
    target, n = arguments.to or arguments.folder / "truncated.png", arguments.n or 8
    G, streams = sampler.G, _streams(sampler)
    z = streams.normal(n, G.z_dim)
    labels = _labels(run, G, streams, n, arguments.labels)
    swept = truncation_sweep(G, z, arguments.psi, labels=labels)
    _write(swept.flatten(0, 1), n, target)
    return target, f"{len(arguments.psi)} truncations of {n} pictures"


def _write(images: Tensor, columns: int, target: Path) -> None:
    if target.suffix.lower() != ".png":
        raise ValueError(f"--to must name a .png file, got {target}")
    picture = plotting.tile(images, columns, pad=2)
    zoom = max(1, 512 // picture.shape[0])
    with replacing(target) as temporary:
        Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1)).save(temporary, format="PNG")


def animation_of(target: Path) -> str:
    """Pillow's name of the kind of animated picture that a file's name asks for.

    Raises:
        ValueError: no such kind, or none that this Pillow writes.
    """
    suffix = target.suffix.lower()
    if suffix not in ANIMATED:
        raise ValueError(
            f"--to must name a .gif, .png or .webp file for --walk, got {target}; a video program makes a film of "
            "any of them"
        )
    if suffix == ".webp" and not features.check("webp"):
        raise ValueError(f"this build of Pillow cannot write {target}: take .gif or .png")
    return ANIMATED[suffix]


def write_animation(frames: Sequence[np.ndarray], target: Path, kind: str) -> None:
    """Write pictures `[H, W, 3]` as one that moves for `SECONDS`, without end."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    settings = {"lossless": True} if kind == "WEBP" else {}
    with replacing(target) as temporary:
        first.save(
            temporary,
            format=kind,
            save_all=True,
            append_images=rest,
            duration=1000 * SECONDS / len(frames),
            loop=0,
            **settings,
        )
