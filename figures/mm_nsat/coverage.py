"""Figures 1, 8, 15, 16 and 17 of the sample-weighting paper have one protocol and differ in their costs.

Each figure's module names its costs; `compute` trains them with several seeds in one ensemble run, `draw` shows the
distance and the class divergence during training, `table` says the same in numbers. Settings: "digits" takes minutes
and needs nothing; the "mnist" ones are the paper's networks and need the MNIST files (GANKIT_DATA) and hours;
"cifar10-conv4" needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import gankit as gk
from figures.mm_nsat import runs
from figures.mm_nsat.runs import Variant
from figures.provenance import rounded, stamp
from gankit.plotting import band, color_of
from gankit.scale import scale

SAMPLES = {"digits": 1_000, "ring": 2_500}
"""Generated images per evaluation and replica; 2,000 where nothing is said (the paper takes 50,000)."""

READINGS = {"digits": 30, "ring": 30}
"""Readings of gradients and logits kept in a result, of all that were made (600 where nothing is said)."""

SETTINGS = (
    "digits",
    "ring",
    "mnist-fc3",
    "mnist-fc4",
    "mnist-fc4-fast",
    "mnist-conv4",
    "mnist-conv4-fast",
    "cifar10-conv4",
    "cifar10-conv4-sn",
    "cifar10-conv4-sn-fast",
)
"""Those of `runs.SETTINGS` with ten classes, named by a classifier, and the ring of eight modes."""

MOST_BANDS = 6
"""With more curves than this in one panel, their bands would hide each other and are left out."""


def compute(
    variants: Mapping[str, Variant],
    setting: str = "",
    costs: str = "",
    n_seeds: int = 10,
    steps: int = 0,
    evaluations: int = 10,
    pictures: str = "",
    folder: str = "",
) -> dict[str, Any]:
    """Train all variants of a figure.

    Args:
        variants: name -> variant.
        setting: one of `SETTINGS`; "" takes "digits" at quick scale and "mnist-fc4" at full.
        costs: names of some of the variants, with commas between them; "" trains all.
        n_seeds: seeds 0..n_seeds-1 for every variant.
        steps: generator steps; 0 takes the recipe's.
        evaluations: how often samples are judged.
        pictures: data in place of the setting's: a name, or a folder, .zip or pack; "" for the setting's.
        folder: where checkpoints go; a run that finds one goes on from it. "" keeps none.

    Returns:
        What `runs.train` returns, with "setting", "samples", "names", "summary" (`runs.summarise`, of all readings)
        and "provenance". At most `READINGS` readings of the gradients and logits are kept.

    Raises:
        ValueError: a cost that is not among the variants, or a setting that is not among `SETTINGS`.
    """
    setting = setting or scale(quick="digits", full="mnist-fc4")
    if setting not in SETTINGS:
        raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
    names = chosen(variants, costs)
    seeds = list(range(n_seeds))
    samples = SAMPLES.get(setting, 2_000)
    result = runs.train(
        setting,
        {name: variants[name] for name in names},
        seeds,
        steps or runs.SETTINGS[setting].steps,
        evaluations=evaluations,
        samples=samples,
        log_every=5 if setting in SAMPLES else 50,
        pictures=pictures,
        out=Path(folder) if folder else None,
    )
    summary = runs.summarise(result, names)
    return thinned(result, names, READINGS.get(setting, 600)) | {
        "setting": setting,
        "samples": samples,
        "names": names,
        "summary": summary,
        "provenance": stamp(result["wall_time_s"], seeds, packages=("torch", "numpy")),
    }


def chosen(variants: Mapping[str, Variant], costs: str) -> list[str]:
    """The names in a list with commas between them, in the order of `variants`; all for "".

    Raises:
        ValueError: a name that is not among the variants.
    """
    if unknown := set(costs.split(",")) - {"", *variants}:
        raise ValueError(f"costs must be among {', '.join(variants)}, got {', '.join(sorted(unknown))}")
    return [name for name in variants if not costs or name in costs.split(",")]


def thinned(result: Mapping[str, Any], names: Sequence[str], readings: int) -> dict[str, Any]:
    """A result of `runs.train` with at most so many readings of gradients and logits, the last among them.

    Samples are judged far more rarely than gradients are read, and every judgement is kept.
    """
    total = len(result["log_steps"])
    every = -(-total // readings)
    kept = [i for i in range(total) if (total - 1 - i) % every == 0]
    few = dict(result) | {"log_steps": [result["log_steps"][i] for i in kept]}
    for name in names:
        few[name] = {
            key: rounded(np.array([values[i] for i in kept]), 4) if len(values) == total else values
            for key, values in result[name].items()
        }
    return few


def draw(
    result: Mapping[str, Any],
    variants: Mapping[str, Variant],
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """The distance and D_JS of the classes over training (median of the seeds, and their range where curves are few),
    and on the right the D_JS in which each seed ended.

    Args:
        result: of `compute`.
        variants: the same that were trained.
        styles: name -> "color" and "ls", where they are not the cost's own.
    """
    gk.plotting.use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=[1, 1, 0.8])
    looks = _looks(variants, styles)
    for ax, key in zip(axes, ("distance", "divergence"), strict=False):
        _draw_curves(ax, result, variants, looks, key)
    ends = {v.label: np.array(result[name]["divergence"], float)[-1] for name, v in variants.items()}
    gk.plotting.dots(axes[2], ends, [look["color"] for look in looks.values()], rotation=60)
    axes[2].set(yscale="log", xlabel="at the end, each seed", ylabel="$D_{JS}$ of classes (bits)")
    axes[2].axhline(floor_of(result), color="black", ls=":", lw=0.8)
    low, high = zip(*(ax.get_ylim() for ax in axes[1:]), strict=True)
    for ax in axes[1:]:
        ax.set_ylim(min(low), max(high))
        label_bits(ax)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(variants), 6)
    )
    return figure


def draw_networks(
    results: Sequence[Mapping[str, Any]],
    variants: Mapping[str, Variant],
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Several networks, one below another, like the paper's figure 8: distance on the left, D_JS on the right.

    Args:
        results: of `compute`; each may hold some of the variants.
        variants, styles: as for `draw`.
    """
    gk.plotting.use_style()
    figure, axes = plt.subplots(len(results), 2, figsize=(9, 0.6 + 2.7 * len(results)), squeeze=False)
    looks = _looks(variants, styles)
    for row, result in zip(axes, results, strict=True):
        held = {name: variant for name, variant in variants.items() if name in result["names"]}
        for ax, key in zip(row, ("distance", "divergence"), strict=True):
            _draw_curves(ax, result, held, looks, key)
            ax.set_title(f"{result['setting']}, {len(result['provenance']['seeds'])} seeds", fontsize=10)
        label_bits(row[1])
    most = max(axes[:, 0], key=lambda ax: len(ax.get_lines()))
    figure.legend(*most.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(variants), 6))
    return figure


