"""Nine costs on one protocol: the ring of Gaussians and the digits, with equal budgets and equal tuning.

Every cost plays with the same generator, the same initial weights, z and data, seed by seed, and a discriminator of the
same width (BEGAN's is an autoencoder). What belongs to a cost (its penalty's strength, clipping, its optimiser) is that
of its paper and is not tuned. What is tuned is the same for all: the learning rate and the discriminator's steps per
step of the generator, `GRID`, six settings of equal length counted in updates of either network, each tried with the
seeds `TUNING`. The best median goes on to fresh seeds, on which costs are compared pair by pair. On the ring the score
is W1 between 500 samples and 500 points of the data, exactly; on digits the Frechet distance in the book's classifier's
features. Rows are kept in a folder as they are done, so that an interrupted run goes on.

The comparison of chapter 3. It takes about forty minutes on one core.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import gankit as gk
from figures.judging import judge
from figures.provenance import command_line, rounded, stamp
from gankit import study
from gankit.data import Dataset
from gankit.files import write_json
from gankit.models.sampling import sample
from gankit.plotting import band, color_of, dots, use_style
from gankit.recipes import Recipe, recipes
from gankit.recipes.operations import of_recipe
from gankit.training import Diverged, Trainer

WORLDS = ("ring", "digits")
SCORE = {"ring": "W1", "digits": "distance"}
"""World -> the number by which settings are chosen and costs compared; less is better."""
LABELS = {"ring": "$W_1$ to the data", "digits": "FD[digits classifier]"}

ZOO: Mapping[str, Mapping[str, Any]] = {
    "MM": {"loss": "mm"},
    "NS": {"loss": "ns"},
    "WGAN": {"loss": "wgan", "clip": 0.01, "optimizer": "rmsprop"},
    "WGAN-GP": {"loss": "wgan", "wgan_gp": 10.0, "beta1": 0.0, "beta2": 0.9},
    "LS": {"loss": "ls"},
    "hinge": {"loss": "hinge"},
    "DRAGAN": {"loss": "ns", "dragan": 10.0},
    "BEGAN": {
        "loss": "began",
        "model": "began-mlp",
        "d_depth": None,
        "rules.began_balance.gamma": 0.5,
        "rules.began_balance.rate": 0.01,
    },
    "RpGAN+R1+R2": {"loss": "rpgan", "r1": 0.1, "d_terms.r2.gamma": 0.1},
}
"""Cost -> what it changes of the recipe. BEGAN's rate is ten times the paper's, for runs that are far shorter; the
strength of R1 and R2 is our choice, since the papers' depend on the data."""

RATES = (3e-4, 1e-3, 3e-3)
N_DIS = (1, 4)
GRID = tuple(itertools.product(RATES, N_DIS))
BUDGET = 8_000
"""Updates of either network in a run."""
TUNING = tuple(range(100, 105))
SAMPLES = 500
REFERENCE = "NS"
EVALUATIONS = 8


def recipe(world: str) -> Recipe:
    """The setting in which all costs play: networks, minibatch and data of the non-saturating recipe."""
    return recipes[f"ns-{world}"]


def changes(cost: str, lr: float, n_dis: int) -> dict[str, Any]:
    """What a cost with a setting of the grid changes of the recipe."""
    return {**ZOO[cost], "lr": lr, "n_dis": n_dis}


def wasserstein(a: Tensor, b: Tensor) -> float:
    """W1 between two samples `[N, d]` of equal size, exactly: the cheapest assignment, per point."""
    distance = torch.cdist(a.double(), b.double()).numpy()
    return float(distance[linear_sum_assignment(distance)].mean())


