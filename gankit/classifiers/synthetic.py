"""Learning from generated data: classifiers whose training images come from a generator.

    >>> source = synthetic.Generated(run.teacher.net)                       # new images in every batch
    >>> source = synthetic.FixedSet(*source.draw(50_000))                   # or the same 50,000 in every epoch
    >>> trained = synthetic.train(source, synthetic.resnet20((3, 32, 32), 10), data_test, synthetic.PAPER)
    >>> trained.best, trained.last

The protocol, the filter and the transformations are those of "Boosting generative networks for incremental learning"
(Slim 2020). Ensembles train side by side: S generators with S classifiers, each on its own images.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gankit.data import Dataset
from gankit.device import autocast
from gankit.models.blocks import glorot_uniform, seeded
from gankit.models.ensemble import lead_shape
from gankit.models.sampling import generate, truncated_normal
from gankit.streams import Streams

_CHUNK = 1_000  # images of each replica generated, or classified, at a time
_FEW = 100  # of convolutions on a CPU, which are faster while their feature maps stay in its cache


class Source(Interface):
    """Where labelled images come from."""

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n images ``[*lead, n, C, H, W]`` in [-1, 1] and their labels int64 ``[*lead, n]``."""
        ...


class Generated:
    """New images of a conditional generator at every call, with the labels that were asked of it, drawn uniformly.

    Args:
        G: a generator with classes, plain, a `Union` or an ensemble; used in evaluation mode.
        judge: a classifier trained on real images that every image has to pass (images ``[N, C, H, W]`` -> logits),
            or None. An image passes if its most probable class is the one asked for, with a probability of at least
            `threshold`; one that fails is replaced by another of its class.
        threshold: p_t, in [0, 1).
        truncation: largest |z|, or None.
        seed: of z and labels.
        buffer: images of each replica to make at once, and to judge. A thousand cost less than ten times a hundred.
        precision: "float32", or "bfloat16" for the generator's matrix products and convolutions, which learn nothing
            here: where the processor has them it makes images in a fraction of the time, and as much as rounding to
            8 bits does.
        most_tries: attempts on average for each image of a class before it is given up.

    Attributes:
        tried, accepted: images of each class so far, int64 ``[*lead, n_classes]``.

    Raises:
        ValueError: a generator without classes, or a number out of range.
    """

    def __init__(
        self,
        G: nn.Module,
        *,
        judge: Callable[[Tensor], Tensor] | None = None,
        threshold: float = 0.9,
        truncation: float | None = None,
        seed: int = 0,
        buffer: int = _CHUNK,
        precision: str = "float32",
        most_tries: int = 200,
    ) -> None:
        self.n_classes = getattr(G, "n_classes", 0)
        if not self.n_classes:
            raise ValueError("G must be conditional (n_classes of at least 1): its images need labels")
        if not 0 <= threshold < 1:
            raise ValueError(
                f"threshold is a probability and must be at least 0 and below 1, got {threshold}"
            )
        if buffer < 1 or most_tries < 1:
            raise ValueError(f"buffer and most_tries must be at least 1, got {buffer} and {most_tries}")
        self.G, self.judge, self.threshold, self.truncation = G, judge, threshold, truncation
        self.buffer, self.most_tries = buffer, most_tries
        self.lead = lead_shape(G)
        self.device = next(G.parameters()).device
        self.precision = precision
        autocast(self.device, precision)  # refuses an unknown one here, not in the first batch
        convolves = any(isinstance(module, nn.Conv2d) for module in G.modules())
        self._chunk = _FEW if convolves and self.device.type == "cpu" else _CHUNK
        seeds = [seed] * (self.lead[0] if self.lead else 1)
        self.streams = Streams(seeds, self.lead, self.device, "synthetic")
        self.tried = torch.zeros(*self.lead, self.n_classes, dtype=torch.int64, device=self.device)
        self.accepted = torch.zeros_like(self.tried)
        self._ready: tuple[Tensor, Tensor] | None = None
        self._used = 0

    @property
    def share_accepted(self) -> Tensor:
        """Accepted images over tried ones, float64 ``[*lead]``; NaN before the first."""
        return self.accepted.sum(-1).double() / self.tried.sum(-1)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n new images of each replica ``[*lead, n, *shape]``, and their labels.

        Raises:
            ValueError: n is below 1, or a class that hardly ever passes the judge; the message names it.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        dim, parts, missing = len(self.lead), [], n
        while missing:
            if self._ready is None or self._used == self._ready[1].shape[dim]:
                self._ready, self._used = self._make(self.buffer), 0
            images, labels = self._ready
            length = min(missing, labels.shape[dim] - self._used)
            parts.append((images.narrow(dim, self._used, length), labels.narrow(dim, self._used, length)))
            self._used, missing = self._used + length, missing - length
        if len(parts) == 1:
            return parts[0]
        return tuple(torch.cat(of, dim) for of in zip(*parts, strict=True))

    @torch.no_grad()
    def _make(self, n: int) -> tuple[Tensor, Tensor]:
        labels = self.streams.integers(self.n_classes, n)
        images = self._generate(labels)
        if self.judge is None:
            return images, labels
        passed = self._judge(images, labels)
        while not bool(passed.all()):
            self._give_up_on_hopeless(labels, passed)
            # Of each replica the same number of places, as many as the one with most failures has.
            k = int((~passed).sum(-1).max())
            places = passed.int().argsort(dim=-1, stable=True)[..., :k]
            failed, asked = ~passed.gather(-1, places), labels.gather(-1, places)
            made = self._generate(asked)
            good = self._judge(made, asked, failed) & failed
            index = places.reshape(*places.shape, *[1] * (images.ndim - places.ndim)).expand_as(made)
            keep = good.reshape(*good.shape, *[1] * (images.ndim - good.ndim))
            images.scatter_(
                len(self.lead), index, torch.where(keep, made, images.gather(len(self.lead), index))
            )
            passed.scatter_(-1, places, passed.gather(-1, places) | good)
        return images, labels

    def _generate(self, labels: Tensor) -> Tensor:
        n, dim = labels.shape[-1], len(self.lead)
        size = (n, self.G.z_dim)
        z = (
            self.streams.normal(*size)
            if self.truncation is None
            else truncated_normal(self.streams, self.truncation, *size)
        )
        was_training = self.G.training
        self.G.eval()
        try:
            parts = zip(z.split(self._chunk, dim), labels.split(self._chunk, dim), strict=True)
            with autocast(self.device, self.precision):
                images = torch.cat([generate(self.G, *part) for part in parts], dim)
            return images.to(next(self.G.parameters()).dtype)
        finally:
            self.G.train(was_training)

    def _judge(self, images: Tensor, labels: Tensor, counted: Tensor | None = None) -> Tensor:
        """Which images pass; `counted` are those that count as tried."""
        flat = images.flatten(0, len(self.lead))
        logits = torch.cat([self.judge(part) for part in flat.split(_CHUNK)])
        probabilities = logits.softmax(-1).reshape(*labels.shape, -1)
        p, predicted = probabilities.max(-1)
        good = (predicted == labels) & (p >= self.threshold)
        counted = torch.ones_like(good) if counted is None else counted
        self.tried.scatter_add_(-1, labels, counted.long())
        self.accepted.scatter_add_(-1, labels, (good & counted).long())
        return good

    def _give_up_on_hopeless(self, labels: Tensor, passed: Tensor) -> None:
        asked = torch.zeros_like(self.tried).scatter_add_(-1, labels, torch.ones_like(labels))
        open_ = torch.zeros_like(self.tried).scatter_add_(-1, labels, (~passed).long())
        few = self.tried > self.most_tries * (self.accepted + 1)
        hopeless = (open_ > 0) & (asked > 0) & few
        if bool(hopeless.any()):
            *replica, k = hopeless.nonzero()[0].tolist()
            where = f" of replica {replica[0]}" if replica else ""
            tried, accepted = int(self.tried[*replica, k]), int(self.accepted[*replica, k])
            raise ValueError(
                f"class {k}{where} passes the filter too seldom: {accepted} of {tried} images at a threshold of "
                f"{self.threshold:g}; lower the threshold, or train the generator longer"
            )


