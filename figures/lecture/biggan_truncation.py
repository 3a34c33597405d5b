"""Lecture, BigGAN: truncation, and what orthogonal weights change about it, on a small BigGAN for digits.

The networks are `gankit.models.biggan` at 8 pixels: one residual block in G, shared embedding, skip-z, spectral
normalisation on both sides. Paired seeds (the same z, data and labels, and but for "Glorot" the same initial weights)
are trained without orthogonal regularisation, with it at two strengths, with the diagonal that BigGAN leaves out, and
from Glorot-uniform instead of orthogonal weights. Samples are those of the moving average and of the generator itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import gankit as gk
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.game.penalties import Orthogonal, row_products
from gankit.game.play import Play, Term
from gankit.metrics.features import FeatureSpace
from gankit.models.blocks import glorot_uniform, seeded
from gankit.models.ensemble import Ensemble
from gankit.models.sampling import sample, standing_statistics
from gankit.plotting import use_style
from gankit.training import Trainer

Z_DIM = 16
Y_DIM = 16
WIDTH = 4
"""ch of the paper; every block of G and D has 4 ch filters at 8 pixels."""

LIMITS = (None, 2.0, 1.5, 1.0, 0.5, 0.25)
"""Largest |z|; None is no truncation."""

SAMPLES = 1_000
K = 5
NAMES = ("FD", "IS", "precision", "recall", "accuracy")
PLAYERS = ("average", "generator")


def identity_distance(network: nn.Module) -> Tensor:
    """1e-2 |W W^T - I|_F^2 of an ensemble's weights, `[S]`: zero for rows that are orthogonal and of length 1.

    Source: Brock, Donahue and Simonyan 2019, equation 2 (from Brock et al. 2017); filters are rows here.
    """
    total = row_products(network)
    for name, p in network.named_parameters():
        if p.ndim > 2 and "embedding" not in name:
            total = total + (p.flatten(2).square().sum(-1) - 1).square().sum(-1)
    return total / 100


def with_diagonal(play: Play) -> Tensor:
    """The same as a term of the cost of the player that learns."""
    return identity_distance(play.learner)


VARIANTS: dict[str, tuple[Term, ...]] = {
    "none": (),
    "1e-4": (Orthogonal(1e-4),),
    "1e-2": (Orthogonal(1e-2),),
    "diagonal": (with_diagonal,),
    "Glorot": (),
}
"""Penalties of G. The first four start from orthogonal weights, the last from Glorot-uniform ones."""


def networks(seed: int, variant: str = "none") -> tuple[nn.Module, nn.Module]:
    """G and D of one replica: G maps z `[N, Z_DIM]` and labels `[N]` to digits `[N, 1, 8, 8]`."""
    G, D = gk.models.biggan((1, 8, 8), 10, Z_DIM, WIDTH, y_dim=Y_DIM, seed=seed)
    if variant == "Glorot":
        with seeded(seed):
            glorot_uniform(G), glorot_uniform(D)
    return G, D


def train(variant: str, seeds: Sequence[int], steps: int) -> Trainer:
    """Train one replica for each seed: hinge, Adam with learning rate 1e-3 and beta1 = 0, minibatches of 32."""
    G, D = gk.pair(lambda seed: networks(seed, variant), seeds)
    adam = {"g_optimizer": gk.Adam(lr=1e-3, beta1=0.0), "d_optimizer": gk.Adam(lr=1e-3, beta1=0.0)}
    run = Trainer(
        G,
        D,
        gk.data.load("digits"),
        loss="hinge",
        batch_size=32,
        ema=gk.EMA(0.99),
        g_terms=VARIANTS[variant],
        **adam,
    )
    return run.fit(steps)


def spectra(G: Ensemble) -> dict[str, Tensor]:
    """Singular values of each weight over the largest, `[S, n]`, largest first, kernels as `[out, in kh kw]`.

    The spectral normalisation divides by the largest, so these are the singular values of what a layer multiplies by.
    """
    found = {}
    for name, p in G.named_parameters():
        if p.ndim > 2 and "embedding" not in name and p.shape[1] > 1:
            values = torch.linalg.svdvals(p.detach().flatten(2))
            found[name.removeprefix("net.stacked.layers/").removesuffix("/weight")] = values / values[:, :1]
    return found


def evenness(values: Tensor) -> Tensor:
    """Mean squared singular value over the largest squared, of `[S, n]`: `[S]`, 1 for an orthogonal matrix."""
    return values.square().mean(-1) / values[:, 0].square()


def measure(G: Ensemble, *, standing: bool = False) -> dict[str, list[list[float]]]:
    """Metrics of `SAMPLES` samples with the labels of as many digits, at every limit.

    Args:
        G: generators, S of them.
        standing: measure batch norm's statistics anew at each limit (`gankit.models.sampling.standing_statistics`).

    Returns:
        Name out of `NAMES` -> limits x seeds. "accuracy" is the share that the classifier reads as the label asked for.
    """
    data = gk.data.load("digits")
    space = metrics.features.classifier("digits", train=True)
    real = space(data.normalise(data.images))
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    asked = data.labels[chosen]
    rows = []
    for limit in LIMITS:
        net = standing_statistics(G, batches=20, truncation=limit) if standing else G
        images = sample(net, SAMPLES, seed=1, labels=asked, truncation=limit)
        rows.append(_scores(images, asked, real, space))
    return {name: [row[name] for row in rows] for name in NAMES}


def _scores(images: Tensor, asked: Tensor, real: Tensor, space: FeatureSpace) -> dict[str, list[float]]:
    """Metrics of `[S, N, 1, 8, 8]`, S numbers each."""
    fake = space(images)
    logits = space.logits(fake)
    near = [metrics.precision_recall(real, features, K) for features in fake]
    return {
        "FD": metrics.frechet_distance(fake, real).tolist(),
        "IS": metrics.inception_score(logits.softmax(-1), splits=1).mean.tolist(),
        "precision": [float(one.precision) for one in near],
        "recall": [float(one.recall) for one in near],
        "accuracy": (logits.argmax(-1) == asked).double().mean(-1).tolist(),
    }


def compute(seeds: int = 6, steps: int = 1_000, variants: Sequence[str] = tuple(VARIANTS)) -> dict[str, Any]:
    """Train and measure every variant.

    Args:
        seeds: number of seeds, 0..seeds-1, the same for every variant.
        steps: generator steps.
        variants: some of `VARIANTS`, "none" and "1e-2" among them.

    Returns:
        "limits" (None is no truncation); "variants": name -> "average", "generator" and "standing" (the average with
        standing statistics) with limits x seeds of each of `NAMES`, "spectra" of the average with layer -> seeds x
        values, and "evenness" with layer -> seeds; "summary"; "settings"; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    found: dict[str, Any] = {}
    for variant in variants:
        run = train(variant, range(seeds), steps)
        values = spectra(run.teacher.net)
        found[variant] = {
            "average": measure(run.teacher.net),
            "generator": measure(run.G),
            "standing": measure(run.teacher.net, standing=True),
            "evenness": {layer: evenness(v).tolist() for layer, v in values.items()},
            "spectra": {layer: v.tolist() for layer, v in values.items() if "conv" in layer},
        }
    return {
        "limits": list(LIMITS),
        "variants": {variant: _rounded(of) for variant, of in found.items()},
        "summary": summary(found),
        "settings": {
            "seeds": seeds,
            "steps": steps,
            "samples": SAMPLES,
            "k": K,
            "z_dim": Z_DIM,
            "width": WIDTH,
        },
        "provenance": stamp(time.perf_counter() - begun, range(seeds), ("torch", "numpy")),
    }