def measure(world: str, data: Dataset) -> Callable[[Trainer], dict[str, Tensor]]:
    """What judges a run: `figures.judging.judge` of its samples, and on the ring W1."""
    look = judge(data)
    real = data.images[:: len(data) // SAMPLES][:SAMPLES]

    def one(run: Trainer) -> dict[str, Tensor]:
        x = sample(run.G, SAMPLES if world == "ring" else 1_000)
        found = {key: value for key, value in look(x).items() if key != "frequencies"}
        if world == "ring":
            found["W1"] = torch.tensor([wasserstein(each, real) for each in x])
        return found

    return one


def train(
    world: str,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    evaluations: int,
    budget: int = BUDGET,
) -> dict[str, Any]:
    """Variants of one number of D's steps, side by side, for `budget` updates (`gankit.study.run`)."""
    (n_dis,) = {change["n_dis"] for change in variants.values()}
    data = gk.data.load(recipe(world).data)
    return study.run(
        recipe(world), variants, seeds, budget // (1 + n_dis), measures=[measure(world, data)],
        evaluations=evaluations, log_every=100, data=data, progress=False, device="cpu",
    )  # fmt: skip


# --- The two halves ----------------------------------------------------------------------------------------------


def tune(world: str, cost: str, n_dis: int, seeds: Sequence[int] = TUNING) -> dict[str, Any]:
    """The score at the end of every learning rate, `[S]` each; None where a cost became infinite.

    Returns:
        Learning rate, as a text -> scores.
    """
    variants = {f"{lr:g}": changes(cost, lr, n_dis) for lr in RATES}
    try:
        return _scores(world, train(world, variants, seeds, 1))
    except Diverged:
        pass
    found: dict[str, Any] = {}
    for name, change in variants.items():  # one by one: only the guilty one counts as failed
        try:
            found |= _scores(world, train(world, {name: change}, seeds, 1))
        except Diverged:
            found[name] = None
    return found


def _scores(world: str, result: Mapping[str, Any]) -> dict[str, list[float]]:
    return {name: rounded(curves[SCORE[world]][-1]) for name, curves in result["curves"].items()}


def best(rows: Mapping[str, Mapping[str, Sequence[float] | None]]) -> dict[str, float]:
    """The setting of the lowest median: "lr" and "n_dis".

    Args:
        rows: number of D's steps, as a text -> learning rate, as a text -> scores.
    """
    medians = {
        (float(lr), int(n)): np.inf if scores is None else float(np.median(scores))
        for n, row in rows.items()
        for lr, scores in row.items()
    }
    lr, n_dis = min(medians, key=medians.__getitem__)
    return {"lr": lr, "n_dis": n_dis}


def race(
    world: str,
    chosen: Mapping[str, Mapping[str, float]],
    seeds: Sequence[int],
    evaluations: int = EVALUATIONS,
) -> dict[str, Any]:
    """All costs, each with its chosen setting: cost -> "updates" `[T]` and curves `[T][S]`."""
    found: dict[str, Any] = {}
    for n_dis in N_DIS:
        variants = {
            cost: changes(cost, setting["lr"], n_dis)
            for cost, setting in chosen.items()
            if setting["n_dis"] == n_dis
        }
        if not variants:
            continue
        result = train(world, variants, seeds, evaluations)
        for cost, curves in result["curves"].items():
            kept = {name: rounded(np.array(curves[name], float), 4) for name in study.scalars(result)}
            found[cost] = {"updates": [step * (1 + n_dis) for step in result["steps"]], **kept}
            if "began_k" in curves:
                found[cost]["k"] = rounded(np.array(curves["began_k"], float)[::4], 3)
    return {cost: found[cost] for cost in chosen}


def summarise(world: str, curves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cost -> median and range of the score at the end, of what else was measured, and pairs against `REFERENCE`."""
    reference = np.array(curves[REFERENCE][SCORE[world]], float)[-1]
    table: dict[str, dict[str, Any]] = {}
    for cost, one in curves.items():
        ends = np.array(one[SCORE[world]], float)[-1]
        row = {key: rounded(value) for key, value in study.spread(ends).items()}
        for other in ("covered", "divergence", "outside"):
            if other in one:
                row[other] = rounded(np.median(np.array(one[other], float)[-1]))
        if cost != REFERENCE:
            row |= {key: rounded(value) for key, value in study.compare(ends, reference).items()}
        table[cost] = row
    return table


def compute(seeds: int = 20, folder: str = "runs/loss_zoo") -> dict[str, Any]:
    """Tune all costs on both worlds, then compare them on fresh seeds.

    Args:
        seeds: seeds 0..seeds-1 of the comparison.
        folder: where finished rows are kept.

    Returns:
        World -> "tuning" (cost -> D's steps -> learning rate -> scores), "chosen", "curves", "summary" and "operations"
        (of all updates of a run, over those of `REFERENCE` at one step of D); JSON-able.
    """
    begun, fresh = time.perf_counter(), list(range(seeds))
    result: dict[str, Any] = {}
    for world in WORLDS:
        tuning: dict[str, Any] = {}
        for cost, n_dis in itertools.product(ZOO, N_DIS):
            row = _kept(folder, f"{world}-{cost}-{n_dis}", lambda w=world, c=cost, n=n_dis: tune(w, c, n))
            tuning.setdefault(cost, {})[str(n_dis)] = row
        chosen = {cost: best(rows) for cost, rows in tuning.items()}
        curves = _kept(folder, f"{world}-race-{seeds}", lambda w=world, c=chosen: race(w, c, fresh))
        result[world] = {
            "tuning": tuning,
            "chosen": chosen,
            "curves": curves,
            "summary": summarise(world, curves),
            "operations": operations(world),
        }
    protocol = {"budget": BUDGET, "samples": SAMPLES, "tuning_seeds": list(TUNING)}
    return (
        result
        | protocol
        | {"provenance": stamp(time.perf_counter() - begun, fresh, ("torch", "numpy", "scipy"))}
    )


def _kept(folder: str, name: str, make: Callable[[], Any]) -> Any:
    """What a part returned, from a file if it was done before."""
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, make())
    return json.loads(path.read_text())


def operations(world: str) -> dict[str, float]:
    """Products and sums of one step of D and one of G, over those of `REFERENCE` (`gankit.recipes.operations`)."""
    each = {cost: of_recipe(recipe(world).changed(changes(cost, 1e-3, 1))).step for cost in ZOO}
    return {cost: rounded(count / each[REFERENCE], 3) for cost, count in each.items()}


# --- Pictures ----------------------------------------------------------------------------------------------------

DASHES = {"WGAN": "-", "WGAN-GP": "--", "NS": "-", "DRAGAN": "--"}
"""Costs with one colour differ by their line: solid for the plain one."""


def colour(cost: str) -> str:
    """That of the cost everywhere; a penalty keeps its cost's."""
    return color_of(ZOO[cost]["loss"])


def draw(result: Mapping[str, Any]) -> Figure:
    """A row for each world: the score over the updates (medians, and quartiles as bands), and each seed at the end."""
    use_style()
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.4), width_ratios=(1, 1.25))
    for (left, right), world in zip(axes, WORLDS, strict=True):
        curves = result[world]["curves"]
        for cost in ZOO:
            one = curves[cost]
            band(
                left, np.array(one["updates"]), np.array(one[SCORE[world]], float), label=cost, color=colour(cost),
                quantiles=(0.25, 0.75),
            )  # fmt: skip
            left.lines[-1].set_linestyle(DASHES.get(cost, "-"))
        left.set(
            xlabel="updates of either network",
            ylabel=LABELS[world],
            yscale="log",
            title=f"{world}: over training",
        )
        ends = {cost: np.array(curves[cost][SCORE[world]], float)[-1] for cost in ZOO}
        dots(right, ends, [colour(cost) for cost in ZOO])
        right.set(yscale="log", ylabel=LABELS[world], title=f"{world}: every seed at the end")
        right.tick_params("x", rotation=35)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
