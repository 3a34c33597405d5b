"""Sample-weighting paper, figure 6 and table 1: samples at the end of NS and MM-nsat runs, and their classes.

At quick scale the digits. At full scale the generators are those of a run of `fig08_class_coverage` with --folder: its
last checkpoint is read, nothing is trained. A result holds one small picture of tiled samples per cost and the share
of each class for every seed.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import gankit as gk
from figures.judging import of_classes
from figures.mm_nsat import coverage, runs
from figures.mm_nsat.runs import PAPER_COSTS
from figures.provenance import command_line, rounded, stamp
from gankit.models.sampling import sample
from gankit.plotting import color_of, tile
from gankit.scale import scale
from gankit.training import Trainer, checkpoints

COSTS = ("ns", "mm-nsat")

PAPER = {
    "ns": {"FID": 152, "D_JS": 0.56, "percent": (0, 75, 0, 0, 0, 0, 0, 15, 0, 10)},
    "mm-nsat": {"FID": 49.7, "D_JS": 0.15, "percent": (5, 45, 3, 4, 9, 5, 7, 12, 3, 8)},
}
"""Figure 6 and table 1: one run of each cost on MNIST with FC-4, after 1,000 epochs. The second row adds to 101."""

SHOWN = 64
"""Samples in a picture."""


def compute(
    setting: str = "",
    n_seeds: int = 10,
    steps: int = 0,
    samples: int = 10_000,
    seed: int = 0,
    folder: str = "",
    trained: str = "",
) -> dict[str, Any]:
    """Train both costs, or read them from a folder, and look at what the generators make.

    Args:
        setting: one of `coverage.SETTINGS`; "" takes "digits" at quick scale and "mnist-fc4" at full.
        n_seeds: seeds 0..n_seeds-1 for each cost; of a folder, those of its run.
        steps: generator steps; 0 takes the recipe's.
        samples: generated images that are classified, per generator.
        seed: whose samples are shown.
        folder: of a run of `fig08_class_coverage`; its last checkpoint is read and nothing is trained.
        trained: names of that run's costs, with commas between them; "" stands for all six.

    Returns:
        "steps" and "epochs" trained; for each cost "picture" (a PNG file in base64) and, per seed, "frequencies"
        `[S][10]`, "divergence", "distance" and "covered" `[S]`; "summary": for each cost the shown seed's shares in
        per cent, its D_JS and distance, and medians over the seeds; "setting", "samples", "shown_seed", "names" and
        "provenance".

    Raises:
        ValueError: the shown seed is not among the run's.
        gankit.files.CheckpointError: the folder holds no checkpoint, or one of other networks or costs.
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits", full="mnist-fc4")
    if folder:
        names = coverage.chosen(PAPER_COSTS, trained)
        run, seeds = _from_folder(setting, names, Path(folder))
    else:
        names, seeds = list(COSTS), list(range(n_seeds))
        run = runs.build(runs.SETTINGS[setting], [PAPER_COSTS[name] for name in names], seeds)
        run.fit(steps or runs.SETTINGS[setting].steps)
    if seed not in seeds:
        raise ValueError(f"seed must be one of the run's, {seeds}, got {seed}")
    # Copies of the weights, one generator at a time: all samples of all seeds together would not fit.
    generators = {
        cost: [run.G.replica(names.index(cost) * len(seeds) + i) for i in range(len(seeds))] for cost in COSTS
    }
    judge = of_classes(run.data)
    result: dict[str, Any] = {
        "setting": setting,
        "names": list(COSTS),
        "samples": samples,
        "shown_seed": seed,
        "steps": run.steps,
        "epochs": rounded(run.images / len(run.data)),
    }
    for cost in COSTS:
        rows = [judge(sample(G, samples)[None]) for G in generators[cost]]
        result[cost] = {key: rounded(torch.cat([row[key] for row in rows]).numpy(), 4) for key in rows[0]}
        result[cost]["picture"] = picture(sample(generators[cost][seeds.index(seed)], SHOWN))
    result["summary"] = {cost: summarise(result[cost], seeds.index(seed)) for cost in COSTS}
    result["provenance"] = stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy"))
    return result


