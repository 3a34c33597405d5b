"""Trained classifiers in files: the book's own in a cache, and those of one's own pictures.

A distance in their features is written "FD[digits classifier]", never "FID". Every run and figure measures with the
same network: ``gankit classifier digits`` trains one and keeps it, ``load("digits")`` reads it back. For pictures of
your own, ``gankit classifier FOLDER --to FILE`` writes a file, and ``read(FILE)`` reads it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gankit import data
from gankit.classifiers.networks import NETWORKS, Classifier, ResidualClassifier, Stacked
from gankit.classifiers.training import PICTURES, train
from gankit.data import DataError, Dataset
from gankit.files import replacing

# Arguments of `train` for each name. A change of these, or of VERSION, gives the cached file another name.
RECIPES: dict[str, Mapping[str, Any]] = {
    "digits": {"epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "seed": 0},
    "mnist": {"epochs": 3, "batch_size": 128, "learning_rate": 3e-3, "seed": 0},
    "cifar10": PICTURES,
}
# Raise when the architecture or `train` changes in a way that changes the trained weights.
VERSION = 3


def cache_path(name: str, root: str | Path | None = None) -> Path:
    """Where the trained classifier `name` is kept: ``root/classifiers/<name>-<hash of its recipe>.pt``.

    `root` is `gankit.data.cache_root` by default. The file need not exist.

    Raises:
        DataError: an unknown name.
    """
    if name not in RECIPES:
        raise DataError(
            f"there is no classifier {name!r}: known are {', '.join(RECIPES)}, and "
            "`gankit classifier PATH --to FILE` trains one for pictures of your own"
        )
    recipe = json.dumps({"version": VERSION, **RECIPES[name]}, sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return data.cache_root(root) / "classifiers" / f"{name}-{digest}.pt"


def load(
    name: str, *, root: str | Path | None = None, train: bool = False
) -> Classifier | ResidualClassifier | Stacked:
    """A trained classifier from the cache, on the CPU.

    Args:
        name: ``"digits"``, ``"mnist"`` or ``"cifar10"``; ``"stacked-digits"`` and ``"stacked-mnist"`` wrap the first
            two in `Stacked`.
        root: folder of the cache (and of the data, when it is trained); see `cache_path`.
        train: train it and keep it when it is not there, instead of raising.

    Raises:
        DataError: an unknown name, nothing in the cache (the message has the command that fills it), or a
            damaged file (the message names it).
    """
    if name.startswith("stacked-"):
        return Stacked(load(name.removeprefix("stacked-"), root=root, train=train))
    path = cache_path(name, root)
    if not path.exists():
        if train:
            return train_and_cache(name, root, progress=False)
        raise DataError(f"there is no trained classifier at {path}: run `gankit classifier {name}` once")
    return read(path, hint=f"run `gankit classifier {name}`")[0]


def write(
    path: Path, network: Classifier | ResidualClassifier, recipe: Mapping[str, Any], images: Dataset
) -> None:
    """Keep a trained classifier: to a temporary name first, then renamed.

    Args:
        path: of the file.
        network: the classifier.
        recipe: the arguments of `train`.
        images: what it was trained on, whose name and classes are kept with it.

    Raises:
        DataError: the file cannot be written.
    """
    saved = {
        "state": network.state_dict(),
        "shape": network.shape,
        "n_classes": network.n_classes,
        "n_features": network.n_features,
        "test_accuracy": network.test_accuracy,
        "recipe": dict(recipe),
        "name": images.name,
        "classes": list(images.classes),
    }
    try:
        with replacing(path) as temporary:
            torch.save(saved, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise DataError(f"the classifier cannot be written to {path} ({error})") from error


def read(
    path: Path, *, hint: str = "train it anew"
) -> tuple[Classifier | ResidualClassifier, str, tuple[str, ...]]:
    """A trained classifier of a file that `write` wrote, on the CPU in evaluation mode.

    Args:
        path: of the file.
        hint: what to do if it is damaged, for the message.

    Returns:
        The network, the name of the data that it was trained on, and the names of its classes.

    Raises:
        DataError: the file is missing or damaged; the message names it.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        kind = NETWORKS[saved["recipe"].get("network", "plain")]
        network = kind(tuple(saved["shape"]), saved["n_classes"], saved["n_features"])
        network.load_state_dict(saved["state"])
        network.test_accuracy = saved["test_accuracy"]
        name, classes = saved["name"], tuple(saved["classes"])
    except FileNotFoundError as error:
        raise DataError(f"there is no trained classifier at {path}") from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        pickle.PickleError,
    ) as error:
        raise DataError(f"{path} is damaged: remove it and {hint}") from error
    return network.eval(), name, classes


def train_and_cache(
    name: str,
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    progress: bool = True,
    download: bool = False,
) -> Classifier | ResidualClassifier:
    """Train the classifier `name` by its recipe and keep it at `cache_path`, replacing what is there.

    Args:
        name: ``"digits"``, ``"mnist"`` or ``"cifar10"``.
        root: folder of the data and of the cache; by default that of `gankit.data.data_root` and that of
            `gankit.data.cache_root`.
        device: where to train.
        progress: show a bar (on a terminal).
        download: fetch the data when they are not there.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        DataError: an unknown name, missing data, or a cache folder that cannot be written.
    """
    path = cache_path(name, root)
    parts = [data.load(name, root=root, split=split, download=download) for split in ("train", "test")]
    network = train(*parts, **RECIPES[name], device=device, progress=progress).cpu()
    write(path, network, RECIPES[name], parts[0])
    return network
