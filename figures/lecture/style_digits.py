"""Lecture, "StyleGAN2", and the sample-weighting paper's table 4, on digits: a small StyleGAN2 and two others.

One has MM-nsat in the place of the non-saturating cost, one no path-length term; all else is equal, and seeds are
pairs. Measured are samples of the averaged generator, and how far steps in w move its pictures.
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
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.judging import judge
from figures.provenance import command_line, rounded, save, stamp
from gankit.game.path_length import path_lengths
from gankit.plotting import band, use_style
from gankit.streams import Streams
from gankit.training import Trainer

NO_PATHS = {"path_length": 0.0, "mean_path_length": 0.0}
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "StyleGAN2": ("stylegan2-digits", {}),
    "MM-nsat": ("stylegan2-digits", {"loss": "mm-nsat"}),
    "no path length": ("stylegan2-digits", NO_PATHS),
}
"""Name -> recipe and changes."""
COLORS = {"StyleGAN2": "#0072B2", "MM-nsat": "#D55E00", "no path length": "#009E73"}
AVERAGE = {"ema.half_life": 2_000.0}
"""In all variants: the papers' 10,000 images would be a third of these runs."""
SAMPLES = 1_797
LENGTHS = 256


def smoothness(run: Trainer) -> dict[str, Tensor]:
    """ "length", the mean path length of each replica's average over random w, and "unevenness", its deviation over
    its mean."""
    G = run.teacher.net
    streams = Streams(run.seeds, run.lead, run.device, "smoothness")
    z, y = streams.normal(LENGTHS, G.z_dim), streams.normal(LENGTHS, *run.data.shape)
    G.requires_grad_(True)  # a path length differentiates by w, which depends on the mapping's weights
    found = path_lengths(G, z, y).detach()
    G.requires_grad_(False)
    return {"length": found.mean(-1), "unevenness": found.std(-1) / found.mean(-1)}


def train(name: str, seeds: Sequence[int], steps: int, evaluations: int = 4) -> dict[str, Any]:
    """One variant, all seeds side by side.

    Returns:
        "steps" `[T]`; "distance" and "divergence" (`figures.judging`), "length" and "unevenness" (`smoothness`),
        `[T][S]` each; "wall_time_s".
    """
    recipe, changes = VARIANTS[name]
    data = gk.data.load("digits")
    measure = judge(data)

    def look(run: Trainer) -> dict[str, Tensor]:
        found = measure(run.teacher.sample(SAMPLES, seed=1).clamp(-1, 1))
        return {key: found[key] for key in ("distance", "divergence")} | smoothness(run)

    found = gk.study.run(
        recipe, {name: AVERAGE | changes}, seeds, steps, measures=[look], evaluations=evaluations, log_every=100,
        data=data, progress=False,
    )  # fmt: skip
    curves = found["curves"][name]
    kept = ("distance", "divergence", "length", "unevenness")
    return {
        "steps": found["steps"],
        **{key: rounded(np.array(curves[key]), 4) for key in kept},
        "wall_time_s": found["wall_time_s"],
    }


def compute(n_seeds: int = 6, steps: int = 400, kept: str = "") -> dict[str, Any]:
    """All variants, one after the other.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        steps: generator steps.
        kept: a folder where each variant's numbers are kept when it is done, and found when the command starts again.

    Returns:
        "variants": name -> what `train` returns; "summary": name -> median and range at the end of each number, and how
        it compares with StyleGAN2's, pair by pair; "provenance".
    """
    begun = time.perf_counter()
    seeds, variants = range(n_seeds), {}
    for name in VARIANTS:
        place = Path(kept) / f"{n_seeds}-{steps}-{name}.json"
        if kept and place.exists():
            variants[name] = json.loads(place.read_text("utf-8"))
            continue
        variants[name] = train(name, seeds, steps)
        if kept:
            save(variants[name], place)
    spent = sum(one["wall_time_s"] for one in variants.values())
    return {
        "variants": variants,
        "summary": summarise(variants),
        "provenance": stamp(max(spent, time.perf_counter() - begun), seeds, packages=("torch", "numpy")),
    }


def summarise(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Name -> number -> "median", "low", "high" at the end and, but for StyleGAN2's own, "below", "above", "p"."""
    table: dict[str, Any] = {}
    for name, one in variants.items():
        row = table.setdefault(name, {})
        for key in ("distance", "divergence", "length", "unevenness"):
            ends, other = np.array(one[key][-1]), np.array(variants["StyleGAN2"][key][-1])
            row[key] = {
                "median": rounded(np.median(ends), 4), "low": rounded(ends.min(), 4), "high": rounded(ends.max(), 4)
            }  # fmt: skip
            if name != "StyleGAN2":
                found = gk.study.compare(ends, other)
                row[key] |= {k: found[k] for k in ("below", "above", "p")}
    return table


def draw(result: dict[str, Any]) -> Figure:
    """The distance during training, its end for each seed, and the unevenness of path lengths."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for i, (name, one) in enumerate(result["variants"].items()):
        color = COLORS[name]
        band(axes[0], one["steps"], np.array(one["distance"]), label=name, color=color)
        for ax, key in zip(axes[1:], ("distance", "unevenness"), strict=True):
            ends = np.array(one[key][-1])
            ax.scatter(np.full(len(ends), i), ends, color=color, s=18, lw=0)
            ax.hlines(np.median(ends), i - 0.3, i + 0.3, color=color, lw=2)
    axes[0].set(xlabel="generator steps", ylabel="FD (classifier's features)", yscale="log")
    axes[0].legend(fontsize=7)
    axes[1].set(ylabel="FD at the end", yscale="log")
    axes[2].set(ylabel="path lengths: deviation / mean")
    for ax in axes[1:]:
        ax.set_xticks(
            range(len(result["variants"])), list(result["variants"]), rotation=20, ha="right", fontsize=8
        )
    return figure


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    command_line(compute, draw, threads=1)
