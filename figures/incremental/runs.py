"""What the figures of "Boosting generative networks for incremental learning" share: data, GANs and classifiers.

The paper trains BigGANs and ResNets on CIFAR-10. Here small conditional GANs and perceptrons learn digits, or MNIST,
several seeds side by side, and narrow SNGANs with projection and residual classifiers learn CIFAR-10 (JPEG). A GAN sees
the training images alone, and classifiers are tested on the test images.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
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
from gankit.classifiers.networks import ResidualClassifier
from gankit.classifiers.synthetic import Augment, FixedSet, Protocol, Source, Trained
from gankit.classifiers.weights import ReplicaWeighted
from gankit.data import Dataset
from gankit.models.blocks import seeded
from gankit.recipes import Recipe, recipes
from gankit.training import Trainer
from gankit.training.checkpoints import latest


@dataclass(frozen=True)
class World(ABC):
    """A data set, its conditional GANs and its classifiers.

    Attributes:
        protocol: of the classifiers.
        augment: their transformation.
        block: seeds that train side by side; None is all of them.
        filtered: whether the filter lets enough generated images of each class through to train on.
        precision: of the generator while it makes images for a classifier (`Generated`).
    """

    protocol: Protocol
    augment: Augment
    block: int | None
    filtered: bool
    precision: str

    @abstractmethod
    def load(self) -> tuple[Dataset, Dataset]:
        """Training and test images."""

    @abstractmethod
    def generators(self, train: Dataset, seeds: Sequence[int], folder: Path | None) -> nn.Module:
        """Averaged conditional generators: an ensemble, or a plain one where a block is of one seed."""

    @abstractmethod
    def judge(self, train: Dataset, test: Dataset) -> nn.Module:
        """The filter: a wider classifier of the students' kind, trained longer on the real training images."""

    @abstractmethod
    def students(self, test: Dataset, seeds: Sequence[int]) -> nn.Module:
        """Untrained classifiers: an ensemble, or a plain one where a block is of one seed."""

    def lead(self, seeds: Sequence[int]) -> Sequence[int] | None:
        """What a `FixedSet` takes as seeds."""
        return None if self.block == 1 else seeds


@dataclass(frozen=True)
class Perceptrons(World):
    """Small grey images: three layers in G, four in D, two in a classifier.

    Attributes:
        data: name of the data.
        n: training images used, the first ones; None is all.
        width: units of the GAN's hidden layers.
        steps: generator steps.
        batch_size: of the GAN.
        hidden: units of the classifier; the filter has twice as many.
    """

    data: str
    n: int | None
    width: int
    steps: int
    batch_size: int
    hidden: int

    def load(self) -> tuple[Dataset, Dataset]:
        train, test = (gk.data.load(self.data, split=split) for split in ("train", "test"))
        return (train if self.n is None else train.subset(torch.arange(self.n))), test

    def generators(self, train: Dataset, seeds: Sequence[int], folder: Path | None) -> nn.Module:
        return train_gans(self, train, seeds, folder=folder).teacher.net

    def judge(self, train: Dataset, test: Dataset) -> nn.Module:
        net = synthetic.perceptron(train.shape, train.n_classes, 2 * self.hidden, seed=1_000)
        protocol = Protocol(10, max(50, len(train) // 64), 64, learning_rate=0.05)
        source = FixedSet.real(train)
        return synthetic.train(source, net, test, protocol).network.requires_grad_(False)

    def students(self, test: Dataset, seeds: Sequence[int]) -> nn.Module:
        return gk.Ensemble(
            lambda s: synthetic.perceptron(test.shape, test.n_classes, self.hidden, seed=s), seeds
        )


@dataclass(frozen=True)
class Convolutions(World):
    """Pictures in colour, one seed after another: on a CPU convolutions gain nothing side by side.

    Attributes:
        data: files of the training and of the test pictures.
        n: how many of each are used, evenly spaced.
        recipe: of the GAN.
        features: of the classifier's last layer; the filter has twice as many.
    """

    data: tuple[str, str]
    n: tuple[int, int]
    recipe: Recipe
    features: int

    def load(self) -> tuple[Dataset, Dataset]:
        train, test = (_every(gk.data.load(name), n) for name, n in zip(self.data, self.n, strict=True))
        return train, test

    def generators(self, train: Dataset, seeds: Sequence[int], folder: Path | None) -> nn.Module:
        run = self.recipe.build(seeds, data=train, device="cpu")
        resume(run, folder)
        run.fit(max(0, self.recipe.steps - run.steps), out=folder, save_every=200, progress=False)
        return run.teacher.net

    def judge(self, train: Dataset, test: Dataset) -> nn.Module:
        with seeded(1_000):
            net = ResidualClassifier(test.shape, test.n_classes, 2 * self.features)
        protocol = dataclasses.replace(self.protocol, epochs=4 * self.protocol.epochs)
        found = synthetic.train(FixedSet.real(train), net, test, protocol, augment=self.augment)
        return found.network.requires_grad_(False)

    def students(self, test: Dataset, seeds: Sequence[int]) -> nn.Module:
        (seed,) = seeds
        with seeded(seed):
            return ResidualClassifier(test.shape, test.n_classes, self.features)


def _every(data: Dataset, n: int) -> Dataset:
    """n images, evenly spaced: of each class alike where a file is sorted by them."""
    return data.subset(torch.arange(n) * (len(data) // n))


DIGITS = Perceptrons(
    data="digits",
    n=None,
    protocol=Protocol(10, 50, 64, learning_rate=0.05),
    augment=Augment(1, flip=False),
    block=None,
    filtered=True,
    precision="float32",
    width=64,
    steps=2_000,
    batch_size=32,
    hidden=128,
)
WORLDS: Mapping[str, World] = {
    "digits": DIGITS,
    "mnist": dataclasses.replace(
        DIGITS,
        data="mnist",
        n=10_000,
        protocol=dataclasses.replace(DIGITS.protocol, batches=80),
        augment=Augment(2, flip=False),
        width=128,
        steps=10_000,
        batch_size=64,
    ),
    "cifar10": Convolutions(
        data=("cifar10-jpeg-train.zip", "cifar10-jpeg-test.zip"),
        n=(10_000, 2_000),
        protocol=Protocol(6, 80, 64, learning_rate=0.05),
        augment=Augment(4),
        block=1,
        filtered=False,
        precision="bfloat16",
        recipe=recipes["projection-cifar10"].changed(
            {
                "data": "cifar10-jpeg-train.zip",
                "width": 16,
                "batch_size": 32,
                "n_dis": 2,
                "lr": 5e-4,
                "ema_decay": 0.99,
                "steps": 1_500,
            }
        ),
        features=32,
    ),
}


def resume(run: Trainer, folder: Path | None) -> None:
    """Go on from the newest checkpoint in a folder, if there is one."""
    if folder is not None and (found := latest(folder)):
        run.load(found)


def train_gans(
    world: Perceptrons,
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
    resume(run, folder)
    steps = world.steps if steps is None else steps
    return run.fit(max(0, steps - run.steps), out=folder, save_every=1_000, progress=False)


def learn(
    world: World, source: Source, test: Dataset, seeds: Sequence[int], *, transformed: bool = False
) -> Trained:
    """Classifiers side by side, one for each seed, on what `source` draws."""
    augment = world.augment if transformed else None
    return synthetic.train(source, world.students(test, seeds), test, world.protocol, augment=augment)


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