class FixedSet:
    """The same images in every epoch, each epoch in a new order: a finite training set, real or made once.

    Args:
        images: ``[*lead, N, C, H, W]`` in [-1, 1], or ``[N, C, H, W]`` for all replicas.
        labels: int64 ``[*lead, N]`` or ``[N]``.
        seeds: one for each replica, of the order; None is one plain run with seed 0.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(self, images: Tensor, labels: Tensor, seeds: Sequence[int] | None = None) -> None:
        lead = () if seeds is None else (len(seeds),)
        dim = images.ndim - 4
        if (
            dim < 0
            or tuple(images.shape[: dim + 1]) != tuple(labels.shape)
            or labels.shape[:-1] not in ((), lead)
        ):
            raise ValueError(
                "images must be [*lead, N, C, H, W] and labels [*lead, N] with a lead of one seed for each replica, "
                f"got {list(images.shape)} and {list(labels.shape)} for {'no' if seeds is None else len(seeds)} seeds"
            )
        if images.shape[dim] == 0:
            raise ValueError("images is empty")
        self.images, self.labels, self.lead = images, labels, lead
        self.streams = Streams(seeds or [0], lead, "cpu", "fixed set")
        self._order: Tensor | None = None
        self._used = 0

    def __len__(self) -> int:
        return self.labels.shape[-1]

    @classmethod
    def real(cls, data: Dataset, seeds: Sequence[int] | None = None) -> FixedSet:
        """The images of a dataset."""
        return cls(data.normalise(data.images), data.labels, seeds)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """The next n images of each replica; what an epoch leaves over begins the next one's first batch."""
        parts, missing = [], n
        while missing:
            if self._order is None or self._used == len(self):
                self._order = self.streams.each(lambda g: torch.randperm(len(self), generator=g))
                self._used = 0
            length = min(missing, len(self) - self._used)
            parts.append(self._order.narrow(-1, self._used, length))
            self._used, missing = self._used + length, missing - length
        index = torch.cat(parts, -1).to(self.images.device)
        if self.labels.ndim == 1:
            return self.images[index], self.labels[index]
        rows = torch.arange(len(index), device=index.device)[:, None]
        return self.images[rows, index], self.labels[rows, index]


