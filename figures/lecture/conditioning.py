"""Lecture, "Conditional GANs": ways to condition a discriminator, compared inside the classes.

One architecture for all: the label is joined to z in G, and D reads it in one of four ways. AC-GAN, which has a weight,
appears with three of them, and once without the classes of generated samples. Replicas of one seed share G's initial
weights, z and data, so ways are compared pair by pair. Measured are samples of the averaged generator, with the book's
classifier, which no way has seen.

The lecture's table has ImageNet and an intra-class FID; this has digits, or MNIST with `--world mnist`, and a distance
in the features of a classifier, so only the order compares.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from torch import Tensor

import gankit as gk
from figures.judging import classifier_of
from figures.provenance import command_line, load, rounded, save, stamp
from gankit.classifiers import compute_features
from gankit.data import Dataset
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.neighbours import prdc
from gankit.metrics.similarity import ms_ssim_diversity
from gankit.models.sampling import Sampler
from gankit.plotting import band, use_style
from gankit.training import Trainer

AUXILIARY = {"d_condition": "class-head", "learn_classes": 1.0, "show_classes": 1.0}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "projection": {},
    "concat": {"d_condition": "concat"},
    "hidden concat": {"d_condition": "concat-hidden"},
    "AC-GAN": AUXILIARY,
    "AC-GAN, real only": AUXILIARY | {"d_terms.learn_classes.fake": 0.0},
    "AC-GAN, weight 5": AUXILIARY | {"learn_classes": 5.0, "show_classes": 5.0},
    "AC-GAN, weight 25": AUXILIARY | {"learn_classes": 25.0, "show_classes": 25.0},
}
"""Way -> what it changes of a projection GAN's recipe."""
FOUR = ("projection", "concat", "hidden concat", "AC-GAN")
COLORS = {
    "projection": "#0072B2", "concat": "#E69F00", "hidden concat": "#009E73", "AC-GAN": "#D55E00",
    "AC-GAN, real only": "#CC79A7", "AC-GAN, weight 5": "#8C3B00", "AC-GAN, weight 25": "#4A1F00", "real": "#4D4D4D",
}  # fmt: skip
"""One colour per way, in the chapter and here."""
WORLDS = {
    "digits": ("projection-digits", {}, tuple(WAYS), 3_000, 10),
    "mnist": ("projection-mnist", {"width": 8, "batch_size": 32}, FOUR, 1_200, 6),
}
"""Name -> recipe, changes, ways, generator steps, seeds."""
PER_CLASS = 180
"""Samples of each class; as many real ones of MNIST, and nearly all that there are of the digits, 174 to 183."""
K = 3
"""Neighbours of precision, recall and coverage inside a class."""
COLLAPSED = 0.5
"""A class counts as collapsed where its samples reach less than this part of the recall that real ones would."""


