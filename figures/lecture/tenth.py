"""A tenth of MNIST and of CIFAR-10 (JPEG): what the methods for few data do with thousands of images, at narrow width.

Of the training images some are held out; each seed draws its tenth (6,000 and 5,000) from the others. Replicas of one
seed share images, initial weights, z and the order of the data, in all methods. Networks, rates and steps are those of
a first trial without any method, and nothing was tuned for one; ADA's speed is in proportion to the length of the run.

A run is one method with all seeds. Each is kept under runs/tenth as soon as it is there; the command goes on with those
that are missing.

    GANKIT_DATA=... python -m figures.lecture.tenth --out figures/results/lecture/tenth.json

The counterpart at the next size of `figures.lecture.few_data`, and at another scale of the tables with 10 % of CIFAR-10
of Zhao et al. 2020 (DiffAugment).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.lecture.few_data import COLORS, OwnRows, own_rows
from figures.mm_nsat.fig23_depth import cells
from figures.provenance import command_line, rounded, save, stamp
from gankit import classifiers
from gankit.data import Dataset
from gankit.game.augment import ADA, AdaptP, DiffAugment
from gankit.game.penalties import R1
from gankit.metrics.frechet import frechet_distance
from gankit.models.sampling import sample
from gankit.plotting import band, use_style
from gankit.recipes import Networks, Recipe
from gankit.study import compare, spread
from gankit.training import Trainer

METHODS = ("none", "DiffAugment", "ADA")
READINGS = 8
ADA_SHARE = 0.2
"""Share of a run's real images in which ADA's probability may go from 0 to 1."""
CURVES = ("distance", "d_train", "d_validation", "d_generated")


Features = Callable[[Tensor], Tensor]


def of_classifier(data: Dataset) -> Features:
    """Those of the book's classifier of this data set."""
    return partial(classifiers.compute_features, classifiers.load(data.name, train=True))


def of_cells(data: Dataset) -> Features:
    """Means over 8 x 8 cells (`figures.mm_nsat.fig23_depth`): for pictures without a classifier of their own."""
    return cells


@dataclass(frozen=True)
class World:
    """A data set, and networks small enough for it.

    Attributes:
        title: in figures.
        data: its name, or its file below the data root.
        n: training images of each seed.
        held_out: images that no seed trains on.
        real: images that samples are compared with.
        samples: of each replica and reading.
        policy: of DiffAugment.
        recipe: the run without any method.
        space: to a data set, the features in which Frechet distances are measured.
    """

    title: str
    data: str
    n: int
    held_out: int
    real: int
    samples: int
    policy: str
    recipe: Recipe
    space: Callable[[Dataset], Features]


WORLDS: Mapping[str, World] = {
    "mnist": World(
        "MNIST, 6,000 images", "mnist", 6_000, 1_000, 10_000, 1_000, "translation,cutout",
        Recipe("tenth-mnist", "fully connected networks on a tenth of MNIST",
               networks=Networks("mlp", z_dim=64, depth=3, width=192), steps=1_600, batch_size=64,
               d_terms=(R1(0.1),), g_optimizer=gk.Adam(4e-4), d_optimizer=gk.Adam(4e-4)),
        of_classifier,
    ),
    "cifar10": World(
        "CIFAR-10 (JPEG), 5,000 images", "cifar10-jpeg-train.zip", 5_000, 256, 10_000, 300,
        "color,translation,cutout",
        Recipe("tenth-cifar10", "Conv-4 with a quarter of its filters on a tenth of CIFAR-10",
               networks=Networks("conv", z_dim=64, depth=4, width=8), steps=800, batch_size=32,
               d_terms=(R1(0.1),), g_optimizer=gk.Adam(5e-4, 0.5), d_optimizer=gk.Adam(5e-4, 0.5)),
        of_cells,
    ),
}  # fmt: skip


def recipe(world: World, method: str) -> Recipe:
    """The run of one method."""
    images = round(ADA_SHARE * world.recipe.steps * world.recipe.batch_size)
    changes: dict[str, dict[str, Any]] = {
        "none": {},
        "DiffAugment": {"augment": DiffAugment(world.policy)},
        "ADA": {"augment": ADA(), "rules": (AdaptP(images=images),)},
    }
    return replace(world.recipe, **changes[method])


def split(world: World, data: Dataset, seeds: list[int]) -> tuple[OwnRows, Dataset]:
    """Training images of each seed, and those held out."""
    parts = data.split(len(data) - world.held_out, validation=world.held_out)
    return own_rows(parts.train, world.n, seeds), parts.validation


