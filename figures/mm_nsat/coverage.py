"""Figures 1, 8, 15, 16 and 17 of the sample-weighting paper have one protocol and differ in their costs.

Each figure's module names its costs; `compute` trains them with several seeds in one ensemble run, `draw` shows the
distance and the class divergence during training. Settings: "digits" takes minutes and needs nothing;
"mnist-fc4" and "mnist-conv4" are the paper's networks and need the MNIST files (GANKIT_DATA) and hours.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gankit as gk
from figures.mm_nsat import runs
from figures.mm_nsat.runs import Variant
from figures.provenance import command_line, stamp
from gankit.plotting import band, color_of
from gankit.scale import scale

SAMPLES = {"digits": 1_000}
"""Generated images per evaluation and replica; 2,000 where nothing is said (the paper takes 50,000)."""


def compute(
    variants: Mapping[str, Variant],
    setting: str = "",
    costs: str = "",
    n_seeds: int = 10,
    steps: int = 0,
    evaluations: int = 10,
    folder: str = "",
) -> dict[str, Any]:
    """Train all variants of a figure.

    Args:
        variants: name -> variant.
        setting: a key of `runs.SETTINGS`; "" takes "digits" at quick scale and "mnist-fc4" at full.
        costs: names of some of the variants, with commas between them; "" trains all.
        n_seeds: seeds 0..n_seeds-1 for every variant.
        steps: generator steps; 0 takes the recipe's.
        evaluations: how often samples are judged.
        folder: where checkpoints go; a run that finds one goes on from it. "" keeps none.

    Returns:
        What `runs.train` returns, with "setting", "samples", "names", "summary" (`runs.summarise`) and "provenance".
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits", full="mnist-fc4")
    if unknown := set(costs.split(",")) - {"", *variants}:
        raise ValueError(f"costs must be among {', '.join(variants)}, got {', '.join(sorted(unknown))}")
    names = [name for name in variants if not costs or name in costs.split(",")]
    seeds = list(range(n_seeds))
    samples = SAMPLES.get(setting, 2_000)
    result = runs.train(
        setting,
        {name: variants[name] for name in names},
        seeds,
        steps or runs.SETTINGS[setting].steps,
        evaluations=evaluations,
        samples=samples,
        log_every=5 if setting in SAMPLES else 50,
        out=Path(folder) if folder else None,
    )
    return result | {
        "setting": setting,
        "samples": samples,
        "names": names,
        "summary": runs.summarise(result, names),
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy")),
    }


def draw(
    result: Mapping[str, Any], variants: Mapping[str, Variant], colors: Mapping[str, str] | None = None
) -> Figure:
    """Left the distance, right D_JS of the classes, over training: median, minimum and maximum of the seeds.

    Args:
        result: of `compute`.
        variants: the same that were trained.
        colors: name -> colour, where a variant's cost has none of its own.
    """
    gk.plotting.use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    x, unit = time_axis(result)
    for name, variant in variants.items():
        style = {"label": variant.label, "color": (colors or {}).get(name) or color_of(name)}
        band(axes[0], x, np.array(result[name]["distance"], float), **style)
        band(axes[1], x, np.array(result[name]["divergence"], float), **style)
    space = "digits" if result["setting"].startswith("digits") else "MNIST"
    axes[0].set(yscale="log", xlabel=unit, ylabel=f"FD, {space} classifier (no unit)")
    axes[1].set(yscale="log", xlabel=unit, ylabel="$D_{JS}$ of classes (bits)")
    axes[1].axhline(perfect(result), color="black", ls=":", lw=0.8)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(variants), 6)
    )
    return figure


def time_axis(result: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Numbers `[T]` and label of the horizontal axis: epochs where training lasts longer than a few, else steps."""
    steps = np.array(result["steps"])
    if result["setting"].startswith("mnist"):
        return steps * (result["epochs"] / steps[-1]), "epochs"
    return steps, "generator steps"


def perfect(result: Mapping[str, Any], n_classes: int = 10) -> float:
    """D_JS in bits that a perfect generator scores on average with this many samples, (C - 1) / (8 n ln 2)."""
    return (n_classes - 1) / (8 * result["samples"] * np.log(2))


def main(
    variants: Mapping[str, Variant],
    draw_figure: Any,
    name: str,
    description: str,
    arguments: Sequence[str] | None = None,
) -> Path:
    """The command line of one of the figures."""
    return command_line(
        lambda **options: compute(variants, **options),
        draw_figure,
        name=name,
        description=description,
        options={
            "setting": ("digits", f"what to train: {', '.join(n for n in runs.SETTINGS if n[0] in 'dm')}"),
            "costs": ("", f"which costs, with commas between them: {','.join(variants)} (all)"),
            "n_seeds": (10, "seeds for each cost"),
            "steps": (0, "generator steps, 0 for the recipe's"),
            "evaluations": (10, "how often samples are judged"),
            "folder": ("", "where checkpoints go; a run that finds one there goes on from it"),
        },
        arguments=arguments,
    )
