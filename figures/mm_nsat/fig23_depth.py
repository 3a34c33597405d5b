"""Sample-weighting paper, figures 1, 21 and 23: plain convolutional networks that grow deeper, NS against MM-nsat.

The paper trains them on cats and faces of up to 512 pixels, where NS collapses before it has learned to draw. Here are
settings for a CPU, at 32 pixels: CIFAR-10 (JPEG) with 4, 5 and 6 layers, and with 6 one picture of each of ImageNet's
398 kinds of animals, these at 64 pixels as well. Nothing is normalised. Conv-n has half of the recipe's filters, a
quarter of its batch and five times its learning rate; 2,000 steps of both costs take a few minutes for each seed.
Committed is Conv-6 on CIFAR-10 (JPEG), of five seeds.

Pictures are compared as means over 8 x 8 cells (192 numbers), without a classifier: their Frechet distance to real
ones, their spread (the mean distance of two generated pictures over that of two real ones) and their coverage (the
share of real pictures with a generated one among their five nearest). A run counts as collapsed once its spread falls
below half of what it had reached, if that was a tenth at least.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.mm_nsat.coverage import label_distance
from figures.provenance import command_line, rounded, save, stamp
from gankit import study
from gankit.data import DataError, Dataset
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.neighbours import prdc
from gankit.models.sampling import sample
from gankit.plotting import color_of
from gankit.recipes import Recipe, recipes
from gankit.training import Trainer

VARIANTS: Mapping[str, Mapping[str, Any]] = {"ns": {}, "mm-nsat": {"loss": "mm-nsat"}}
LABELS = {"ns": "NS", "mm-nsat": "MM-nsat"}
MEASURES = ("distance", "spread", "coverage")
STEPS, SIDE, CELLS = 2_000, 32, 8
REAL, SAMPLES = 2_000, 500
"""Real pictures for the distance; generated ones, and real ones for spread and coverage."""
NEIGHBOURS = 5
LEAST = 0.1
"""Spread that a run must have reached to lose it."""
LAST_ANIMAL = 2_655_020
"""WordNet's number of the last of ImageNet's classes, in their order, that is an animal: the puffer."""


@dataclass(frozen=True)
class Setting:
    """Pictures and networks.

    Attributes:
        title: in figures.
        data: file below the data root.
        depth: n of Conv-n.
        animals: whether to keep ImageNet's animals alone.
        side: of the pictures, in pixels.
    """

    title: str
    data: str
    depth: int
    animals: bool = False
    side: int = SIDE

    @property
    def recipe(self) -> Recipe:
        """The run with NS."""
        return recipes["ns-cifar10-conv4"].changed(
            {"depth": self.depth, "width": 16, "batch_size": 32, "lr": 5e-4, "steps": STEPS}
        )


CIFAR, IMAGENET = "cifar10-jpeg-train.zip", "imagenet1k-sample.zip"
SETTINGS: Mapping[str, Setting] = {
    "cifar10-conv4": Setting("CIFAR-10 (JPEG), Conv-4", CIFAR, 4),
    "cifar10-conv5": Setting("CIFAR-10 (JPEG), Conv-5", CIFAR, 5),
    "cifar10-conv6": Setting("CIFAR-10 (JPEG), Conv-6", CIFAR, 6),
    "animals-conv6": Setting("398 animals, Conv-6", IMAGENET, 6, True),
    "animals64-conv6": Setting("398 animals, 64 pixels, Conv-6", IMAGENET, 6, True, 64),
}


def compute(
    settings: str = "", n_seeds: int = 5, steps: int = STEPS, folder: str = "runs/depth"
) -> dict[str, Any]:
    """Train what is not trained yet, and collect it.

    Args:
        settings: names of `SETTINGS` with commas between them; "" takes all.
        n_seeds: seeds 0..n_seeds-1, shared by both costs.
        steps: generator steps.
        folder: where finished runs and checkpoints are kept; a run that was interrupted goes on from it.

    Returns:
        "runs": for each setting "steps" `[T]` and for each cost and measure `[T][S]`; "summary" (`summarise`), and
        "provenance".

    Raises:
        ValueError: an unknown setting.
        DataError: the pictures are not below the data root.
    """
    names = [name for name in settings.split(",") if name] or list(SETTINGS)
    if unknown := set(names) - set(SETTINGS):
        raise ValueError(f"settings must be among {', '.join(SETTINGS)}, got {', '.join(sorted(unknown))}")
    seeds = list(range(n_seeds))
    rows = {name: [one_seed(name, seed, Path(folder), steps) for seed in seeds] for name in names}
    runs: dict[str, Any] = {}
    for name, parts in rows.items():
        runs[name] = {"steps": parts[0]["steps"]}
        for cost in VARIANTS:
            runs[name][cost] = {
                key: rounded(np.stack([row["curves"][cost][key] for row in parts], 1), 4) for key in MEASURES
            }
    wall = sum(row["wall_time_s"] for parts in rows.values() for row in parts)
    return {
        "runs": runs,
        "summary": summarise(runs),
        "provenance": stamp(wall, seeds, packages=("torch", "numpy")),
    }


def one_seed(name: str, seed: int, folder: Path, steps: int = STEPS) -> dict[str, Any]:
    """Both costs from the same weights, latents and data: "steps", "curves" (cost -> measure -> `[T]`), and the time
    they took. Read from `folder` where they are done."""
    done = folder / f"{name}-{seed}.json"
    if done.exists() and (row := json.loads(done.read_text("utf-8")))["steps"][-1] == steps:
        return row
    setting = SETTINGS[name]
    data = pictures(setting)
    begun = time.perf_counter()
    result = study.run(
        setting.recipe,
        VARIANTS,
        [seed],
        steps,
        measures=[judge(data)],
        every=min(200, steps),
        folder=folder / f"{name}-{seed}",
        data=data,
        progress=False,
    )
    curves = {
        cost: {key: [row[0] for row in values[key]] for key in MEASURES}
        for cost, values in result["curves"].items()
    }
    took = max(result["wall_time_s"], round(time.perf_counter() - begun, 1))
    row = {"steps": result["steps"], "curves": curves, "wall_time_s": took}
    save(row, done)
    return row


@cache
def pictures(setting: Setting) -> Dataset:
    """What a setting imitates."""
    data = gk.data.load(setting.data, size=setting.side)
    if not setting.animals:
        return data.subset(torch.randperm(len(data), generator=torch.Generator().manual_seed(0)))
    numbers = torch.tensor([int(name[1:9]) for name in data.classes])
    if not bool((numbers <= LAST_ANIMAL).any()):
        raise DataError(f"{setting.data} has no folder of an animal, named by its WordNet number")
    return data.subset(numbers[data.labels] <= LAST_ANIMAL)


def cells(images: Tensor) -> Tensor:
    """Pictures `[..., C, H, W]` as means over 8 x 8 cells, `[..., 64 C]`."""
    small = F.adaptive_avg_pool2d(images.flatten(0, -4), CELLS)
    return small.flatten(1).reshape(*images.shape[:-3], -1)


def judge(data: Dataset) -> Callable[[Trainer], dict[str, Tensor]]:
    """What measures a run: "distance", "spread" and "coverage" of `SAMPLES` pictures of each replica, `[S]`."""
    real = cells(data.normalise(data.images[:REAL]))
    some = real[:SAMPLES]
    apart = torch.pdist(some).mean()

    def measure(run: Trainer) -> dict[str, Tensor]:
        found = cells(sample(run.G, SAMPLES))
        return {
            "distance": frechet_distance(found, real),
            "spread": torch.stack([torch.pdist(one).mean() / apart for one in found]),
            "coverage": torch.stack([prdc(some, one, NEIGHBOURS)["coverage"] for one in found]),
        }

    return measure


def collapse(spread: np.ndarray) -> np.ndarray:
    """Index of the first reading `[T, S]` at which a run's spread is below half of its largest so far, if that is at
    least `LEAST`; T for none."""
    largest = np.maximum.accumulate(spread, 0)
    fallen = (spread < largest / 2) & (largest >= LEAST)
    return np.where(fallen.any(0), fallen.argmax(0), len(spread))


def summarise(runs: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that texts and ledgers quote.

    Returns:
        For each setting and cost the median, "min" and "max" over the seeds of each measure at the end, and in how many
        of them it "collapsed", with "when", the step of each (null for none); under "pairs" what `study.compare` says
        of MM-nsat against NS for each measure at the end.
    """
    table: dict[str, Any] = {}
    for name, run in runs.items():
        ends = {cost: {key: np.array(run[cost][key])[-1] for key in MEASURES} for cost in VARIANTS}
        table[name] = {}
        for cost in VARIANTS:
            steps = [*run["steps"], None]
            when = [steps[i] for i in collapse(np.array(run[cost]["spread"]))]
            table[name][cost] = {key: study.spread(values) for key, values in ends[cost].items()}
            table[name][cost] |= {"collapsed": sum(step is not None for step in when), "when": when}
        table[name]["pairs"] = {key: study.compare(ends["mm-nsat"][key], ends["ns"][key]) for key in MEASURES}
    return table


