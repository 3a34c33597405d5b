"""A study after Kurach et al. 2019: regularisers of D x costs, each with a random search over the lecture's ranges.

Settings are drawn once, and all cells of the table try the same ones: learning rate, betas and steps of D are equal,
and a strength is at the same quantile of its range. Every setting runs with every seed, on the digits or on MNIST, for
equally many generator steps. A cell is one call of `gankit.study.run`, kept in a folder when it is done; started again,
the command goes on with the next one.

What is judged: the distribution of the best 5 % of the runs, as in the lecture's figures; the share of runs that fail,
which are those that diverge or end farther from the data than they began; and whether the order of the cells would be
the same again, by Kendall's tau between seeds and between halves of the settings.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau

import gankit as gk
from figures.judging import Judge
from figures.provenance import command_line, rounded, save, stamp
from gankit import classifiers
from gankit.models.sampling import sample
from gankit.plotting import color_of, use_style
from gankit.recipes import Networks, Recipe
from gankit.training import Trainer

BASE = Recipe(
    "lipschitz-digits",
    "a small fully connected GAN on the digits, for the study of regularisers",
    networks=Networks("mlp", z_dim=16, depth=3, width=48),
    batch_size=32,
)
WORLDS = {"digits": BASE, "mnist": BASE.changed({"name": "lipschitz-mnist", "data": "mnist", "width": 64})}
"""The same small GAN on either; that of MNIST is a little wider."""
REGULARISERS = ("none", "GP", "DR", "SN", "LN", "BN", "L2")
"""The lecture's six, and nothing, to compare with."""
COSTS = {"ns": "NS", "ls": "LS", "wgan": "WGAN"}
BASELINE = "RpGAN+R1+R2"
"""The modern baseline, beside the table: one cost, and two penalties of one strength."""
CELLS = ((BASELINE, "rpgan"), *itertools.product(REGULARISERS, COSTS))

MEASURE = "FD"
"""The Frechet distance in the features of the world's classifier."""
SAMPLES, REAL = 500, 10_000
DIVERGED = 1e6
"""Stands for the distance of a run that diverged, where settings are compared in pairs: farther than any."""
STEPS = 600
BEST = 0.05
"""Share of the settings whose distribution is looked at."""


class Unfinished(SystemExit):
    """The time that was given is over; the same command goes on."""


def settings(n: int, seed: int = 0) -> list[dict[str, float]]:
    """n settings from the ranges of the lecture's tables 1 and 2.

    Returns:
        For each "lr", log-uniform in [1e-5, 1e-2]; "beta1" and "beta2", uniform in [0, 1); "n_dis", 1 and 5 in turn;
        "quantile" of the range of a strength, uniform in [0, 1).
    """
    rng = np.random.default_rng(seed)
    rows = rng.uniform(size=(n, 4))
    return [
        {"lr": 10 ** (-5 + 3 * a), "beta1": b, "beta2": c, "n_dis": (1, 5)[i % 2], "quantile": d}
        for i, (a, b, c, d) in enumerate(rows.tolist())
    ]


def changes(regulariser: str, cost: str, setting: Mapping[str, float]) -> dict[str, Any]:
    """What a cell and a setting change of `BASE`. Strengths are log-uniform in [0.1, 100], that of L2 in [1e-4, 10]."""
    strength, of_l2 = 10 ** (-1 + 3 * setting["quantile"]), 10 ** (-4 + 5 * setting["quantile"])
    own: dict[str, dict[str, Any]] = {
        "none": {},
        "GP": {"wgan_gp": strength},
        "DR": {"dragan": strength},
        "SN": {"normalisation": "spectral"},
        "LN": {"normalisation": "layer"},
        "BN": {"normalisation": "batch"},
        "L2": {"l2": of_l2},
        BASELINE: {"r1": strength, "d_terms.r2.gamma": strength},
    }
    return {"loss": cost, **own[regulariser]} | {k: v for k, v in setting.items() if k != "quantile"}


def measure(run: Trainer) -> dict[str, torch.Tensor]:
    """The Fréchet distance of every replica's samples, `[S]`; NaN where they are no numbers."""
    x = sample(run.G, SAMPLES)
    sound = x.flatten(1).isfinite().all(1)
    found = judge_of(run.data.name)(x.nan_to_num())["distance"]
    return {MEASURE: torch.where(sound, found, torch.nan)}


