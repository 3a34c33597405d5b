"""LeakyEMA paper, figure 6: what the generator makes of one z during training, with and without LeakyEMA.

The two runs share initial weights, z and minibatches, and differ from step N on (beta = 0.5, N at 0.4 of the run), as
in the paper, where the conventional run goes on from a checkpoint at N. Beside the pictures stands how far a
picture moves from one frame to the next, in the features of this book's classifier: over many z, and for every seed.

Quick scale trains on the digits, in minutes; --setting cifar10-sngan (GANKIT_SCALE=full) needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.judging import classifier_of
from figures.leakyema import runs
from figures.leakyema.fig04_learning_curves import variants
from figures.leakyema.table02_variants import START
from figures.provenance import command_line, rounded
from gankit.classifiers import compute_features
from gankit.models.sampling import sample
from gankit.plotting import tile, use_style
from gankit.training import Trainer

SHOWN = 2
"""How many z have their pictures in the result, of the first seed."""

MOVING = 200
"""Over how many z the movement is averaged."""


def compute(setting: str = "", start: str = str(START), n_seeds: int = 6, **others: Any) -> dict[str, Any]:
    """Train both, keeping pictures at each judgement.

    Args:
        start: N as a share of all steps.
        setting, n_seeds, others: as for `runs.experiment`.

    Returns:
        What `runs.experiment` returns, with "shape" of a picture, "frames": for each variant the pictures of `SHOWN`
        z of the first seed, levels 0 to 255, `[T][SHOWN][pixels]`; and "moved": for each variant the mean squared
        distance in features between one frame and the next, `[T - 1][S]`.
    """
    images: dict[str, list[Tensor]] = {}

    def keep(run: Trainer, names: Sequence[str]) -> None:
        made = sample(run.G, MOVING).cpu().unflatten(0, (len(names), n_seeds))
        for name, one in zip(names, made, strict=True):
            images.setdefault(name, []).append(one)

    result = runs.experiment(variants(start), setting, n_seeds=n_seeds, frames=keep, **others)
    data = gk.data.load(runs.SETTINGS[result["setting"]].data)
    network = classifier_of(data)
    moved, frames = {}, {}
    for name, made in images.items():
        features = torch.stack([compute_features(network, one) for one in made])  # [T, S, MOVING, d]
        moved[name] = rounded(features.diff(dim=0).square().sum(-1).mean(-1).numpy(), 4)
        pixels = torch.stack([one[0, :SHOWN] for one in made]).clamp(-1, 1).add(1).mul(127.5).round()
        frames[name] = pixels.flatten(2).int().tolist()
    return result | {"shape": list(data.shape), "frames": frames, "moved": moved}


def draw(result: dict[str, Any]) -> Figure:
    """A row of pictures for each z and way of training, and how far pictures move between frames."""
    use_style()
    figure = plt.figure(figsize=(10, 4.8))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1])
    names = list(result["frames"])
    axes = top.subplots(len(names), 1)
    for ax, name in zip(axes, names, strict=True):
        levels = torch.tensor(result["frames"][name]).float()  # [T, SHOWN, pixels]
        ordered = levels.transpose(0, 1).reshape(-1, *result["shape"]) / 127.5 - 1
        ax.imshow(tile(ordered, columns=len(levels)), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        ax.set_title(variants()[name].label, loc="left", fontsize=9)
    _draw_movement(bottom.subplots(), result)
    return figure


def _draw_movement(ax: plt.Axes, result: dict[str, Any]) -> None:
    steps = np.array(result["steps"])
    for name, color in (("conventional", runs.CONVENTIONAL), ("leakyema", runs.LEAKY)):
        gk.plotting.band(
            ax,
            (steps[1:] + steps[:-1]) / 2,
            np.array(result["moved"][name], float),
            color=color,
            label=variants()[name].label,
        )
    ax.axvline(result["starts"]["leakyema"], color="black", lw=0.8, ls=":")
    ax.set(
        xlabel="generator steps",
        ylabel="squared distance of\nneighbouring frames (features)",
        yscale="log",
        xlim=(0, steps[-1] + steps[0]),
    )
    ax.legend()


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
