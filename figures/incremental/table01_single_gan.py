"""Incremental learning paper, table 1 and section 4.1: what helps a classifier that learns from one GAN's images.

Twelve columns: a fixed set of as many generated images as there are real ones, or new ones in every batch; with and
without transformations, filtering (p_t = 0.9) and truncation (psi = 1.5). Two real baselines, with the same number of
steps. On CIFAR-10 our narrow generators make hardly a picture that passes the filter, so its columns are left out there
and the share that passes is stored. The reverse: how many generated images a classifier of real ones gets right.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.incremental import runs
from figures.incremental.runs import WORLDS, World
from figures.provenance import command_line, rounded, save, stamp
from gankit.classifiers import synthetic
from gankit.classifiers.synthetic import FixedSet, Generated
from gankit.data import Dataset
from gankit.plotting import use_style

PSI, THRESHOLD = 1.5, 0.9
COLUMNS = {"plain": "", "T": "T", "F": "F", "psi": "Z", "TF": "TF", "TFpsi": "TFZ"}
"""Name -> what is on: T transformations, F filtering, Z truncation."""

PAPER = {
    "fixed plain": 62.26, "fixed T": 79.76, "fixed F": 67.98, "fixed psi": 59.35, "fixed TF": 83.84,
    "fixed TFpsi": 78.02,
    "fly plain": 59.48, "fly T": 84.25, "fly F": 66.50, "fly psi": 56.98, "fly TF": 88.56, "fly TFpsi": 83.85,
    "real T": 94.26,
}  # fmt: skip
"""Best accuracy in percent, on CIFAR-10."""

PAPER_REVERSE = {"plain": 94.17, "psi": 95.88}

ORDERINGS = {
    "transformations help (fixed)": ("fixed T", "fixed plain"),
    "transformations help (on the fly)": ("fly T", "fly plain"),
    "filtering helps (fixed)": ("fixed F", "fixed plain"),
    "filtering helps (on the fly)": ("fly F", "fly plain"),
    "truncation hurts (fixed)": ("fixed plain", "fixed psi"),
    "truncation hurts (on the fly)": ("fly plain", "fly psi"),
    "truncation hurts with T and F (fixed)": ("fixed TF", "fixed TFpsi"),
    "truncation hurts with T and F (on the fly)": ("fly TF", "fly TFpsi"),
    "on the fly is worse than fixed, alone": ("fixed plain", "fly plain"),
    "on the fly beats fixed, with T and F": ("fly TF", "fixed TF"),
    "real beats the best column": ("real T", "fly TF"),
}
"""What the paper's table says -> (the better column, the worse one)."""


def compute(
    world: str = "digits", n_seeds: int = 10, folder: str = "", G: nn.Module | None = None
) -> dict[str, Any]:
    """Train GANs and, for each column, a classifier for each.

    Args:
        world: a key of `runs.WORLDS`.
        n_seeds: seeds 0..n_seeds-1.
        folder: where checkpoints of the GANs and finished blocks of seeds go; a run that finds them goes on from there.
            "" keeps none.
        G: an ensemble of trained conditional generators of so many replicas; None trains.

    Returns:
        "last" and "best": column -> accuracy for each seed; "accepted": share passing the filter; "reverse";
        "orderings": of the last epoch's accuracy, each with wins, losses and p; "provenance". JSON-able.
    """
    begun, kept = time.perf_counter(), Path(folder) if folder else None
    setting, seeds = WORLDS[world], list(range(n_seeds))
    train, test = setting.load()
    judge = setting.judge(train, test)
    size = setting.block or n_seeds
    blocks = []
    for start in range(0, n_seeds, size):
        own = seeds[start : start + size]
        done = kept and kept / f"columns-{own[0]}-{own[-1]}.json"
        if done and done.exists():
            blocks.append(json.loads(done.read_text("utf-8")))
            continue
        since = time.perf_counter()
        at = kept and (kept if size == n_seeds else kept / f"seed-{own[0]}")
        gans = setting.generators(train, own, at) if G is None else G
        block = _columns(setting, gans, judge, train, test, own) | {"seconds": time.perf_counter() - since}
        if done:
            save(block, done)
        blocks.append(block)
    parts = {
        name: _joined([block[name] for block in blocks]) for name in ("last", "best", "accepted", "reverse")
    }
    earlier = sum(block["seconds"] for block in blocks)
    return {
        "world": world,
        **parts,
        "judge": rounded(_accuracy(judge, test.normalise(test.images), test.labels)),
        "orderings": orderings(parts["last"]),
        "provenance": stamp(
            max(earlier, time.perf_counter() - begun), seeds, packages=("torch", "numpy", "scipy")
        ),
    }


