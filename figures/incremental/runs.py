"""What the figures of "Boosting generative networks for incremental learning" share: data, GANs and classifiers.

The paper trains BigGANs and ResNets on CIFAR-10. Here small conditional GANs and perceptrons learn digits, or MNIST,
several seeds side by side. A GAN sees the training images alone, and classifiers are tested on the test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

import gankit as gk
from figures.book.measuring_truncation import N_CLASSES, Z_DIM, LabelledDiscriminator, LabelledGenerator
from gankit import classifiers
from gankit.classifiers import synthetic
from gankit.classifiers.synthetic import Augment, FixedSet, Protocol, Source, Trained
from gankit.classifiers.weights import ReplicaWeighted
from gankit.data import Dataset
from gankit.training import Trainer
from gankit.training.checkpoints import latest


@dataclass(frozen=True)
class World:
    """A data set, and networks small enough for it.

    Attributes:
        data: name of the data.
        n: training images used, the first ones; None is all.
        width: units of the GAN's hidden layers.
        steps: generator steps.
        batch_size: of the GAN.
        hidden: units of the classifier.
        protocol: of the classifier.
        shift: of its transformation, in pixels.
    """

    data: str
    n: int | None
    width: int
    steps: int
    batch_size: int
    hidden: int
    protocol: Protocol
    shift: int

    def load(self) -> tuple[Dataset, Dataset]:
        """Training and test images."""
        train, test = (gk.data.load(self.data, split=split) for split in ("train", "test"))
        return (train if self.n is None else train.subset(torch.arange(self.n))), test

    def judge(self, train: Dataset, test: Dataset) -> nn.Module:
        """The filter: a classifier of the students' kind, twice as wide, trained on the real training images."""
        net = synthetic.perceptron(train.shape, train.n_classes, 2 * self.hidden, seed=1_000)
        protocol = Protocol(10, max(50, len(train) // 64), 64, learning_rate=0.05)
        source = FixedSet.real(train)
        return synthetic.train(source, net, test, protocol).network.requires_grad_(False)


WORLDS: Mapping[str, World] = {
    "digits": World("digits", None, 64, 2_000, 32, 128, Protocol(10, 50, 64, learning_rate=0.05), shift=1),
    "mnist": World("mnist", 10_000, 128, 10_000, 64, 128, Protocol(10, 80, 64, learning_rate=0.05), shift=2),
}


def train_gans(
    world: World,
    train: Dataset,
    seeds: Sequence[int],
    *,
    steps: int | None = None,
    weights: Tensor | None = None,
    loss: str = "mm-nsat",
    folder: Path | None = None,
) -> Trainer:
    """Conditional GANs side by side, one for each seed; a seed may occur again with other weights.

    Args:
        world: sizes.
        train: what they imitate.
        seeds: of weights, z and data.
        steps: generator steps; None is the world's.
        weights: of the images, ``[len(seeds), N]``; None draws all alike.
        loss: the cost.
        folder: where checkpoints go; a run that finds one goes on from it. None keeps none.
    """
    data = train if weights is None else ReplicaWeighted.of(train, weights)
    pixels = int(np.prod(train.shape))
    sizes = {"width": world.width}
    G = LabelledGenerator(
        lambda s: gk.models.mlp(train.shape, z_dim=Z_DIM + N_CLASSES, depth=3, seed=s, **sizes)[0], seeds
    )
    D = LabelledDiscriminator(
        lambda s: gk.models.mlp((pixels + N_CLASSES,), depth=4, seed=s, **sizes)[1], seeds
    )
    adam = {"g_optimizer": gk.Adam(lr=1e-3), "d_optimizer": gk.Adam(lr=1e-3)}
    run = Trainer(G, D, data, loss=loss, batch_size=world.batch_size, device="cpu", **adam)
    if folder is not None and (found := latest(folder)):
        run.load(found)
    steps = world.steps if steps is None else steps
    return run.fit(max(0, steps - run.steps), out=folder, save_every=1_000, progress=False)


def learn(
    world: World, source: Source, test: Dataset, seeds: Sequence[int], *, transformed: bool = False
) -> Trained:
    """Classifiers side by side, one for each seed, on what `source` draws."""
    net = gk.Ensemble(lambda s: synthetic.perceptron(test.shape, test.n_classes, world.hidden, seed=s), seeds)
    augment = Augment(world.shift, flip=False) if transformed else None
    return synthetic.train(source, net, test, world.protocol, augment=augment)


def compare(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Paired differences: their mean, how many are above and below zero, and the p of a two-sided sign test."""
    difference = np.asarray(values) - np.asarray(base)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return {"difference": float(difference.mean()), "wins": wins, "losses": losses, "p": float(p)}


def features_of_digits(images: Tensor) -> Tensor:
    """Features of the book's digit classifier, float64 ``[..., 64]``: FD[digits classifier] is measured in them."""
    judge = classifiers.load("digits", train=True)
    return classifiers.compute_features(judge, images, batch_size=1_000).double()
