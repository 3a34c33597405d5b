"""Sample-weighting paper, figures 9 and 10: how the generator's gradients of NS, MM and MM-nsat compare along a run.

Runs are driven by each of the three costs. At regular steps the gradients of all three are computed from one and the
same batch, whichever of them the run follows: their relative norms and the cosines of the angles between them, with
the Frechet distance of the samples beside them. At quick scale on the digits, in the saturating setting or, with
--setting digits, in one where NS drops classes; with --setting mnist-fc4 on MNIST.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

import gankit as gk
from figures.judging import judge
from figures.mm_nsat import gradients, runs
from figures.mm_nsat.runs import PAPER_COSTS
from figures.provenance import command_line, rounded, stamp
from gankit.models.sampling import sample
from gankit.plotting import band, color_of
from gankit.scale import scale
from gankit.training import Trainer

DRIVERS = {name: PAPER_COSTS[name] for name in ("ns", "mm", "mm-nsat")}
REFERENCES = ("ns", "mm")
"""The costs that MM-nsat is compared with: figure 9 and figure 10."""

BATCH = 128
"""Samples from which the gradients are compared, the paper's batch size."""

SAMPLES = 1_000
"""Generated images per evaluation and replica."""

COMPARISONS = 60
EVALUATIONS = 12
"""How often gradients are compared and samples judged; the first divides into the second."""


