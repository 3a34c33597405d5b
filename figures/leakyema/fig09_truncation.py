"""LeakyEMA paper, figures 9 and 15: precision over recall, and FD over Inception Score, while truncation varies.

    python -m figures.leakyema.fig09_truncation                                  # two small GANs on digits, paired
    python -m figures.leakyema.fig09_truncation --run runs/baseline,runs/leaky   # any runs of `gankit train`

Without --run, a fully connected conditional GAN is trained on digits with LeakyEMA and without, on paired seeds. The
averaged generators are sampled with all |z| below a limit. The limits are the paper's, 0.3 to 1 and
no truncation. (The paper does not say what its truncation values are. In the PyTorch code of BigGAN that it uses, a
sweep changes the standard deviation of z and cuts nothing off.)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import gankit as gk
from figures.book.measuring_truncation import N_CLASSES, Z_DIM, LabelledDiscriminator, LabelledGenerator
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.data import Dataset
from gankit.device import pick_device
from gankit.metrics.features import FeatureSpace
from gankit.models.sampling import Sampler
from gankit.plotting import use_style
from gankit.recipes import open_run
from gankit.training import Trainer

LIMITS = (None, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Largest |z|; None is no truncation."""

NAMES = ("FD", "IS", "precision", "recall")
K = 5
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(frozen=True, eq=False)
class Player:
    """A generator to be measured: a network, or an ensemble of one network for each seed."""

    net: nn.Module
    data: Dataset
    seeds: tuple[int, ...]


def players(run: str = "", data: str = "", seeds: int = 5, steps: int = 2_000) -> dict[str, Player]:
    """The averaged generators of runs, or of two small GANs that are trained now.

    Args:
        run: folders of `gankit train`, separated by commas; empty trains on digits.
        data: name of the data set to compare with (`gankit.data.load`); empty takes what the first run was trained on.
        seeds, steps: for the small GANs: seeds 0..seeds-1 and generator steps.

    Raises:
        CheckpointError: a folder holds no checkpoint, or one without a recipe.
        ValueError: data of another shape than a generator's samples.
    """
    if not run:
        return train(seeds, steps)
    found = {}
    for folder in run.split(","):
        trainer = open_run(folder, needs_data=not data)
        reference = gk.data.load(data) if data else trainer.data
        if reference.shape != trainer.data.shape:
            raise ValueError(
                f"data {data!r} has the shape {reference.shape}, the samples of {folder} {trainer.data.shape}"
            )
        found[folder] = Player(trainer.teacher.net, reference, tuple(trainer.seeds))
    return found


def train(seeds: int, steps: int) -> dict[str, Player]:
    """A conditional GAN on digits (MM-nsat, minibatches of 32), without LeakyEMA and with it from a quarter on."""
    data = gk.data.load("digits")
    pixels = data.images[0].numel()
    found = {}
    for name, beta in (("baseline", 0.0), ("LeakyEMA", 0.5)):
        G = LabelledGenerator(
            lambda seed: gk.models.mlp(data.shape, Z_DIM + N_CLASSES, 3, seed=seed)[0], range(seeds)
        )
        D = LabelledDiscriminator(
            lambda seed: gk.models.mlp((pixels + N_CLASSES,), depth=4, seed=seed)[1], range(seeds)
        )
        run = Trainer(
            G,
            D,
            data,
            loss="mm-nsat",
            batch_size=32,
            g_optimizer=gk.Adam(lr=1e-3),
            d_optimizer=gk.Adam(lr=1e-3),
            ema=gk.EMA(0.99),
            leak=gk.Leak(beta=beta, start=steps // 4) if beta else None,
        )
        found[name] = Player(run.fit(steps).teacher.net, data, tuple(range(seeds)))
    return found


def space_of(data: Dataset) -> FeatureSpace:
    """The classifier of the data where the book has one, otherwise the Inception network if its weights are here.

    Raises:
        DataError: there is neither; the message says where the weights would have to lie.
    """
    if data.name in gk.classifier.RECIPES:
        return metrics.features.classifier(data.name, train=True)
    return metrics.features.inception()


@torch.no_grad()
def seen(images: Tensor, space: FeatureSpace, batch_size: int = 500) -> Tensor:
    """Features `[*lead, N, d]` of images `[*lead, N, C, H, W]`, batch by batch, on the CPU."""
    return torch.cat(
        [space(batch).cpu() for batch in images.split(batch_size, images.ndim - 4)], images.ndim - 4
    )


def scores(player: Player, space: FeatureSpace, n: int) -> dict[str, list[list[float]]]:
    """`NAMES` -> limits x seeds, of n samples each against all images (at most n of them for neighbours)."""
    device = next(player.net.parameters()).device
    real = seen(player.data.normalise(player.data.images), space)
    some = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:n]]
    found: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    for limit in LIMITS:
        batches = Sampler(player.net, 1, truncation=limit).batches(n, 500)
        fake = torch.cat([seen(images.to(device), space) for images, _ in batches], -2)
        fake = fake if fake.ndim == 3 else fake[None]
        near = [metrics.precision_recall(some, one, K) for one in fake]
        classes = space.logits(fake.to(device)).softmax(-1).cpu()
        found["FD"].append([float(metrics.frechet_distance(one, real)) for one in fake])
        found["IS"].append(metrics.inception_score(classes, splits=1).mean.tolist())
        found["precision"].append([float(one.precision) for one in near])
        found["recall"].append([float(one.recall) for one in near])
    return found


