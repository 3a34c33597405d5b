"""`gankit classifier`: train a classifier that evaluation looks through."""

from __future__ import annotations

import argparse
from pathlib import Path

from gankit import classifiers, data
from gankit.commands import flags
from gankit.data import Dataset
from gankit.device import pick_device

ABOUT = f"""\
Train the classifier whose features and classes `gankit evaluate` looks at.

Those of {", ".join(classifiers.RECIPES)} are kept in a cache and found there. For labelled pictures of your own
(a folder or .zip of class folders, or what `gankit pack` wrote) name the file to write; a run is then measured with
  gankit evaluate RUN --features classifier --weights FILE
"""


def add(commands: flags.Commands) -> None:
    """The flags of `classifier`."""
    command = commands.add_parser(
        "classifier",
        parents=[flags.common()],
        help="train the classifier that evaluation uses",
        description=ABOUT,
    )
    command.add_argument("name", help=f"{', '.join(classifiers.RECIPES)}, or a path")
    command.add_argument("--to", type=Path, metavar="FILE", help="file to write; needed for a path")
    command.add_argument(
        "--test", metavar="PATH", help="test pictures of a path (default: every tenth picture of each class)"
    )
    command.add_argument("--size", type=flags.positive, help="side in pixels to which pictures are resized")
    command.add_argument(
        "--epochs",
        type=flags.positive,
        default=classifiers.PICTURES["epochs"],
        help="passes over the pictures of a path (default: %(default)s)",
    )
    command.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    command.set_defaults(run=train_classifier)


def train_classifier(arguments: argparse.Namespace) -> None:
    """Train a classifier and keep it, in the cache or in a file."""
    settings = {"device": pick_device(arguments.device), "progress": not arguments.quiet}
    if arguments.to is None:
        if arguments.test is not None:
            raise ValueError("--test goes with --to FILE; what is cached has test pictures of its own")
        judge = classifiers.train_and_cache(
            arguments.name, root=arguments.root, download=arguments.download, **settings
        )
        kept = ""
    else:
        parts = _parts(arguments)
        recipe = {**classifiers.PICTURES, "epochs": arguments.epochs}
        judge = classifiers.train(*parts, **recipe, **settings).cpu()
        classifiers.write(arguments.to, judge, recipe, parts[0])
        kept = f", written to {arguments.to}"
    print(f"{arguments.name}: test accuracy {judge.test_accuracy:.2%}{kept}")


def _parts(arguments: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """The training and the test pictures of a path."""
    pictures = data.load(arguments.name, root=arguments.root, size=arguments.size)
    if arguments.test is None:
        return classifiers.hold_out(pictures)
    return pictures, data.load(arguments.test, root=arguments.root, size=arguments.size)