def _from_folder(setting: str, names: Sequence[str], folder: Path) -> tuple[Trainer, list[int]]:
    """The run whose last checkpoint lies in a folder, and its seeds (each once)."""
    folder /= "run-0"  # its costs are one run
    found = checkpoints.latest(folder)
    if found is None:
        raise checkpoints.CheckpointError(f"{folder} holds no checkpoint")
    seeds = list(dict.fromkeys(checkpoints.read(found)["seeds"]))
    run = runs.build(runs.SETTINGS[setting], [PAPER_COSTS[name] for name in names], seeds)
    return run.load(found), seeds


def picture(images: Tensor) -> str:
    """Images `[N, C, H, W]` in [-1, 1] side by side, as a PNG file in base64."""
    file = io.BytesIO()
    Image.fromarray(tile(images)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def pixels(picture: str) -> np.ndarray:
    """The uint8 array that `picture` was made from."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def summarise(one: Mapping[str, Any], shown: int) -> dict[str, Any]:
    """The numbers that texts and ledgers quote, of one cost.

    Args:
        one: "frequencies", "divergence", "covered" and "distance" over the seeds.
        shown: index of the seed whose samples are shown.
    """
    shares = np.array(one["frequencies"])
    return {
        "percent": rounded(100 * shares[shown], 3),
        "D_JS": one["divergence"][shown],
        "distance": one["distance"][shown],
        "median_D_JS": rounded(np.median(one["divergence"])),
        "median_distance": rounded(np.median(one["distance"])),
        "median_covered": rounded(np.median(one["covered"])),
        "median_largest_percent": rounded(100 * np.median(shares.max(1)), 3),
        "median_smallest_percent": rounded(100 * np.median(shares.min(1)), 3),
    }


def table(result: Mapping[str, Any]) -> str:
    """Class frequencies in per cent, like the paper's table 1: the paper's rows, the shown seed's, and for every seed
    the shares sorted, averaged over the seeds (each seed drops other classes)."""
    rows = [
        (f"paper, {PAPER_COSTS[cost].label}", PAPER[cost]["percent"], PAPER[cost]["D_JS"]) for cost in COSTS
    ]
    for cost in COSTS:
        one = result["summary"][cost]
        rows.append((f"seed {result['shown_seed']}, {PAPER_COSTS[cost].label}", one["percent"], one["D_JS"]))
    lines = [f"{'class':22}" + "".join(f"{k:6}" for k in range(10)) + "   D_JS (bits)"]
    lines += [f"{name:22}" + "".join(f"{x:6.1f}" for x in values) + f"   {d:.3f}" for name, values, d in rows]
    lines.append(f"{'all seeds, sorted':22}" + "".join(f"{k:6}" for k in ["most", *[""] * 8, "least"]))
    for cost in COSTS:
        ranked = 100 * np.sort(np.array(result[cost]["frequencies"]), 1)[:, ::-1].mean(0)
        middle = result["summary"][cost]["median_D_JS"]
        lines.append(
            f"{PAPER_COSTS[cost].label:22}" + "".join(f"{x:6.1f}" for x in ranked) + f"   {middle:.3f}"
        )
    return "\n".join(lines)


def draw(result: Mapping[str, Any]) -> Figure:
    """Samples of the shown seed, and the shares of the classes of every seed."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), width_ratios=[1, 1, 1.3])
    for ax, cost in zip(axes, COSTS, strict=False):
        one = result["summary"][cost]
        ax.imshow(pixels(result[cost]["picture"]), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        ax.set_title(
            f"{PAPER_COSTS[cost].label}, seed {result['shown_seed']}: $D_{{JS}}$ = {one['D_JS']:.2f} bits"
        )
    for i, cost in enumerate(COSTS):
        ranked = 100 * np.sort(np.array(result[cost]["frequencies"]), 1)[:, ::-1]
        x = np.arange(10) + 0.2 * (2 * i - 1)
        axes[2].bar(x, ranked.mean(0), 0.38, color=color_of(cost), alpha=0.55, label=PAPER_COSTS[cost].label)
        for row in ranked:
            axes[2].plot(x, row, ".", color=color_of(cost), ms=3)
    axes[2].axhline(10, color="black", ls=":", lw=0.8)
    axes[2].set_xticks(range(10), [str(k + 1) for k in range(10)])
    axes[2].set(xlabel="rank of a class in its run", ylabel="share of samples (%)")
    axes[2].legend()
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
