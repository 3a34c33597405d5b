"""What judges samples in the figures of both papers: modes of a mixture, classes of pictures and their neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from filelock import FileLock
from torch import Tensor, nn

from gankit import classifiers
from gankit.classifiers import compute_features
from gankit.data import Dataset, cache_root
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.modes import class_divergence, frequencies, mode_assignment
from gankit.metrics.neighbours import prdc
from gankit.processes import checksum

COVERED = 0.1
"""A class or mode counts as covered at this part of its share in the data."""

NEIGHBOURS = 5
"""k of precision, recall, density and coverage."""

REAL = 1_000
"""Real samples among which neighbours are looked for, where a set has more."""

Measure = Callable[[Tensor], dict[str, Tensor]]


def judge(data: Dataset) -> Measure:
    """What is measured of the samples of a data set: modes of a mixture, classes of pictures.

    Returns:
        A function from samples `[S, N, *shape]` to `[S]` each of "divergence" (D_JS in bits, equation 12), "distance"
        (the Frechet distance of the points, or of a classifier's features), "covered" (number of modes or classes at
        10 % of their share at least), and "frequencies" `[S, K]`; for mixtures also "outside", the share of points
        beyond 3 standard deviations of every mode.
    """
    return _judge_points(data) if data.centers is not None else of_classes(data)


def _judge_points(data: Dataset) -> Measure:
    expected = data.class_frequencies()

    def measure(points: Tensor) -> dict[str, Tensor]:
        share = frequencies(mode_assignment(points, data.centers, data.std), len(data.centers))
        hits = share.sum(-1)
        # A generator that hits no mode has no mode frequencies; it scores the upper bound.
        divergence = class_divergence(torch.where(hits[:, None] > 0, share, expected), expected)
        return {
            "divergence": torch.where(hits > 0, divergence, torch.ones_like(divergence)),
            "distance": frechet_distance(points, data.images.to(points.dtype)),
            "covered": (share >= COVERED * expected).sum(-1),
            "outside": 1 - hits,
            "frequencies": share,
        }

    return measure


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures pictures `[S, N, C, H, W]` in a classifier's features (`judge`).

    Attributes:
        network: the classifier.
        real: features of the real pictures, `[M, d]`.
        expected: shares of their classes, `[K]`.
    """

    network: nn.Module
    real: Tensor
    expected: Tensor

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        return self.classes(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """`[S, N, d]` of images."""
        return compute_features(self.network, images.cpu())

    @torch.no_grad()
    def classes(self, features: Tensor) -> dict[str, Tensor]:
        """What `judge` says, of features."""
        # Replica by replica: a thousand logits for each image of a hundred replicas would not fit.
        labels = torch.stack([self.network.logits(one).argmax(-1) for one in features])
        share = frequencies(labels, len(self.expected))
        return {
            "divergence": class_divergence(share, self.expected),
            "distance": frechet_distance(features, self.real),
            "covered": (share >= COVERED * self.expected).sum(-1),
            "frequencies": share,
        }

    def neighbours(self, features: Tensor) -> dict[str, Tensor]:
        """ "precision", "recall", "density" and "coverage" with `NEIGHBOURS` among the first `REAL` real samples."""
        near = [prdc(self.real[:REAL], one, NEIGHBOURS) for one in features]
        return {key: torch.stack([one[key] for one in near]) for key in near[0]}


def of_classes(data: Dataset) -> Judge:
    """The judge of pictures like those of a data set, by the book's classifier."""
    network = classifier_of(data)
    return Judge(network, compute_features(network, data.normalise(data.images)), data.class_frequencies())


def classifier_of(data: Dataset) -> nn.Module:
    """The network that judges pictures of a data set, on the CPU.

    The book's own (`gankit.classifiers`) of digits, MNIST, their stacks and CIFAR-10; of any other set one that is
    trained on it in the same way, without every tenth picture of each class. Trained once and then cached.
    """
    if data.name.removeprefix("stacked-") in classifiers.RECIPES:
        return classifiers.load(data.name, train=True)
    facts = [
        *classifiers.PICTURES.items(),
        data.shape,
        data.classes,
        checksum([data.labels, data.images[:1_000]]),
    ]
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
    path = cache_root() / "classifiers" / f"{data.name}-{digest}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # who comes second waits, and reads what the first has trained
        if not path.exists():
            network = classifiers.train(*classifiers.hold_out(data), **classifiers.PICTURES)
            classifiers.write(path, network, classifiers.PICTURES, data)
    return classifiers.read(path)[0]