def make_set(source: Source, n: int, *, name: str, classes: Sequence[str], progress: bool = False) -> Dataset:
    """A training set of n generated images, made in one pass, rounded to 8 bits as a file would hold them.

    Args:
        source: of one plain generator.
        n: number of images, at least 1.
        name: of the dataset.
        classes: the name of each class.
        progress: show a bar.

    Raises:
        ValueError: a source of several replicas, or n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    images, labels = [], []
    silent = not progress or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=n, desc="images", unit="image", disable=silent) as bar:
        for start in range(0, n, _CHUNK):
            x, y = source.draw(min(_CHUNK, n - start))
            if y.ndim != 1:
                raise ValueError(
                    f"a set is made by one generator, and this source draws for {len(y)} replicas"
                )
            images.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
            labels.append(y.cpu())
            bar.update(len(y))
    return Dataset(name, torch.cat(images), torch.cat(labels), tuple(classes))


@dataclass(frozen=True)
class Mixed:
    """Every batch partly from one source and partly from another.

    Attributes:
        first, second: the sources.
        share: of the first, in [0, 1]; a batch of n holds ``round(share n)`` of it.
    """

    first: Source
    second: Source
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n images and labels, the first source's first."""
        k = round(self.share * n)
        parts = [source.draw(m) for source, m in ((self.first, k), (self.second, n - k)) if m]
        dim = parts[0][1].ndim - 1
        return tuple(torch.cat(of, dim) for of in zip(*parts, strict=True))


