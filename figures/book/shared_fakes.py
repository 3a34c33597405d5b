"""What it costs, and what it saves, to let G learn from the samples that D has just seen (`share_fakes`).

Twenty paired seeds on the digits with two costs, and the operations of a step of the papers' networks with and without.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gankit as gk
from figures.provenance import command_line, rounded, spread, stamp
from gankit.plotting import color_of, use_style
from gankit.recipes import operations, recipes

COSTS = {"ns": "ns-digits", "mm-nsat": "mm-nsat-digits"}
LARGE = ("sngan-church128", "wgangp-church128", "biggan-cifar10", "biggan-imagenet128")
DISTANCE = "FD[digits classifier]"


def compute(n_seeds: int = 20, steps: int = 2_000) -> dict[str, Any]:
    """Distances at the end of both ways of training, and operations.

    Args:
        n_seeds: paired seeds 0..n_seeds-1.
        steps: generator steps.

    Returns:
        A JSON-able dict: `curves` of distances `[T, S]`, `pairs` (how often sharing was lower at the end, with the p of
        a sign test) and `operations`, the share of a step's that sharing saves.
    """
    begun = time.perf_counter()
    variants = {"new": {}, "shared": {"share_fakes": True}}
    curves, pairs = {}, {}
    for cost, name in COSTS.items():
        seeds = range(n_seeds)
        result = gk.study.run(
            name, variants, seeds, steps, measures=["fd"], network="teacher", progress=False, device="cpu"
        )
        at = {variant: np.array(result["curves"][variant][DISTANCE]) for variant in variants}
        curves[cost] = {variant: rounded(x) for variant, x in at.items()}
        new, shared = at["new"][-1], at["shared"][-1]
        lower, higher = int((shared < new).sum()), int((shared > new).sum())
        p = gk.study.sign_test(lower, higher)
        pairs[cost] = {
            "shared_lower": lower, "shared_higher": higher, "p": rounded(p), "new": spread(new),
            "shared": spread(shared),
        }  # fmt: skip
    return {
        "setting": {"recipes": COSTS, "steps": steps, "judged": result["steps"]},
        "curves": curves,
        "pairs": pairs,
        "saved": {name: rounded(saved(name)) for name in LARGE},
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy")),
    }


def saved(name: str) -> float:
    """The share of a step's counted operations that a recipe does without when it shares fakes."""
    one = recipes[name]
    return 1 - operations.of_recipe(one.changed({"share_fakes": True})).step / operations.of_recipe(one).step


def draw(result: dict[str, Any]) -> Figure:
    """Distances at the end, a line for each seed."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(6, 3), sharey=True)
    for ax, (cost, curves) in zip(axes, result["curves"].items(), strict=True):
        ends = [curves[variant][-1] for variant in ("new", "shared")]
        ax.plot([0, 1], np.array(ends), color=color_of(cost), alpha=0.5, marker="o", ms=3, lw=1)
        ax.set(xticks=[0, 1], xticklabels=["new samples", "shared"], xlim=(-0.3, 1.3), title=cost)
    axes[0].set_ylabel("FD[digits classifier] of the average")
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