def _rounded(of: dict[str, Any]) -> dict[str, Any]:
    return {key: {name: rounded(values, 4) for name, values in part.items()} for key, part in of.items()}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """For each variant medians without truncation and at |z| < 0.5, and in how many seeds truncation trades.

    "trades": precision rises and recall falls from no truncation to |z| < 0.5. "against none": the number of paired
    seeds that are better than those without penalty, without truncation.
    """
    strong = LIMITS.index(0.5)
    plain = {name: np.array(values) for name, values in found["none"]["average"].items()}
    result: dict[str, Any] = {}
    for variant, of in found.items():
        values = {name: np.array(v) for name, v in of["average"].items()}
        n = values["FD"].shape[1]
        rises = values["precision"][strong] > values["precision"][0]
        falls = values["recall"][strong] < values["recall"][0]
        more = {name: int((values[name][0] > plain[name][0]).sum()) for name in ("recall", "precision", "IS")}
        result[variant] = {
            **{name: rounded(np.median(v[0]), 4) for name, v in values.items()},
            "truncated": {name: rounded(np.median(v[strong]), 4) for name, v in values.items()},
            "trades": f"{int((rises & falls).sum())} of {n} seeds",
            "against none": {"FD": int((values["FD"][0] < plain["FD"][0]).sum()), **more},
        }
    return result