@dataclass(frozen=True)
class Augment:
    """Random crops and mirror images: each image moved by up to `shift` pixels both ways, black moving in.

    Attributes:
        shift: in pixels, at least 0.
        flip: mirror left to right half of the time. Not for digits, whose mirror images are no digits.

    Source: He et al. 2016, section 4.2; "random cropping and flipping" of Slim 2020, which prints no sizes.
    """

    shift: int = 4
    flip: bool = True

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Images ``[..., C, H, W]``, each transformed by itself."""
        height, width = x.shape[-2:]
        if not 0 <= self.shift < min(height, width):
            raise ValueError(f"shift must be at least 0 and below {min(height, width)}, got {self.shift}")
        flat = x.flatten(0, -4)
        n, s = len(flat), self.shift
        down, right = torch.randint(2 * s + 1, (2, n, 1, 1, 1), generator=generator)
        rows = down + torch.arange(height)[:, None]
        columns = right + torch.arange(width)
        if self.flip:
            mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(-1), columns)
        # One gather from the padded images, laid out as vectors.
        place = (rows * (width + 2 * s) + columns).flatten(2).expand(-1, flat.shape[1], -1)
        padded = F.pad(flat, [s] * 4, value=-1).flatten(2)
        return padded.gather(2, place.to(x.device, non_blocking=True)).reshape(x.shape)


@dataclass(frozen=True)
class Protocol:
    """How a classifier is trained: cross-entropy, SGD with momentum, a learning rate that drops by ten twice.

    Attributes:
        epochs: after each of which the classifier is tested.
        batches: in an epoch.
        batch_size: images in a batch.
        learning_rate, momentum, weight_decay: of SGD.
        milestones: shares of the epochs after which the learning rate is divided by ten.
    """

    epochs: int
    batches: int
    batch_size: int
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: tuple[float, ...] = (100 / 180, 150 / 180)

    def __post_init__(self) -> None:
        for name in ("epochs", "batches", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def steps(self) -> int:
        """Batches in all."""
        return self.epochs * self.batches


PAPER = Protocol(epochs=180, batches=400, batch_size=125)
"""That of Slim 2020, appendix A.1: 180 epochs of the size of CIFAR-10's training set."""

QUICK = Protocol(epochs=6, batches=50, batch_size=64, learning_rate=0.05)
"""Three hundred steps: for digits and `perceptron`."""


@dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        network: in evaluation mode.
        accuracy: on the test images after each epoch, float64 ``[epochs, *lead]``.
        seconds: of training, without the tests.
    """

    network: nn.Module
    accuracy: Tensor
    seconds: float

    @property
    def best(self) -> Tensor:
        """Highest accuracy of any epoch: what the paper reports. Chosen on the test images, so it flatters."""
        return self.accuracy.amax(0)

    @property
    def last(self) -> Tensor:
        """Accuracy after the last epoch."""
        return self.accuracy[-1]


def train(
    source: Source,
    network: nn.Module,
    test: Dataset,
    protocol: Protocol,
    *,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Trained:
    """Train a classifier on what a source draws, and test it on real images after every epoch.

    Args:
        source: of labelled images; of as many replicas as the network.
        network: images ``[*lead, N, C, H, W]`` -> logits ``[*lead, N, K]``, on the device to train on; trained
            in place.
        test: labelled real images.
        protocol: see `Protocol`.
        augment: images and a generator -> images (`Augment`), applied to each batch; None for none.
        seed: of the augmentation.
        progress: show a bar.

    Raises:
        ValueError: the loss is no longer finite after an epoch.
    """
    lead, device = lead_shape(network), next(network.parameters()).device
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
    )
    drops = [round(share * protocol.epochs) for share in protocol.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
    generator = torch.Generator().manual_seed(seed)
    history, seconds = [], 0.0
    silent = not progress or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=protocol.steps, desc="classifier", unit="batch", disable=silent) as bar:
        for epoch in range(protocol.epochs):
            begun = time.perf_counter()
            network.train()
            for _ in range(protocol.batches):
                x, y = source.draw(protocol.batch_size)
                x, y = x.to(device), y.to(device)
                if augment is not None:
                    x = augment(x, generator)
                logits = network(x)
                # The mean of each replica, summed over replicas: each gets its own gradient.
                loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="sum") / y.shape[-1]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
            schedule.step()
            if not math.isfinite(loss.item()):
                raise ValueError(
                    f"the loss is {loss.item()} after epoch {epoch + 1}; lower the learning rate"
                )
            seconds += time.perf_counter() - begun
            right = ~mistakes(network, *test.batch(torch.arange(len(test), device=test.device)))
            history.append(right.double().mean(-1).cpu().reshape(lead))
    return Trained(network.eval(), torch.stack(history), seconds)


@torch.no_grad()
def mistakes(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images a classifier gets wrong.

    Args:
        network: a classifier, or an ensemble of them.
        images: ``[N, C, H, W]``, or ``[S, N, C, H, W]`` for an ensemble; a plain network takes those
            replica by replica.
        labels: int64 ``[N]`` or ``[S, N]``.

    Returns:
        bool ``[N]`` or ``[S, N]``, on the network's device.
    """
    lead, device = lead_shape(network), next(network.parameters()).device
    network.eval()
    if lead and images.ndim == 4:
        images, labels = images.expand(*lead, *images.shape), labels.expand(*lead, -1)
    if not lead and images.ndim == 5:
        wrong = mistakes(network, images.flatten(0, 1), labels.flatten())
        return wrong.reshape(labels.shape)
    parts = zip(images.split(_CHUNK, len(lead)), labels.split(_CHUNK, len(lead)), strict=True)
    return torch.cat([network(x.to(device)).argmax(-1) != y.to(device) for x, y in parts], -1)


def perceptron(
    shape: tuple[int, int, int], n_classes: int, width: int = 128, *, seed: int = 0
) -> nn.Sequential:
    """One hidden layer: ``[..., C, H, W]`` -> ``[..., n_classes]``. Stacks well (`gankit.Ensemble`)."""
    with seeded(seed):
        net = nn.Sequential(
            nn.Flatten(-3, -1), nn.Linear(math.prod(shape), width), nn.ReLU(), nn.Linear(width, n_classes)
        )
        glorot_uniform(net)
    return net


class ResNet20(nn.Module):
    """The residual network with 20 layers: three stages of three blocks, of width, 2 width and 4 width filters.

    Its features are the mean activations of the last stage, 256 of them for a width of 64.

    Args:
        shape: ``(C, H, W)`` of one image, H and W at least 4.
        n_classes: number of classes.
        width: filters of the first stage: 16 of He et al., 64 of Slim 2020.

    Source: He et al. 2016, section 4.2, with 1x1 convolutions on the shortcuts that change shape.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, width: int = 64) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3  # a second to import

        self.shape, self.n_classes, self.n_features = tuple(shape), n_classes, 4 * width
        layers: list[nn.Module] = [conv3x3(shape[0], width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        c_in = width
        for stage in range(3):
            c_out = width * 2**stage
            for block in range(3):
                stride = 2 if stage and not block else 1
                around = (
                    None
                    if c_in == c_out
                    else nn.Sequential(conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))
                )
                layers.append(BasicBlock(c_in, c_out, stride, around))
                c_in = c_out
        self.convolutions = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(c_in, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """``[N, 4 width]``, not negative, of images ``[N, C, H, W]``."""
        return self.convolutions(x.contiguous(memory_format=torch.channels_last))

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``[..., n_classes]`` of features."""
        return self.output(features)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, n_classes]`` of images ``[N, C, H, W]`` in [-1, 1]."""
        return self.logits(self.features(x))


def resnet20(shape: tuple[int, int, int], n_classes: int, width: int = 64, *, seed: int = 0) -> ResNet20:
    """A `ResNet20` whose initial weights are of a seed."""
    with seeded(seed):
        return ResNet20(shape, n_classes, width)
