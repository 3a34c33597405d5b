"""What the training figures of the LeakyEMA paper share: variants of the leak, trained side by side.

A *variant* says what replaces real samples: how many of them, since when, from where. Variants whose samples come from
the same place are one ensemble run, in which replicas of one seed share initial weights, z and data: with the teacher's
samples on the minibatch's own z ("sync") they are the same run until leaking begins, up to rounding. Sources
that draw latents of their own see other minibatches from then on.

A *setting* is everything else, a recipe. "digits" takes minutes and needs nothing; "mnist-conv4" needs the MNIST files
(GANKIT_DATA) and an hour; "cifar10-sngan" needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import gankit as gk
from figures.leakyema.lookahead import Lookahead
from figures.mm_nsat.runs import COVERED, classifier_of
from figures.provenance import rounded, stamp
from gankit.classifiers import compute_features
from gankit.data import Dataset
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.modes import class_divergence, frequencies
from gankit.metrics.neighbours import prdc
from gankit.metrics.path_length import ConsecutiveDistance
from gankit.metrics.similarity import feature_distance
from gankit.models.blocks import seeded
from gankit.models.sampling import sample
from gankit.models.spectral import SNConv2d, SNLinear
from gankit.plotting import band, use_style
from gankit.recipes import Networks, Recipe, recipes, register
from gankit.scale import scale
from gankit.training import Trainer, checkpoints

NEIGHBOURS = 5
"""k of precision, recall, density and coverage."""

REAL = 1_000
"""Real samples among which neighbours are looked for, where a set has more."""

KEYS = ("distance", "divergence", "covered", "precision", "recall", "density", "coverage")
"""What is measured of the average."""

OWN = ("g_distance", "g_divergence")
"""The same of the generator itself."""

HEARD = "consecutive_distance"
"""What `gankit.metrics.ConsecutiveDistance` reports."""


@dataclass(frozen=True)
class Variant:
    """One curve of a figure.

    Attributes:
        label: name in legends and tables.
        beta: share of the real samples replaced, 0 for conventional training.
        start: N as a share of all steps, in [0, 1).
        source: where the replacements come from (`gankit.game.leak.Leak`). "async-model" is the average that the
            variant with beta = 0 ends with, seed by seed.
        lookahead: k of `figures.leakyema.lookahead`, 0 for none.
    """

    label: str
    beta: float = 0.0
    start: float = 0.0
    source: str = "sync"
    lookahead: int = 0


@register("networks")
@dataclass(frozen=True)
class Normalised(Networks):
    """Networks whose discriminator has the layers of its family, spectrally normalised (Miyato et al. 2018)."""

    def __call__(self, shape: tuple[int, ...], seed: int, n_classes: int = 0) -> tuple[nn.Module, nn.Module]:
        """(G, D), with the initial weights that they have without normalisation."""
        G, D = super().__call__(shape, seed, n_classes)
        with seeded(seed):  # each layer draws the start of its power iteration
            return G, type(D)(*map(_normalised, D))


def _normalised(layer: nn.Module) -> nn.Module:
    """A spectrally normalised layer in place of a linear one or a convolution; any other as it is."""
    if isinstance(layer, nn.Linear):
        new = SNLinear(layer.in_features, layer.out_features)
    elif isinstance(layer, nn.Conv2d):
        new = SNConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
        )
    else:
        return layer
    new.weight, new.bias = layer.weight, layer.bias
    return new


SETTINGS: Mapping[str, Recipe] = {
    "digits": recipes["ns-digits"].changed({"ema_decay": 0.99}),
    "mnist-conv4": Recipe(
        "leakyema-mnist-conv4", "Conv-4 with a spectrally normalised discriminator",
        data="mnist", networks=Normalised("conv", z_dim=64, depth=4, width=8), loss="hinge", steps=4_000, batch_size=32,
        g_optimizer=gk.Adam(2e-3), d_optimizer=gk.Adam(2e-3), ema=gk.EMA(0.99),
    ),
    "digits-sngan": Recipe(
        "leakyema-digits-sngan", "digits with a spectrally normalised discriminator",
        networks=Normalised("mlp", z_dim=16, depth=3, d_depth=4, width=64), loss="hinge", steps=2_000, batch_size=32,
        g_optimizer=gk.Adam(2e-3), d_optimizer=gk.Adam(2e-3), ema=gk.EMA(0.99),
    ),
    "digits-wgan-gp": Recipe(
        "leakyema-digits-wgan-gp", "digits with a gradient penalty",
        networks=Networks("mlp", z_dim=16, depth=3, d_depth=4, width=64), loss="wgan", steps=2_000, batch_size=32,
        n_dis=5, g_optimizer=gk.Adam(1e-3, beta2=0.9), d_optimizer=gk.Adam(1e-3, beta2=0.9), ema=gk.EMA(0.99),
        d_terms=(gk.penalties.WganGP(10.0),),
    ),
    "cifar10-sngan": Recipe(
        "leakyema-cifar10-sngan", "section 4.1 with the networks for 32 pixels",
        data="cifar10", networks=Networks("sngan", z_dim=128, width=128), loss="hinge", steps=250_000, batch_size=64,
        n_dis=5, g_optimizer=gk.Adam(2e-4), d_optimizer=gk.Adam(2e-4), ema=gk.EMA(0.999),
    ),
    "cifar10-wgan-gp": Recipe(
        "leakyema-cifar10-wgan-gp", "appendix B with the networks for 32 pixels",
        data="cifar10", networks=Networks("wgan-gp", z_dim=128, width=128), loss="wgan", steps=250_000, batch_size=64,
        n_dis=5, g_optimizer=gk.Adam(1e-4, beta2=0.9), d_optimizer=gk.Adam(1e-4, beta2=0.9), ema=gk.EMA(0.999),
        d_terms=(gk.penalties.WganGP(10.0),),
    ),
}  # fmt: skip
"""Setting -> recipe.

