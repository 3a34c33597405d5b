"""Datasets by name, as uint8 that is normalised batch by batch.

``load("digits")`` needs no network; ``load("mnist")`` reads files that are already there and downloads them
only when told to; ``load("folder-or.zip")`` reads class folders of images. What `gankit pack` wrote is not read but
mapped, so that it may be larger than the memory (`gankit.data.packs`).
"""

import difflib
import math
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gankit.data import packs
from gankit.data.archives import DataError, read_images, resize
from gankit.data.dataset import Dataset, MappedDataset

__all__ = ["NAMES", "DataError", "Dataset", "MappedDataset", "cache_root", "data_root", "load", "mixture"]


def data_root(root: str | Path | None = None) -> Path:
    """Folder of data files: `root`, else the environment variable GANKIT_DATA, else ``~/.cache/gankit``.

    The folder is not created and need not exist.
    """
    return Path(root or os.environ.get("GANKIT_DATA") or "~/.cache/gankit").expanduser()


def cache_root(root: str | Path | None = None) -> Path:
    """Folder of files that gankit computes: `root`, else the environment variable GANKIT_CACHE, else
    ``~/.cache/gankit``.

    Not GANKIT_DATA, which may be shared by many users and read-only. The folder need not exist.
    """
    return Path(root or os.environ.get("GANKIT_CACHE") or "~/.cache/gankit").expanduser()


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    split: str | None = None,
    size: int | None = None,
    download: bool = False,
    seed: int = 0,
    n: int | None = None,
) -> Dataset:
    """Load a dataset by name, a folder or ``.zip`` file of class folders of images, or what `gankit pack` wrote.

    .. table:: Data sets by name.

       ========================== ============================================ ==================================
       name                       samples                                      source
       ========================== ============================================ ==================================
       digits                     1,797 grey 8x8, values 0..16                 scikit-learn, embedded
       mnist, fashion-mnist       60,000 grey 28x28                            torchvision
       cifar10                    50,000 RGB 32x32                             torchvision
       stacked-digits, -mnist     three digits as R, G, B; 1,000 classes       Metz et al., arXiv:1611.02163
       ring                       8 Gaussians, radius 2, sd 0.05               points, drawn with `seed`
       spiral                     12 Gaussians of growing weight, sd 0.05      figure 19 and table 3 of the
                                                                               MM-nsat paper
       gaussian                   one standard normal in the plane             points, drawn with `seed`
       cat128, ffhq256, ...       cats' and people's faces, without classes    a folder, .zip or pack below `root`
                                                                               that you get (the error says where)
       ========================== ============================================ ==================================

    Args:
        name: a name of the table, or a path (as given, else below the data root).
        root: folder of data files, see `data_root`.
        split: ``"train"``, ``"test"`` or ``"all"``. By default all of digits, the training images of the
            torchvision sets, and everything in a folder or archive. Every fifth image of each class of digits
            is a test image. Of drawn points, ``"test"`` is an independent draw.
        size: side in pixels to which images are cropped and resized (see `archives.read_images`).
        download: fetch a torchvision set into `root` when it is not there.
        seed: of points, stacked images and the choice of `n` images.
        n: number of samples: points (50,000 by default), stacked images (60,000), or a random choice without
            replacement of the images of any other set (all of them).

    Returns:
        A `Dataset` on the CPU; of a pack, a `MappedDataset`, of which a batch reads the images it needs.

    Raises:
        DataError: an unknown name, missing or damaged files, or an argument that does not fit the dataset.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise DataError(f"n must be a positive number of samples or None, got {n!r}")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise DataError(f"size must be a positive number of pixels or None, got {size!r}")
    if name not in NAMES:
        return _choose(_from_path(name, root, split, size), n, seed)
    if split not in (None, "train", "test", "all"):
        raise DataError(f"split must be 'train', 'test' or 'all' for {name!r}, got {split!r}")
    if name in _MIXTURES:
        if size is not None:
            raise DataError(f"size= resizes images, and {name!r} is a set of points")
        return _points(name, 50_000 if n is None else n, 2 * seed + (split == "test"))
    if name in _STACKED:
        base = load(_STACKED[name], root=root, split=split, size=size, download=download)
        return _stack(name, base, 60_000 if n is None else n, seed)
    if name == "digits":
        if size is not None:
            raise DataError("digits are 8x8 images of 17 grey levels: size= is not available for them")
        return _choose(_digits(split or "all"), n, seed)
    return _choose(_torchvision(name, data_root(root), split or "train", size, download), n, seed)


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images.astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    data = Dataset("digits", images, labels, tuple("0123456789"), levels=16)
    if split == "all":
        return data
    # Position of each image within its class: the division is stratified and depends on no random generator.
    one_hot = torch.nn.functional.one_hot(labels, 10)
    position = (one_hot.cumsum(0) * one_hot).sum(1) - 1
    test = position % 5 == 4
    return data.subset(test if split == "test" else ~test)


def _ring() -> tuple[Tensor, Tensor, float]:
    angle = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 8)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1), torch.ones(8, dtype=torch.float64), 0.05


def _spiral() -> tuple[Tensor, Tensor, float]:
    angle = torch.linspace(0, 2.2 * 2 * math.pi, 12, dtype=torch.float64)
    radius = torch.linspace(0.3, 2, 12, dtype=torch.float64)
    # Linear weights with these ends give shares of 2.00, 3.15, ..., 14.67 %, the Data row of the table.
    return (
        radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1),
        torch.linspace(3, 22, 12, dtype=torch.float64),
        0.05,
    )


def _gaussian() -> tuple[Tensor, Tensor, float]:
    return torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 1.0


_MIXTURES = {"ring": _ring, "spiral": _spiral, "gaussian": _gaussian}
_STACKED = {"stacked-digits": "digits", "stacked-mnist": "mnist"}
# The class of torchvision.datasets, and the folder it keeps its files in.
_TORCHVISION = {
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
}
NAMES = ("digits", *_TORCHVISION, *_STACKED, *_MIXTURES)
SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "digits": ((1, 8, 8), 10),
    "stacked-digits": ((3, 8, 8), 1000),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "stacked-mnist": ((3, 28, 28), 1000),
    "cifar10": ((3, 32, 32), 10),
    "ring": ((2,), 8),
    "spiral": ((2,), 12),
    "gaussian": ((2,), 1),
}
"""Shape of a sample and number of classes of the data sets that `load` knows by name."""


def sample_shape(name: str, size: int | None = None, n_classes: int = 1000) -> tuple[tuple[int, ...], int]:
    """Shape of a sample of what `load` would return, and the number of its classes, without reading anything.

    Args:
        name: as in `load`.
        size: side in pixels to which pictures are brought.
        n_classes: taken for that of a path, which is not known.

    Raises:
        ValueError: the data are a path, and `size` is not given.
    """
    if name in SHAPES:
        shape, n_classes = SHAPES[name]
        return (shape if size is None else (shape[0], size, size)), n_classes
    if size is None:
        raise ValueError(f"the size of the pictures in {name} is not known: give size")
    return (3, size, size), n_classes


def mixture(name: str) -> tuple[Tensor, Tensor, float]:
    """The exact mixture of Gaussians that `load(name)` draws its points from.

    Args:
        name: "ring", "spiral" or "gaussian".

    Returns:
        The means float64 ``[K, 2]``, the weights float64 ``[K]`` on any scale, and the standard deviation of
        every component.

    Raises:
        DataError: no such mixture; the message lists those there are.
    """
    if name not in _MIXTURES:
        raise DataError(f"{name!r} is not a mixture of Gaussians; there are {', '.join(_MIXTURES)}")
    return _MIXTURES[name]()


def _points(name: str, n: int, seed: int) -> Dataset:
    centers, weights, std = mixture(name)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(weights, n, replacement=True, generator=generator)
    noise = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    points = (centers[labels] + std * noise).float()
    return Dataset(
        name, points, labels, tuple(map(str, range(len(centers)))), centers=centers.float(), std=std
    )


def _stack(name: str, base: Dataset, n: int, seed: int) -> Dataset:
    triples = base.draw((n, 3), torch.Generator().manual_seed(seed))
    labels = base.labels[triples] @ torch.tensor([100, 10, 1])
    classes = tuple(f"{number:03d}" for number in range(1000))
    return Dataset(name, base.images[triples].squeeze(2), labels, classes, levels=base.levels)


def _torchvision(name: str, root: Path, split: str, size: int | None, download: bool) -> Dataset:
    from torchvision import datasets

    kind, folder = _TORCHVISION[name]
    dataset = getattr(datasets, kind)
    if download:
        _download(name, dataset, root)
    try:
        parts = [
            dataset(root, train=train)
            for train in (True, False)
            if split in ("all", "train" if train else "test")
        ]
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
        if (root / folder).exists():
            message = f"{root / folder} is incomplete or damaged ({_one_line(error)}), remove it first"
        else:
            message = f"{name!r} is not in {root}"
        raise DataError(
            f"{message}; load({name!r}, download=True), or --download on the command line, fetches it there, "
            f"and GANKIT_DATA may name another folder that holds {folder}"
        ) from error
    images = np.concatenate([np.asarray(part.data) for part in parts])
    labels = torch.cat([torch.as_tensor(part.targets, dtype=torch.int64) for part in parts])
    if size is not None and images.shape[1:3] != (size, size):
        images = np.stack([np.asarray(resize(Image.fromarray(image), size)) for image in images])
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    classes = tuple("0123456789") if name == "mnist" else tuple(parts[0].classes)
    return Dataset(name, torch.from_numpy(np.ascontiguousarray(images)), labels, classes)


def _download(name: str, dataset: type, root: Path) -> None:
    """Fetch a torchvision set unless it is there, moving files into place only when all have arrived."""
    try:
        dataset(root, train=True), dataset(root, train=False)
        return
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError):
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
            dataset(partial, train=True, download=True)
            for file in [path for path in Path(partial).rglob("*") if path.is_file()]:
                target = root / file.relative_to(partial)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{name!r} could not be downloaded to {root} ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_TO_PACK = {
    "lsun-church": "LSUN's church_outdoor_train_lmdb",
    "lsun-bedroom": "LSUN's bedroom_train_lmdb",
    "ffhq": "FFHQ's images1024x1024 (github.com/NVlabs/ffhq-dataset)",
    "cat": "the CAT data set (Zhang, Sun and Tang 2008) with its heads cut out and sorted by size, as the scripts of "
    "github.com/AlexiaJM/Deep-learning-with-cats do it,",
    "imagenet": "ImageNet's class folders",
}
"""Sets that the reader has to get, and what to get. Recipes name them with their pixels, as in "ffhq128"."""


def _to_pack(name: str | Path) -> tuple[str, int] | None:
    """The set, a key of `_TO_PACK`, and the pixels that a name like "ffhq128" says; None for any other."""
    found = re.fullmatch(rf"({'|'.join(_TO_PACK)})(\d+)", str(name))
    return None if found is None else (found[1], int(found[2]))


def find(name: str | Path, root: str | Path | None = None) -> Path:
    """The folder or file of a path as given, else below the data root.

    A set like "ffhq128" may be a folder, a pack or, with that ending, a ``.zip`` file.

    Raises:
        DataError: there is none; a bare word may be a misspelt name of a dataset.
    """
    path = Path(name).expanduser()
    if not path.exists():
        path = data_root(root) / path
    known = _to_pack(name)
    if known is not None and not path.exists() and path.with_name(f"{name}.zip").exists():
        path = path.with_name(f"{name}.zip")
    if not path.exists():
        if known is not None:
            what, size = known
            flag = "--split train" if what == "imagenet" else "--unlabelled"
            raise DataError(
                f"there is no {name} here, nor in {data_root(root)} (set by GANKIT_DATA): get {_TO_PACK[what]} and "
                f"write `gankit pack FOLDER {data_root(root) / name} --size {size} {flag}`"
            )
        if isinstance(name, str) and Path(name).name == name and not Path(name).suffix:
            near = difflib.get_close_matches(name, NAMES, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise DataError(
                f"unknown dataset {name!r}: {hint}known are {', '.join(NAMES)}, "
                "or the path of a folder or .zip file"
            )
        raise DataError(
            f"there is no folder or .zip file at {name}, nor below {data_root(root)} (set by GANKIT_DATA)"
        )
    return path


def _from_path(name: str | Path, root: str | Path | None, split: str | None, size: int | None) -> Dataset:
    path = find(name, root)
    if packs.is_pack(path):
        return packs.load(path, split=split, size=size)
    images, labels, classes = read_images(path, split=split, size=size)
    known = _to_pack(name)
    if known is not None and known[0] in ("cat", "ffhq"):  # their folders are numbers, not classes
        labels, classes = np.zeros_like(labels), (known[0],)
    return Dataset(path.stem, torch.from_numpy(images), torch.from_numpy(labels), classes)


def _choose(data: Dataset, n: int | None, seed: int) -> Dataset:
    if n is None:
        return data
    if n > len(data):
        raise DataError(f"n = {n:,} samples were asked of {data.name!r}, which has {len(data):,}")
    return data.subset(torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:n])
