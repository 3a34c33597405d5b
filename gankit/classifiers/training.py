"""Small classifiers that measure generated images: class counts, and a feature space for distances.

A distance in this space is written "FD[digits classifier]", never "FID". The trained weights are kept in a cache,
so that every run and figure measures with the same network: ``gankit classifier digits`` trains one and keeps
it, ``load("digits")`` reads it back. For pictures of your own, ``gankit classifier FOLDER --to FILE`` writes a file,
and ``read(FILE)`` reads it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gankit import data
from gankit.classifiers.networks import NETWORKS, Classifier, ResidualClassifier, Stacked
from gankit.data import DataError, Dataset, frequencies
from gankit.files import replacing

__all__ = [
    "NETWORKS",
    "PICTURES",
    "RECIPES",
    "Classifier",
    "ResidualClassifier",
    "Stacked",
    "cache_path",
    "class_frequencies",
    "compute_features",
    "flip_and_shift",
    "hold_out",
    "load",
    "predict",
    "read",
    "train",
    "train_and_cache",
    "write",
]

_Function = Callable[[Tensor], Tensor]

PICTURES: Mapping[str, Any] = {
    "network": "residual", "epochs": 8, "batch_size": 128, "learning_rate": 3e-3, "seed": 0, "shift": 4,
}  # fmt: skip
"""Arguments of `train` for pictures in colour. On CIFAR-10 some twenty minutes of a laptop's core."""

# Arguments of `train` for each name. A change of these, or of VERSION, gives the cached file another name.
RECIPES: dict[str, Mapping[str, Any]] = {
    "digits": {"epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "seed": 0},
    "mnist": {"epochs": 3, "batch_size": 128, "learning_rate": 3e-3, "seed": 0},
    "cifar10": PICTURES,
}
# Raise when the architecture or `train` changes in a way that changes the trained weights.
VERSION = 3


def train(
    data_train: Dataset,
    data_test: Dataset,
    *,
    epochs: int,
    network: str = "plain",
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    shift: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Classifier | ResidualClassifier:
    """Train a classifier by cross-entropy: AdamW, weight decay 0.01, one-cycle learning rate.

    The seed decides the weights and the order of the images, and the global random state stays as it is: on one
    machine's CPU the same call gives the same network.

    Args:
        data_train: labelled images.
        data_test: images that measure `test_accuracy`, of the same shape and classes.
        epochs: passes over the training images; an incomplete last batch of a pass is left out.
        network: a key of `NETWORKS`.
        seed: of weights, order and shifts.
        batch_size: images per step.
        learning_rate: the peak of the cycle.
        shift: largest shift in pixels of a training image, which half of the time is mirrored, too
            (`flip_and_shift`); 0 for images as they are.
        device: where to train; the result stays there.
        progress: show a bar (on a terminal).

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: datasets that are not images or do not fit each other, an unknown network, a shift that is negative
            or as large as an image, or less than one step of training.
    """
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
    if data_train.shape != data_test.shape or data_train.classes != data_test.classes:
        raise ValueError(f"data_test must match data_train, got {data_test} for {data_train}")
    if len(data_train.shape) != 3 or min(data_train.shape[1:]) < 4:
        raise ValueError(f"data_train must hold images of at least 4x4 pixels, got {data_train}")
    n_batches = len(data_train) // batch_size
    if epochs < 1 or n_batches < 1:
        raise ValueError(
            f"training needs epochs >= 1 and batch_size <= {len(data_train)} images, "
            f"got epochs={epochs} and batch_size={batch_size}"
        )
    if not 0 <= shift < min(data_train.shape[1:]):
        raise ValueError(
            f"shift must be at least 0 and less than an image of {data_train.shape} is wide, got {shift}"
        )
    data_train, data_test = data_train.to(device), data_test.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NETWORKS[network](data_train.shape, data_train.n_classes)
    net.to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * n_batches)
    with tqdm(
        total=epochs * n_batches, desc="classifier", unit="step", disable=None if progress else True
    ) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(data_train), generator=generator).to(device)
            for indices in order.split(batch_size)[:n_batches]:
                x, y = data_train.batch(indices)
                if shift:
                    x = flip_and_shift(x, shift, generator)
                loss = F.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    net.eval()
    correct = 0
    # Part by part: all test images as floats may not fit into memory.
    for indices in torch.arange(len(data_test)).to(device).split(1_024):
        x, y = data_test.batch(indices)
        correct += int((predict(net, x) == y).sum())
    net.test_accuracy = correct / len(data_test)
    return net


