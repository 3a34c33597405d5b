"""A GAN of few digits: what D and G do with 100, 300 or 1,000 training images, and what helps.

Ten seeds, paired: replicas of one seed share the training images, initial weights, z and the order of the data, in
all methods. Of the 1,797 digits 497 are held out; each seed draws its training images from the other 1,300. All
methods have the same networks, rates and number of steps, which are those of a first trial without any of them
(fully connected networks, NS with R1), and the papers' own settings beside; ADA's speed is in proportion to the length
of the run. Nothing was tuned for a method.

A run is one method at one number of images, some minutes. Each is kept under runs/few-data as soon as it is there;
the command goes on with those that are missing.

    python -m figures.lecture.few_data

The small counterpart of figures 1 and 7 of Karras et al. 2020 (ADA) and of figure 3 of Zhao et al. 2020 (DiffAugment),
with CR and bCR beside them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.judging import of_classes
from figures.provenance import command_line, rounded, stamp
from gankit.data import Dataset
from gankit.files import replacing
from gankit.game.augment import ADA, AdaptP, DiffAugment
from gankit.game.consistency import BCR, CR
from gankit.plotting import band, use_style
from gankit.study import compare, spread

SIZES = (100, 300, 1_000)
HELD_OUT = 497
WIDTH, DEPTH, RATE, GAMMA, BATCH = 192, 3, 4e-4, 0.1, 64
SAMPLES = 1_000
READINGS = 16

METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "real images only": {"data_augment": DiffAugment("translation,cutout")},
    "CR": {"d_terms": (CR(10.0),)},
    "bCR": {"d_terms": (BCR(10.0, 10.0),)},
    "DiffAugment": {"augment": DiffAugment("translation,cutout")},
    "ADA": {"augment": ADA(), "rules": (AdaptP(images=50_000),)},
}
"""Method -> what it changes of a run."""

COLORS = {
    "none": "#000000",
    "real images only": "#8c564b",
    "CR": "#9467bd",
    "bCR": "#e377c2",
    "DiffAugment": "#2ca02c",
    "ADA": "#17becf",
}
CURVES = ("distance", "d_train", "d_validation", "d_generated", "copying")
"""What is read of every run; of ADA also p and r_t."""


@dataclass(frozen=True, eq=False, repr=False)
class OwnRows(Dataset):
    """Samples of which each replica draws from rows of its own.

    Attributes:
        rows: int64 `[S, n]`, numbers of a replica's samples.
    """

    rows: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))

    def draw(self, size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Places in a replica's rows, drawn with replacement."""
        size = (size,) if isinstance(size, int) else tuple(size)
        return torch.randint(self.rows.shape[1], size, generator=generator)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Samples of every replica at its places, `[S, N, *shape]`, and labels `[S, N]`."""
        return super().batch(self.rows.gather(1, indices))

    def images_of(self, replica: int) -> Tensor:
        """The training images of a replica, `[n, *shape]` in [-1, 1]."""
        return self.normalise(self.images[self.rows[replica]])


def own_rows(data: Dataset, n: int, seeds: list[int]) -> OwnRows:
    """n of these samples for each seed; smaller sets are parts of larger ones."""
    rows = [torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:n] for seed in seeds]
    return OwnRows(data.name, data.images, data.labels, data.classes, data.levels, rows=torch.stack(rows))


def trainer(data: Dataset, method: str, seeds: list[int]) -> gk.Trainer:
    """A run of one method, with a replica for each seed."""
    settings = dict(METHODS[method])
    terms = (gk.penalties.R1(GAMMA), *settings.pop("d_terms", ()))
    G, D = gk.pair(lambda seed: gk.models.mlp(data.shape, width=WIDTH, depth=DEPTH, seed=seed), seeds)
    adam = gk.Adam(RATE)
    return gk.Trainer(
        G, D, data, loss="ns", batch_size=BATCH, g_optimizer=adam, d_optimizer=adam, d_terms=terms, device="cpu",
        **settings,
    )  # fmt: skip


def train(n: int, method: str, seeds: list[int], steps: int) -> dict[str, Any]:
    """One method with n images.

    Returns:
        "steps" `[T]`, "wall_time_s" and, `[T, S]` each, `CURVES`: the Frechet distance of current samples to all digits
        in the features of the book's classifier, D's mean logits, and how much nearer samples are to training images
        than to held-out ones (`gankit.metrics.memorisation`, in pixels); for ADA also "augment_p" and "r_t".
    """
    everything = gk.data.load("digits")
    split = everything.split(len(everything) - HELD_OUT, validation=HELD_OUT)
    data, judge = own_rows(split.train, n, seeds), of_classes(everything)
    held_out = everything.normalise(split.validation.images)
    look = gk.metrics.watch_discriminator(split.validation, n=HELD_OUT)

    def read(run: gk.Trainer) -> dict[str, Tensor]:
        samples = gk.sampling.sample(run.G, SAMPLES)
        copying = [gk.metrics.memorisation(one, data.images_of(i), held_out) for i, one in enumerate(samples)]
        distance = judge.classes(judge.features(samples))["distance"]
        return look(run) | {"distance": distance, "copying": torch.stack(copying)}

    run, begun = trainer(data, method, seeds), time.perf_counter()
    every = max(1, steps // READINGS)
    run.fit(steps, log_every=every, callback=read, callback_every=every)
    more = ("augment_p", "r_t") if run.game.rules else ()
    clock = run.curve("distance")[0]
    return {
        "steps": clock.tolist(),
        "wall_time_s": round(time.perf_counter() - begun, 1),
        **{name: rounded(run.curve(name)[1], 3) for name in (*CURVES, *more)},
    }


def kept(n: int, method: str, seeds: list[int], steps: int, folder: Path) -> dict[str, Any]:
    """What `train` returns, read from the folder if it is there."""
    path = folder / f"{n}-{method.replace(' ', '-')}-{len(seeds)}-{steps}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(train(n, method, seeds, steps)))
    return json.loads(path.read_text())


def compute(n_seeds: int = 10, steps: int = 4_000, folder: str = "runs/few-data") -> dict[str, Any]:
    """All methods with all numbers of images; those that the folder holds are read.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        steps: generator steps of each run.
        folder: where finished runs are kept.

    Returns:
        "steps"; "runs": number of images -> method -> what `train` returns; "summary" (`summarise`), "provenance".
    """
    seeds = list(range(n_seeds))
    runs: dict[str, dict[str, Any]] = {}
    for n in SIZES:
        for method in METHODS:
            runs.setdefault(str(n), {})[method] = kept(n, method, seeds, steps, Path(folder))
    clock = runs[str(SIZES[0])]["none"]["steps"]
    seconds = sum(one["wall_time_s"] for of_size in runs.values() for one in of_size.values())
    for of_size in runs.values():
        for one in of_size.values():
            del one["steps"], one["wall_time_s"]
    return {
        "steps": clock,
        "runs": runs,
        "summary": summarise(runs),
        "samples": SAMPLES,
        "provenance": stamp(seconds, seeds, packages=("torch", "numpy")),
    }


def summarise(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Number of images -> method -> "end" (median and range of the distance), "lowest" (median of each run's lowest),
    "rise" (seeds whose distance ends above 1.1 times its lowest), "copying" and, against no method at all, pairs at
    the end and at the lowest, with the p of a sign test."""
    table: dict[str, dict[str, Any]] = {}
    for n, methods in runs.items():
        base = np.array(methods["none"]["distance"])
        table[n] = {}
        for method, one in methods.items():
            distance = np.array(one["distance"])
            row: dict[str, Any] = {
                "end": spread(distance[-1]),
                "lowest": spread(distance.min(0)),
                "rise": int((distance[-1] > 1.1 * distance.min(0)).sum()),
                "copying": spread(np.array(one["copying"])[-1]),
            }
            if method != "none":
                row["pairs"] = compare(distance[-1], base[-1])
                row["pairs_lowest"] = compare(distance.min(0), base.min(0))
            if "augment_p" in one:
                row["p"] = spread(np.array(one["augment_p"])[-1])
            table[n][method] = row
    return table


def draw(result: dict[str, Any]) -> Figure:
    """Distances of all methods, a column for each number of images; below, D's three curves without any method."""
    use_style()
    figure, axes = plt.subplots(2, len(SIZES), figsize=(3.6 * len(SIZES), 5.8), sharex=True)
    steps = result["steps"]
    for (top, bottom), n in zip(axes.T, SIZES, strict=True):
        methods = result["runs"][str(n)]
        for method, one in methods.items():
            band(top, steps, np.array(one["distance"]), label=method, color=COLORS[method])
        for name, label, color in (
            ("d_train", "training images", "C0"),
            ("d_validation", "held-out images", "C1"),
            ("d_generated", "generated images", "C3"),
        ):
            band(bottom, steps, np.array(methods["none"][name]), label=label, color=color)
        top.set(yscale="log", title=f"{n:,} images")
        bottom.set(xlabel="generator steps")
    axes[0, 0].set_ylabel("Fréchet distance (features²)")
    axes[1, 0].set_ylabel("D's mean logit, no method")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(METHODS))
    axes[1, 0].legend(fontsize="small")
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