@cache
def judge_of(name: str) -> Judge:
    """What judges pictures like those of a data set, against its first `REAL`."""
    data, network = gk.data.load(name), classifiers.load(name, train=True)
    real = classifiers.compute_features(network, data.normalise(data.images[:REAL]))
    return Judge(network, real, data.class_frequencies())


def search(
    world: str, cell: tuple[str, str], tried: Sequence[Mapping[str, float]], seeds: Sequence[int], steps: int
) -> list[list[float]]:
    """A cell: the distances at the end, `[settings, seeds]`; None for a run that diverged."""
    result = gk.study.run(
        WORLDS[world],
        {str(i): changes(*cell, setting) for i, setting in enumerate(tried)},
        seeds,
        steps,
        measures=[measure],
        evaluations=1,
        log_every=steps,
        survive=True,
        progress=False,
    )
    return [rounded(np.array(one[MEASURE][-1], float), 4) for one in result["curves"].values()]


def start(world: str, seeds: Sequence[int]) -> list[float]:
    """The distance before training, of each seed."""
    return rounded(measure(WORLDS[world].build(seeds, device="cpu"))[MEASURE].numpy(), 4)


def compute(
    world: str = "digits",
    n_settings: int = 60,
    n_seeds: int = 2,
    steps: int = STEPS,
    minutes: float = 9.5,
    folder: str = "runs/regularisers",
) -> dict[str, Any]:
    """All cells.

    Args:
        world: a key of `WORLDS`.
        n_settings: settings tried in each cell.
        n_seeds: seeds 0..n_seeds-1 of each setting.
        steps: generator steps of a run.
        minutes: after which no new cell is begun.
        folder: where cells are kept.

    Returns:
        "world"; "settings"; "start" `[seeds]`; "distance", cell "regulariser cost" -> `[settings, seeds]`;
        "of_settings", means over the seeds `[settings]`; "summary"; "seconds", CPU time of each cell.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begun, tried, seeds = time.perf_counter(), settings(n_settings), list(range(n_seeds))
    kept: dict[str, dict[str, Any]] = {}
    for regulariser, cost in CELLS:
        name = f"{regulariser} {cost}"
        path = Path(folder) / f"{world}-{name.replace(' ', '-')}-{n_settings}-{n_seeds}-{steps}.json"
        if not path.exists():
            if time.perf_counter() - begun > 60 * minutes:
                raise Unfinished(f"{len(kept)} of {len(CELLS)} cells are done; the same command goes on")
            clock = time.process_time()
            found = search(world, (regulariser, cost), tried, seeds, steps)
            path.parent.mkdir(parents=True, exist_ok=True)
            save({"distance": found, "seconds": round(time.process_time() - clock, 1)}, path)
            print(f"{name}: {time.process_time() - clock:.0f} s", flush=True)
        kept[name] = json.loads(path.read_text())
    result = {
        "world": world,
        "settings": [{key: rounded(value, 4) for key, value in one.items()} for one in tried],
        "start": start(world, seeds),
        "steps": steps,
        "samples": SAMPLES,
        "distance": {name: one["distance"] for name, one in kept.items()},
        "of_settings": {name: of_settings(one["distance"]) for name, one in kept.items()},
        "seconds": {name: one["seconds"] for name, one in kept.items()},
    }
    total = sum(result["seconds"].values())
    return result | {
        "summary": summarise(result),
        "provenance": stamp(total, seeds, ("torch", "numpy", "scipy")),
    }


def of_settings(distance: Sequence[Sequence[float | None]]) -> list[float]:
    """One number for each setting, the mean over its seeds, which are no independent pairs; see `DIVERGED`."""
    return [
        rounded(np.mean([DIVERGED if one is None else one for one in row], dtype=float)) for row in distance
    ]


# --- What it says -------------------------------------------------------------------------------------------------


def distances(result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Cell -> distances `[settings, seeds]`; infinite for a run that diverged."""
    return {
        name: np.array([[np.inf if x is None else x for x in row] for row in rows], float)
        for name, rows in result["distance"].items()
    }


