"""Feature spaces: through which eyes two sets of images are compared.

A distance between distributions of images is taken between *features*, and its value means nothing without the name
of the space: results are called ``FD[digits classifier]`` or ``FD[pixels]``, and ``FID`` only in the pool features of
the 2015 Inception network. A space is a small record that maps images in [-1, 1] to features, and features to
logits if it belongs to a classifier:

    >>> space = features.classifier("digits")
    >>> x = space(images)                                   # images [..., N, 1, 8, 8] -> features [..., N, 64]
    >>> space.logits(x)                                     # [..., N, 10]

What happens to an image before the network sees it (rounding, resizing, grey to RGB) is the space's *rule*. It
changes the values, so it belongs to the space and is written into every score's protocol.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from gankit import classifiers
from gankit.classifiers.prediction import in_batches
from gankit.data import DataError, Dataset

INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the one file whose features make a Frechet distance an FID: 95,628,359 bytes."""

_UNCHANGED = "images as they are"


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A named map from images to features.

    Attributes:
        name: goes into the name of every result, as in ``FD[name]``.
        embed: images `[B, *shape]`, floating point in [-1, 1] (or points), on the device of `net` -> `[B, d]`.
        head: features `[..., d]` -> logits `[..., C]`; None where the space has no classes.
        rule: what happens to an image before the network, in words.
        net: the network behind `embed`, if there is one. It runs in evaluation mode.
        shape: of one image; None takes any that `embed` takes.
        n_classes: C, 0 without a head.
        batch_size: images at a time.
        short: names of results that have one of their own in this space, such as ``{"FD": "FID"}``.
    """

    name: str
    embed: Callable[[Tensor], Tensor]
    rule: str = _UNCHANGED
    net: nn.Module | None = None
    head: Callable[[Tensor], Tensor] | None = None
    shape: tuple[int, ...] | None = None
    n_classes: int = 0
    batch_size: int = 256
    short: Mapping[str, str] = field(default_factory=dict)

    def title(self, measure: str) -> str:
        """Name of a result in this space: ``title("FD")`` is ``"FD[pixels]"``, or ``"FID"`` for Inception's."""
        return self.short.get(measure, f"{measure}[{self.name}]")

    def to(self, device: torch.device | str) -> FeatureSpace:
        """This space, with its network moved to a device."""
        first = None if self.net is None else next(self.net.parameters(), None)
        # Moving a network costs a millisecond even where it lies there already.
        if first is not None and first.device != torch.device(device):
            self.net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of images, in batches, computed where the network is.

        Args:
            images: `[..., N, *shape]`, floating point in [-1, 1] (points: any). S replicas `[S, N, *shape]` give
                `[S, N, d]`.

        Returns:
            Features on the device of `images`.

        Raises:
            ValueError: images of another type or shape than the space takes, or none at all.
        """
        shape = tuple(images.shape[-3:]) if self.shape is None else self.shape
        if images.ndim <= len(shape):
            raise ValueError(
                f"images must be [..., N, {', '.join(map(str, shape))}] for the space {self.name!r}, "
                f"got shape {list(images.shape)}"
            )
        training = self.net is not None and self.net.training
        if training:
            self.net.eval()
        try:
            whose, like = f"the space {self.name!r}", self._weight(images)
            return in_batches(self.embed, images, shape, self.batch_size, like=like, whose=whose)
        finally:
            if training:
                self.net.train()

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Logits `[..., C]` of features `[..., d]`, on their device.

        Raises:
            ValueError: if the space has no classes.
        """
        if self.head is None:
            raise ValueError(f"the space {self.name!r} has no classes")
        return self.head(features.to(self._weight(features))).to(features.device)

    def _weight(self, x: Tensor) -> Tensor:
        """A tensor with the device and the type that the network computes on and in."""
        return x if self.net is None else next(self.net.parameters(), x)


# --- Spaces -----------------------------------------------------------------------------------------------------


def pixels(data: Dataset) -> FeatureSpace:
    """The images themselves, flattened; called "points" where the data are points.

    A Frechet distance in d pixels takes time and memory of order d^2 and more: 64 x 64 RGB has d = 12,288.

    Args:
        data: gives the shape that images must have.
    """
    name = "points" if len(data.shape) == 1 else "pixels"
    return FeatureSpace(name, lambda x: x.flatten(1), shape=data.shape)


def classifier(name: str, *, root: str | Path | None = None, train: bool = False) -> FeatureSpace:
    """Penultimate features and class logits of a classifier of the book.

    Args:
        name: "digits", "mnist", "stacked-digits" or "stacked-mnist" (`gankit.classifiers.load`).
        root: folder of the cache.
        train: train it and keep it when the cache does not hold it, instead of raising.

    Raises:
        DataError: an unknown name, or nothing in the cache; the message has the command that fills it.
    """
    return of_classifier(classifiers.load(name, root=root, train=train), f"{name} classifier")


def of_file(path: Path, data: Dataset) -> FeatureSpace:
    """Penultimate features and class logits of a classifier that `gankit classifier ... --to FILE` wrote.

    Args:
        path: the file.
        data: what samples are compared with.

    Raises:
        DataError: the file is missing or damaged.
        ValueError: the classifier is for pictures of another shape, or has other classes, than the data.
    """
    net, name, classes = classifiers.read(path)
    if (net.shape, classes) != (data.shape, data.classes):
        raise ValueError(
            f"{path} is a classifier for {name!r}, pictures {net.shape} of {_few(classes)}; "
            f"{data.name!r} has {data.shape} of {_few(data.classes)}"
        )
    return of_classifier(net, f"{name} classifier")


