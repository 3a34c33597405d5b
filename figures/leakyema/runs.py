"""What the training figures of the LeakyEMA paper share: variants of the leak, trained side by side.

A *variant* says what replaces real samples: how many of them, since when, from where. Variants whose samples come from
the same place are one ensemble run, in which replicas of one seed share initial weights, z and data: with the teacher's
samples on the minibatch's own z ("sync") they are the same run until leaking begins, up to rounding. Sources
that draw latents of their own see other minibatches from then on.

A *setting* is everything else, a recipe. "digits" takes minutes and needs nothing; "mnist-conv4" needs the MNIST files
(GANKIT_DATA) and an hour; "cifar10-sngan" needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import gankit as gk
from figures.judging import Judge, of_classes
from figures.leakyema.lookahead import Lookahead
from figures.mm_nsat.runs import against, ends_of
from figures.provenance import rounded, stamp
from gankit import study
from gankit.data import Dataset
from gankit.metrics.path_length import ConsecutiveDistance
from gankit.metrics.similarity import feature_distance
from gankit.models.blocks import seeded
from gankit.models.sampling import sample
from gankit.models.spectral import SNConv2d, SNLinear
from gankit.plotting import band, dots, use_style
from gankit.recipes import Networks, Recipe, recipes, register
from gankit.scale import scale
from gankit.training import Trainer

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

    def changes(self, steps: int) -> dict[str, Any]:
        """What of it a recipe can say, for a run of so many steps: the fixed model comes later."""
        source = "sync" if self.source == "async-model" else self.source
        return {"leak": gk.Leak(self.beta, round(self.start * steps), source) if self.beta else None}


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
    "cifar10-sngan-narrow": Recipe(
        "leakyema-cifar10-sngan-narrow", "cifar10-sngan for a CPU",
        data="cifar10", networks=Networks("sngan", z_dim=128, width=16), loss="hinge", steps=2_000, batch_size=32,
        n_dis=2, g_optimizer=gk.Adam(5e-4), d_optimizer=gk.Adam(5e-4), ema=gk.EMA(0.99),
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
    pictures: str = "",
    folder: str = "",
    **others: Any,
) -> dict[str, Any]:
    """`train` with what a figure module's result has beside the curves.

    Args:
        variants: name -> variant; the first is the reference of comparisons.
        setting: a key of `SETTINGS`; "" takes "digits" at quick scale and "cifar10-sngan" at full.
        n_seeds: seeds 0..n_seeds-1 for every variant.
        steps: generator steps; 0 takes the recipe's.
        evaluations: how often samples are judged, the end included.
        samples: generated images per replica and judgement.
        pictures: data in place of the setting's: a name, or a folder, .zip or pack; "" for the setting's.
        others: as for `train`.
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
    recipe = dataclasses.replace(recipe, data=pictures or recipe.data)
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
    own = of_classes(data)
    every = max(1, steps // evaluations)
    if smoothness and every % smoothness:
        raise ValueError(
            f"smoothness must be a divisor of the {every} steps from one judgement to the next, got {smoothness}"
        )
    result: dict[str, Any] = {"starts": {name: round(v.start * steps) for name, v in variants.items()}}
    finished: nn.Module | None = None
    seconds = 0.0
    for (source, lookahead), group in apart(variants).items():
        if source == "async-model" and finished is None:
            raise ValueError("async-model needs a variant with beta = 0, whose average it takes samples from")
        folder = out / f"{source}-{lookahead}" if out is not None else None
        model = finished if source == "async-model" else None

        trained, run = _together(
            recipe, group, seeds, steps, every, data=data, folder=folder, samples=samples, smoothness=smoothness,
            frames=frames, judge=own, lookahead=lookahead, model=model,
        )  # fmt: skip
        plain = [i for i, v in enumerate(group.values()) if v.beta == 0]
        if plain and finished is None:
            first = plain[0] * len(seeds)
            finished = replicas(run.teacher.net, range(first, first + len(seeds)))
        keys = (*KEYS, *OWN, *([HEARD] if smoothness else []))
        for name, one in trained["curves"].items():
            result[name] = {key: rounded(np.array(one[key], float), 4) for key in keys}
        result |= {"steps": trained["steps"], "epochs": rounded(trained["epochs"])}
        if smoothness:
            result["heard_steps"] = study.curve(trained, next(iter(group)), HEARD)[0].tolist()
        seconds += trained["wall_time_s"]
    return result | {"wall_time_s": round(seconds, 1)}


def _together(
    recipe: Recipe,
    group: Mapping[str, Variant],
    seeds: Sequence[int],
    steps: int,
    every: int,
    *,
    data: Dataset,
    folder: Path | None,
    samples: int,
    smoothness: int,
    frames: Callable[[Trainer, Sequence[str]], None] | None,
    judge: Judge,
    lookahead: int,
    model: nn.Module | None,
) -> tuple[dict[str, Any], Trainer]:
    """The study of variants of one source (`train`), and its run."""
    runs: list[Trainer] = []
    moved: list[ConsecutiveDistance] = []

    def prepare(run: Trainer, names: Sequence[str]) -> None:
        runs.append(run)
        if model is not None:
            fixed = replicas(model, list(range(len(seeds))) * len(names))
            leak = dataclasses.replace(run.game.leak, source="async-model", model=fixed)
            run.game = dataclasses.replace(run.game, leak=leak)
        if lookahead:
            Lookahead(run, lookahead)
        if smoothness:
            space = feature_distance(lambda x: judge.network.features(x.cpu()))
            moved.append(ConsecutiveDistance(run, space, every=smoothness, n=samples))

    result = study.run(
        recipe,
        {name: variant.changes(steps) for name, variant in group.items()},
        seeds,
        steps,
        measures=[
            lambda run: measured(run, judge, samples),
            lambda run: frames(run, list(group)) if frames is not None else None,
        ],
        every=every,
        log_every=every,
        callback=(lambda run: moved[-1](run)) if smoothness else None,
        callback_every=smoothness or 1,
        prepare=prepare,
        folder=folder,
        data=data,
    )
    (run,) = runs
    return result, run


def apart(variants: Mapping[str, Variant]) -> dict[tuple[str, int], dict[str, Variant]]:
    """The variants that can share an ensemble run, by source and lookahead; first those beside the first variant.

    The first variant should be conventional training.
    """
    keys = dict.fromkeys((v.source, v.lookahead) for v in variants.values())
    return {key: {name: v for name, v in variants.items() if (v.source, v.lookahead) == key} for key in keys}


def replicas(nets: nn.Module, rows: Sequence[int]) -> gk.Ensemble:
    """An ensemble of some of an ensemble's networks, with copied and fixed weights; a row may occur twice."""
    return gk.Ensemble(nets.replica, rows).eval().requires_grad_(False)


def measured(run: Trainer, judge: Judge, samples: int) -> dict[str, Tensor]:
    """Every measure of the average, and the generator's own distance and divergence beside them."""
    own = judge(sample(run.G, samples))
    average = every_measure(judge, run.teacher.sample(samples))
    return average | {"g_distance": own["distance"], "g_divergence": own["divergence"]}


def every_measure(judge: Judge, images: Tensor) -> dict[str, Tensor]:
    """`KEYS` of images `[S, N, C, H, W]`, `[S]` each."""
    features = judge.features(images)
    found = judge.classes(features) | judge.neighbours(features)
    return {key: found[key] for key in KEYS}


def judge(data: Dataset) -> Callable[[Tensor], dict[str, Tensor]]:
    """A function of images that measures `KEYS`, beside the pictures of a data set (`figures.judging`)."""
    return partial(every_measure, of_classes(data))


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
            row |= ends_of(key, np.array(result[name][key], float)[-1])
        distance = np.array(result[name]["distance"], float)
        row |= {
            "mean": rounded(distance[-1].mean()),
            "std": rounded(distance[-1].std(ddof=1)) if len(distance[-1]) > 1 else 0.0,
            "best": rounded(np.median(distance.min(0))),
        }
        if name != names[0]:
            row |= against(distance[-1], other)
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
    ends = {label: np.array(variant[key], float)[-1] for label, variant in curves.items()}
    dots(ax, ends, [CONVENTIONAL, *[LEAKY] * (len(ends) - 1)])
    ax.axhline(np.median(next(iter(ends.values()))), color=CONVENTIONAL, lw=0.8, ls=":")


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