COLORS = {"none": "#D55E00", "1e-4": "#E69F00", "1e-2": "#009E73", "diagonal": "#0072B2", "Glorot": "#BBBBBB"}
LABELS = {
    "none": "no penalty",
    "1e-4": r"$\beta = 10^{-4}$",
    "1e-2": r"$\beta = 10^{-2}$",
    "diagonal": r"$\beta = 10^{-2}$, with diagonal",
    "Glorot": "no penalty, Glorot weights",
}


def draw(result: dict[str, Any]) -> Figure:
    """Curves of the averages under truncation: recall and precision, Inception Score and FD, FD over the limit.

    Lines join medians over seeds; the thin ones of the first two panels are single seeds.
    """
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3))
    ticks = ["none" if limit is None else f"{limit:g}" for limit in result["limits"]]
    for variant, of in result["variants"].items():
        values = {name: np.array(of["average"][name]) for name in NAMES}
        color = COLORS[variant]
        for ax, x, y in ((axes[0], "recall", "precision"), (axes[1], "IS", "FD")):
            ax.plot(values[x], values[y], color=color, lw=0.5, alpha=0.35)
            middle = (np.median(values[name], axis=1) for name in (x, y))
            ax.plot(*middle, "o-", ms=4, color=color, label=LABELS[variant])
        gk.plotting.band(axes[2], np.arange(len(ticks)), values["FD"], color=color)
    axes[0].set(xlabel="recall (share)", ylabel="precision (share)")
    axes[1].set(xlabel="IS[digits classifier] (classes)", ylabel="FD[digits classifier] (squared units)")
    axes[2].set_xticks(range(len(ticks)), ticks)
    axes[2].set(xlabel="largest |z|", ylabel="FD[digits classifier] (squared units)")
    axes[0].legend(fontsize=8)
    return figure


def draw_spectra(result: dict[str, Any]) -> Figure:
    """Singular values of the generator block's two 3 x 3 convolutions, over the largest: median and range of seeds."""
    use_style()
    layers = list(result["variants"]["none"]["spectra"])
    figure, axes = plt.subplots(1, len(layers), figsize=(4.5 * len(layers), 3), sharey=True)
    for ax, layer in zip(axes, layers, strict=True):
        for variant, of in result["variants"].items():
            values = np.array(of["spectra"][layer])  # seeds x n
            index = np.arange(1, values.shape[1] + 1)
            gk.plotting.band(ax, index, values.T, color=COLORS[variant], label=LABELS[variant])
        ax.set(xlabel="number of the singular value", title=f"{layer.rpartition('/')[2]} of G's block")
    axes[0].set(ylabel="singular value over the largest", ylim=(0, 1.05))
    axes[-1].legend(fontsize=8, loc="lower left")
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