def _looks(
    variants: Mapping[str, Variant], styles: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    return {
        name: {"color": color_of(name), "ls": "-"} | dict((styles or {}).get(name, {})) for name in variants
    }


def _draw_curves(
    ax: Axes,
    result: Mapping[str, Any],
    variants: Mapping[str, Variant],
    looks: Mapping[str, Mapping[str, Any]],
    key: str,
) -> None:
    """ "distance" or "divergence" over training, a curve for each variant."""
    x, unit = time_axis(result)
    for name, variant in variants.items():
        values = np.array(result[name][key], float)
        if len(variants) <= MOST_BANDS:
            band(ax, x, values, label=variant.label, color=looks[name]["color"])
        else:
            ax.plot(x, np.median(values, 1), label=variant.label, lw=1.6, **looks[name])
    ax.set(yscale="log", xlabel=unit)
    if key == "distance":
        ax.set_ylabel(f"FD, {space_of(result['setting'])} (no unit)")
        label_distance(ax)
    else:
        ax.set_ylabel("$D_{JS}$ of classes (bits)")
        floor = floor_of(result)
        if floor > 0.05 * min(line.get_ydata().min() for line in ax.get_lines()):  # else it lies far below
            ax.axhline(floor, color="black", ls=":", lw=0.8)


def label_bits(ax: Axes) -> None:
    """Plain numbers at a logarithmic vertical axis of D_JS of ten classes; the last one is its largest value."""
    _label(
        ax, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.76), (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.76)
    )


