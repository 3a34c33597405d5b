"""What the training figures of the sample-weighting paper share: variants of a cost, trained side by side.

A *variant* is a cost with its optimisers' settings; the variants and seeds of a figure are one ensemble run, in which
replicas of one seed share initial weights, z and data, so that variants are compared pair by pair. A *setting* is
everything else: the recipe (networks, data, learning rate) and how long to train. Small settings run on embedded
data in seconds or minutes; the MNIST settings are the paper's, and run for as many epochs as one asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gankit as gk
from figures.judging import judge
from figures.provenance import rounded
from gankit import study
from gankit.models.sampling import sample
from gankit.recipes import Recipe, recipes
from gankit.training import Trainer

DEAD = 1e-3
"""A generator gradient below this norm counts as vanished."""


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
    "cifar10-conv4-sn": recipes["ns-conv4-sn-cifar10"],
    "cifar10-conv4-sn-fast": recipes["ns-conv4-sn-cifar10"].changed(
        {"width": 16, "batch_size": 64, "lr": 5e-4}
    ),
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
    callback: study.Measure | None = None,
    pictures: str = "",
    out: Path | None = None,
) -> dict[str, Any]:
    """All variants and seeds of one setting (`gankit.study.run`).

    Args:
        setting: a key of `SETTINGS`.
        variants: name -> variant; they share weights, z and data, seed by seed.
        seeds: S of them.
        steps: generator steps.
        evaluations: how often samples are judged, the end included.
        samples: generated images or points per replica and evaluation.
        log_every: steps between two readings of gradients and logits.
        callback: called at every evaluation as well; its numbers, one per replica, join the result.
        pictures: data in place of the setting's, as `gankit.data.load` names them; "" for the setting's.
        out: folder for checkpoints. A run that finds one there goes on from it.

    Returns:
        "steps" `[T]` of the evaluations and "log_steps" `[T']` of the readings; for each variant a dict of curves,
        `[T][S]` for what `judge` measures and `[T'][S]` for "g_grad", "d_grad", "real_logit", "fake_logit";
        "epochs", "images_per_epoch" and "wall_time_s" (of training and judging, also before a restart).

    Raises:
        KeyError: an unknown setting.
    """
    recipe = SETTINGS[setting]
    data = gk.data.load(pictures or recipe.data)
    measure = judge(data)
    result = study.run(
        recipe,
        changes(variants),
        seeds,
        steps,
        measures=[lambda run: measure(sample(run.G, samples)), *([callback] if callback else [])],
        evaluations=evaluations,
        log_every=log_every,
        folder=out,
        data=data,
    )
    return curves(result, len(data)) | {"wall_time_s": result["wall_time_s"]}


def changes(variants: Mapping[str, Variant]) -> dict[str, dict[str, Any]]:
    """Name -> what a variant changes of a recipe (R1's gamma is twice lambda)."""
    return {
        name: {"loss": v.loss, "beta2": v.beta2, "d_beta2": v.d_beta2, "r1": 2 * v.r1}
        for name, v in variants.items()
    }


def build(recipe: Recipe, variants: Sequence[Variant], seeds: Sequence[int]) -> Trainer:
    """The ensemble run of all variants and seeds: replica ``v * len(seeds) + s`` is variant v with seed s."""
    (group,) = study.groups(recipe, changes({str(i): variant for i, variant in enumerate(variants)}))
    return study.build(group, seeds)


def curves(result: Mapping[str, Any], images: int) -> dict[str, Any]:
    """A result of `gankit.study.run` as the figures store it (see `train`), of a data set with so many images."""
    kept = {key: result[key] for key in ("steps", "log_steps")}
    kept |= {"epochs": rounded(result["epochs"]), "images_per_epoch": images}
    for name, one in result["curves"].items():
        kept[name] = {
            key: rounded(np.array(values, float))
            for key, values in one.items()
            if key not in ("d_loss", "g_loss", "frequencies")
        }
        # The shares of the classes are kept for the last evaluation only.
        kept[name]["frequencies"] = rounded(np.array(one["frequencies"][-1], float), 4)
    return kept


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
        ends = {"D_JS": divergence[-1], "distance": distance[-1], "best_distance": distance.min(0)}
        for label, values in ends.items():
            row |= ends_of(label, values)
        row["covered"] = rounded(np.median(np.array(result[name]["covered"])[-1]))
        row["dead"] = int((np.array(result[name]["g_grad"]) < DEAD).any(0).sum())
        row["class_share"] = rounded(np.array(result[name]["frequencies"]).mean(0), 3)
        if reference in names and name != reference:
            row |= against(divergence[-1], np.array(result[reference]["divergence"], float)[-1])
        table[name] = row
    return table


def ends_of(label: str, values: np.ndarray) -> dict[str, float]:
    """Median, minimum and maximum over the seeds `[S]`: "label", "label_min" and "label_max"."""
    low, middle, high = (rounded(f(values)) for f in (np.min, np.median, np.max))
    return {label: middle, f"{label}_min": low, f"{label}_max": high}


def against(ends: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Pairs `[S]`, `[S]`: "seeds_below", in how many the first is below, and "ratio", the second's median over its."""
    pairs = study.compare(ends, reference)
    return {"seeds_below": pairs["below"], "ratio": rounded(np.median(reference) / np.median(ends), 3)}