def best(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best 5 % of the settings by each seed: their distances, and those of the same settings with the other seeds.

    Args:
        values: `[settings, seeds]`.

    Returns:
        `[seeds * k]` each, sorted together by the first: what a search finds, and what it is worth when run again.
    """
    k = max(1, round(BEST * len(values)))
    found, again = [], []
    for seed in range(values.shape[1]):
        rows = np.argsort(values[:, seed], kind="stable")[:k]
        found.append(values[rows, seed])
        again.append(np.delete(values, seed, 1)[rows].mean(1) if values.shape[1] > 1 else values[rows, seed])
    order = np.argsort(np.concatenate(found), kind="stable")
    return np.concatenate(found)[order], np.concatenate(again)[order]


def ranking(tables: Mapping[str, np.ndarray]) -> np.ndarray:
    """A score for each cell, by which they are ordered: the median of the best 5 %."""
    return np.array([np.median(best(values)[0]) for values in tables.values()])


def summarise(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the chapter and the ledger quote.

    Returns:
        "cells": for each the median of the best 5 %, that of the same settings "again" with the other seed, the share
        that "fails", and that of "good" runs, whose distance is at most twice the best cell's median; "unstable", the
        number of cells in which any run fails; "pairs": runs of equal setting and seed in which one cell is below
        another, with p; "tau": rank correlations of the cells between seeds and between halves of the settings.
    """
    tables, begin = distances(result), np.array(result["start"])
    scores = ranking(tables)
    cells = {}
    for name, values in tables.items():
        found, again = best(values)
        cells[name] = {
            "best": rounded(np.median(found), 4),
            "lowest": rounded(found[0], 4),
            "highest": rounded(found[-1], 4),
            "again": rounded(np.median(again), 4),
            "fails": rounded((values >= begin).mean(), 4),
            "good": rounded((values <= 2 * scores.min()).mean(), 4),
        }
    unstable = sum(one["fails"] > 0 for one in cells.values())
    return {"cells": cells, "unstable": unstable, "pairs": _pairs(tables), "tau": _stability(tables)}


def _pairs(tables: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Runs of equal setting and seed, one against another, by names of cells "a < b"."""
    wanted = [(f"SN {cost}", f"{other} {cost}") for cost in COSTS for other in REGULARISERS if other != "SN"]
    wanted += [(f"{one} ns", f"{one} {cost}") for one in REGULARISERS for cost in ("ls", "wgan")]
    wanted += [(f"{BASELINE} rpgan", f"{one} ns") for one in REGULARISERS]
    rows = {}
    for a, b in (pair for pair in wanted if tables.keys() >= set(pair)):
        below, above = int((tables[a] < tables[b]).sum()), int((tables[a] > tables[b]).sum())
        rows[f"{a} < {b}"] = {"below": below, "above": above, "p": rounded(gk.study.sign_test(below, above))}
    return rows


def _stability(tables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Kendall's tau of the order of the cells between parts of the runs."""

    def tau(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = kendalltau(ranking(one), ranking(other))
        return {"tau": rounded(found.statistic, 4), "p": rounded(found.pvalue, 3)}

    seeds = next(iter(tables.values())).shape[1]
    halves = [{k: v[:, half] for k, v in tables.items()} for half in np.array_split(np.arange(seeds), 2)]
    n = len(next(iter(tables.values())))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(200):
        order = rng.permutation(n)
        a, b = ({k: v[part] for k, v in tables.items()} for part in np.array_split(order, 2))
        drawn.append(kendalltau(ranking(a), ranking(b)).statistic)
    low, middle, high = np.quantile(drawn, (0.05, 0.5, 0.95))
    return {
        "seeds": tau(*halves),
        "settings": {"tau": rounded(middle, 4), "from": rounded(low, 4), "to": rounded(high, 4)},
    }


def draw(result: Mapping[str, Any]) -> Figure:
    """Left: the best 5 % in each cell; right: the share of runs that fail."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2))
    tables, cells = distances(result), result["summary"]["cells"]
    places = [*REGULARISERS, "RpGAN\n+R1+R2"]
    for j, (cost, label) in enumerate({**COSTS, "rpgan": "RpGAN"}.items()):
        for i, regulariser in enumerate((*REGULARISERS, BASELINE)):
            if (name := f"{regulariser} {cost}") not in tables:
                continue
            x = i if cost == "rpgan" else i + 0.25 * (j - 1)
            found = best(tables[name])[0]
            color = color_of(cost)
            mark = label if i == 0 or cost == "rpgan" else None
            left.plot([x] * len(found), found, ".", color=color, ms=5, label=mark)
            left.plot([x - 0.1, x + 0.1], [np.median(found)] * 2, "-", color=color, lw=1.5)
            right.bar(x, 100 * cells[name]["fails"], 0.22, color=color)
    left.set(
        yscale="log",
        ylabel=f"FD[{result['world']} classifier]",
        xlabel="regulariser, best 5 % of its settings",
    )
    right.set(ylabel="runs that fail (%)", xlabel="regulariser, all runs")
    for ax in (left, right):
        ax.set_xticks(range(len(places)), places, fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