def label_distance(ax: Axes) -> None:
    """Plain numbers at a logarithmic vertical axis of distances."""
    powers = 10.0 ** np.arange(-2, 5)
    _label(ax, np.outer(powers, (1, 2, 5)).ravel(), np.outer(powers, (1, 1.5, 2, 3, 4, 5, 6, 7, 8)).ravel())


def _label(ax: Axes, coarse: Sequence[float], fine: Sequence[float]) -> None:
    """Ticks from the first list, or where too few of them lie in the axis' range, from the second."""
    low, high = ax.get_ylim()
    inside = [[tick for tick in ticks if low <= tick <= high] for ticks in (coarse, fine)]
    shown = inside[0] if len(inside[0]) >= 3 else inside[1]
    ax.set_yticks(shown, [f"{tick:g}" for tick in shown])
    ax.yaxis.minorticks_off()


def table(result: Mapping[str, Any], variants: Mapping[str, Variant], reference: str = "ns") -> str:
    """The summary of a result as text, one line for each variant that it holds, in the order of `variants`.

    Columns: median D_JS at the end with its range, in how many seeds it is below the reference's with the same seed,
    the reference's median over this one's, the classes covered, the median distance at the end and at its best, and
    how many runs had a generator gradient below `runs.DEAD` at any reading.
    """
    seeds = len(result["provenance"]["seeds"])
    other = variants[reference].label if reference in result["names"] else reference
    names = [name for name in variants if name in result["names"]]
    width = max(len(variants[name].label) for name in names) + 1
    lines = [
        f"{'':{width}} D_JS of classes, bits   seeds     median   classes   distance       runs with",
        f"{'':{width}} median (range)          below {other:3} ratio    covered   end    best    vanished gradient",
    ]
    for name in names:
        row = result["summary"][name]
        spread = f"{row['D_JS']:.3f} ({row['D_JS_min']:.3f} to {row['D_JS_max']:.3f})"
        pairs = f"{row['seeds_below']:2} of {seeds:2}   {row['ratio']:5.1f}" if "ratio" in row else " " * 16
        lines.append(
            f"{variants[name].label:{width}} {spread:23} {pairs}    {row['covered']:4.1f}   "
            f"{_short(row['distance'])} {_short(row['best_distance'])}    {row['dead']:2} of {seeds}"
        )
    return "\n".join(lines)


def _short(distance: float) -> str:
    """Six characters: distances of points are a thousandth of those of pictures."""
    return f"{distance:6.1f}" if distance >= 10 else f"{distance:6.3f}"


def space_of(setting: str) -> str:
    """The features in which a setting's distance is measured, in words."""
    if setting == "ring":
        return "points"
    return f"{'digits' if setting == 'digits' else setting.partition('-')[0].upper()} classifier"


def order(result: Mapping[str, Any], names: Sequence[str]) -> float:
    """Spearman's rank correlation of a variant's place in a list and its D_JS at the end, over all runs.

    The mean of each seed over the variants is taken off first, since seeds are paired and some are harder than others:
    -1 says that every step along the list lowers D_JS in every seed.
    """
    ends = np.array([np.array(result[name]["divergence"], float)[-1] for name in names])  # [variants, S]
    place = np.repeat(np.arange(len(names))[:, None], ends.shape[1], 1)
    return rounded(float(spearmanr(place.ravel(), (ends - ends.mean(0)).ravel()).statistic), 3)


def time_axis(result: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Numbers `[T]` and label of the horizontal axis: epochs where training lasts longer than a few, else steps."""
    steps = np.array(result["steps"])
    if result["setting"] not in ("digits", "ring"):
        return steps * (result["epochs"] / steps[-1]), "epochs"
    return steps, "generator steps"


def perfect(samples: int, n_classes: int = 10) -> float:
    """D_JS in bits that a perfect generator scores on average with so many samples, (C - 1) / (8 n ln 2).

    The leading term for n much larger than C.
    """
    return (n_classes - 1) / (8 * samples * np.log(2))


def floor_of(result: Mapping[str, Any]) -> float:
    """`perfect` for the samples and classes (or modes) of a result."""
    return perfect(result["samples"], 8 if result["setting"] == "ring" else 10)
