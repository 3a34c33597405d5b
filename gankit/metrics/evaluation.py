"""How good a generator's samples are: one pass over them for all metrics, with errors and the protocol.

    >>> scores = evaluate(run.teacher.sample, data, ["fd", "class_divergence"], features.classifier("digits"), n=2_000)
    >>> print(scores)                                   # a table
    >>> scores["FD[digits classifier]"].value

Started by `torchrun`, every process makes and measures its share of the samples and of the reference, and all of them
return the scores of the whole. Shares are whole batches, so each batch is computed as it would be by one process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gankit import processes
from gankit.classifiers.prediction import most_probable
from gankit.data import Dataset
from gankit.files import replacing
from gankit.metrics.features import FeatureSpace, of_classifier, pixels
from gankit.metrics.measures import METRICS, Case, Metric, Observed
from gankit.metrics.protocol import Protocol, Score, Scores
from gankit.models.sampling import Sampler

Batch = tuple[Tensor, Tensor | None]
"""Images `[*lead, B, *shape]`, and labels `[*lead, B]` or None."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images that samples are compared with; their features are computed once for many evaluations.

    Attributes:
        data: the images.
        space: the feature space.
        split: the part of the data set that they are, for the protocol.
        observed: features and labels, or None as long as no metric needed them.
        shares: of the classes, where they are not those of `data`: float64 `[n_classes]`, of weighted data.
    """

    data: Dataset
    space: FeatureSpace
    split: str | None = None
    observed: Observed | None = None
    shares: Tensor | None = None


def reference(
    data: Dataset,
    features: FeatureSpace | None = None,
    *,
    n: int | None = None,
    split: str | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = True,
    cache: Path | None = None,
) -> Reference:
    """Features of real images, to be given to several `evaluate`s in place of the data.

    Args:
        data: the real images. Of weighted ones as many are drawn, with replacement, as there are or as n says; the
            shares of classes that samples are compared with are exactly those of the weights.
        features: the space, see `evaluate`.
        n: at most so many of them, a random choice that is the same every time.
        split, batch_size, progress: as for `evaluate`.
        device: where to compute; None stays where the data are.
        cache: a folder where features of a network are kept, by a digest of the images, the labels and the network,
            and found again. A file there that is damaged, or cannot be written, costs the time alone.
    """
    chosen = _reference(data, features, n, split)
    device = torch.device(device or data.device)
    if cache is None or chosen.space.net is None:  # pixels are their own features
        return _observe_reference(chosen, batch_size, device, progress)
    path = cache / f"{_digest(chosen)}.npz"
    if (kept := _read_observed(path, device)) is not None:
        return dataclasses.replace(chosen, observed=kept.to(device))
    chosen = _observe_reference(chosen, batch_size, device, progress)
    if processes.rank() == 0:
        with contextlib.suppress(OSError), replacing(path) as temporary, open(temporary, "wb") as f:
            np.savez(f, features=chosen.observed.features.cpu(), labels=chosen.observed.labels.cpu())
    return chosen


@torch.no_grad()
def evaluate(
    sampler: Sampler | Callable[[int], Tensor] | nn.Module | Tensor,
    data: Dataset | Reference,
    metrics: Sequence[str] | None = None,
    features: FeatureSpace | None = None,
    *,
    n: int | None = None,
    n_real: int | None = None,
    split: str | None = None,
    k: int = 5,
    splits: int = 10,
    pairs: int = 200,
    errors: bool = True,
    batch_size: int = 256,
    progress: bool = True,
) -> Scores:
    """Scores of generated samples against real ones.

    Args:
        sampler: what makes samples `[*lead, n, *shape]` in [-1, 1] (or points); S replicas give scores `[S]`.
            A `gankit.models.sampling.Sampler`, or a generator (`run.G`, `run.teacher.net`), makes them batch by batch,
            and several processes share them out. Any function of n, such as `run.teacher.sample`, makes all of them at
            once, in every process, and must give the same ones every time. A tensor holds the samples themselves.
        data: the reference; its images are compared with, its classes and centres counted by. A `Reference`
            brings its own `features`, `n_real` and `split`.
        metrics: names out of `gankit.metrics.measures.METRICS`. By default mode statistics for mixtures, class
            statistics where the space knows the data's classes, and "fd".
        features: the space to compare in (`gankit.metrics.features`); the pixels by default. Its network is moved
            to the device of the samples.
        n: number of samples of each replica, 5,000 by default; a tensor brings its own number.
        n_real: compare with at most so many real images, a random choice that is the same every time.
        split: the part of the data set that `data` is, as `gankit.data.load` was told; for the protocol.
        k: neighbours of precision, recall, density and coverage.
        splits: parts of the Inception Score.
        pairs: pairs of images of each class of MS-SSIM.
        errors: estimate standard errors (`gankit.metrics.uncertainty`).
        batch_size: images of each replica at a time.
        progress: show a bar if it takes more than a second (TQDM_DISABLE=1 turns every bar off).

    Returns:
        Name -> `Score`. Printed, it is a table. Under `torchrun`, the same in every process.

    Raises:
        ValueError: an unknown metric (the message lists the known ones), a metric that needs what the space, the data
            or the sampler does not have, or samples that do not fit the data.
    """
    if isinstance(data, Reference):
        given = {"features": features, "n_real": n_real, "split": split}
        if twice := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"a Reference brings its own {', '.join(twice)}: leave them out")
        chosen = data
    else:
        chosen = _reference(data, features, n_real, split)
    data, space = chosen.data, chosen.space
    if isinstance(sampler, nn.Module):
        sampler = Sampler(sampler)
    if isinstance(sampler, Tensor):
        if n not in (None, here := sampler.shape[sampler.ndim - len(data.shape) - 1]):
            raise ValueError(f"n must be the number of samples in the tensor, {here}, got {n}")
        n = here
    n = 5_000 if n is None else n
    asked = choose(metrics, data, space, n, k=k, splits=splits, pairs=pairs)

    needs = {need for metric in asked.values() for need in metric.needs}
    batches = _batches(sampler, data, n, batch_size)
    fake = _observe(batches, space, needs, data, n, batch_size, progress)
    if chosen.observed is None and any(metric.real for metric in asked.values()):
        chosen = _observe_reference(chosen, batch_size, fake.device, progress)
    real = (chosen.observed or Observed()).to(fake.device)
    case = Case(fake, real, data, n, k, splits, pairs, chosen.shares)
    scores = Scores()
    for metric in asked.values():
        value, error = metric.value(case), metric.error(case) if errors else None
        scores[metric.title_in(space)] = Score(
            value.double().cpu(),
            None if error is None else error.double().cpu(),
            _protocol(metric, chosen, case, sampler),
            metric.unit.format(case=case),
        )
    return scores


def default_metrics(data: Dataset, space: FeatureSpace) -> list[str]:
    """What `evaluate` measures if nothing is said."""
    names = ["fd"]
    if data.centers is not None:
        names = ["modes_covered", "high_quality", "mode_divergence", *names]
    if space.n_classes == data.n_classes:
        names = ["classes_covered", "class_divergence", *names]
    return names


# --- Samples in hand --------------------------------------------------------------------------------------------


def evaluate_classes(samples: Tensor, data: Dataset, classifier: nn.Module) -> dict[str, Tensor]:
    """Class statistics of generated images, as a classifier sees them, without errors.

    Args:
        samples: `[*lead, N, C, H, W]` in [-1, 1].
        data: the real images with labels.
        classifier: trained on the same classes.

    Returns:
        `classes_covered` (a class counts at 10 % of its share), `D_JS[classes]` (base 2; equation 12 of the
        sample-weighting paper) and `FD[<data> classifier]`, the Frechet distance in the classifier's features, which is
        no FID: its values compare with each other only; float64 `[*lead]` each.
    """
    space = of_classifier(classifier, f"{data.name} classifier")
    names = ["classes_covered", "class_divergence", "fd"]
    return evaluate(samples, data, names, space, errors=False, progress=False).values_only()


def choose(
    metrics: Sequence[str] | None,
    data: Dataset,
    space: FeatureSpace,
    n: int,
    *,
    k: int = 5,
    splits: int = 10,
    pairs: int = 200,
) -> dict[str, Metric]:
    """The metrics that `evaluate` would compute for these arguments, by name; it refuses what cannot be computed.

    That takes no time, so it can be asked before anything that does.

    Raises:
        ValueError: as `evaluate`.
    """
    names = list(metrics) if metrics is not None else default_metrics(data, space)
    asked = {name: _metric(name) for name in names}
    _check(asked, data, space, n, {"k": k + 1, "splits": 2 * splits, "pairs": 2 * pairs})
    return asked


# --- Pieces -----------------------------------------------------------------------------------------------------


def _reference(data: Dataset, features: FeatureSpace | None, n: int | None, split: str | None) -> Reference:
    if n is not None and n < 2:
        raise ValueError(f"the number of real images must be at least 2, got {n}")
    generator, shares = torch.Generator().manual_seed(0), None
    if data.weights is not None:
        # A reference counts every image alike, so its images are drawn as training draws them; shares stay exact.
        shares, drawn = data.class_frequencies(), data.draw(n or len(data), generator)
        data = dataclasses.replace(data.with_weights(None).subset(drawn), name=f"{data.name}, weighted")
    elif n is not None and n < len(data):
        # A random choice: the images of a folder come class by class, and the first are no sample of it.
        data = data.subset(torch.randperm(len(data), generator=generator)[:n])
    return Reference(data, pixels(data) if features is None else features, split, shares=shares)


def _observe_reference(chosen: Reference, batch_size: int, device: torch.device, progress: bool) -> Reference:
    data = chosen.data

    def batches(part: slice) -> Iterator[Batch]:
        for start in range(0, len(data), batch_size)[part]:
            rows = slice(start, start + batch_size)
            yield data.normalise(data.images[rows].to(device)), data.labels[rows].to(device)

    observed = _observe(batches, chosen.space, {"features", "labels"}, data, len(data), batch_size, progress)
    return dataclasses.replace(chosen, observed=observed)


def _digest(chosen: Reference) -> str:
    """What the features of a reference depend on, as a name: its images (and so their number) and the space."""
    data, space = chosen.data, chosen.space
    weights = [*space.net.parameters(), *space.net.buffers()]
    tensors = (data.images, data.labels, *weights)
    about = repr(
        (space.name, space.rule, data.shape, data.levels, chosen.split, [str(x.dtype) for x in weights])
    )
    return hashlib.sha256((about + processes.checksum(tensors)).encode()).hexdigest()[:32]


def _read_observed(path: Path, device: torch.device) -> Observed | None:
    """Features and labels that were kept; None where one process finds none, or no whole ones."""
    try:
        with np.load(path, allow_pickle=False) as arrays:  # arrays of an .npz file have checksums
            kept = Observed(**{name: torch.from_numpy(arrays[name]) for name in ("features", "labels")})
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        kept = None
    everywhere = processes.gather(torch.tensor([kept is not None], device=device).float())
    return kept if bool(everywhere.all()) else None


def _batches(
    sampler: Sampler | Callable[[int], Tensor] | Tensor, data: Dataset, n: int, batch_size: int
) -> Callable[[slice], Iterable[Batch]]:
    """A function that makes some of the batches of n samples: slice of their numbers -> batches."""
    if isinstance(sampler, Sampler):
        return lambda part: sampler.batches(n, batch_size, part)

    def batches(part: slice) -> Iterator[Batch]:
        made = sampler if isinstance(sampler, Tensor) else sampler(n)
        images, labels = made if isinstance(made, tuple) else (made, None)
        dim = images.ndim - len(data.shape) - 1
        if dim < 0 or images.shape[dim] != n:
            raise ValueError(
                f"the sampler was asked for {n} samples and gave a tensor of shape {list(images.shape)}"
            )
        for start in range(0, n, batch_size)[part]:
            length = min(batch_size, n - start)
            yield (
                images.narrow(dim, start, length),
                None if labels is None else labels.narrow(dim, start, length),
            )

    return batches


def _observe(
    batches: Callable[[slice], Iterable[Batch]],
    space: FeatureSpace,
    needs: set[str],
    data: Dataset,
    n: int,
    batch_size: int,
    progress: bool,
) -> Observed:
    """What metrics need of n images: this process measures its share of the batches, and gets those of all."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    part = processes.share(math.ceil(n / batch_size))
    mine = min(part.stop * batch_size, n) - part.start * batch_size
    idle = (
        mine == 0
    )  # fewer batches than processes: measure the first, to know shapes and types, and keep none
    parts: list[dict[str, Tensor]] = []
    # tqdm's notebook bar does not read its own environment variable.
    silent = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(
        total=mine,
        unit="image",
        delay=1,
        leave=False,
        disable=not progress or silent or processes.rank() > 0,
    ) as bar:
        for images, labels in batches(slice(0, 1) if idle else part):
            dim = images.ndim - len(data.shape) - 1
            if dim < 0 or tuple(images.shape[dim + 1 :]) != data.shape:
                raise ValueError(
                    f"samples must be [..., N, {', '.join(map(str, data.shape))}] like the images of "
                    f"{data.name!r}, got shape {list(images.shape)}"
                )
            parts.append(_keep(images, labels, space.to(images.device), needs))
            bar.update(images.shape[dim])
    kept = {}
    for name in list(parts[0]):
        whole = torch.cat([part.pop(name) for part in parts], dim)
        if idle:
            whole = whole.narrow(dim, 0, 0)
        kept[name] = processes.gather(whole.movedim(dim, 0)).movedim(0, dim)
    return Observed(dim, **kept)


