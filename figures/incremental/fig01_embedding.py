"""Incremental learning paper, figures 1 and 2: real and generated images in one t-SNE map, and Algorithm 1's weights.

One embedding (scikit-learn's, of a fixed seed) of the features of both, so that the two panels share their axes.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import nn

from figures.incremental import runs
from figures.incremental.runs import WORLDS
from figures.provenance import command_line, rounded, stamp
from gankit.classifiers import weights
from gankit.classifiers.synthetic import Generated
from gankit.plotting import use_style

CLASSES = (1, 3, 5, 8, 9)
"""Five selected classes, as in the paper; these are easily confused."""

SHOWN = 30  # of each class, real and generated


def compute(shown: int = SHOWN, G: nn.Module | None = None) -> dict[str, Any]:
    """Embed real test images and generated ones, and weigh the real training images of one class.

    Args:
        shown: images of each class from either source.
        G: conditional generators, of which the first replica is shown; None trains one.

    Returns:
        "real" and "generated": points of each class, classes x shown x 2; "spread": mean distance from the class's mean
        in features, for both; "weights": method -> weight of the training images of class 8, mapped in "ship" (as the
        paper calls its class); "provenance". JSON-able.
    """
    begun = time.perf_counter()
    train, test = WORLDS["digits"].load()
    G = runs.train_gans(WORLDS["digits"], train, (0,)).teacher.net if G is None else G
    images, labels = Generated(G, seed=3).draw(1_000)
    images, labels = images[0], labels[0]
    real = runs.features_of_digits(test.normalise(test.images))
    fake = runs.features_of_digits(images)
    rows = [real[(test.labels == k).nonzero()[:shown, 0]] for k in CLASSES]
    rows += [fake[(labels == k).nonzero()[:shown, 0]] for k in CLASSES]
    points = _embed(torch.cat(rows).numpy())
    half = len(points) // 2
    spread = {
        name: rounded([float((f[y == k] - f[y == k].mean(0)).norm(dim=1).mean()) for k in CLASSES])
        for name, f, y in (("real", real, test.labels), ("generated", fake, labels))
    }
    known = runs.features_of_digits(train.normalise(train.images))
    normalised = weights.by_range(weights.class_distances(known, train.labels, fake, labels), train.labels)
    own = train.labels == CLASSES[3]
    weighted = {name: weights.transform(normalised, train.labels, name)[own] for name in weights.METHODS}
    return {
        "classes": list(CLASSES),
        "real": rounded(points[:half].reshape(len(CLASSES), shown, 2), 4),
        "generated": rounded(points[half:].reshape(len(CLASSES), shown, 2), 4),
        "spread": spread,
        "ship": rounded(_embed(known[own].numpy()), 4),
        "weights": {name: rounded(w.numpy(), 4) for name, w in weighted.items()},
        "provenance": stamp(time.perf_counter() - begun, (0,), packages=("torch", "numpy", "scikit-learn")),
    }


def _embed(features: np.ndarray) -> np.ndarray:
    tsne = TSNE(perplexity=min(30, len(features) / 4), random_state=0, init="pca", n_jobs=1, max_iter=500)
    return tsne.fit_transform(features.astype(np.float32))


def draw(result: dict[str, Any]) -> Figure:
    """Real images on the left, generated ones on the right, in the same map."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.4), sharex=True, sharey=True)
    for ax, name in zip(axes, ("real", "generated"), strict=True):
        for i, (k, points) in enumerate(zip(result["classes"], np.array(result[name]), strict=True)):
            ax.scatter(*points.T, s=10, color=f"C{i}", lw=0, label=str(k))
        ax.set(title=name, xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    axes[1].legend(fontsize=8, title="digit", bbox_to_anchor=(1, 1))
    return figure


def draw_weights(result: dict[str, Any]) -> Figure:
    """The training images of one class, coloured by their weight under two methods."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3), sharex=True, sharey=True)
    points = np.array(result["ship"])
    for ax, (name, title) in zip(axes, (("A_mu", "$A_μ$"), ("C", "$C$")), strict=True):
        w = np.array(result["weights"][name])
        shown = ax.scatter(*points.T, c=w, s=14, cmap="viridis", vmin=0, vmax=1, lw=0)
        ax.set(title=title, xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    figure.colorbar(shown, ax=axes, label="weight", shrink=0.8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
