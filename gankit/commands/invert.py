"""`gankit invert`: the w from which a style generator makes what is nearest to given pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gankit import plotting
from gankit.commands import flags, runs, spaces
from gankit.data import DataError
from gankit.data.archives import Decoder
from gankit.files import replacing
from gankit.metrics.features import to_uint8
from gankit.metrics.similarity import feature_distance
from gankit.recipes.saved import label_numbers
from gankit.training.inversion import invert

ABOUT = """\
Look for the w of a run of StyleGAN or StyleGAN2 whose pictures are nearest to given ones, and write them: above the
given pictures, below the generator's. A distance of a classifier's features finds what a picture shows, one of pixels
what it looks like from afar. --to says what is written:

  NAME.png  both rows as one picture
  NAME.npz  arrays `w`, `targets` and `images` (uint8 [N, H, W, C]) and `distances` [steps + 1, N]
"""


def add(commands: flags.Commands) -> None:
    """The flags of `invert`."""
    command = commands.add_parser(
        "invert",
        parents=[flags.common(), flags.reading()],
        help="find the latents of given pictures",
        description=ABOUT,
    )
    command.add_argument(
        "pictures", metavar="PICTURE", type=Path, nargs="+", help="files, cut and resized to fit"
    )
    spaces.add(command)
    command.add_argument(
        "--download", action="store_true", help="fetch the Inception weights if they are missing"
    )
    command.add_argument("--steps", type=flags.positive, default=1_000, help="of Adam (default: %(default)s)")
    command.add_argument("--lr", type=float, default=0.1, help="its largest rate (default: %(default)s)")
    command.add_argument(
        "--each", action="store_true", help="a w for each layer: closer, and less like a sample"
    )
    command.add_argument(
        "--labels", metavar="CLASS", help="their class, by name or number (a run with classes)"
    )
    command.add_argument("--to", type=Path, help="what to write, see above (default: FOLDER/inverted.png)")
    command.set_defaults(run=run_invert)


def run_invert(arguments: argparse.Namespace) -> None:
    """Project pictures into W, and write what came of it."""
    target = arguments.to or arguments.folder / "inverted.png"
    if target.suffix.lower() not in (".png", ".npz"):
        raise ValueError(f"--to must name a .png or .npz file, got {target}")
    if arguments.truncation is not None:
        raise ValueError(
            "--truncation is of latents that are drawn, and here they are looked for: leave it out"
        )
    run = runs.opened(arguments, needs_data=False)
    G = runs.sampler(run, arguments).G
    classes = getattr(G, "n_classes", 0)
    if classes and arguments.labels is None:
        raise ValueError("--labels must name the class of the pictures, for a run with classes")
    labels = None
    if arguments.labels is not None:
        labels = label_numbers([arguments.labels], 1, run.data.classes, G).to(run.device)
    targets = torch.stack([_picture(path, run.data.shape) for path in arguments.pictures]).to(run.device)
    space = spaces.of_run(run, run.data, arguments).to(run.device)
    if space.net is not None:
        space.net.eval().requires_grad_(False)
    found = invert(
        G, targets, feature_distance(space.embed), steps=arguments.steps, lr=arguments.lr, each=arguments.each,
        labels=labels, seed=arguments.sample_seed,
    )  # fmt: skip
    with replacing(target) as temporary:
        if target.suffix.lower() == ".png":
            both = torch.cat([targets, found.pictures.to(targets)])
            picture = plotting.tile(both, len(targets), pad=2)
            zoom = max(1, 512 // picture.shape[0])
            Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1)).save(temporary, format="PNG")
        else:
            pictures = {"targets": targets, "images": found.pictures}
            arrays = {k: to_uint8(x).movedim(-3, -1).cpu().numpy() for k, x in pictures.items()}
            with open(temporary, "wb") as f:
                np.savez(f, w=found.w.cpu().numpy(), distances=found.distances.cpu().numpy(), **arrays)
    for path, first, last in zip(arguments.pictures, found.distances[0], found.distances[-1], strict=True):
        print(
            f"{path}: squared distance {first:.4g} of the mean picture, {last:.4g} after {arguments.steps:,} steps"
        )
    print(f"{target}: {len(targets)} pictures in the features of {space.name}")


def _picture(path: Path, shape: tuple[int, ...]) -> torch.Tensor:
    """A file as a picture `[C, S, S]` in [-1, 1].

    Raises:
        DataError: it is not there, or cannot be decoded.
    """
    if len(shape) != 3:
        raise ValueError("a run of points has no pictures to look for")
    if not path.is_file():
        raise DataError(f"there is no picture {path}")
    image = Decoder(path.parent, shape[-1])(path.name)
    x = torch.from_numpy(image.copy()).float() / 127.5 - 1
    return x.mean(0, keepdim=True) if shape[0] == 1 else x.expand(shape[0], -1, -1)  # grey or in colour