def compute(setting: str = "", n_seeds: int = 10, steps: int = 0) -> dict[str, Any]:
    """Train with each of the three costs and compare gradients on the way.

    Args:
        setting: a key of `runs.SETTINGS` with pictures; "" takes "digits-saturating" at quick scale and "mnist-fc4"
            at full.
        n_seeds: seeds 0..n_seeds-1 for every cost; they share weights, z and data.
        steps: generator steps, at least 60; 0 takes the recipe's, or 8 epochs of MNIST.

    Returns:
        "log_steps" `[T']` of the comparisons and "steps" `[T]` of the judgements; per driving cost, for ref in
        `REFERENCES`, "cos_<ref>" and "norm_<ref>" `[T'][S]` (cosine of MM-nsat's gradient with ref's, and its norm
        over ref's), and what `runs.train` returns; "summary" (`summarise`), "setting", "samples", "epochs" and
        "provenance".

    Raises:
        ValueError: too few steps.
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits-saturating", full="mnist-fc4")
    recipe = runs.SETTINGS[setting]
    steps, _ = gradients.length(setting, steps)
    if steps < COMPARISONS:
        raise ValueError(f"steps must be at least {COMPARISONS}, got {steps}")
    every = steps // COMPARISONS
    rarely = every * (COMPARISONS // EVALUATIONS)
    data = gk.data.load(recipe.data)
    measure = judge(data)
    trained = gk.study.run(
        recipe,
        runs.changes(DRIVERS),
        range(n_seeds),
        every * COMPARISONS,
        measures=[lambda run: measure(sample(run.G, SAMPLES))],
        every=rarely,
        log_every=every,
        callback=comparison(n_seeds),
        callback_every=every,
        data=data,
    )
    result = runs.curves(trained, len(data))
    for name in DRIVERS:  # norms and logits of the run itself are the business of figures 5 and 12
        result[name] = {
            key: values for key, values in result[name].items() if not key.endswith(("_grad", "_logit"))
        }
    return result | {
        "setting": setting,
        "samples": SAMPLES,
        "summary": summarise(result),
        "provenance": stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy")),
    }


def comparison(n_seeds: int) -> Callable[[Trainer], dict[str, Tensor]]:
    """A callback that compares the generator's gradients of MM-nsat with those of `REFERENCES`, on one batch.

    Args:
        n_seeds: S; replicas of one seed share the z of the comparison.

    Returns:
        A function from an ensemble run of all costs and seeds to "cos_<ref>" and "norm_<ref>", float64, one number per
        replica.
    """
    generator = torch.Generator().manual_seed(0)

    def compare(run: Trainer) -> dict[str, Tensor]:
        z = torch.randn(n_seeds, BATCH, run.G.z_dim, generator=generator)
        logits = run.D(run.G(z.repeat(run.lead[0] // n_seeds, 1, 1).to(run.device)))
        rows = {}
        for name in (*REFERENCES, "mm-nsat"):
            cost = gk.losses[name].g_loss(logits).sum()
            parts = torch.autograd.grad(cost, run.g_params, retain_graph=True)
            rows[name] = torch.cat([part.flatten(1) for part in parts], 1).double()
        ours, result = rows["mm-nsat"], {}
        for name in REFERENCES:
            # Of unit length first: a product of two vanished gradients would underflow.
            lengths = rows[name].norm(dim=1), ours.norm(dim=1)
            result[f"norm_{name}"] = lengths[1] / lengths[0]
            result[f"cos_{name}"] = cosine_similarity(
                rows[name] / lengths[0][:, None], ours / lengths[1][:, None]
            )
        return result

    return compare


def summarise(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the text and the ledger quote, for each driving cost.

    Returns:
        "cos_ns_early" and "cos_ns_late", medians over seeds of the mean cosine of NS and MM-nsat in the first and the
        last tenth, and "cos_ns_fell", the number of seeds in which it fell from the one to the other; "cos_mm_min",
        the smallest cosine of MM and MM-nsat; for both references "norm_<ref>_min" and "norm_<ref>_max" over all
        steps and seeds; "norm_ns_within_10", the share of comparisons in which the norms of NS and MM-nsat are within a
        factor of ten of each other; "distance", the median Frechet distance at the end.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in DRIVERS:
        curves = {
            key: np.array(result[name][key], float) for key in ("cos_ns", "cos_mm", "norm_ns", "norm_mm")
        }
        tenth = max(1, len(curves["cos_ns"]) // 10)
        early, late = curves["cos_ns"][:tenth].mean(0), curves["cos_ns"][-tenth:].mean(0)
        ratio = curves["norm_ns"]
        table[name] = {
            "cos_ns_early": rounded(np.median(early), 3),
            "cos_ns_late": rounded(np.median(late), 3),
            "cos_ns_fell": int((late < early).sum()),
            "cos_mm_min": rounded(curves["cos_mm"].min(), 7),
            "norm_ns_within_10": rounded(((ratio > 0.1) & (ratio < 10)).mean(), 4),
            "distance": rounded(np.median(np.array(result[name]["distance"])[-1])),
        }
        for ref in REFERENCES:
            values = curves[f"norm_{ref}"]
            table[name] |= {
                f"norm_{ref}_min": rounded(values.min(), 3),
                f"norm_{ref}_max": rounded(values.max(), 3),
            }
    return table


def draw(result: Mapping[str, Any]) -> Figure:
    """One column per driving cost: cosines, relative norms, the Frechet distance; medians and ranges of the seeds."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(3, len(DRIVERS), figsize=(8, 5), sharex=True, sharey="row")
    mnist = result["setting"].startswith("mnist")
    unit = "epochs" if mnist else "generator steps"
    factor = result["epochs"] / result["steps"][-1] if mnist else 1
    at, judged = (np.array(result[key]) * factor for key in ("log_steps", "steps"))
    for name, column in zip(DRIVERS, axes.T, strict=True):
        for ref in REFERENCES:
            style = {"label": f"MM-nsat and {DRIVERS[ref].label}", "color": color_of(ref)}
            band(column[0], at, np.array(result[name][f"cos_{ref}"], float), **style)
            band(column[1], at, np.array(result[name][f"norm_{ref}"], float), **style)
        band(column[2], judged, np.array(result[name]["distance"], float), color=color_of(name))
        column[0].set_title(f"trained with {DRIVERS[name].label}")
        column[1].axhline(1, color="black", lw=0.8, ls=":")
        column[2].set(xlabel=unit)
    labels = ("cosine (no unit)", "norm ratio (no unit)", "FD (no unit)")
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label)
    axes[1, 0].set_yscale("log")
    axes[2, 0].set_yscale("log")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