class Inside:
    """What is measured inside the classes, in a classifier's features.

    Args:
        data: real images, of which `PER_CLASS` of each class are kept.
        network: the classifier.
    """

    def __init__(self, data: Dataset, network: torch.nn.Module) -> None:
        rows = [(data.labels == c).nonzero()[:PER_CLASS, 0] for c in range(data.n_classes)]
        pictures = [data.normalise(data.images[of]) for of in rows]
        self.network = network
        self.real = [compute_features(network, one) for one in pictures]
        self.real_pictures = torch.cat(pictures)
        self.labels = torch.arange(data.n_classes).repeat_interleave(PER_CLASS)

    def distances(self, features: Tensor) -> Tensor:
        """Frechet distance of each class, `[K]`, of features in the order of `labels`."""
        fakes = features.split(PER_CLASS)
        return torch.stack([frechet_distance(f, r) for f, r in zip(fakes, self.real, strict=True)])

    def neighbours(self, features: Tensor) -> dict[str, Tensor]:
        """Precision, recall and coverage of each class, `[K]`."""
        pairs = zip(features.split(PER_CLASS), self.real, strict=True)
        found = [prdc(real, fake, K) for fake, real in pairs]
        return {
            name: torch.stack([one[name] for one in found]) for name in ("precision", "recall", "coverage")
        }

    @torch.no_grad()
    def accuracy(self, features: Tensor) -> Tensor:
        """Share of each class that the classifier recognises, `[K]`."""
        hits = self.network.logits(features).argmax(-1) == self.labels
        return hits.double().unflatten(0, (-1, PER_CLASS)).mean(-1)

    def samples(self, run: Trainer) -> Tensor:
        """Of each replica, `[S, N, *shape]`, `PER_CLASS` of each class in the order of `labels`."""
        return Sampler(run.teacher.net, labels=self.labels)(len(self.labels)).cpu().clamp(-1, 1)

    def similarity(self, images: Tensor) -> dict[str, Tensor]:
        """ "similarity": MS-SSIM between pictures of each class, `[K]`; nothing for pictures below 16 pixels."""
        if min(images.shape[-2:]) < 16:
            return {}
        return {"similarity": ms_ssim_diversity(images, self.labels, pairs=PER_CLASS // 2).per_class}

    def ceiling(self) -> dict[str, Any]:
        """The same numbers of real images against real ones: one half of each class against the other."""
        halves = [real.chunk(2) for real in self.real]
        found = [prdc(a, b[: len(a)], K) for a, b in halves]
        return {
            "distance": rounded([float(frechet_distance(a, b)) for a, b in halves], 4),
            **{
                name: rounded([float(one[name]) for one in found], 4)
                for name in ("precision", "recall", "coverage")
            },
            **{
                name: rounded(values.numpy(), 4)
                for name, values in self.similarity(self.real_pictures).items()
            },
        }


def train(world: str, way: str, seeds: Sequence[int], steps: int, evaluations: int = 4) -> dict[str, Any]:
    """One way, all seeds side by side.

    Returns:
        "steps" `[T]`; "distance" `[T][S]`, the mean over classes; at the end "classes": name -> `[S][K]` for
        "distance", "accuracy", "precision", "recall", "coverage" and, from 16 pixels, "similarity" (MS-SSIM); their
        means "end": name -> `[S]`; "parameters" of G and of D.
    """
    recipe, changes, *_ = WORLDS[world]
    data = gk.data.load(gk.recipes.recipes[recipe].data)
    inside = Inside(data, classifier_of(data))
    last: dict[str, Any] = {}

    def look(run: Trainer) -> dict[str, Tensor]:
        images = inside.samples(run)
        features = compute_features(inside.network, images)
        distance = torch.stack([inside.distances(one) for one in features])
        if run.steps == steps:
            near = [
                inside.neighbours(one) | inside.similarity(x) for one, x in zip(features, images, strict=True)
            ]
            last["distance"] = distance
            last["accuracy"] = torch.stack([inside.accuracy(one) for one in features])
            last.update({name: torch.stack([one[name] for one in near]) for name in near[0]})
            last["parameters"] = [sum(p[0].numel() for p in net.parameters()) for net in (run.G, run.D)]
        return {"distance": distance.mean(-1)}

    found = gk.study.run(
        recipe, {way: {**changes, **WAYS[way]}}, seeds, steps, measures=[look], evaluations=evaluations,
        log_every=100, data=data, progress=False,
    )  # fmt: skip
    parameters = last.pop("parameters")
    return {
        "steps": found["steps"],
        "distance": rounded(np.array(found["curves"][way]["distance"]), 4),
        "classes": {name: rounded(values.numpy(), 3) for name, values in last.items()},
        "end": {name: rounded(values.mean(-1).numpy(), 5) for name, values in last.items()},
        "parameters": parameters,
        "wall_time_s": found["wall_time_s"],
    }


def compute(world: str = "digits", n_seeds: int = 0, steps: int = 0, kept: str = "") -> dict[str, Any]:
    """All ways of a world, one after the other.

    Args:
        world: "digits", or "mnist" (Conv-4 with 8 filters, batches of 32; needs the MNIST files in GANKIT_DATA).
        n_seeds: seeds 0..n_seeds-1; 0 takes the world's own, 10 and 6.
        steps: generator steps; 0 takes the world's own, 3,000 and 1,200.
        kept: a folder where each way's numbers are kept when it is done, and found when the command starts again.

    Returns:
        "ways": way -> what `train` returns; "real": `Inside.ceiling`; "inside": way -> `inside_classes`; "settings";
        "summary" (`summarise`); "provenance".

    Raises:
        ValueError: an unknown world.
    """
    if world not in WORLDS:
        raise ValueError(f"world must be one of {', '.join(WORLDS)}, got {world!r}")
    begun = time.perf_counter()
    recipe, changes, names, own_steps, own_seeds = WORLDS[world]
    seeds, steps = range(n_seeds or own_seeds), steps or own_steps
    ways: dict[str, Any] = {}
    for way in names:
        place = Path(kept) / f"{world}-{len(seeds)}-{steps}-{way}.json"
        if not (kept and place.exists()):
            ways[way] = train(world, way, seeds, steps)
            if kept:
                save(ways[way], place)
        else:
            ways[way] = json.loads(place.read_text("utf-8"))
    data = gk.data.load(gk.recipes.recipes[recipe].data)
    real = Inside(data, classifier_of(data)).ceiling()
    spent = sum(one["wall_time_s"] for one in ways.values())
    return {
        "ways": ways,
        "real": real,
        "inside": {name: inside_classes(one, ways["projection"], real) for name, one in ways.items()},
        "settings": {"recipe": recipe, "changes": changes, "steps": steps, "per_class": PER_CLASS, "k": K},
        "summary": summarise(ways, real),
        "provenance": stamp(max(spent, time.perf_counter() - begun), seeds, packages=("torch", "numpy")),
    }


def inside_classes(
    one: Mapping[str, Any], projection: Mapping[str, Any], real: Mapping[str, Any]
) -> dict[str, list[float]]:
    """Of each seed: "lost", the number of classes with less than `COLLAPSED` of the recall of real images; "behind",
    the share of classes whose distance is larger than projection's."""
    lost = np.array(one["classes"]["recall"]) < COLLAPSED * np.array(real["recall"])
    behind = np.array(one["classes"]["distance"]) > np.array(projection["classes"]["distance"])
    return {"lost": lost.sum(-1).tolist(), "behind": behind.mean(-1).tolist()}


def summarise(ways: Mapping[str, Any], real: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each way: medians of "distance", "accuracy", "precision", "recall" and "coverage"; "sd" of the distance;
    "collapsed", the mean number of classes with less than `COLLAPSED` of the recall of real images; and how it compares
    with "projection", pair by pair (`gankit.study.compare`), for distance, recall and accuracy."""
    table: dict[str, dict[str, Any]] = {}
    for name, one in ways.items():
        ends = {key: np.array(values) for key, values in one["end"].items()}
        row: dict[str, Any] = {key: rounded(np.median(values), 4) for key, values in ends.items()}
        row["sd"] = rounded(ends["distance"].std(ddof=1) if len(ends["distance"]) > 1 else 0.0, 3)
        row["collapsed"] = rounded(np.mean(inside_classes(one, ways["projection"], real)["lost"]), 3)
        if name != "projection":
            for key in ("distance", "recall", "accuracy"):
                other = np.array(ways["projection"]["end"][key])
                found = gk.study.compare(ends[key], other)
                row[f"{key}_against_projection"] = {k: found[k] for k in ("below", "above", "p")}
        table[name] = row
    return table


def draw(result: dict[str, Any]) -> Figure:
    """Intra-class distance during training; its end for each seed; recall inside classes over accuracy."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6))
    for i, (name, one) in enumerate(result["ways"].items()):
        color = COLORS[name]
        if name in FOUR:
            band(axes[0], one["steps"], np.array(one["distance"]), label=name, color=color)
        values = np.array(one["end"]["distance"])
        axes[1].scatter(np.full(len(values), i), values, color=color, s=18, lw=0)
        axes[1].hlines(np.median(values), i - 0.3, i + 0.3, color=color, lw=2)
        axes[2].scatter(
            one["end"]["accuracy"], one["end"]["recall"], color=color, s=18, lw=0, label=name
        )  # fmt: skip
    axes[0].set(xlabel="generator steps", ylabel="intra-class FD (classifier's features)", yscale="log")
    axes[1].set(ylabel="intra-class FD at the end", yscale="log")
    plain_ticks(axes[0].yaxis, axes[1].yaxis)
    axes[1].set_xticks(range(len(result["ways"])), list(result["ways"]), rotation=40, ha="right", fontsize=8)
    axes[2].set(xlabel="class accuracy of the samples", ylabel="recall inside classes")
    axes[2].xaxis.set_major_locator(MaxNLocator(4))
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure


def plain_ticks(*scales: Axis) -> None:
    """1, 2, 5, 10, 20, ... on logarithmic scales that span little more than a decade."""
    for scale in scales:
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(ScalarFormatter())
        scale.set_minor_formatter(NullFormatter())


def draw_classes(result: dict[str, Any], ways: Sequence[str] = ("concat", "AC-GAN")) -> Figure:
    """The distance of each class, projection's against another way's: a point for each class and seed."""
    use_style()
    figure, axes = plt.subplots(1, len(ways), figsize=(3.6 * len(ways), 3.5), sharey=True)
    y = np.array(result["ways"]["projection"]["classes"]["distance"])
    for ax, name in zip(np.atleast_1d(axes), ways, strict=True):
        x = np.array(result["ways"][name]["classes"]["distance"])
        ax.scatter(x, y, s=12, lw=0, color=COLORS[name], alpha=0.7)
        ends = [min(x.min(), y.min()) * 0.9, max(x.max(), y.max()) * 1.1]
        ax.plot(ends, ends, color="black", lw=0.8)
        better = float((y < x).mean())
        ax.set(xlabel=f"FD of a class, {name}", xscale="log", yscale="log", xlim=ends, ylim=ends)
        plain_ticks(ax.xaxis, ax.yaxis)
        ax.set_title(f"below the line: {100 * better:.0f} % of the classes", fontsize=9)
    np.atleast_1d(axes)[0].set_ylabel("FD of the same class, projection")
    return figure


def table(result: Mapping[str, Any]) -> str:
    """The summary in columns: medians, and the number of seeds in which projection is better, with p."""
    head = (
        "way",
        "intra FD",
        "sd",
        "accuracy",
        "precision",
        "recall",
        "coverage",
        "collapsed",
        "worse than projection",
    )
    lines = [head]
    for name, row in result["summary"].items():
        pair = row.get("distance_against_projection")
        n = len(result["ways"][name]["end"]["distance"])
        told = "" if pair is None else f"{pair['above']} of {n} seeds, p = {pair['p']:.2g}"
        numbers = [f"{row[k]:.3g}" for k in ("distance", "sd", *head[3:7], "collapsed")]
        lines.append((name, *numbers, told))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def stored(world: str) -> dict[str, Any]:
    """The committed result of a world."""
    return load("lecture/conditioning" if world == "digits" else f"lecture/conditioning_{world}")


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
