"""Nine costs on one protocol: the ring of Gaussians and the digits, with equal budgets and equal tuning.

Every cost plays with the same generator, the same initial weights, z and data, seed by seed, and a discriminator of the
same width (BEGAN's is an autoencoder). What belongs to a cost (its penalty's strength, clipping, its optimiser) is that
of its paper and is not tuned. What is tuned is the same for all: the learning rate and the discriminator's steps per
step of the generator, `GRID`, six settings of equal length counted in updates of either network, all with the same ten
seeds. On the ring the score is W1 between 500 samples and 500 points of the data, exactly; on digits the Frechet
distance in the book's classifier's features.

A cost's score on a seed is that of the setting which is best on the *other* nine seeds, so that no seed chooses what it
judges. Costs are compared pair by pair, over the twenty pairs of both worlds. Rows are kept in a folder as they are
done, so that an interrupted run goes on.

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
from gankit.plotting import color_of, dots, use_style
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
TUNING = tuple(range(100, 110))
BLOCK = 5
"""Seeds trained side by side; blocks are kept one by one."""
SAMPLES = 500
REFERENCE = "NS"


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


def tune(world: str, cost: str, n_dis: int, seeds: Sequence[int]) -> dict[str, Any]:
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


def joined(blocks: Sequence[Mapping[str, list[float] | None]]) -> dict[str, list[float] | None]:
    """Scores of several blocks of seeds as one; a setting that failed in any has failed."""
    return {
        lr: None if None in (parts := [block[lr] for block in blocks]) else list(itertools.chain(*parts))
        for lr in blocks[0]
    }


def best(
    rows: Mapping[str, Mapping[str, Sequence[float] | None]], without: int | None = None
) -> tuple[str, str]:
    """The setting of the lowest median: number of D's steps and learning rate, as texts.

    Args:
        rows: number of D's steps -> learning rate -> scores `[S]`, None where a cost became infinite.
        without: index of a seed that does not count.
    """
    medians = {
        (n, lr): np.median(np.delete(scores, [] if without is None else without))
        for n, row in rows.items()
        for lr, scores in row.items()
        if scores is not None
    }
    return min(medians, key=medians.__getitem__)


def held_out(rows: Mapping[str, Mapping[str, Sequence[float] | None]]) -> np.ndarray:
    """Each seed's score with the setting that is best on the others, `[S]`; infinite if it failed there."""
    seeds = next(len(one) for row in rows.values() for one in row.values() if one is not None)
    scores = []
    for i in range(seeds):
        n, lr = best(rows, without=i)
        scores.append(rows[n][lr][i])
    return np.array(scores)


def summarise(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """What the text quotes, of world -> cost -> rows.

    Returns:
        World -> cost -> "scores" (`held_out`) and their spread, "chosen" (on all seeds) and "seeds_below", in how many
        seeds the cost is below `REFERENCE`; and under "both" cost -> pairs of all worlds below and above, with p; under
        "ends" their scores.
    """
    found: dict[str, Any] = {world: {} for world in tuning}
    for world, costs in tuning.items():
        reference = held_out(costs[REFERENCE])
        for cost, rows in costs.items():
            scores = held_out(rows)
            n, lr = best(rows)
            found[world][cost] = {
                "scores": rounded(scores),
                **{key: rounded(value) for key, value in study.spread(scores).items()},
                "chosen": {"lr": float(lr), "n_dis": int(n)},
                "seeds_below": int((scores < reference).sum()),
            }
    ends = {cost: np.concatenate([held_out(tuning[w][cost]) for w in tuning]) for cost in ZOO}
    pairs = {cost: study.compare(ends[cost], ends[REFERENCE]) for cost in ZOO if cost != REFERENCE}
    # A ratio of medians of two different scores would mean nothing.
    found["both"] = {
        cost: {"seeds_below": row["below"], "seeds_above": row["above"], "p": rounded(row["p"])}
        for cost, row in pairs.items()
    }
    found["ends"] = {cost: rounded(values) for cost, values in ends.items()}
    return found


def compute(folder: str = "runs/loss_zoo") -> dict[str, Any]:
    """Try all settings of all costs on both worlds.

    Args:
        folder: where finished rows are kept.

    Returns:
        "tuning" (world -> cost -> D's steps -> learning rate -> scores), "summary" (`summarise`) and "operations"
        (world -> cost -> those of one step of each network, over `REFERENCE`'s); JSON-able. The time that it states is
        the processor's, of all rows, also of those that were there.
    """
    seconds = 0.0
    tuning: dict[str, Any] = {world: {cost: {} for cost in ZOO} for world in WORLDS}
    for world, cost, n_dis in itertools.product(WORLDS, ZOO, N_DIS):
        blocks = [TUNING[i : i + BLOCK] for i in range(0, len(TUNING), BLOCK)]
        rows = [
            _kept(
                folder,
                f"{world}-{cost}-{n_dis}-{block[0]}",
                lambda w=world, c=cost, n=n_dis, b=block: tune(w, c, n, b),
            )
            for block in blocks
        ]
        tuning[world][cost][str(n_dis)] = joined([row["scores"] for row in rows])
        seconds += sum(row["seconds"] for row in rows)
    return {
        "tuning": tuning,
        "summary": summarise(tuning),
        "operations": {world: operations(world) for world in WORLDS},
        "budget": BUDGET,
        "samples": SAMPLES,
        "provenance": stamp(seconds, TUNING, ("torch", "numpy", "scipy")),
    }


def _kept(folder: str, name: str, make: Callable[[], Any]) -> dict[str, Any]:
    """What a part returned ("scores") and its seconds, from a file if it was done before."""
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = time.process_time()
        write_json(path, {"scores": make(), "seconds": time.process_time() - begun})
    return json.loads(path.read_text())


def operations(world: str) -> dict[str, float]:
    """Products and sums of one step of D and one of G, over those of `REFERENCE` (`gankit.recipes.operations`)."""
    each = {cost: of_recipe(recipe(world).changed(changes(cost, 1e-3, 1))).step for cost in ZOO}
    return {cost: rounded(count / each[REFERENCE], 3) for cost, count in each.items()}


# --- Pictures ----------------------------------------------------------------------------------------------------


def colour(cost: str) -> str:
    """That of the cost everywhere; a penalty keeps its cost's."""
    return color_of(ZOO[cost]["loss"])


def draw(result: Mapping[str, Any]) -> Figure:
    """A panel for each world: every seed's score with the setting that is best on the others, a dash at the median."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, world in zip(axes, WORLDS, strict=True):
        rows = result["summary"][world]
        dots(ax, {cost: np.array(rows[cost]["scores"]) for cost in ZOO}, [colour(cost) for cost in ZOO])
        ax.set(yscale="log", ylabel=LABELS[world], title=world)
    return figure


def draw_tuning(result: Mapping[str, Any]) -> Figure:
    """A panel for each world: medians of the six settings of each cost, circles for one step of D, crosses for four."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, world in zip(axes, WORLDS, strict=True):
        for i, (cost, rows) in enumerate(result["tuning"][world].items()):
            for n_dis, marker in zip(map(str, N_DIS), "ox", strict=True):
                middles = [np.median(scores) for scores in rows[n_dis].values() if scores is not None]
                ax.plot([i] * len(middles), middles, marker, color=colour(cost))
        ax.set_xticks(range(len(ZOO)), list(ZOO), rotation=40, ha="right", fontsize=8)
        ax.set(yscale="log", ylabel=LABELS[world], title=world)
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