def _few(classes: tuple[str, ...]) -> str:
    """The first of the classes, and how many there are."""
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"


def of_classifier(net: nn.Module, name: str) -> FeatureSpace:
    """Features and logits of any network with `shape`, `n_classes`, `features(x)` and `logits(features)`.

    Args:
        net: such as `gankit.classifiers.Classifier`.
        name: of the space.
    """

    return FeatureSpace(
        name, net.features, net=net, head=net.logits, shape=tuple(net.shape), n_classes=net.n_classes
    )


def module(
    net: nn.Module, name: str, *, rule: str = _UNCHANGED, shape: tuple[int, ...] | None = None
) -> FeatureSpace:
    """Features of any network that maps images `[B, C, H, W]` in [-1, 1] to `[B, ...]`, flattened to `[B, d]`.

    Args:
        net: in evaluation mode while it is used here, and as it was afterwards.
        name: of the space, such as "ResNet-50 pool, ImageNet".
        rule: what `net` does to an image before its first layer, in words; it goes into the protocol.
        shape: of one image; None takes every image `[C, H, W]`.
    """
    return FeatureSpace(name, lambda x: net(x).flatten(1), rule, net, shape=shape)


# --- Inception --------------------------------------------------------------------------------------------------


def inception(weights: str | Path | None = None, *, download: bool = False) -> FeatureSpace:
    """The 2015 Inception network as TensorFlow had it: 2,048 pool features (FID, KID) and 1,008 logits (IS).

    Images are rounded to the 256 levels of a picture file, grey ones repeated over three channels, and resized to
    299 x 299 by the bilinear rule of TensorFlow 1 (no antialiasing), the way published FIDs are computed. The
    logits are those without the last bias, which the Inception Score is defined by. The network is torch-fidelity's.

    Args:
        weights: the file ``weights-inception-2015-12-05-6726825d.pth`` (pytorch-fid's ``pt_inception-...`` is the
            same file). None looks where torch-fidelity keeps it. Only this file makes results "FID"; with any
            other weights they are called ``FD[Inception <start of the file's SHA-256>]``.
        download: fetch the file (96 MB) to that place if it is missing there. Nothing is fetched without this.

    Raises:
        ImportError: torch-fidelity is not installed.
        DataError: the weights are missing (the message says where they come from and where they go), are no
            weights of this network, or were damaged on the way.
    """
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(
            'the Inception network needs torch-fidelity: pip install "gankit[metrics]"'
        ) from error
    path = inception_path() if weights is None else Path(weights).expanduser()
    if weights is None and download and not path.exists():
        _download(path)
    raw = _read(path)
    try:
        # The network reads its file with a full unpickler. It is given bytes that the restricted one has accepted.
        torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights before they get their own
            net = FeatureExtractorInceptionV3(
                "gankit", ["2048"], feature_extractor_weights_path=io.BytesIO(raw)
            )
    except (RuntimeError, TypeError, ValueError, EOFError, LookupError, pickle.PickleError) as error:
        raise DataError(
            f"{path} does not hold weights of the Inception network: give the file of {INCEPTION_URL}"
        ) from error
    sha256 = hashlib.sha256(raw).hexdigest()
    official = sha256 == INCEPTION_SHA256
    return FeatureSpace(
        "Inception" if official else f"Inception {sha256[:8]}",
        lambda x: net(_rgb(to_uint8(x)))[0],
        rule="rounded to 256 levels, grey as RGB, TensorFlow-1 bilinear to 299 x 299",
        net=net,
        head=lambda features: features @ net.fc.weight.T,
        n_classes=1008,
        batch_size=50,
        short={"FD": "FID", "KD": "KID", "IS": "IS", "intra-FD": "intra-FID"} if official else {},
    )


def inception_path() -> Path:
    """Where torch-fidelity keeps the Inception weights: ``~/.cache/torch/hub/checkpoints``, or below TORCH_HOME."""
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rpartition("/")[2]


def to_uint8(images: Tensor) -> Tensor:
    """Images as a picture file would hold them: [-1, 1] to 0..255, rounded to the nearest level.

    Truncating instead of rounding darkens a picture by half a level on average, and moves levels that a float holds
    slightly below their value (a quarter of the 256, as ``2 x / 255 - 1`` in float32) a whole level down.

    Args:
        images: floating point, any shape; values beyond [-1, 1] are clamped.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: images of another type, or not finite.
    """
    if not images.is_floating_point() or not bool(images.isfinite().all()):
        what = "NaN or infinity" if images.is_floating_point() else images.dtype
        raise ValueError(f"images must be floating point and finite to become pictures, got {what}")
    return images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def _rgb(images: Tensor) -> Tensor:
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"images must be grey or RGB for the Inception network, got {channels} channels")
    return images.expand(-1, 3, -1, -1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"there are no Inception weights at {path} ({error.strerror}): features.inception(download=True), or "
            f"--download on the command line, fetches them there from {INCEPTION_URL}; weights= (--weights) names "
            "a copy that lies elsewhere"
        ) from error


def _download(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Arrives under a temporary name, and is renamed when its checksum is right.
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix=INCEPTION_SHA256, progress=False)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{INCEPTION_URL} could not be fetched to {path} ({error})") from error