def _keep(images: Tensor, labels: Tensor | None, space: FeatureSpace, needs: set[str]) -> dict[str, Tensor]:
    """The parts of `Observed` that are needed of one batch."""
    kept = {}
    if needs & {"features", "probabilities", "classes"}:
        features = space(images)
        if "features" in needs:
            kept["features"] = features
        if needs & {"probabilities", "classes"}:
            logits = space.logits(features)
        if "probabilities" in needs:
            kept["probabilities"] = logits.softmax(-1)
        if "classes" in needs:
            kept["predicted"] = most_probable(logits)
    if "labels" in needs:
        if labels is None:
            raise ValueError(
                "a metric within classes needs the samples' labels: give a Sampler of a conditional generator, or a "
                "function of n that returns images and labels"
            )
        kept["labels"] = labels
    if needs & {"images", "modes"}:
        kept["images"] = images
    return kept


def _metric(name: str) -> Metric:
    if name not in METRICS:
        near = difflib.get_close_matches(str(name), METRICS, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise ValueError(f"metric {name!r} is unknown{hint} known are {', '.join(METRICS)}")
    return METRICS[name]


def _check(
    asked: dict[str, Metric], data: Dataset, space: FeatureSpace, n: int, needed: dict[str, int]
) -> None:
    """Refuse before any sample is made what would fail, or mean nothing, after the last.

    Args:
        needed: for each option of a metric, the number of samples that its value asks for.
    """
    if not asked:
        raise ValueError(f"metrics must name at least one of {', '.join(METRICS)}")
    for name, metric in asked.items():
        if {"probabilities", "classes"} & set(metric.needs) and not space.n_classes:
            raise ValueError(
                f"metric {name!r} needs class probabilities, and the space {space.name!r} has none; "
                "features.classifier(...) has, and features.inception() for 'is'"
            )
        if "classes" in metric.needs and space.n_classes != data.n_classes:
            raise ValueError(
                f"metric {name!r} counts the {data.n_classes} classes of {data.name!r}, and the space {space.name!r} "
                f"tells {space.n_classes} others apart"
            )
        if "modes" in metric.needs and (data.centers is None or data.std is None):
            raise ValueError(
                f"metric {name!r} needs a mixture with centers and std, such as 'ring', and {data.name!r} is none"
            )
        least = {option: number for option, number in needed.items() if option in metric.options}
        need = max([2, *least.values()])
        if n < need or (metric.real and len(data) < need):
            raise ValueError(
                f"metric {name!r} needs at least {need} samples and as many real images, got {n} and {len(data)}"
                + (f" ({', '.join(least)} may be smaller)" if least else "")
            )


def _protocol(metric: Metric, chosen: Reference, case: Case, sampler: object) -> Protocol:
    """The fields that this metric depends on."""
    fields: dict[str, object] = {option: getattr(case, option) for option in metric.options}
    if metric.compares:
        fields |= {"reference": chosen.data.name, "split": chosen.split, "n_real": len(chosen.data)}
    if metric.in_space:
        fields |= {"space": chosen.space.name, "rule": chosen.space.rule}
    return Protocol(case.n, getattr(sampler, "truncation", None), **fields)
