"""What the training figures of the sample-weighting paper share: variants of a cost, trained side by side.

A *variant* is a cost with its optimisers' settings; the variants and seeds of a figure are one ensemble run, in which
replicas of one seed share initial weights, z and data, so that variants are compared pair by pair. A *setting* is
everything else: the recipe (networks, data, learning rate) and how long to train. Small settings run on embedded
data in seconds or minutes; the MNIST settings are the paper's, and run for as many epochs as one asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gankit as gk
from figures.provenance import rounded
from gankit import classifiers
from gankit.classifiers import compute_features
from gankit.data import Dataset
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.modes import class_divergence, frequencies, mode_assignment
from gankit.models.sampling import sample
from gankit.recipes import Recipe, recipes
from gankit.training import Trainer, checkpoints

DEAD = 1e-3
"""A generator gradient below this norm counts as vanished."""

COVERED = 0.1
"""A class or mode counts as covered at this part of its share in the data."""

Measure = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Variant:
    """One curve of a figure: a cost, and what of its training differs from the setting.

    Attributes:
        loss: name of a cost (`gankit.game.losses`).
        label: name in legends and tables.
        beta2, d_beta2: Adam's second decay for G and for D.
        r1: strength of the zero-centred gradient penalty on real data, lambda of the paper's figure 18: the penalty is
            r1 times the mean squared gradient norm.
    """

    loss: str
    label: str
    beta2: float = 0.999
    d_beta2: float = 0.999
    r1: float = 0.0


PAPER_COSTS: Mapping[str, Variant] = {
    "ns": Variant("ns", "NS"),
    "mm": Variant("mm", "MM"),
    "mm-beta2": Variant("mm", "MM, β₂ = 0.99", beta2=0.99),
    "mm-unit": Variant("mm-unit", "MM-unit"),
    "ns-unit": Variant("ns-unit", "NS-unit"),
    "mm-nsat": Variant("mm-nsat", "MM-nsat"),
}
"""The six of figure 8. "β₂ = 0.99" is G's; D keeps 0.999."""

_CONV4 = recipes["ns-mnist-conv4"]

SETTINGS: Mapping[str, Recipe] = {
    "digits": recipes["ns-digits"],
    "digits-saturating": recipes["ns-digits-saturating"],
    "digits-saturating-beta1-0.5": recipes["ns-digits-saturating"].changed({"beta1": 0.5}),
    "ring": recipes["ns-ring"],
    "spiral": recipes["ns-spiral"],
    "mnist-fc4": recipes["ns-mnist-fc4"],
    "mnist-fc4-fast": recipes["ns-mnist-fc4"].changed({"width": 128, "batch_size": 64, "lr": 5e-4}),
    "mnist-conv4": _CONV4,
    "mnist-conv4-fast": _CONV4.changed({"width": 16, "batch_size": 64, "lr": 5e-4}),
    "mnist-fc3": recipes["ns-mnist-fc4"].changed({"depth": 3}),
    "cifar10-conv4": dataclasses.replace(_CONV4, data="cifar10", steps=390_625),
    "stacked-digits": recipes["ns-digits"].changed(
        {"data": "stacked-digits", "z_dim": 32, "width": 96, "steps": 2_000}
    ),
    "stacked-mnist": dataclasses.replace(_CONV4, data="stacked-mnist"),
}
"""Setting -> recipe; its loss is replaced by each variant's. "fast" has half the width or filters,
half the batch and five times the learning rate, for results within an hour on a CPU; other settings of MNIST, CIFAR-10
and stacked MNIST are set to train for the paper's 1,000 epochs."""