def flip_and_shift(x: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2 and moved by up to `shift` pixels each way.

    What moves in over an edge is the image's own reflection there. (The augmentation of He et al. 2015, section 4.2,
    which pads with zeros.)

    Args:
        x: images ``[N, C, H, W]``.
        shift: in pixels, less than H and W.
        generator: source of randomness, on the CPU.

    Returns:
        Images of that shape.
    """
    n, _, height, width = x.shape
    padded = F.pad(x, [shift] * 4, mode="reflect")
    down, right = torch.randint(2 * shift + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    rows = down + torch.arange(height)
    columns = right + torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width))
    which = torch.arange(n)[:, None, None]
    picked = padded[which.to(x.device), :, rows[:, :, None].to(x.device), columns[:, None, :].to(x.device)]
    return picked.permute(0, 3, 1, 2)


def hold_out(images: Dataset, every: int = 10) -> tuple[Dataset, Dataset]:
    """A training and a test part of a set that has none: every tenth image of each class is a test image.

    Args:
        images: labelled images.
        every: at least 2.

    Raises:
        ValueError: `every` is too small, or so large that nothing is held out.
    """
    if every < 2:
        raise ValueError(f"every must be at least 2, got {every}")
    labels = images.labels
    order = labels.argsort(stable=True)
    counts = labels.bincount(minlength=images.n_classes)
    position = torch.empty_like(labels)  # of each image within its class
    position[order] = (
        torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[order]]
    )
    test = position % every == every - 1
    if not bool(test.any()):
        raise ValueError(
            f"no class of {images.name!r} has {every} images, so that none is left to test with: give test images"
        )
    return images.subset(~test), images.subset(test)


def predict(classifier: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """The most probable class of each image.

    Args:
        classifier: a `Classifier`, or a `Stacked` one.
        images: ``[..., C, H, W]``, floating point in [-1, 1]; leading dimensions are kept, so S replicas
            ``[S, N, C, H, W]`` give ``[S, N]``.
        batch_size: images at a time.

    Returns:
        int64 ``[...]`` on the device of `images`; -1 where the logits are not finite (a diverged generator).

    Raises:
        ValueError: images that are not floating point or of another shape than the classifier's.
    """
    return _map(classifier, classifier, images, batch_size, _most_probable)


def compute_features(classifier: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Features of each image: float ``[..., n_features]`` for images as `predict` takes them."""
    return _map(classifier, classifier.features, images, batch_size, lambda features: features)


def class_frequencies(classifier: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Share of each class among images ``[..., N, C, H, W]``, as `predict` classifies them.

    Returns:
        float64 ``[..., n_classes]``; rows sum to one, or less by the share of images without finite logits.

    Raises:
        ValueError: as `predict`, or no image.
    """
    return frequencies(predict(classifier, images, batch_size), classifier.n_classes)


def _most_probable(logits: Tensor) -> Tensor:
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), -1)


@torch.no_grad()
def _map(
    classifier: nn.Module, function: _Function, images: Tensor, batch_size: int, reduce: _Function
) -> Tensor:
    """``reduce(function(batch))`` for all images, on the classifier's device and back."""
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point in [-1, 1] (Dataset.normalise), got {images.dtype}")
    if images.ndim < 3 or tuple(images.shape[-3:]) != classifier.shape:
        raise ValueError(
            f"images must be [..., {', '.join(map(str, classifier.shape))}], got shape {list(images.shape)}"
        )
    weight = next(classifier.parameters())
    flat = images.reshape(-1, *classifier.shape)
    if len(flat) == 0:
        raise ValueError(f"images must hold at least one image, got shape {list(images.shape)}")
    parts = [reduce(function(part.to(weight))).to(images.device) for part in flat.split(batch_size)]
    result = torch.cat(parts)
    return result.reshape(*images.shape[:-3], *result.shape[1:])


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