"digits" has the non-saturating cost, in a setting where conventional training drops classes with time. "mnist-conv4"
has the paper's cost and normalisation on a small Conv-4, one discriminator step and a larger rate. Both have an average
with a memory of 100 steps, for runs of thousands of steps. "cifar10-sngan" has section 4.1's cost, optimiser,
batch, discriminator steps, average (a memory of 1,000 steps) and length; its networks are those for 32 pixels.
"cifar10-wgan-gp" is appendix B's WGAN-GP in the same way, and the two other digits settings are small twins of these.
"""


def experiment(
    variants: Mapping[str, Variant],
    setting: str,
    *,
    n_seeds: int,
    steps: int = 0,
    evaluations: int = 8,
    samples: int = 1_000,
    folder: str = "",
    **others: Any,
) -> dict[str, Any]:
    """`train` with what a figure module's result has beside the curves.

    Args:
        variants: name -> variant; the first is the reference of comparisons.
        setting: a key of `SETTINGS`; "" takes "digits" at quick scale and "cifar10-sngan" at full.
        n_seeds: seeds 0..n_seeds-1 for every variant.
        steps: generator steps; 0 takes the recipe's.
        evaluations, samples: as for `train`, and others too.
        folder: where checkpoints go; a run that finds one goes on from it. "" keeps none.

    Returns:
        The result of `train`, with "setting", "samples", "names", "summary" (`summarise`) and "provenance".

    Raises:
        ValueError: an unknown setting, or fewer than one seed.
    """
    setting = setting or scale(quick="digits", full="cifar10-sngan")
    if setting not in SETTINGS:
        raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
    if n_seeds < 1:
        raise ValueError(f"n_seeds must be at least 1, got {n_seeds}")
    recipe = SETTINGS[setting]
    result = train(
        recipe,
        variants,
        range(n_seeds),
        steps or recipe.steps,
        evaluations=evaluations,
        samples=samples,
        out=Path(folder) if folder else None,
        **others,
    )
    return result | {
        "setting": setting,
        "samples": samples,
        "names": list(variants),
        "summary": summarise(result, list(variants)),
        "provenance": stamp(result["wall_time_s"], range(n_seeds), ("torch", "numpy")),
    }


def options(n_seeds: int, evaluations: int = 8) -> dict[str, tuple[int | str, str]]:
    """The options that the command lines of these figures share."""
    return {
        "setting": ("", f"what to train: {', '.join(SETTINGS)} (by GANKIT_SCALE)"),
        "n_seeds": (n_seeds, "seeds for each variant"),
        "steps": (0, "generator steps, 0 for the recipe's"),
        "evaluations": (evaluations, "how often samples are judged"),
        "samples": (1_000, "generated images per judgement"),
        "folder": ("", "where checkpoints go; a run that finds one there goes on from it"),
    }


def train(
    recipe: Recipe,
    variants: Mapping[str, Variant],
    seeds: Sequence[int],
    steps: int,
    *,
    evaluations: int = 8,
    samples: int = 1_000,
    smoothness: int = 0,
    frames: Callable[[Trainer, Sequence[str]], None] | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """All variants and seeds of one recipe, one ensemble run for each source (and each k of Lookahead).

    Args:
        recipe: of `SETTINGS`, say.
        variants: name -> variant.
        seeds: S of them.
        steps: generator steps.
        evaluations: how often samples are judged, the end included.
        samples: generated images per replica and evaluation.
        smoothness: steps between two values of the distance between consecutive steps, 0 for none; a divisor of
            ``steps // evaluations``.
        frames: called at each evaluation with the run and the names of its variants, to keep pictures, say.
        out: folder for checkpoints. A run that finds one there goes on from it.

    Returns:
        "steps" `[T]` of the evaluations; "starts", the step N of each variant; for each variant the curves of
        `measured`, `[T][S]`; "epochs"; and "wall_time_s" (of training and judging, also before a restart). With
        `smoothness`, also "heard_steps" `[T']` and, for each variant, `HEARD`, `[T'][S]`.

    Raises:
        ValueError: "async-model" without a variant of beta = 0 whose average it could use; `smoothness` not a divisor.
    """
    data = gk.data.load(recipe.data)
    network = classifier_of(data)
    measure = judge(data, network)
    every = max(1, steps // evaluations)
    if smoothness and every % smoothness:
        raise ValueError(
            f"smoothness must be a divisor of the {every} steps from one judgement to the next, got {smoothness}"
        )
    result: dict[str, Any] = {"starts": {name: round(v.start * steps) for name, v in variants.items()}}
    finished: nn.Module | None = None
    seconds = 0.0
    for (source, lookahead), group in apart(variants).items():
        model = None
        if source == "async-model":
            if finished is None:
                raise ValueError(
                    "async-model needs a variant with beta = 0, whose average it takes samples from"
                )
            model = replicas(finished, list(range(len(seeds))) * len(group))
        run = build(recipe, data, group, seeds, steps, model)
        folder = out / f"{source}-{lookahead}" if out is not None else None
        if folder is not None and (found := checkpoints.latest(folder)) is not None:
            run.load(found)
        if lookahead:
            Lookahead(run, lookahead)
        moved = (
            ConsecutiveDistance(
                run, feature_distance(lambda x: network.features(x.cpu())), every=smoothness, n=samples
            )
            if smoothness
            else None
        )

        def look(
            run: Trainer,
            moved: ConsecutiveDistance | None = moved,
            names: Sequence[str] = tuple(group),
        ) -> dict[str, Tensor]:
            row = (moved(run) if moved is not None else None) or {}
            if run.steps % every == 0 or run.steps == steps:
                row |= measured(run, measure, samples)
                if frames is not None:
                    frames(run, names)
            return row

        run.fit(
            max(0, steps - run.steps),
            out=folder,
            log_every=every,
            save_every=every if folder is not None else None,
            callback=look,
            callback_every=smoothness or every,
        )
        plain = [i for i, v in enumerate(group.values()) if v.beta == 0]
        if plain and finished is None:
            first = plain[0] * len(seeds)
            finished = replicas(run.teacher.net, range(first, first + len(seeds)))
        result |= curves(run, list(group), len(seeds))
        seconds += run.history[-1]["seconds"]
    return result | {"wall_time_s": round(seconds, 1)}


def apart(variants: Mapping[str, Variant]) -> dict[tuple[str, int], dict[str, Variant]]:
    """The variants that can share an ensemble run, by source and lookahead; first those beside the first variant.

    The first variant should be conventional training.
    """
    keys = dict.fromkeys((v.source, v.lookahead) for v in variants.values())
    return {key: {name: v for name, v in variants.items() if (v.source, v.lookahead) == key} for key in keys}


def build(
    recipe: Recipe,
    data: Dataset,
    variants: Mapping[str, Variant],
    seeds: Sequence[int],
    steps: int,
    model: nn.Module | None = None,
) -> Trainer:
    """The ensemble run of variants of one source: replica ``v * len(seeds) + s`` is variant v with seed s.

    Args:
        recipe: networks, cost, optimisers, decay of the average.
        data: what to imitate.
        variants: name -> variant.
        seeds: S of them.
        steps: of the whole run, of which `Variant.start` is a share.
        model: the fixed generators of "async-model", one per replica.
    """
    each = [variant for variant in variants.values() for _ in seeds]
    G, D = gk.pair(lambda seed: recipe.networks(data.shape, seed), [s for _ in variants for s in seeds])
    return Trainer(
        G,
        D,
        data,
        loss=recipe.loss,
        batch_size=recipe.batch_size,
        n_dis=recipe.n_dis,
        g_optimizer=recipe.g_optimizer,
        d_optimizer=recipe.d_optimizer,
        ema=recipe.ema,
        leak=gk.Leak([v.beta for v in each], [round(v.start * steps) for v in each], each[0].source, model),
        d_terms=recipe.d_terms,
    )


def replicas(nets: nn.Module, rows: Sequence[int]) -> gk.Ensemble:
    """An ensemble of some of an ensemble's networks, with copied and fixed weights; a row may occur twice."""
    return gk.Ensemble(nets.replica, rows).eval().requires_grad_(False)


