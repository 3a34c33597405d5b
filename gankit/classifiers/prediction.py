"""What networks say of many images: batch by batch, for any leading dimensions, on the network's device and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gankit.data import frequencies


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor],
    images: Tensor,
    shape: tuple[int, ...],
    batch_size: int,
    *,
    like: Tensor | None = None,
    whose: str = "the classifier",
) -> Tensor:
    """A function of a batch, of many images.

    Args:
        function: ``[B, *shape]`` -> ``[B, ...]``.
        images: ``[..., *shape]``, floating point; points, or images in [-1, 1].
        shape: of one image.
        batch_size: images at a time.
        like: a tensor of the device and type that the function takes; None leaves both.
        whose: for messages, what takes images of that shape.

    Returns:
        ``[..., ...]`` on the device of `images`.

    Raises:
        ValueError: images of another type or shape, or none at all.
    """
    lead = images.shape[: images.ndim - len(shape)]
    if not images.is_floating_point() or images.shape != (*lead, *shape) or images.numel() == 0:
        raise ValueError(
            f"images must be floating point [..., {', '.join(map(str, shape))}] in [-1, 1] (Dataset.normalise) and "
            f"at least one for {whose}, got {images.dtype} of shape {list(images.shape)}"
        )
    like = images if like is None else like
    parts = [
        function(part.to(like)).to(images.device) for part in images.reshape(-1, *shape).split(batch_size)
    ]
    result = torch.cat(parts)
    return result.reshape(*lead, *result.shape[1:])


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
    return _of_images(classifier, lambda x: most_probable(classifier(x)), images, batch_size)


def compute_features(classifier: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Features of each image: float ``[..., n_features]`` for images as `predict` takes them."""
    return _of_images(classifier, classifier.features, images, batch_size)


def class_frequencies(classifier: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Share of each class among images ``[..., N, C, H, W]``, as `predict` classifies them.

    Returns:
        float64 ``[..., n_classes]``; rows sum to one, or less by the share of images without finite logits.

    Raises:
        ValueError: as `predict`, or no image.
    """
    return frequencies(predict(classifier, images, batch_size), classifier.n_classes)


def most_probable(logits: Tensor) -> Tensor:
    """The class of logits ``[..., C]``, int64 ``[...]``; -1 where they are not finite."""
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), -1)


def _of_images(
    classifier: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor, batch_size: int
) -> Tensor:
    weight = next(classifier.parameters())
    return in_batches(function, images, classifier.shape, batch_size, like=weight)
