"""What training draws from: labelled samples in memory, or images that stay in a file.

All that training needs of a `Dataset` is `draw` (indices with replacement) and `batch` (images and labels at indices
of any shape).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gankit.data.archives import DataError


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled samples in memory: images as uint8, or points as float32.

    Attributes:
        name: what `load` was asked for.
        images: uint8 ``[N, C, H, W]`` in 0..levels, or float32 ``[N, d]`` for points.
        labels: int64 ``[N]`` in 0..n_classes-1, on the device of `images`.
        classes: the name of each class.
        levels: the uint8 value that is white (255; 16 for digits); not used for points.
        weights: float64 ``[N]``, how often each sample is drawn, up to a factor; None is uniform.
        centers: ``[K, d]``, the means of a mixture of Gaussians; None for images.
        std: standard deviation of each component, in the units of the points; None for images.

    Raises:
        DataError: shapes, types or devices do not fit each other.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    levels: int = 255
    weights: Tensor | None = None
    centers: Tensor | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        images, labels, weights = self.images, self.labels, self.weights
        if (images.dtype, images.ndim) not in {(torch.uint8, 4), (torch.float32, 2)}:
            raise DataError(
                "images must be uint8 [N, C, H, W] or float32 [N, d], "
                f"got {images.dtype} of shape {list(images.shape)}"
            )
        if images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]:
            raise DataError(
                f"images must be [N, C, H, W], and shape {list(images.shape)} looks like [N, H, W, C]: "
                "give images.permute(0, 3, 1, 2)"
            )
        if len(images) == 0:
            raise DataError(f"dataset {self.name!r} holds no sample")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or labels.device != images.device:
            raise DataError(
                f"labels must be int64 [{len(images)}] on {images.device}, "
                f"got {labels.dtype} of shape {list(labels.shape)} on {labels.device}"
            )
        low, high = (int(limit) for limit in labels.aminmax())
        if low < 0 or high >= len(self.classes):
            raise DataError(f"labels must lie in 0..{len(self.classes) - 1}, got {low}..{high}")
        if weights is not None:
            if (
                weights.dtype != torch.float64
                or weights.shape != labels.shape
                or weights.device != images.device
            ):
                raise DataError(
                    f"weights must be float64 [{len(images)}] on {images.device}, "
                    f"got {weights.dtype} of shape {list(weights.shape)} on {weights.device}"
                )
            if not (
                bool(weights.isfinite().all()) and bool((weights >= 0).all()) and bool((weights > 0).any())
            ):
                raise DataError("weights must be finite, not negative and not all zero")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(C, H, W)`` or ``(d,)``."""
        return tuple(self.images.shape[1:])

    @property
    def n_classes(self) -> int:
        """Number of classes, those without a sample included."""
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """Where images and labels lie."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        weighted = "" if self.weights is None else ", weighted"
        shape = "x".join(map(str, self.shape))
        return f"Dataset({self.name!r}, {len(self):,} x [{shape}], {self.n_classes} classes{weighted})"

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset with every tensor on `device`."""
        moved = {
            key: None if (tensor := getattr(self, key)) is None else tensor.to(device)
            for key in ("images", "labels", "weights", "centers")
        }
        return replace(self, **moved)

    def normalise(self, images: Tensor) -> Tensor:
        """Network inputs of stored samples: ``2 x / levels - 1`` for uint8, the identity for floats.

        Args:
            images: any shape; uint8 in 0..levels, or floating point.

        Returns:
            float32 in [-1, 1] for uint8 input, else `images` itself.
        """
        if images.is_floating_point():
            return images
        return images.to(torch.float32).mul_(2).div_(self.levels).sub_(1)

    @cached_property
    def _support(self) -> tuple[Tensor, Tensor]:
        # Samples of positive weight and their cumulative weights. In float64, because float32 sums stop
        # growing after 2^24 equal weights; on the CPU, because a parallel scan on a GPU need not be monotone.
        weights = self.weights.cpu()
        support = weights.nonzero().squeeze(1)
        cumulative = (weights[support] / weights.max()).cumsum(0)
        return support.to(self.device), cumulative.to(self.device)

    def draw(self, size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw indices with replacement, in proportion to `weights` (uniformly without them).

        Args:
            size: shape of the result; ``(S, N)`` gives S replicas a batch each.
            generator: source of randomness; on the CPU it makes the draw independent of the dataset's device.

        Returns:
            int64 indices of that shape on the dataset's device. A sample of weight zero is never drawn.
        """
        size = (size,) if isinstance(size, int) else tuple(size)
        device = generator.device
        if self.weights is None:
            return torch.randint(len(self), size, generator=generator, device=device).to(self.device)
        support, cumulative = self._support
        u = torch.rand(size, dtype=torch.float64, generator=generator, device=device).to(self.device)
        place = torch.searchsorted(cumulative, u * cumulative[-1], right=True)
        return support[place.clamp_(max=len(support) - 1)]  # u * total may round up to the total

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Samples as network inputs, and their labels.

        Args:
            indices: int64 of any shape, as `draw` gives them.

        Returns:
            float32 ``[*indices.shape, *shape]`` and int64 ``[*indices.shape]``.
        """
        flat = indices.flatten()
        images = self.images.index_select(0, flat).reshape(*indices.shape, *self.shape)
        return self.normalise(images), self.labels.index_select(0, flat).reshape(indices.shape)

    def with_weights(self, weights: Tensor | None) -> Dataset:
        """The same samples, drawn in proportion to `weights`.

        Args:
            weights: ``[N]``, finite and not negative, any scale and real type; None for uniform.

        Raises:
            DataError: another shape, a negative or non-finite weight, or no positive one.
        """
        if weights is not None:
            weights = torch.as_tensor(weights).to(self.device, torch.float64)
        return replace(self, weights=weights)

    def subset(self, indices: Tensor) -> Dataset:
        """The samples at `indices`, with their weights; the classes stay as they are.

        Args:
            indices: int64 ``[M]`` (repeats allowed), or a boolean mask ``[N]``.

        Raises:
            DataError: not one-dimensional, out of range, or empty.
        """
        indices = torch.as_tensor(indices).to(self.device)
        if indices.ndim != 1 or indices.is_floating_point():
            raise DataError(
                f"indices must be int64 [M] or a boolean mask [{len(self)}], "
                f"got {indices.dtype} of shape {list(indices.shape)}"
            )
        try:
            images, labels = self.images[indices], self.labels[indices]
            weights = None if self.weights is None else self.weights[indices]
        except IndexError as error:
            raise DataError(f"indices do not fit a dataset of {len(self)} samples ({error})") from error
        return replace(self, images=images, labels=labels, weights=weights)

    def split(self, n: int, seed: int = 0, *, validation: int = 0) -> Split:
        """Three sets of samples, each of which no other has: n to train on, some to look at meanwhile, the rest.

        Of one seed and size of the validation set, smaller training sets are parts of larger ones, and the validation
        set is the same.

        Args:
            n: samples to train on, at least 1.
            seed: of the choice.
            validation: samples held out while training, at least 0.

        Raises:
            DataError: a number is out of range, or there are not so many samples.
        """
        if n < 1 or validation < 0 or n + validation > len(self):
            raise DataError(
                f"n must be at least 1, validation at least 0 and both together at most the {len(self)} samples of "
                f"{self.name!r}, got {n} and {validation}"
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        parts = order.split([validation, n, len(self) - n - validation])
        held_out, train, test = (self.subset(part) if len(part) else None for part in parts)
        return Split(train, held_out, test)

    def class_frequencies(self) -> Tensor:
        """Share of each class among drawn samples: float64 ``[n_classes]`` that sums to one."""
        weights = torch.ones(len(self), dtype=torch.float64) if self.weights is None else self.weights.cpu()
        counts = torch.bincount(self.labels.cpu(), weights / weights.max(), minlength=self.n_classes)
        return (counts / counts.sum()).to(self.device)


class Split(NamedTuple):
    """What `Dataset.split` gives; None where a part is empty."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None


@dataclass(frozen=True, eq=False, repr=False)
class MappedDataset(Dataset):
    """A dataset whose images stay in a memory-mapped file: a batch reads the rows it needs, and no others.

    `images` and `labels` stay on the CPU, and batches come out on `target`. Processes on one machine that map the same
    file share its pages, so that it is in memory at most once.

    Attributes:
        target: the device of what `batch` returns; `to` changes it.
    """

    target: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def to(self, device: torch.device | str) -> MappedDataset:
        """The same dataset, with batches on `device`; the images stay where they are."""
        return replace(self, target=torch.device(device))

    def draw(self, size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """As `Dataset.draw`, on the CPU whatever the generator's device."""
        return super().draw(size, generator if generator.device.type == "cpu" else host_generator(generator))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """As `Dataset.batch`: float32 images and int64 labels, on `target`."""
        flat = indices.flatten().to(self.device)
        # Into pinned memory, so that the copy to a GPU runs beside its work instead of waiting for it. Nothing in a
        # step waits for the GPU, so the host reads the next rows meanwhile.
        pinned = self.target.type == "cuda"
        found = []
        for x in (self.images, self.labels):
            rows = torch.empty((len(flat), *x.shape[1:]), dtype=x.dtype, pin_memory=pinned)
            found.append(torch.index_select(x, 0, flat, out=rows).to(self.target, non_blocking=True))
        images, labels = found
        # Converted on the device: uint8 is a quarter of the bytes to move.
        return self.normalise(images).reshape(*indices.shape, *self.shape), labels.reshape(indices.shape)


def host_generator(generator: torch.Generator) -> torch.Generator:
    """A generator on the CPU that depends on the state of another one, which moves on.

    A GPU's generator keeps its state on the host, so that nothing here waits for the GPU: neither reading that state
    nor asking for the number that moves it on.
    """
    words = np.frombuffer(generator.get_state().numpy().tobytes(), dtype=np.uint8)
    torch.rand((), generator=generator, device=generator.device)
    # PyTorch's CPU generator keeps 32 bits of a seed.
    return torch.Generator().manual_seed(int(np.random.SeedSequence(words.tolist()).generate_state(1)[0]))


def frequencies(labels: Tensor, n_classes: int) -> Tensor:
    """Share of each class among all N labels.

    Labels of -1 count in N and in no class, so the result sums to the fraction of labels that are not -1. To
    count "no mode" as a class of its own, use ``frequencies(labels + 1, n_classes + 1)``.

    Args:
        labels: integers ``[..., N]`` in -1..n_classes-1.
        n_classes: number of classes, those that do not occur included.

    Returns:
        float64 ``[..., n_classes]``.

    Raises:
        ValueError: no labels, labels that are not integers, or labels out of range.
    """
    if labels.ndim < 1 or labels.numel() == 0:
        raise ValueError(f"labels must be [..., N] with N > 0, got shape {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    low, high = (int(limit) for limit in labels.aminmax())
    if low < -1 or high >= n_classes:
        raise ValueError(f"labels must lie in -1..{n_classes - 1}, got {low}..{high}")
    rows = labels.reshape(-1, labels.shape[-1]).long()
    # One bincount for all rows: row r counts its labels -1, 0, ... at r * (n_classes + 1) + 0, 1, ...
    slots = rows + 1 + torch.arange(len(rows), device=rows.device)[:, None] * (n_classes + 1)
    counts = torch.bincount(slots.flatten(), minlength=len(rows) * (n_classes + 1))
    counts = counts.reshape(*labels.shape[:-1], n_classes + 1)[..., 1:]
    return counts.to(torch.float64) / labels.shape[-1]
