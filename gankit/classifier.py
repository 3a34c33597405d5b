"""Small classifiers that measure generated images: class counts, and a feature space for distances.

A distance in this space is written "FD[digits classifier]", never "FID". The trained weights are kept in a cache,
so that every run and figure measures with the same network: ``gankit classifier digits`` trains one and keeps
it, ``load("digits")`` reads it back.
"""

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gankit import data
from gankit.data import DataError, Dataset
from gankit.metrics.modes import frequencies

_Function = Callable[[Tensor], Tensor]

# Arguments of `train` for each name. A change of these, or of VERSION, gives the cached file another name.
RECIPES = {
    "digits": {"epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "seed": 0},
    "mnist": {"epochs": 3, "batch_size": 128, "learning_rate": 3e-3, "seed": 0},
}
# Raise when the architecture or `train` changes in a way that changes the trained weights.
VERSION = 2


class Classifier(nn.Module):
    """Two 3x3 convolutions (32 and 64 channels), each with 2x2 max pooling and ReLU, and two linear layers.

    Attributes:
        shape: ``(C, H, W)`` of one image.
        n_classes: number of classes.
        n_features: width of the penultimate layer.
        test_accuracy: share of correctly classified test images after training; NaN before.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, n_features: int = 64) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = (channels, height, width)
        self.n_classes = n_classes
        self.n_features = n_features
        self.test_accuracy = float("nan")
        # ReLU after pooling gives the same numbers as before it, for a quarter of the work.
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(64 * (height // 4) * (width // 4), n_features)
        self.output = nn.Linear(n_features, n_classes)
        # Channels last: on a CPU convolution and pooling are several times faster in this order.
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate activations, after the ReLU: ``[N, n_features]`` of images ``[N, C, H, W]``."""
        return F.relu(self.hidden(self.convolutions(x.contiguous(memory_format=torch.channels_last))))

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``[..., n_classes]`` of features ``[..., n_features]``."""
        return self.output(features)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, n_classes]`` of images ``[N, C, H, W]`` in [-1, 1]."""
        return self.logits(self.features(x))


class Stacked(nn.Module):
    """A digit classifier read channel by channel: 1,000 classes for RGB images of three digits.

    Class ``100 r + 10 g + b`` as in the stacked datasets; its logit is the sum of the three log-probabilities.

    Attributes:
        digits: the `Classifier` of one channel, with ten classes.
        shape, n_classes, n_features: as of `Classifier`; features are those of the channels one after another.
    """

    def __init__(self, digits: Classifier) -> None:
        super().__init__()
        if digits.shape[0] != 1 or digits.n_classes != 10:
            raise ValueError(
                "digits must classify one channel into 10 classes, "
                f"got {digits.shape[0]} channels and {digits.n_classes} classes"
            )
        self.digits = digits
        self.shape = (3, *digits.shape[1:])
        self.n_classes = 1000
        self.n_features = 3 * digits.n_features

    def features(self, x: Tensor) -> Tensor:
        """Features ``[N, 3 n_features of one channel]`` of images ``[N, 3, H, W]``."""
        return self.digits.features(x.reshape(-1, *self.digits.shape)).reshape(len(x), self.n_features)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities ``[N, 1000]`` of images ``[N, 3, H, W]`` in [-1, 1]."""
        return self.logits(self.features(x))

    def logits(self, features: Tensor) -> Tensor:
        """Log-probabilities ``[..., 1000]`` of features ``[..., n_features]``."""
        logits = self.digits.logits(features.unflatten(-1, (3, -1)))
        r, g, b = F.log_softmax(logits, -1).unbind(-2)
        return (r[..., :, None, None] + g[..., None, :, None] + b[..., None, None, :]).flatten(-3)


def train(
    data_train: Dataset,
    data_test: Dataset,
    *,
    epochs: int,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Classifier:
    """Train a classifier by cross-entropy: AdamW, weight decay 0.01, one-cycle learning rate.

    The seed decides the weights and the order of the images, and the global random state stays as it is: on one
    machine's CPU the same call gives the same network.

    Args:
        data_train: labelled images.
        data_test: images that measure `test_accuracy`, of the same shape and classes.
        epochs: passes over the training images; an incomplete last batch of a pass is left out.
        seed: of weights and order.
        batch_size: images per step.
        learning_rate: the peak of the cycle.
        device: where to train; the result stays there.
        progress: show a bar (on a terminal).

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: datasets that are not images or do not fit each other, or less than one step of training.
    """
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
    data_train, data_test = data_train.to(device), data_test.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(data_train.shape, data_train.n_classes)
    network.to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * n_batches)
    with tqdm(
        total=epochs * n_batches, desc="classifier", unit="step", disable=None if progress else True
    ) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(data_train), generator=generator).to(device)
            for indices in order.split(batch_size)[:n_batches]:
                x, y = data_train.batch(indices)
                loss = F.cross_entropy(network(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    network.eval()
    predicted = predict(network, data_test.normalise(data_test.images))
    network.test_accuracy = (predicted == data_test.labels).double().mean().item()
    return network


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
        raise DataError(f"there is no classifier {name!r}: known are {', '.join(RECIPES)}")
    recipe = json.dumps({"version": VERSION, **RECIPES[name]}, sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return data.cache_root(root) / "classifiers" / f"{name}-{digest}.pt"


def load(name: str, *, root: str | Path | None = None, train: bool = False) -> Classifier | Stacked:
    """A trained classifier from the cache, on the CPU.

    Args:
        name: ``"digits"`` or ``"mnist"``; ``"stacked-digits"`` and ``"stacked-mnist"`` wrap these in `Stacked`.
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
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        network = Classifier(tuple(saved["shape"]), saved["n_classes"], saved["n_features"])
        network.load_state_dict(saved["state"])
        network.test_accuracy = saved["test_accuracy"]
    except (RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError, pickle.PickleError) as error:
        raise DataError(f"{path} is damaged: remove it and run `gankit classifier {name}`") from error
    return network.eval()


def train_and_cache(
    name: str,
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    *,
    progress: bool = True,
    download: bool = False,
) -> Classifier:
    """Train the classifier `name` by its recipe and keep it at `cache_path`, replacing what is there.

    Args:
        name: ``"digits"`` or ``"mnist"``.
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
    saved = {
        "state": network.state_dict(),
        "shape": network.shape,
        "n_classes": network.n_classes,
        "n_features": network.n_features,
        "test_accuracy": network.test_accuracy,
        "recipe": RECIPES[name],
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(saved, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise DataError(f"the classifier cannot be written to {path} ({error})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return network