TITLES = {
    "distance": f"FD[{CELLS} x {CELLS} pixels] (no unit)",
    "spread": "spread (1: that of real ones)",
    "coverage": "coverage (share of real ones)",
}


def draw(result: Mapping[str, Any]) -> Figure:
    """A row for each setting, a panel for each measure: a thin line for each seed, a thick one for their median, and in
    the panel of the spread a cross at a collapse."""
    gk.plotting.use_style()
    runs = result["runs"]
    figure, axes = plt.subplots(len(runs), 3, figsize=(10.5, 0.5 + 2.9 * len(runs)), squeeze=False)
    for row, (name, run) in zip(axes, runs.items(), strict=True):
        steps = np.array(run["steps"])
        for ax, key in zip(row, MEASURES, strict=True):
            for cost in VARIANTS:
                color, values = color_of(cost), np.array(run[cost][key])
                ax.plot(steps, values, color=color, lw=0.7, alpha=0.6)
                ax.plot(steps, np.median(values, 1), color=color, lw=2.2, label=LABELS[cost])
            ax.set(xlabel="generator steps", ylabel=TITLES[key])
        for cost in VARIANTS:
            spread = np.array(run[cost]["spread"])
            for seed, first in enumerate(collapse(spread)):
                if first < len(steps):
                    row[1].plot(steps[first], spread[first, seed], "x", color=color_of(cost), ms=7, mew=2)
        row[0].set_yscale("log")
        label_distance(row[0])
        row[1].axhline(1, color="black", ls=":", lw=0.8)
        row[1].set_title(SETTINGS[name].title, fontsize=10)
        for ax in row[1:]:
            ax.set_ylim(0, None)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def table(result: Mapping[str, Any]) -> str:
    """The summary as text: medians at the end, pairs with their p, and how many seeds collapsed."""
    lines = [
        f"{'':31} {'FD, end':>15}  {'spread, end':>13}  {'coverage, end':>13}   collapsed",
        f"{'':31} {'NS':>6} {'MM-nsat':>8}  {'NS':>5} {'MM-nsat':>7}  {'NS':>5} {'MM-nsat':>7}   NS  MM-nsat",
    ]
    for name, row in result["summary"].items():
        ns, nsat = row["ns"], row["mm-nsat"]
        medians = [(ns[key]["median"], nsat[key]["median"]) for key in MEASURES]
        (a, b), (c, d), (e, f) = medians
        lines.append(
            f"{SETTINGS[name].title:31} {a:6.1f} {b:8.1f}  {c:5.2f} {d:7.2f}  {e:5.2f} {f:7.2f}"
            f"   {ns['collapsed']:2}  {nsat['collapsed']:7}"
        )
        below, above, p = (row["pairs"]["distance"][key] for key in ("below", "above", "p"))
        lines.append(f"{'':31} MM-nsat's FD below NS's in {below} of {below + above} seeds, p = {p:.2g}")
    return "\n".join(lines)


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