def _joined(blocks: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Name -> values of all seeds."""
    return {name: [value for block in blocks for value in block[name]] for name in blocks[0]}


def _columns(
    setting: World, G: nn.Module, judge: nn.Module, train: Dataset, test: Dataset, seeds: list[int]
) -> dict[str, Any]:
    """ "last", "best", "accepted" and "reverse" of some seeds, whose generators are given."""
    trained = {}
    accepted: dict[str, Any] = {}
    for column, on in COLUMNS.items():
        if "F" in on and not setting.filtered:
            continue
        source = _source(setting, G, judge, on)
        made = FixedSet(
            *_source(setting, G, judge, on, buffer=len(train)).draw(len(train)), setting.lead(seeds)
        )
        for name, images in (("fixed", made), ("fly", source)):
            trained[f"{name} {column}"] = runs.learn(setting, images, test, seeds, transformed="T" in on)
        if "F" in on:
            accepted[column] = rounded(source.share_accepted.reshape(-1).numpy())
    if not setting.filtered:
        accepted["F"] = rounded(_passing(judge, *_source(setting, G, judge, "").draw(1_000)).reshape(-1))
    for name in ("real plain", "real T"):
        real = FixedSet.real(train, setting.lead(seeds))
        trained[name] = runs.learn(setting, real, test, seeds, transformed=name == "real T")
    return {
        "last": {name: rounded(t.last.reshape(-1).numpy()) for name, t in trained.items()},
        "best": {name: rounded(t.best.reshape(-1).numpy()) for name, t in trained.items()},
        "accepted": accepted,
        "reverse": _reverse(G, judge),
    }


def orderings(rows: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Each ordering of the paper's table whose columns are there, with the paired comparison that it names."""
    known = {what: pair for what, pair in ORDERINGS.items() if set(pair) <= set(rows)}
    return {what: runs.compare(rows[a], rows[b]) for what, (a, b) in known.items()}


def _source(setting: World, G: nn.Module, judge: nn.Module, on: str, buffer: int = 1_000) -> Generated:
    return Generated(
        G,
        judge=judge if "F" in on else None,
        threshold=THRESHOLD,
        truncation=PSI if "Z" in on else None,
        buffer=buffer,
        precision=setting.precision,
    )


def _reverse(G: nn.Module, judge: nn.Module) -> dict[str, Any]:
    """Share of generated images that the classifier of real ones gets right, for each seed."""
    sources = {"plain": Generated(G), "psi": Generated(G, truncation=PSI)}
    return {
        name: rounded(_accuracy(judge, *source.draw(1_000)).reshape(-1)) for name, source in sources.items()
    }


@torch.no_grad()
def _passing(judge: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Share of images that the filter would let through, one for each replica."""
    p, predicted = judge(images.flatten(0, -4)).softmax(-1).max(-1)
    good = (predicted == labels.flatten()) & (p >= THRESHOLD)
    return good.reshape(labels.shape).double().mean(-1).numpy()


def _accuracy(judge: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    return 1 - synthetic.mistakes(judge, images, labels).double().mean(-1).numpy()


def draw(result: dict[str, Any]) -> Figure:
    """A column for each way: dots are seeds, bars means; lines are the real baselines."""
    use_style()
    figure, ax = plt.subplots(figsize=(8, 3.2))
    columns = [column for column in COLUMNS if f"fixed {column}" in result["last"]]
    for offset, name, color in ((-0.16, "fixed", "#0072B2"), (0.16, "fly", "#D55E00")):
        for i, column in enumerate(columns):
            values = np.array(result["last"][f"{name} {column}"]) * 100
            ax.scatter(np.full(len(values), i + offset), values, s=10, color=color, alpha=0.5, lw=0)
            ax.hlines(values.mean(), i + offset - 0.13, i + offset + 0.13, color=color, lw=2,
                      label={"fixed": "fixed set", "fly": "on the fly"}[name] if i == 0 else None)  # fmt: skip
    for name, style in (("real plain", "-"), ("real T", ":")):
        label = {"real plain": "real", "real T": "real, transformed"}[name]
        ax.axhline(100 * np.mean(result["last"][name]), color="black", lw=1, ls=style, label=label)
    names = {"plain": "as they are", "psi": "ψ", "TF": "T, F", "TFpsi": "T, F, ψ"}
    ax.set_xticks(range(len(columns)), [names.get(column, column) for column in columns])
    ax.set(xlabel="T transformed, F filtered, ψ truncated", ylabel="test accuracy (%)")
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
