"""Training of the classifiers that measure generated images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gankit.classifiers.networks import NETWORKS, Classifier, ResidualClassifier
from gankit.classifiers.prediction import predict
from gankit.data import Dataset

PICTURES: Mapping[str, Any] = {
    "network": "residual", "epochs": 8, "batch_size": 128, "learning_rate": 3e-3, "seed": 0, "shift": 4,
}  # fmt: skip
"""Arguments of `train` for pictures in colour. On CIFAR-10 some twenty minutes of a laptop's core."""


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