def measured(run: Trainer, judge: Judge, samples: int) -> dict[str, Tensor]:
    """Every measure of the average, and the generator's own distance and divergence beside them."""
    own = judge.closeness(judge.features(sample(run.G, samples)))
    return judge(run.teacher.sample(samples)) | {
        "g_distance": own["distance"],
        "g_divergence": own["divergence"],
    }


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures pictures in a classifier's features.

    Called with images `[S, N, C, H, W]` it gives `[S]` each of `KEYS`.

    Attributes:
        network: the classifier.
        real: features of the real pictures, `[M, d]`.
        expected: shares of their classes, `[K]`.
    """

    network: nn.Module
    real: Tensor
    expected: Tensor

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        features = self.features(images)
        return self.closeness(features) | self.neighbours(features)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """`[S, N, d]` of images."""
        return compute_features(self.network, images.cpu())

    @torch.no_grad()
    def closeness(self, features: Tensor) -> dict[str, Tensor]:
        """The Frechet distance, D_JS of the classes in bits, and how many classes have 10 % of their share."""
        labels = torch.stack([self.network.logits(one).argmax(-1) for one in features])
        share = frequencies(labels, len(self.expected))
        return {
            "distance": frechet_distance(features, self.real),
            "divergence": class_divergence(share, self.expected),
            "covered": (share >= COVERED * self.expected).sum(-1),
        }

    def neighbours(self, features: Tensor) -> dict[str, Tensor]:
        """Precision, recall, density and coverage with `NEIGHBOURS` neighbours among the first `REAL` real samples."""
        near = [prdc(self.real[:REAL], one, NEIGHBOURS) for one in features]
        return {key: torch.stack([one[key] for one in near]) for key in KEYS[3:]}


def judge(data: Dataset, network: nn.Module) -> Judge:
    """The measures of pictures like those of a data set, by its classifier (`figures.mm_nsat.runs.classifier_of`)."""
    real = compute_features(network, data.normalise(data.images))
    return Judge(network, real, data.class_frequencies())


def curves(run: Trainer, names: Sequence[str], n_seeds: int) -> dict[str, Any]:
    """The history of a run of `build`, taken apart into variants (see `train`)."""
    judged, heard = ([row for row in run.history if key in row] for key in ("distance", HEARD))
    result: dict[str, Any] = {
        "steps": [row["step"] for row in judged],
        "epochs": rounded(run.images / len(run.data)),
    }
    if heard:
        result["heard_steps"] = [row["step"] for row in heard]
    for i, name in enumerate(names):
        mine = slice(i * n_seeds, (i + 1) * n_seeds)
        rows = {key: judged for key in (*KEYS, *OWN)} | ({HEARD: heard} if heard else {})
        result[name] = {
            key: rounded(np.array([row[key] for row in found], float)[:, mine], 4)
            for key, found in rows.items()
        }
    return result


def summarise(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The numbers that texts and ledgers quote, for each variant of a result of `train`.

    The first of `names` is the reference of the comparisons.

    Returns:
        Per variant, over the seeds at the end: median, minimum and maximum of each of `KEYS` and `OWN`; "mean" and
        "std" of the distance, as the paper's table 1 has them; "best", the median of each run's smallest distance;
        "seeds_below", in how many seeds the distance is below the reference's; "ratio", the reference's median
        distance over this one's.
    """
    table: dict[str, dict[str, Any]] = {}
    other = np.array(result[names[0]]["distance"], float)[-1]
    for name in names:
        row: dict[str, Any] = {}
        for key in (*KEYS, *OWN):
            ends = np.array(result[name][key], float)[-1]
            row |= {
                key: rounded(np.median(ends)),
                f"{key}_min": rounded(ends.min()),
                f"{key}_max": rounded(ends.max()),
            }
        distance = np.array(result[name]["distance"], float)
        row |= {
            "mean": rounded(distance[-1].mean()),
            "std": rounded(distance[-1].std(ddof=1)) if len(distance[-1]) > 1 else 0.0,
            "best": rounded(np.median(distance.min(0))),
        }
        if name != names[0]:
            row["seeds_below"] = int((distance[-1] < other).sum())
            row["ratio"] = rounded(np.median(other) / np.median(distance[-1]), 3)
        table[name] = row
    return table


