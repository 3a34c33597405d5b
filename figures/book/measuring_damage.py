"""What each metric sees: real digits, damaged in known ways, under twelve metrics.

Half of the digits are the reference, the other half are the samples: an honest generator, without any training. Then
the samples are damaged in one way at a time. A metric *sees* a damage if its value moves in the same direction for
every choice of the halves, and by more than it varies between choices. One row for each damage, one column for each
metric, five choices of the halves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

import gankit as gk
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.metrics.features import FeatureSpace
from gankit.plotting import use_style
from gankit.scale import scale

HONEST = "fresh digits"

METRICS = {
    "FD[pixels]": -1,
    "FD[classifier]": -1,
    "KD[classifier]": -1,
    "IS": 1,
    "precision": 1,
    "recall": 1,
    "density": 1,
    "coverage": 1,
    "intra-FD": -1,
    "D_JS": -1,
    "MS-SSIM": -1,
    "nearest": 1,
}
"""Metric -> 1 if more is taken for better, else -1. All but FD[pixels] and the last two see classifier features.

"MS-SSIM" is the similarity of two samples of a class, at 4 times the size. "nearest" is no common metric: the median
distance in pixels of a sample from the nearest reference image, in units of what it is for fresh digits.
"""

K = 5
PAIRS = 25
"""Neighbours of precision, recall, density and coverage; pairs of each class for MS-SSIM."""

LEVELS = (1, 3, 10, 30)
"""Edges of the colours, in ranges of the fresh digits' values."""


def blur(images: Tensor, side: float = 0.2) -> Tensor:
    """Average pixels `[N, 1, H, W]` with their neighbours: weights side, 1 - 2 side, side along both axes."""
    line = torch.tensor([side, 1 - 2 * side, side])
    kernel = (line[:, None] * line).expand(1, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel)


def shift(images: Tensor) -> Tensor:
    """Move images one pixel to the right; black comes in from the left."""
    return F.pad(images, (1, 0, 0, 0), value=-1.0)[..., :-1]