def better(
    curve: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], x: str, y: str, sign: int = 1
) -> list[float | None]:
    """For each seed, the share of the x that both curves reach at which the first has the better y.

    Args:
        curve, other: name -> limits x seeds; between limits the curves are straight.
        x, y: names.
        sign: 1 where more of y is better, -1 where less is.

    Returns:
        Shares in [0, 1]; None where the curves have no x in common.
    """
    found = []
    for a, b, c, d in zip(curve[x].T, curve[y].T, other[x].T, other[y].T, strict=True):
        low, high = max(a.min(), c.min()), min(a.max(), c.max())
        at = np.linspace(low, high, 101)
        mine, theirs = (np.interp(at, x[x.argsort()], y[x.argsort()]) for x, y in ((a, b), (c, d)))
        found.append(float((sign * mine > sign * theirs).mean()) if low < high else None)
    return found


def compute(
    run: str = "", data: str = "", n: int = 2_000, seeds: int = 5, steps: int = 2_000
) -> dict[str, Any]:
    """Curves of every player.

    Args:
        run, data, seeds, steps: see `players`.
        n: samples at each limit.

    Returns:
        "limits"; "space", the name of the feature space; "players": name -> `NAMES` -> limits x seeds; "summary":
        for the second player against the first, if there are two with equally many seeds, the share of recalls at which
        its precision is higher and of Inception Scores at which its FD is lower, as medians and by seed, and the number
        of seeds with a better FD and with more recall without truncation; "settings"; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    of = players(run, data, seeds, steps)
    space = space_of(next(iter(of.values())).data)
    found = {name: scores(player, space, n) for name, player in of.items()}
    arrays = [{name: np.array(v) for name, v in values.items()} for values in found.values()]
    summary = {}
    if len(arrays) == 2 and arrays[0]["FD"].shape == arrays[1]["FD"].shape:
        first, second = arrays
        shares = {
            "higher_precision": better(second, first, "recall", "precision"),
            "lower_fd": better(second, first, "IS", "FD", -1),
        }
        known = {
            name: [share for share in of_seeds if share is not None] for name, of_seeds in shares.items()
        }
        summary = {
            **{name: rounded(np.median(of_seeds)) if of_seeds else None for name, of_seeds in known.items()},
            "by_seed": {name: [s if s is None else rounded(s) for s in v] for name, v in shares.items()},
            "better_fd": int((second["FD"][0] < first["FD"][0]).sum()),
            "more_recall": int((second["recall"][0] > first["recall"][0]).sum()),
        }
    return {
        "limits": list(LIMITS),
        "space": space.name,
        "players": {p: {name: rounded(v, 4) for name, v in values.items()} for p, values in found.items()},
        "summary": summary,
        "settings": {
            "run": run,
            "data": next(iter(of.values())).data.name,
            "n": n,
            "steps": None if run else steps,
        },
        "provenance": stamp(
            time.perf_counter() - begun,
            next(iter(of.values())).seeds,
            ("torch", "numpy"),
            None if pick_device("auto").type == "cpu" else torch.cuda.get_device_name(),
        ),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Figure 9 (left) and figure 15 (right): thin lines are seeds, thick ones medians over them."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
    space = result["space"]
    for (name, of), color in zip(result["players"].items(), COLORS, strict=False):
        values = {key: np.array(of[key]) for key in NAMES}
        for ax, x, y in ((axes[0], "recall", "precision"), (axes[1], "IS", "FD")):
            ax.plot(values[x], values[y], color=color, lw=0.5, alpha=0.5)
            ax.plot(*(np.median(values[key], axis=1) for key in (x, y)), "o-", ms=4, color=color, label=name)
    axes[0].set(xlabel="recall (share)", ylabel="precision (share)")
    axes[1].set(xlabel=f"IS[{space}] (classes)", ylabel=f"FD[{space}] (squared units)")
    axes[0].legend(loc="lower left")
    return figure


if __name__ == "__main__":
    command_line(compute, draw, players, threads=1)