def table(result: Mapping[str, Any], labels: Mapping[str, str], key: str = "distance") -> str:
    """The summary as text, one line for each variant: median and range over the seeds at the end.

    Args:
        result: with "summary" and "provenance".
        labels: name -> what the line begins with; the first is the reference.
        key: which of the distances stands first.
    """
    width = max(map(len, labels.values())) + 1
    seeds = len(result["provenance"]["seeds"])
    lines = [
        f"{'':{width}} FD of the average            seeds   D_JS    precision  recall  density  coverage",
        f"{'':{width}} median (range)               below   bits",
    ]
    for name, label in labels.items():
        row = result["summary"][name]
        spread = f"{row[key]:6.1f} ({row[f'{key}_min']:.1f} to {row[f'{key}_max']:.1f})"
        below = f"{row['seeds_below']:2}/{seeds:<2}" if "seeds_below" in row else "     "
        lines.append(
            f"{label:{width}} {spread:28} {below}  {row['divergence']:.3f}      {row['precision']:.2f}     "
            f"{row['recall']:.2f}     {row['density']:.2f}      {row['coverage']:.2f}"
        )
    return "\n".join(lines)


CONVENTIONAL = "#4D4D4D"
LEAKY = "#882255"
"""Colours of conventional training and of LeakyEMA in every figure of this paper."""