def shrink(images: Tensor, labels: Tensor, share: float = 0.5) -> Tensor:
    """Move each image by `share` of the way to the mean of its class."""
    means = torch.stack([images[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
    return images + share * (means[labels] - images)


def zoom(images: Tensor, factor: int = 4) -> Tensor:
    """Enlarge images `[N, C, H, W]` linearly, 8 x 8 pixels to 32 x 32 by default: MS-SSIM needs 16 at least."""
    return F.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=False)


def damages(
    fresh: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], generator: torch.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """Samples damaged in known ways.

    Args:
        fresh: images `[N, 1, 8, 8]` in [-1, 1] and labels `[N]` of digits that are not in the reference.
        reference: M images and their labels, M >= N.
        generator: of all random choices.

    Returns:
        Name -> images `[N, 1, 8, 8]` and the labels that were asked for, undamaged ones first.
    """
    images, labels = fresh
    n = len(images)

    def chosen(source: tuple[Tensor, Tensor], among: Tensor) -> tuple[Tensor, Tensor]:
        rows = among[torch.randint(len(among), (n,), generator=generator)]
        return source[0][rows], source[1][rows]

    first = torch.stack([(labels == label).nonzero()[0, 0] for label in range(10)])
    noise = torch.randn(images.shape, generator=generator)
    partner = torch.tensor([0, 1, 2, 8, 4, 5, 6, 7, 3, 9])
    return {
        HONEST: fresh,
        "copies of the reference": (reference[0][:n], reference[1][:n]),
        "90 copies, ten times each": chosen(reference, torch.arange(90)),
        "without 7, 8 and 9": chosen(fresh, (labels < 7).nonzero()[:, 0]),
        "one picture for each class": (images[first[labels]], labels),
        "halfway to the class mean": (shrink(images, labels), labels),
        "blurred": (blur(images), labels),
        "noise of sd 0.5": ((images + 0.5 * noise).clamp(-1, 1), labels),
        "shifted by a pixel": (shift(images), labels),
        "3 and 8 exchange labels": (images, partner[labels]),
        "nothing but noise": (noise.clamp(-1, 1), labels),
    }


def measure(
    samples: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], true: Tensor, space: FeatureSpace
) -> dict[str, float]:
    """Every metric of `METRICS`; NaN where it is not defined ("nearest" in pixels, before any normalisation).

    Args:
        samples, reference: images `[N, 1, 8, 8]` in [-1, 1] and labels `[N]`.
        true: features of the reference.
        space: the classifier's features and logits.
    """
    (x, y), (real, real_y) = samples, reference
    fake = space(x)
    logits = space.logits(fake)
    counts = metrics.prdc(true, fake, K)
    predicted = torch.bincount(logits.argmax(-1), minlength=10)
    fewest = int(torch.bincount(y, minlength=10).min())
    return {
        "FD[pixels]": float(metrics.frechet_distance(x.flatten(1), real.flatten(1))),
        "FD[classifier]": float(metrics.frechet_distance(fake, true)),
        "KD[classifier]": float(metrics.kernel_distance(fake, true)),
        "IS": float(metrics.inception_score(logits.softmax(-1), splits=1).mean),
        **{name: float(value) for name, value in counts.items()},
        "intra-FD": float(metrics.intra_class(metrics.frechet_distance, true, real_y, fake, y).mean)
        if fewest >= 2
        else float("nan"),
        "D_JS": float(metrics.class_divergence(predicted, torch.bincount(real_y, minlength=10))),
        "MS-SSIM": float(metrics.ms_ssim_diversity(zoom(x), y, pairs=PAIRS).mean)
        if fewest >= 2 * PAIRS
        else float("nan"),
        "nearest": float(torch.cdist(x.flatten(1), real.flatten(1)).amin(1).median()),
    }


def compute(n_splits: int | None = None) -> dict[str, Any]:
    """All damages and metrics, for several choices of the two halves.

    Args:
        n_splits: how many, with seeds 0..n_splits-1; 5 at quick scale and 20 at full.

    Returns:
        "values": damage -> metric -> its values, one for each split, None where it is not defined; "seen": damage ->
        metric -> `score`; "n", the samples of each half; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    seeds = list(range(scale(quick=5, full=20) if n_splits is None else n_splits))
    data = gk.data.load("digits")
    space = metrics.features.classifier("digits", train=True)
    images, half = data.normalise(data.images), len(data) // 2
    values: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data), generator=generator)
        reference, fresh = ((images[rows], data.labels[rows]) for rows in order[: 2 * half].split(half))
        true = space(reference[0])
        for damage, samples in damages(fresh, reference, generator).items():
            for metric, value in measure(samples, reference, true, space).items():
                values.setdefault(damage, {}).setdefault(metric, []).append(value)
    unit = np.array(values[HONEST]["nearest"])
    for row in values.values():
        row["nearest"] = (np.array(row["nearest"]) / unit).tolist()
    return {
        "values": {damage: {m: rounded(v) for m, v in row.items()} for damage, row in values.items()},
        "seen": {
            damage: {m: rounded(score(v, values[HONEST][m], m)) for m, v in row.items()}
            for damage, row in values.items()
        },
        "n": half,
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy")),
    }


def score(values: Sequence[float], honest: Sequence[float], metric: str) -> float:
    """How far a metric moves, in units of the range of its values for fresh digits; positive if for the worse.

    Differences are taken split by split, and their median is returned; 0 if they do not all have one sign. Between -1
    and 1 the metric is blind.
    """
    moved = METRICS[metric] * np.subtract(honest, values)
    if np.ptp(np.sign(moved)) > 0:
        return 0.0
    # "nearest" is 1 for fresh digits by definition, and has no range.
    return float(np.median(moved) / max(np.ptp(honest), 0.01 * abs(np.median(honest))))


def draw(result: dict[str, Any]) -> Figure:
    """Medians as numbers, with half the range over splits below; colours say what is seen, and as what."""
    use_style()
    rows, columns = list(result["values"]), list(METRICS)
    seen = np.array([[np.nan if (s := result["seen"][r][c]) is None else s for c in columns] for r in rows])
    edges = [-1e9, *(-level for level in LEVELS[::-1]), *LEVELS, 1e9]
    colors = [
        "#2166AC",
        "#4393C3",
        "#92C5DE",
        "#D1E5F0",
        "#FFFFFF",
        "#FEE0B6",
        "#FDB863",
        "#E08214",
        "#B35806",
    ]
    figure, ax = plt.subplots(figsize=(11, 6.2))
    picture = ax.imshow(
        np.ma.masked_invalid(seen), cmap=ListedColormap(colors), norm=BoundaryNorm(edges, 9), aspect="auto"
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            values = result["values"][row][column]
            if None in values:
                ax.text(j, i, "–", ha="center", va="center", fontsize=8)
                continue
            text = f"{_short(np.median(values))}\n±{_short(np.ptp(values) / 2)}"
            dark = abs(seen[i, j]) > LEVELS[2]
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    ax.set_xticks(
        range(len(columns)), [_label(c) for c in columns], rotation=35, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel("metric (arrow: the better direction)")
    ax.set_ylabel("samples")
    ax.grid(False)
    bar = figure.colorbar(picture, ax=ax, ticks=edges[1:-1], pad=0.01, aspect=40)
    bar.set_label("taken for better   |   not seen   |   taken for worse\n(ranges over splits)")
    return figure


def _label(metric: str) -> str:
    name = metric.replace("D_JS", "$D_{JS}$")
    return f"{name} {'↑' if METRICS[metric] > 0 else '↓'}"


def _short(value: float) -> str:
    size = abs(value)
    digits = 0 if size >= 20 else 1 if size >= 3 else 2 if size >= 0.1 else 3
    return f"{value:.{digits}f}"


if __name__ == "__main__":
    command_line(compute, draw)
