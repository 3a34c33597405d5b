"""A small class-conditional GAN on digits under truncation: more precision, less recall, and what other metrics say.

Generator and discriminator are fully connected and read the label beside their input. Samples come from latent vectors
with all |z| below a limit (`gankit.models.sampling.truncated_normal`), of the generator itself and of its moving
average.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

import gankit as gk
from figures.book.measuring_damage import zoom
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.metrics.features import FeatureSpace
from gankit.models.ensemble import Ensemble
from gankit.models.sampling import sample
from gankit.plotting import use_style
from gankit.scale import scale
from gankit.training import Trainer

LIMITS = (None, 2.0, 1.0, 0.5)
"""Largest |z|; None is no truncation."""

NAMES = ("FD", "intra-FD", "IS", "precision", "recall", "density", "coverage", "D_JS", "MS-SSIM")
PLAYERS = ("generator", "teacher")
SAMPLES = 1_000
K = 5
Z_DIM = 16
N_CLASSES = 10


class LabelledGenerator(Ensemble):
    """G(z, label): an ensemble of plain generators whose input is z and the label as a vector of length 3.

    `replica` gives one of the plain generators, without labels of its own: its input has both parts.
    """

    n_classes = N_CLASSES
    z_dim = Z_DIM

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Images `[S, N, *shape]` of z `[S, N, Z_DIM]` and labels int64 `[S, N]`."""
        return super().forward(torch.cat([z, 3 * F.one_hot(labels, N_CLASSES).to(z)], -1))


class LabelledDiscriminator(Ensemble):
    """D(x, label): an ensemble of plain discriminators whose input are the pixels and the label as a unit vector."""

    n_classes = N_CLASSES

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Logits `[S, N]` of images `[S, N, *shape]` and labels int64 `[S, N]`."""
        return super().forward(torch.cat([x.flatten(-3), F.one_hot(labels, N_CLASSES).to(x)], -1))


def train(n_seeds: int | None = None, steps: int | None = None) -> Trainer:
    """Train the GANs with MM-nsat, one for each seed.

    Args:
        n_seeds: seeds 0..n_seeds-1; 5 at quick scale and 10 at full.
        steps: generator steps; 2,000 at quick scale and 10,000 at full.
    """
    n_seeds = scale(quick=5, full=10) if n_seeds is None else n_seeds
    data = gk.data.load("digits")
    pixels = data.images[0].numel()
    G = LabelledGenerator(
        lambda seed: gk.models.mlp(data.shape, z_dim=Z_DIM + N_CLASSES, depth=3, seed=seed)[0], range(n_seeds)
    )
    D = LabelledDiscriminator(
        lambda seed: gk.models.mlp((pixels + N_CLASSES,), depth=4, seed=seed)[1], range(n_seeds)
    )
    adam = {"g_optimizer": gk.Adam(lr=1e-3), "d_optimizer": gk.Adam(lr=1e-3)}
    run = Trainer(G, D, data, loss="mm-nsat", batch_size=32, **adam)
    run.fit(scale(quick=2_000, full=10_000) if steps is None else steps)
    return run


def compute(
    run: Trainer | None = None, n_seeds: int | None = None, steps: int | None = None
) -> dict[str, Any]:
    """Metrics of both players at every limit, of `SAMPLES` samples with the labels of so many digits.

    Args:
        run: what `train` returns; None trains.
        n_seeds: seeds 0..n_seeds-1, where it is trained; 5 at quick scale and 10 at full.
        steps: generator steps then; 2,000 at quick scale and 10,000 at full.

    Returns:
        Player -> name of a metric -> limits x seeds; "limits", where None is no truncation; "n"; "provenance".
        JSON-able.
    """
    begun = time.perf_counter()
    run = train(n_seeds, steps) if run is None else run
    data = gk.data.load("digits")
    space = metrics.features.classifier("digits", train=True)
    real = space(data.normalise(data.images))
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    asked = data.labels[chosen]
    result: dict[str, Any] = {"limits": list(LIMITS), "n": SAMPLES}
    for player, G in zip(PLAYERS, (run.G, run.teacher.net), strict=True):
        rows = []
        for limit in LIMITS:
            images = sample(G, SAMPLES, seed=1, labels=asked, truncation=limit)
            rows.append(_measure(images, asked, real, data.labels, space))
        result[player] = {name: rounded([row[name] for row in rows]) for name in NAMES}
    result["provenance"] = stamp(time.perf_counter() - begun, run.seeds, packages=("torch", "numpy"))
    return result


def _measure(
    images: Tensor, asked: Tensor, real: Tensor, real_labels: Tensor, space: FeatureSpace
) -> dict[str, Sequence[float]]:
    """Every metric of `NAMES` for samples `[S, N, 1, 8, 8]` of the labels `[N]`: S numbers each."""
    fake = space(images)
    logits = space.logits(fake)
    replicas = asked.expand(len(images), -1)
    inside = metrics.intra_class(metrics.frechet_distance, real, real_labels, fake, replicas)
    neighbours = [metrics.prdc(real, features, K) for features in fake]
    shares = metrics.modes.frequencies(logits.argmax(-1), N_CLASSES)
    alike = [metrics.ms_ssim_diversity(zoom(x), asked, pairs=25).mean for x in images]
    return {
        "FD": metrics.frechet_distance(fake, real).tolist(),
        "intra-FD": inside.mean.tolist(),
        "IS": metrics.inception_score(logits.softmax(-1), splits=1).mean.tolist(),
        **{name: [float(one[name]) for one in neighbours] for name in NAMES[3:7]},
        "D_JS": metrics.class_divergence(shares, torch.bincount(real_labels)).tolist(),
        "MS-SSIM": [float(value) for value in alike],
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: precision against recall, a line for each seed; then FD, Inception Score and MS-SSIM over the limit."""
    use_style()
    figure, axes = plt.subplots(1, 4, figsize=(11, 3))
    colors = dict(zip(PLAYERS, ("#0072B2", "#D55E00"), strict=True))
    ticks = ["none" if limit is None else f"{limit:g}" for limit in result["limits"]]
    for player, color in colors.items():
        values = {name: np.array(result[player][name]) for name in NAMES}
        axes[0].plot(values["recall"], values["precision"], "o-", ms=3, lw=0.8, color=color)
        for ax, name in zip(axes[1:], ("FD", "IS", "MS-SSIM"), strict=True):
            gk.plotting.band(ax, np.arange(len(ticks)), values[name], label=player, color=color)
    axes[0].set(xlabel="recall (share)", ylabel="precision (share)")
    labels = (
        "FD[digits classifier] (squared units)",
        "IS[digits classifier] (classes)",
        "MS-SSIM within classes",
    )
    for ax, label in zip(axes[1:], labels, strict=True):
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set(xlabel="largest |z|", ylabel=label)
    axes[1].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