BETAS = ("#56B4E9", LEAKY, "#D55E00", "#E69F00")
"""Colours of the shares of a grid, smallest first."""


def draw_ends(ax: Axes, curves: Mapping[str, Mapping[str, Any]], key: str) -> None:
    """One dot per seed and a dash at the median: the last value of each curve; the first one's median as a line.

    Args:
        ax: where to draw.
        curves: label -> curves of a variant.
        key: of the curve.
    """
    for i, variant in enumerate(curves.values()):
        ends = np.array(variant[key], float)[-1]
        color = LEAKY if i else CONVENTIONAL
        # Side by side in order of seed, so that a seed has the same place in every column.
        ax.plot(i + np.linspace(-0.25, 0.25, len(ends)), ends, ".", color=color, ms=5, alpha=0.8)
        ax.plot([i - 0.35, i + 0.35], [np.median(ends)] * 2, color=color, lw=2)
        if i == 0:
            ax.axhline(np.median(ends), color=color, lw=0.8, ls=":")
    ax.set_xticks(range(len(curves)), list(curves), rotation=40, ha="right", fontsize=8)
    ax.grid(axis="x", visible=False)


def draw_distances(
    result: Mapping[str, Any], variants: Mapping[str, Variant], colors: Mapping[str, str]
) -> Figure:
    """The distance during training, of the average (left) and of the generator (right): medians and bands over seeds.

    Args:
        result: of `experiment`; the dotted line is LeakyEMA's N.
        variants: name -> variant, for the labels.
        colors: name -> colour; the curves that are drawn, in this order.
    """
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), sharey=True)
    for ax, (key, title) in zip(
        axes, {"distance": "the average", "g_distance": "the generator"}.items(), strict=True
    ):
        for name, color in colors.items():
            curves = np.array(result[name][key], float)
            band(ax, np.array(result["steps"]), curves, color=color, label=variants[name].label)
        ax.axvline(result["starts"]["leakyema"], color="black", lw=0.8, ls=":")
        ax.set(title=title, xlabel="generator steps", yscale="log")
    axes[0].set_ylabel("FD, classifier's features (no unit)")
    axes[1].legend()
    return figure
