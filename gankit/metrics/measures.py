"""The metrics that `gankit.metrics.evaluation` knows by name: what each needs, its value and its standard error.

`METRICS` is a plain dict. Another metric is another entry:

    >>> METRICS["mean_pixel"] = Metric("mean pixel", lambda case: case.fake.images.mean(), needs=("images",))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gankit.data import Dataset
from gankit.metrics.entropies import InceptionScore, inception_score
from gankit.metrics.features import FeatureSpace
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.kernel import KernelEstimate, kernel_distance_error
from gankit.metrics.modes import (
    class_divergence,
    class_kl,
    classes_covered,
    frequencies,
    intra_class,
    mode_assignment,
)
from gankit.metrics.neighbours import prdc
from gankit.metrics.similarity import Diversity, ms_ssim_diversity
from gankit.metrics.uncertainty import bootstrap_counts, frechet_error, jackknife


@dataclass(frozen=True, eq=False)
class Observed:
    """What was kept of N images of each replica, the samples of all processes; None: no metric asked for it.

    Attributes:
        dim: the dimension of the samples, 1 with replicas in front and else 0.
        features: `[*lead, N, d]`.
        probabilities: `[*lead, N, C]`, of the space's classes.
        predicted: int64 `[*lead, N]`, the most probable class; -1 where the logits are not finite.
        labels: int64 `[*lead, N]`, the class that a conditional generator was asked for, or the data's.
        images: `[*lead, N, *shape]` in [-1, 1], or points.
    """

    dim: int = 0
    features: Tensor | None = None
    probabilities: Tensor | None = None
    predicted: Tensor | None = None
    labels: Tensor | None = None
    images: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where all of it lies."""
        return next(value.device for value in vars(self).values() if isinstance(value, Tensor))

    def to(self, device: torch.device) -> Observed:
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def take(self, keep: Tensor) -> Observed:
        """The samples at the indices `keep`, int64 `[M]`, of every replica."""
        return self._each(lambda value: value.index_select(self.dim, keep.to(value.device)))

    def _each(self, function: Callable[[Tensor], Tensor]) -> Observed:
        changed = {name: function(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Case:
    """One evaluation: what a metric is a function of.

    Attributes:
        fake, real: samples and reference.
        data: the reference's data set (classes, centres of a mixture).
        n: number of samples of each replica.
        k, splits, pairs: options, see `gankit.metrics.protocol.Protocol`.
        shares: of the classes of the reference, `[C]`; None takes those of `data`.
    """

    fake: Observed
    real: Observed
    data: Dataset
    n: int
    k: int
    splits: int
    pairs: int
    shares: Tensor | None = None

    @cached_property
    def class_shares(self) -> Tensor:
        """Frequencies of the predicted classes, `[*lead, C]`."""
        return frequencies(self.fake.predicted, self.data.n_classes)

    @cached_property
    def mode_shares(self) -> Tensor:
        """Frequencies of a mixture's modes, `[*lead, K]`; points far from every mode count in N alone."""
        data, points = self.data, self.fake.images
        return frequencies(mode_assignment(points, data.centers, data.std), len(data.centers))

    @cached_property
    def expected(self) -> Tensor:
        """Frequencies of the classes (or modes) in the data."""
        shares = self.data.class_frequencies() if self.shares is None else self.shares
        return shares.to(self.fake.device)

    @cached_property
    def inception_score(self) -> InceptionScore:
        """`[*lead]` each."""
        return inception_score(self.fake.probabilities, splits=self.splits)

    @cached_property
    def kernel(self) -> KernelEstimate:
        """`[*lead]` each."""
        return kernel_distance_error(self.fake.features, self.real.features)

    @cached_property
    def neighbours(self) -> Tensor:
        """Precision, recall, density and coverage, `[4, *lead]`."""
        return self._of_each(
            lambda fake: torch.stack([*prdc(self.real.features, fake, self.k).values()]), self.fake.features
        )

    @cached_property
    def neighbour_errors(self) -> Tensor:
        """Standard errors of `neighbours`, `[4, *lead]`."""
        return self.jackknife(lambda case: case.neighbours)

    @cached_property
    def diversity(self) -> Tensor:
        """MS-SSIM of any two samples and its standard error, `[2, *lead]`."""
        alike = torch.zeros(self.fake.images.shape[: self.fake.dim + 1], dtype=torch.int64)
        return self._diversity(alike.to(self.fake.device))

    @cached_property
    def class_diversity(self) -> Tensor:
        """The same of two samples of one class."""
        return self._diversity(self.fake.labels)

    def _diversity(self, labels: Tensor) -> Tensor:
        def one(images: Tensor, labels: Tensor) -> Tensor:
            result: Diversity = ms_ssim_diversity(images, labels, pairs=self.pairs)
            return torch.stack([result.mean, result.standard_error])

        return self._of_each(one, self.fake.images, labels)

    def _of_each(self, function: Callable[..., Tensor], *samples: Tensor) -> Tensor:
        """A function of one replica's samples, for all of them: `[..., *lead]`."""
        dim = self.fake.dim
        lead = samples[0].shape[:dim]
        replicas = zip(*(x.reshape(lead.numel(), *x.shape[dim:]) for x in samples), strict=True)
        values = torch.stack([function(*one) for one in replicas], -1)
        return values.unflatten(-1, lead) if lead else values.squeeze(-1)

    def jackknife(self, statistic: Callable[[Case], Tensor]) -> Tensor:
        """Standard error of any smooth statistic of the samples, from leaving out a tenth at a time."""

        def without_some(keep: Tensor) -> Tensor:
            return statistic(dataclasses.replace(self, fake=self.fake.take(keep), n=len(keep)))

        return jackknife(without_some, self.n, groups=min(10, self.n))


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: name of the result; in a feature space its name follows in brackets.
        value: case -> `[*lead]`.
        error: case -> standard error `[*lead]`, or None where none can be given.
        needs: what has to be kept of the samples, among "features", "probabilities", "classes" (predicted ones, by
            a space whose classes are the data's), "labels" (of a conditional generator), "images", and "modes"
            (images of a mixture).
        options: the fields of the protocol that it depends on, besides those of its feature space.
        compares: whether it depends on the reference.
        real: whether it needs the features of the reference.
        unit: of the result; `case` may be named in it.
        about: a line for people.
        less_is_better: whether it is a distance, by which `gankit train --best` may choose a checkpoint.
    """

    title: str
    value: Callable[[Case], Tensor]
    error: Callable[[Case], Tensor | None] = lambda case: None
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    compares: bool = True
    real: bool = False
    unit: str = ""
    about: str = ""
    less_is_better: bool = False

    @property
    def in_space(self) -> bool:
        """Whether the result depends on the feature space."""
        return bool({"features", "probabilities", "classes"} & set(self.needs))

    @property
    def titled_by_space(self) -> bool:
        """Whether the name of the space follows that of the result: where there is nothing else to compare with."""
        return bool({"features", "probabilities"} & set(self.needs))

    def title_in(self, space: FeatureSpace) -> str:
        """Name of the result when it is measured in a space: "FD[pixels]", "FID", "D_JS[classes]"."""
        return space.title(self.title) if self.titled_by_space else self.title


# --- Frechet distance, Inception Score ----------------------------------------------------------------------------


def _fd(case: Case) -> Tensor:
    return frechet_distance(case.fake.features, case.real.features)


def _fd_error(case: Case) -> Tensor:
    return frechet_error(case.fake.features, case.real.features)


def _is_error(case: Case) -> Tensor | None:
    """From the spread of the splits, which are independent samples of smaller sets; None for a single one."""
    return case.inception_score.std / math.sqrt(case.splits - 1) if case.splits > 1 else None


def _intra_fd(case: Case) -> Tensor:
    real, fake = case.real, case.fake
    return intra_class(frechet_distance, real.features, real.labels, fake.features, fake.labels).mean


def _intra_fd_error(case: Case) -> Tensor:
    """Classes are independent, so the variances of their distances add up."""
    real, fake = case.real, case.fake
    errors = intra_class(
        lambda r, f: frechet_error(f, r), real.features, real.labels, fake.features, fake.labels
    )
    return torch.linalg.vector_norm(errors.per_class, dim=-1) / errors.per_class.shape[-1]


def _of_neighbours(index: int, title: str, about: str) -> Metric:
    return Metric(
        title,
        value=lambda case: case.neighbours[index],
        error=lambda case: case.neighbour_errors[index],
        needs=("features",),
        options=("k",),
        real=True,
        about=about,
    )


def _of_class_neighbours(name: str, about: str) -> Metric:
    """The same number inside each class, where its samples have neighbours of their own, averaged over the classes."""

    def value(case: Case) -> Tensor:
        real, fake = case.real, case.fake
        return intra_class(
            lambda r, f: prdc(r, f, case.k)[name],
            real.features,
            real.labels,
            fake.features,
            fake.labels,
            least=case.k + 1,
        ).mean

    return Metric(
        f"intra-{name}",
        value,
        error=lambda case: case.jackknife(value),
        needs=("features", "labels"),
        options=("k",),
        real=True,
        about=about,
    )


# --- Classes and modes --------------------------------------------------------------------------------------------


def _of_shares(
    title: str, statistic: Callable[[Tensor, Tensor], Tensor], kind: str, **settings: Any
) -> Metric:
    """A metric that is a function of the samples' frequencies in the "classes" or "modes", and of the data's."""

    def shares(case: Case) -> Tensor:
        return case.class_shares if kind == "classes" else case.mode_shares

    return Metric(
        title,
        value=lambda case: statistic(shares(case), case.expected),
        error=lambda case: bootstrap_counts(lambda s: statistic(s, case.expected), shares(case), case.n),
        needs=(kind,),
        **settings,
    )


def _class_hits(case: Case) -> Tensor:
    """Share of the samples that the space's classifier puts into the class that they were asked for, `[*lead]`."""
    return (case.fake.predicted == case.fake.labels).double().mean(-1)


def _class_hits_error(case: Case) -> Tensor:
    share = _class_hits(case)
    return (share * (1 - share) / case.n).sqrt()


def _divergence(shares: Tensor, expected: Tensor) -> Tensor:
    """D_JS in bits; a generator that hits no class at all has no frequencies and scores the upper bound, 1."""
    hits = shares.sum(-1, keepdim=True) > 0
    divergence = class_divergence(torch.where(hits, shares, expected), expected)
    return torch.where(hits[..., 0], divergence, 1.0)


def _kl(shares: Tensor, expected: Tensor) -> Tensor:
    """KL(generated || data) in nats; of a generator that hits no mode, that of one that makes the rarest alone."""
    hits = shares.sum(-1, keepdim=True) > 0
    divergence = class_kl(torch.where(hits, shares, expected), expected)
    return torch.where(hits[..., 0], divergence, -expected[expected > 0].min().log())


def _uniform(shares: Tensor) -> Tensor:
    return torch.full_like(shares[(0,) * (shares.ndim - 1)], 1 / shares.shape[-1])


METRICS: dict[str, Metric] = {
    "fd": Metric(
        "FD",
        _fd,
        _fd_error,
        needs=("features",),
        real=True,
        about="Frechet distance of the features (FID in Inception's space)",
        less_is_better=True,
    ),
    "kd": Metric(
        "KD",
        lambda case: case.kernel.value,
        lambda case: case.kernel.standard_error,
        needs=("features",),
        real=True,
        about="kernel distance of the features (KID in Inception's space); its error counts the reference, too",
        less_is_better=True,
    ),
    "is": Metric(
        "IS",
        lambda case: case.inception_score.mean,
        _is_error,
        needs=("probabilities",),
        options=("splits",),
        compares=False,
        about="Inception Score of the class probabilities; sees no real image",
    ),
    "precision": _of_neighbours(0, "precision", "share of the samples near a real one"),
    "recall": _of_neighbours(1, "recall", "share of the real images near a sample"),
    "density": _of_neighbours(2, "density", "how many real neighbourhoods hold a sample, over k"),
    "coverage": _of_neighbours(3, "coverage", "share of the real neighbourhoods that hold a sample"),
    "intra_fd": Metric(
        "intra-FD",
        _intra_fd,
        _intra_fd_error,
        needs=("features", "labels"),
        real=True,
        about="mean Frechet distance inside the classes of a conditional generator",
        less_is_better=True,
    ),
    "class_accuracy": Metric(
        "class_accuracy",
        _class_hits,
        _class_hits_error,
        needs=("classes", "labels"),
        compares=False,
        about="share of a conditional generator's samples that a classifier of the data puts into their class",
    ),
    "intra_precision": _of_class_neighbours(
        "precision", "precision inside the classes of a conditional generator"
    ),
    "intra_recall": _of_class_neighbours("recall", "recall inside the classes of a conditional generator"),
    "intra_coverage": _of_class_neighbours(
        "coverage", "coverage inside the classes of a conditional generator"
    ),
    "ms_ssim": Metric(
        "MS-SSIM",
        lambda case: case.diversity[0],
        lambda case: case.diversity[1],
        needs=("images",),
        options=("pairs",),
        compares=False,
        about="similarity of two samples, low if they are diverse; images from 16 pixels",
    ),
    "intra_ms_ssim": Metric(
        "MS-SSIM[within classes]",
        lambda case: case.class_diversity[0],
        lambda case: case.class_diversity[1],
        needs=("images", "labels"),
        options=("pairs",),
        compares=False,
        about="the same inside the classes of a conditional generator",
    ),
    "classes_covered": _of_shares(
        "classes_covered",
        classes_covered,
        "classes",
        unit="of {case.data.n_classes}",
        about="classes with at least 10 % of their share",
    ),
    "class_divergence": _of_shares(
        "D_JS[classes]",
        _divergence,
        "classes",
        unit="bits",
        about="Jensen-Shannon divergence of the class frequencies",
        less_is_better=True,
    ),
    "stacked_modes": _of_shares(
        "modes_hit",
        lambda shares, _: classes_covered(shares, share=0),
        "classes",
        unit="of {case.data.n_classes}",
        about="classes with a sample; of stacked MNIST, usually with 26,000 samples",
    ),
    "stacked_kl": _of_shares(
        "KL[modes]",
        lambda shares, _: _kl(shares, _uniform(shares)),
        "classes",
        unit="nats",
        about="KL divergence of the class frequencies from equal ones",
        less_is_better=True,
    ),
    "modes_covered": _of_shares(
        "modes_covered",
        classes_covered,
        "modes",
        unit="of {case.data.n_classes}",
        about="modes of a mixture with at least 10 % of their share",
    ),
    "high_quality": _of_shares(
        "high_quality",
        lambda shares, _: shares.sum(-1),
        "modes",
        about="share of the points within 3 standard deviations of a mode",
    ),
    "mode_divergence": _of_shares(
        "D_JS[modes]",
        _divergence,
        "modes",
        unit="bits",
        about="Jensen-Shannon divergence of the modes' frequencies",
        less_is_better=True,
    ),
    "mode_kl": _of_shares(
        "KL[modes]",
        _kl,
        "modes",
        unit="nats",
        about="KL divergence of the modes' frequencies from the data's",
        less_is_better=True,
    ),
}
"""Every metric by name."""
