"""`gankit classifier`: train a classifier that evaluation looks through."""

from __future__ import annotations

import argparse

from gankit import classifier
from gankit.commands import flags
from gankit.device import pick_device


def add(commands: flags.Commands) -> None:
    """The flags of `classifier`."""
    command = commands.add_parser(
        "classifier", parents=[flags.common()], help="train the classifier that evaluation uses"
    )
    command.add_argument("name", help="digits or mnist")
    command.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    command.set_defaults(run=train_classifier)


def train_classifier(arguments: argparse.Namespace) -> None:
    """Train a classifier and keep it in the cache."""
    judge = classifier.train_and_cache(
        arguments.name,
        root=arguments.root,
        device=pick_device(arguments.device),
        progress=not arguments.quiet,
        download=arguments.download,
    )
    print(f"{arguments.name}: test accuracy {judge.test_accuracy:.2%}")