def train(
    setting: str,
    variants: Mapping[str, Variant],
    seeds: Sequence[int],
    steps: int,
    *,
    evaluations: int = 8,
    samples: int = 1_000,
    log_every: int = 5,
    callback: Callable[[Trainer], dict[str, Tensor]] | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """All variants and seeds of one setting, in one ensemble run.

    Args:
        setting: a key of `SETTINGS`.
        variants: name -> variant; they share weights, z and data, seed by seed.
        seeds: S of them.
        steps: generator steps.
        evaluations: how often samples are judged, the end included.
        samples: generated images or points per replica and evaluation.
        log_every: steps between two readings of gradients and logits.
        callback: called at every evaluation as well; its numbers, one per replica, join the result.
        out: folder for checkpoints. A run that finds one there goes on from it.

    Returns:
        "steps" `[T]` of the evaluations and "log_steps" `[T']` of the readings; for each variant a dict of curves,
        `[T][S]` for what `judge` measures and `[T'][S]` for "g_grad", "d_grad", "real_logit", "fake_logit";
        "epochs", "images_per_epoch" and "wall_time_s" (of training and judging, also before a restart).

    Raises:
        KeyError: an unknown setting.
    """
    recipe = SETTINGS[setting]
    run = build(recipe, list(variants.values()), seeds)
    measure = judge(run.data)
    if out is not None and (found := checkpoints.latest(out)) is not None:
        run.load(found)
    every = max(1, steps // evaluations)
    run.fit(
        max(0, steps - run.steps),
        out=out,
        log_every=log_every,
        save_every=every if out is not None else None,
        callback=lambda run: measure(sample(run.G, samples)) | (callback(run) if callback else {}),
        callback_every=every,
    )
    # The run's own clock goes on where a checkpoint left it.
    return curves(run, list(variants), len(seeds)) | {"wall_time_s": round(run.history[-1]["seconds"], 1)}


def build(recipe: Recipe, variants: Sequence[Variant], seeds: Sequence[int]) -> Trainer:
    """The ensemble run of all variants and seeds: replica ``v * len(seeds) + s`` is variant v with seed s."""
    data = gk.data.load(recipe.data)
    each = [variant for variant in variants for _ in seeds]
    G, D = gk.pair(lambda seed: recipe.networks(data.shape, seed), [s for _ in variants for s in seeds])
    g_adam, d_adam = recipe.g_optimizer, recipe.d_optimizer
    penalties = [gk.penalties.R1(tuple(2 * v.r1 for v in each))] if any(v.r1 for v in each) else []
    return Trainer(
        G,
        D,
        data,
        loss=[variant.loss for variant in each],
        batch_size=recipe.batch_size,
        g_optimizer=dataclasses.replace(g_adam, beta2=_one_or_each([v.beta2 for v in each])),
        d_optimizer=dataclasses.replace(d_adam, beta2=_one_or_each([v.d_beta2 for v in each])),
        d_terms=penalties,
    )


def curves(run: Trainer, names: Sequence[str], n_seeds: int) -> dict[str, Any]:
    """The history of a run of `build`, taken apart into variants (see `train`)."""
    judged = [row for row in run.history if "divergence" in row]
    result: dict[str, Any] = {
        "steps": [row["step"] for row in judged],
        "log_steps": [row["step"] for row in run.history],
        "epochs": rounded(run.images / len(run.data)),
        "images_per_epoch": len(run.data),
    }
    apart = {"step", "images", "seconds"}
    for i, name in enumerate(names):
        mine = slice(i * n_seeds, (i + 1) * n_seeds)
        keys = [key for key in judged[-1] if key not in apart | {"d_loss", "g_loss", "frequencies"}]
        result[name] = {
            key: rounded(np.array([row[key] for row in run.history if key in row])[:, mine]) for key in keys
        }
        # The shares of the classes are kept for the last evaluation only.
        result[name]["frequencies"] = rounded(np.array(judged[-1]["frequencies"])[mine], 4)
    return result


def judge(data: Dataset) -> Measure:
    """What is measured of the samples of a data set: modes of a mixture, classes of pictures.

    Returns:
        A function from samples `[S, N, *shape]` to `[S]` each of "divergence" (D_JS in bits, equation 12), "distance"
        (the Frechet distance of the points, or of a classifier's features), "covered" (number of modes or classes at
        10 % of their share at least), and "frequencies" `[S, K]`; for mixtures also "outside", the share of points
        beyond 3 standard deviations of every mode.
    """
    return _judge_points(data) if data.centers is not None else _judge_classes(data)


def _judge_points(data: Dataset) -> Measure:
    expected = data.class_frequencies()

    def measure(points: Tensor) -> dict[str, Tensor]:
        share = frequencies(mode_assignment(points, data.centers, data.std), len(data.centers))
        hits = share.sum(-1)
        # A generator that hits no mode has no mode frequencies; it scores the upper bound.
        divergence = class_divergence(torch.where(hits[:, None] > 0, share, expected), expected)
        return {
            "divergence": torch.where(hits > 0, divergence, torch.ones_like(divergence)),
            "distance": frechet_distance(points, data.images.to(points.dtype)),
            "covered": (share >= COVERED * expected).sum(-1),
            "outside": 1 - hits,
            "frequencies": share,
        }

    return measure


def _judge_classes(data: Dataset) -> Measure:
    network = classifier_of(data)
    real = compute_features(network, data.normalise(data.images))
    expected = data.class_frequencies()

    @torch.no_grad()
    def measure(images: Tensor) -> dict[str, Tensor]:
        features = compute_features(network, images)
        # Replica by replica: a thousand logits for each image of a hundred replicas would not fit.
        labels = torch.stack([network.logits(one).argmax(-1) for one in features])
        share = frequencies(labels, data.n_classes)
        return {
            "divergence": class_divergence(share, expected),
            "distance": frechet_distance(features, real),
            "covered": (share >= COVERED * expected).sum(-1),
            "frequencies": share,
        }

    return measure


def classifier_of(data: Dataset) -> nn.Module:
    """The network that judges pictures of a data set, on the CPU.

    The book's own (`gankit.classifiers`) of digits, MNIST, their stacks and CIFAR-10, trained once and then cached.

    Raises:
        gankit.data.DataError: any other set.
    """
    return classifiers.load(data.name, train=True)


def summarise(
    result: Mapping[str, Any], names: Sequence[str], reference: str = "ns"
) -> dict[str, dict[str, Any]]:
    """The numbers that texts and ledgers quote, for each variant of a result of `train`.

    Returns:
        Per variant: median, minimum and maximum over the seeds of D_JS and of the distance at the end, and of the best
        distance of each run ("early stopping"); "covered" (median); "dead", the number of seeds whose generator's
        gradient was ever read below `DEAD`; "class_share", the mean shares of the classes over the seeds; and, if
        the reference is among the variants, "seeds_below", in how many seeds the final D_JS is below the reference's,
        and "ratio", the reference's median D_JS over this one's.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        divergence, distance = (np.array(result[name][key], float) for key in ("divergence", "distance"))
        row: dict[str, Any] = {}
        for label, values in {
            "D_JS": divergence[-1],
            "distance": distance[-1],
            "best_distance": distance.min(0),
        }.items():
            row |= {
                label: rounded(np.median(values)),
                f"{label}_min": rounded(values.min()),
                f"{label}_max": rounded(values.max()),
            }
        row["covered"] = rounded(np.median(np.array(result[name]["covered"])[-1]))
        row["dead"] = int((np.array(result[name]["g_grad"]) < DEAD).any(0).sum())
        row["class_share"] = rounded(np.array(result[name]["frequencies"]).mean(0), 3)
        if reference in names and name != reference:
            other = np.array(result[reference]["divergence"])[-1]
            row["seeds_below"] = int((divergence[-1] < other).sum())
            row["ratio"] = rounded(np.median(other) / np.median(divergence[-1]), 3)
        table[name] = row
    return table


def _one_or_each(values: Sequence[float]) -> float | tuple[float, ...]:
    """The number if all are equal (PyTorch's fused Adam then takes the whole stack), else a tuple."""
    return values[0] if len(set(values)) == 1 else tuple(values)
