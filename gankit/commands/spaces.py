"""The feature space that commands measure in."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from gankit import classifiers, processes
from gankit.data import Dataset
from gankit.metrics import FeatureSpace, features
from gankit.training import Trainer

QUICK = ("digits", "mnist", "stacked-digits", "stacked-mnist")
"""Data whose classifier trains within two minutes, so that it is used without being asked for."""

PIXEL_REFERENCES = 10_000
"""How many real images pixels are compared with if nothing is said, drawn at random."""


def add(command: argparse.ArgumentParser) -> None:
    """The flags that choose a space."""
    command.add_argument(
        "--features",
        choices=("auto", "pixels", "classifier", "inception"),
        default="auto",
        help="space to compare in: see `gankit evaluate --help` (default: %(default)s)",
    )
    command.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the Inception weights, or the classifier that `gankit classifier ... --to FILE` wrote",
    )


def of_run(run: Trainer, reference: Dataset, arguments: argparse.Namespace) -> FeatureSpace:
    """The feature space that `--features` names, for a run."""
    # Not the name of the data: a folder may be called digits, too.
    return of_data(run.recipe["data"], reference, arguments, run.device)


def of_data(
    name: str, reference: Dataset, arguments: argparse.Namespace, device: torch.device | None = None
) -> FeatureSpace:
    """The feature space that `--features` names, for data that were loaded by a name or a path."""
    device = torch.device(device or arguments.device)
    kind = arguments.features
    if arguments.weights is not None and kind not in ("classifier", "inception"):
        raise ValueError(
            f"--weights holds those of a classifier or of Inception: give --features classifier or inception, "
            f"got --features {kind}"
        )
    if kind == "inception":
        return features.inception(arguments.weights, download=arguments.download)
    if kind == "classifier" and arguments.weights is not None:
        return features.of_file(arguments.weights, reference)
    if kind == "classifier" or (kind == "auto" and name in QUICK):
        _train_missing_classifier(name.removeprefix("stacked-"), device, arguments)
        return features.classifier(name, root=arguments.root)
    return features.pixels(reference)


def n_real(space: FeatureSpace, reference: Dataset, asked: int | None = None) -> int:
    """How many real images to compare with."""
    # A Frechet distance of pixels costs the number of images times d^2.
    return asked or (PIXEL_REFERENCES if space.name == "pixels" else len(reference))


def _train_missing_classifier(name: str, device: torch.device, arguments: argparse.Namespace) -> None:
    if processes.rank() == 0 and not classifiers.cache_path(name, arguments.root).exists():
        print(f"training the {name} classifier, once", file=sys.stderr)
        classifiers.train_and_cache(name, arguments.root, device, progress=not arguments.quiet)
    processes.gather(torch.zeros(1, device=device))  # the others wait here until it is there