def train(world: World, method: str, data: Dataset, seeds: list[int], steps: int) -> dict[str, Any]:
    """One method with all seeds.

    Returns:
        "steps" `[T]`, "wall_time_s" and, `[T, S]` each, `CURVES`: the Frechet distance of current samples and D's mean
        logits; for ADA also "augment_p" and "r_t".
    """
    own, validation = split(world, data, seeds)
    features = world.space(data)
    real = features(data.normalise(data.images[: world.real]))
    watch = gk.metrics.watch_discriminator(validation, n=world.held_out)

    def read(run: Trainer) -> dict[str, Tensor]:
        return watch(run) | {"distance": frechet_distance(features(sample(run.G, world.samples)), real)}

    begun, every = time.perf_counter(), max(1, steps // READINGS)
    run = recipe(world, method).build(seeds, data=own, device="cpu")
    run.fit(steps, log_every=every, callback=read, callback_every=every)
    more = ("augment_p", "r_t") if run.game.rules else ()
    return {
        "steps": run.curve("distance")[0].tolist(),
        "wall_time_s": round(time.perf_counter() - begun, 1),
        **{name: rounded(run.curve(name)[1], 3) for name in (*CURVES, *more)},
    }


def compute(worlds: str = "", n_seeds: int = 6, steps: int = 0, folder: str = "runs/tenth") -> dict[str, Any]:
    """All methods in all worlds; those that the folder holds are read.

    Args:
        worlds: names of `WORLDS` with commas between them; "" takes all.
        n_seeds: seeds 0..n_seeds-1.
        steps: generator steps; 0 takes the world's.
        folder: where finished runs are kept.

    Returns:
        "runs": world -> method -> what `train` returns; "summary" (`summarise`), "provenance".

    Raises:
        ValueError: an unknown world.
        DataError: the pictures are not below the data root.
    """
    names = [name for name in worlds.split(",") if name] or list(WORLDS)
    if unknown := set(names) - set(WORLDS):
        raise ValueError(f"worlds must be among {', '.join(WORLDS)}, got {', '.join(sorted(unknown))}")
    seeds = list(range(n_seeds))
    runs: dict[str, dict[str, Any]] = {}
    for name in names:
        world = WORLDS[name]
        length = steps or world.recipe.steps
        paths = {method: Path(folder) / f"{name}-{method}-{n_seeds}-{length}.json" for method in METHODS}
        if not all(path.exists() for path in paths.values()):
            data = gk.data.load(world.data)
        for method, path in paths.items():
            if not path.exists():
                save(train(world, method, data, seeds, length), path)
        runs[name] = {method: json.loads(path.read_text("utf-8")) for method, path in paths.items()}
    seconds = sum(one["wall_time_s"] for of_world in runs.values() for one in of_world.values())
    return {
        "runs": runs,
        "summary": summarise(runs),
        "provenance": stamp(seconds, seeds, packages=("torch", "numpy")),
    }


def summarise(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """World -> method -> "end" and "lowest" (median and range of the distance), "gap" (median over the seeds of D's
    mean logit on training images less that on held-out ones, at the end), and, against no method, pairs at the end and
    at the lowest, with the p of a sign test; of ADA also "p"."""
    table: dict[str, dict[str, Any]] = {}
    for name, of_world in runs.items():
        base = np.array(of_world["none"]["distance"])
        table[name] = {}
        for method, one in of_world.items():
            distance = np.array(one["distance"])
            gap = np.array(one["d_train"])[-1] - np.array(one["d_validation"])[-1]
            row: dict[str, Any] = {
                "end": spread(distance[-1]),
                "lowest": spread(distance.min(0)),
                "gap": rounded(np.median(gap), 3),
            }
            if method != "none":
                row["pairs"] = compare(distance[-1], base[-1])
                row["pairs_lowest"] = compare(distance.min(0), base.min(0))
            if "augment_p" in one:
                row["p"] = spread(np.array(one["augment_p"])[-1])
            table[name][method] = row
    return table


def draw(result: Mapping[str, Any]) -> Figure:
    """Distances of all methods, a column for each world; below, D's three curves without any method."""
    use_style()
    runs = result["runs"]
    figure, axes = plt.subplots(2, len(runs), figsize=(4.2 * len(runs), 5.8), squeeze=False, sharex="col")
    for (top, bottom), (name, of_world) in zip(axes.T, runs.items(), strict=True):
        for method, one in of_world.items():
            band(top, one["steps"], np.array(one["distance"]), label=method, color=COLORS[method])
        none = of_world["none"]
        for curve, label, color in (
            ("d_train", "training images", "C0"),
            ("d_validation", "held-out images", "C1"),
            ("d_generated", "generated images", "C3"),
        ):
            band(bottom, none["steps"], np.array(none[curve]), label=label, color=color)
        top.set(yscale="log", title=WORLDS[name].title)
        bottom.set(xlabel="generator steps")
    axes[0, 0].set_ylabel("Fréchet distance (features²)")
    axes[1, 0].set_ylabel("D's mean logit, no method")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    axes[1, 0].legend(fontsize="small")
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
