"""Chapter 20: the recipes for CIFAR-10, made narrow and short enough for a CPU, and how their curves are read.

`compute` says nothing that a reader could not type: it calls `gankit train`, `gankit classifier` and `gankit evaluate
--curve`, and collects the files they write. A run that is there already is not trained again, and one that was
interrupted goes on.

Every kept checkpoint is measured twice, with two sets of latents. The lowest of many readings is too low, because it
was chosen for being low; the other set of latents at the same checkpoint says by how much.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from filelock import FileLock
from matplotlib.figure import Figure

from figures.leakyema.runs import BETAS, CONVENTIONAL, LEAKY
from figures.mm_nsat.coverage import label_bits, label_distance
from figures.provenance import command_line, rounded, stamp
from gankit import classifiers, commands
from gankit.commands import flags
from gankit.plotting import band, color_of, use_style
from gankit.recipes import operations, recipes
from gankit.training import checkpoints

REAL = 10_000
"""Real pictures that samples are compared with, as in the papers' tables of precision and recall."""

CONV4 = shlex.split(
    "--width 16 --batch-size 64 --lr 5e-4 --steps 4000 --save-every 200 --keep-every 400 --log-every 20"
)
"""Half of the recipe's filters, half of its batch, five times its learning rate, a hundredth of its steps."""

BIGGAN = shlex.split(
    "--width 8 --n-dis 2 --lr 5e-4 --ema-decay 0.995 --ema-start 0 --steps 1200 "
    "--save-every 100 --keep-every 150 --log-every 10"
)
"""An eighth of the recipe's filters, two discriminator steps instead of four, a hundredth of its steps."""

SNGAN = shlex.split(
    "--loss hinge --width 16 --batch-size 32 --n-dis 2 --lr 5e-4 --ema-decay 0.99 --steps 1600 "
    "--save-every 100 --keep-every 400 --log-every 20"
)
"""A sixteenth of the recipe's filters, half of its batch, a sixtieth of its steps; hinge cost and two discriminator
steps as in section 4.1 of the LeakyEMA paper, which has five."""

WGANGP = shlex.split(
    "--loss wgan --beta2 0.9 --width 16 --batch-size 32 --n-dis 5 --lr 5e-4 --ema-decay 0.99 --steps 1000 "
    "--save-every 100 --keep-every 250 --log-every 20"
)
"""The same networks without normalisation in D, with appendix B's penalty, betas and discriminator steps."""

SNGAN_FULL = shlex.split(
    "--loss hinge --width 128 --batch-size 64 --n-dis 5 --lr 2e-4 --ema-decay 0.99 --precision tf32 --steps 1200 "
    "--save-every 300 --keep-every 1200 --log-every 20"
)
"""Section 4.1's cost, optimiser, batch and discriminator steps, and Miyato's generator's filters, for minutes on a
card: a two-hundredth of its steps, and an average with a memory of 100."""

COUNTED = ("--steps", "--save-every", "--keep-every", "--log-every", "--leak-start")
"""Flags that count generator steps."""


@dataclass(frozen=True)
class Run:
    """A run with several seeds.

    Attributes:
        label: name in legends and tables.
        recipe: of `gankit.recipes`.
        flags: of `gankit train`, what differs from the recipe.
        seeds: of the paired runs.
        together: all seeds in one ensemble run; or one run each, which is faster for networks of this size.
        network: whose samples are measured, "generator" or "teacher".
        metrics: of `gankit.metrics`.
        color: in figures.
    """

    label: str
    recipe: str
    flags: Sequence[str]
    seeds: Sequence[int]
    together: bool
    network: str
    metrics: Sequence[str]
    color: str


COUNTS = ("fd", "class_divergence", "classes_covered")
TABLE6 = ("is", "fd", "precision", "recall", "density", "coverage")


def _averaged(label: str, recipe: str, flags: Sequence[str], color: str) -> Run:
    """A run of six seeds, one after another, of which the average is measured."""
    return Run(label, recipe, flags, range(6), False, "teacher", TABLE6, color)


RUNS: Mapping[str, Run] = {
    name: Run(label, f"{name}-cifar10-conv4", CONV4, range(5), True, "generator", COUNTS, color_of(name))
    for name, label in (("ns", "NS"), ("mm-nsat", "MM-nsat"), ("mm", "MM"))
} | {
    "biggan": Run("BigGAN", "biggan-cifar10", BIGGAN, range(3), False, "teacher", TABLE6, CONVENTIONAL),
    "leakyema": Run(
        "BigGAN + LeakyEMA",
        "leakyema-biggan-cifar10",
        [*BIGGAN, "--leak-start", "600"],
        range(3),
        False,
        "teacher",
        TABLE6,
        LEAKY,
    ),
    "sngan": _averaged("SNGAN", "sn-cifar10", SNGAN, CONVENTIONAL),
    **{
        f"sngan-leak-{beta}": _averaged(
            f"SNGAN + LeakyEMA, β = 0.{beta}",
            "sn-cifar10",
            [*SNGAN, "--leak-beta", f"0.{beta}", "--leak-start", "640"],
            color,
        )
        for beta, color in zip(("25", "5", "75"), BETAS, strict=False)
    },
    "sngan-full": _averaged("SNGAN, 128 filters", "sn-cifar10", SNGAN_FULL, CONVENTIONAL),
    "sngan-full-leak": _averaged(
        "SNGAN, 128 filters + LeakyEMA",
        "sn-cifar10",
        [*SNGAN_FULL, "--leak-beta", "0.5", "--leak-start", "480"],
        LEAKY,
    ),
    "wgan-gp": _averaged("WGAN-GP", "gp-cifar10", WGANGP, CONVENTIONAL),
    "wgan-gp-leak-25": _averaged(
        "WGAN-GP + LeakyEMA",
        "gp-cifar10",
        [*WGANGP, "--leak-beta", "0.25", "--leak-start", "400"],
        LEAKY,
    ),
}
"""The paper's Conv-4 with three costs (figure 8 of the sample-weighting paper), whose networks it measures without
averaging; the two BigGANs of LeakyEMA's table 6, of which it measures the average; and SNGAN and WGAN-GP with the leaks
of its tables 1 and 3, from the paper's share of the run on, 0.4."""

PAIRS = {
    "mm-nsat": "ns",
    "mm": "ns",
    "leakyema": "biggan",
    **{f"sngan-leak-{beta}": "sngan" for beta in ("25", "5", "75")},
    "sngan-full-leak": "sngan-full",
    "wgan-gp-leak-25": "wgan-gp",
}
"""Run -> the one that it is compared with, seed by seed: equal weights, latents and data at the start."""


CHAPTER = ("ns", "mm-nsat", "mm", "biggan", "leakyema")
"""The runs that chapter 20 tells of."""


def compute(
    data: str = "cifar10",
    folder: str = "runs/cifar10",
    runs: str = "",
    seeds: int = 0,
    samples: int = 2_000,
    real: int = REAL,
    length: float = 1.0,
) -> dict[str, Any]:
    """Train what is not trained yet, measure the curves, and collect them.

    Args:
        data: CIFAR-10: the name, for torchvision's files; or a folder, .zip or pack of class folders.
        folder: where runs, the classifier and the curves are kept.
        runs: names of `RUNS` with commas between them; "" takes those of chapter 20, the Conv-4 and the BigGANs.
        seeds: how many seeds of each run; 0 takes its own.
        samples: generated pictures for each seed and checkpoint.
        real: real pictures that they are compared with.
        length: every number of steps, that of a checkpoint's and of the leak's start too, times this.

    Returns:
        "runs": for each run its command (of the first seed, where each has a run of its own), seeds, "steps" `[T]`,
        "images" `[T]`, "scores" and "again" (metric -> `[T][S]`, with two sets of latents), what was logged
        ("logged"), "operations" in this run and in the recipe's; and "classifier_accuracy", "samples", "real",
        "summary" (`summarise`) and "provenance".

    Raises:
        ValueError: an unknown run.
    """
    names = [name for name in runs.split(",") if name] or list(CHAPTER)
    if unknown := set(names) - set(RUNS):
        raise ValueError(f"runs must be among {', '.join(RUNS)}, got {', '.join(sorted(unknown))}")
    root = Path(folder)
    judge = root / "classifiers.pt"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "classifiers.lock"):  # runs side by side wait for one judge
        if not judge.exists():
            gankit("classifier", data, "--to", judge)
    found = {}
    for name in names:
        run = stretched(RUNS[name], length)
        chosen = list(range(seeds)) or list(run.seeds)
        found[name] = collect(
            [measured(part, judge, run, samples, real) for part in train(run, chosen, data, root / name)]
        )
        found[name] |= facts(run, chosen)
    wall = sum(run["wall_time_s"] for run in found.values())
    return {
        "runs": found,
        "classifier_accuracy": rounded(classifiers.read(judge)[0].test_accuracy, 4),
        "samples": samples,
        "real": real,
        "summary": summarise(found),
        "provenance": stamp(
            wall, range(max(len(run["seeds"]) for run in found.values())), ("torch", "numpy")
        ),
    }


def stretched(run: Run, length: float) -> Run:
    """The run with every number of steps times `length`, at least 1."""
    flags = list(run.flags)
    for i, flag in enumerate(flags[:-1]):
        if flag in COUNTED:
            flags[i + 1] = str(max(1, round(int(flags[i + 1]) * length)))
    return replace(run, flags=flags)


def gankit(*words: Any) -> None:
    """Run a command of gankit in this process.

    Raises:
        RuntimeError: it failed; what it printed says why.
    """
    if (status := commands.main([str(word) for word in words])) != 0:
        raise RuntimeError(f"`gankit {shlex.join(map(str, words))}` ended with status {status}")


def command(run: Run, seeds: Sequence[int], data: str, out: Path) -> list[str]:
    """`gankit train` with the run's arguments."""
    return ["train", run.recipe, "--data", data, *run.flags, "--seed", *map(str, seeds), "--out", str(out)]


def train(run: Run, seeds: Sequence[int], data: str, root: Path) -> list[Path]:
    """Train the seeds of a run, those of them that are not finished; their folders."""
    parts = [seeds] if run.together else [[seed] for seed in seeds]
    folders = [root / (run.recipe if run.together else f"{run.recipe}-seed{part[0]}") for part in parts]
    for part, out in zip(parts, folders, strict=True):
        gankit(*command(run, part, data, out), "--quiet")
    return folders


def measured(out: Path, judge: Path, run: Run, samples: int, real: int = REAL) -> dict[str, Any]:
    """What `gankit evaluate --curve` finds in a folder, with two sets of latents, and what was logged there."""
    curves = {}
    for key, latents in {"scores": 0, "again": 1}.items():
        target = out / f"curve-{latents}.json"
        newest = checkpoints.latest(out)
        if not target.exists() or target.stat().st_mtime < newest.stat().st_mtime:
            gankit(
                *(
                    "evaluate",
                    out,
                    "--curve",
                    "--network",
                    run.network,
                    "--metrics",
                    *run.metrics,
                    "-n",
                    samples,
                ),
                *("--n-real", real, "--features", "classifier", "--weights", judge),
                *("--sample-seed", latents, "--no-errors", "--quiet", "--to", target),
            )
        curves[key] = json.loads(target.read_text())
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    first = curves["scores"]
    titles = dict(zip(run.metrics, first["scores"], strict=True))
    every = max(1, len(rows) // 50)
    return {
        "seeds": first["seeds"],
        "steps": first["steps"],
        "images": first["images"],
        "titles": titles,
        **{
            key: {m: columns(curve["scores"][titles[m]]) for m in run.metrics}
            for key, curve in curves.items()
        },
        "log_steps": [row["step"] for row in rows][every - 1 :: every],
        "logged": {
            key: columns([row[key] for row in rows])[every - 1 :: every]
            for key in ("g_grad", "real_logit", "fake_logit")
        },
        "least_gradient": columns([row["g_grad"] for row in rows]).min(0),
        "wall_time_s": rows[-1]["seconds"],
    }


def columns(values: Sequence[Any]) -> np.ndarray:
    """Numbers or lists of them, one for each row, as `[T, S]`."""
    return np.array(values, float).reshape(len(values), -1)


def collect(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The seeds of a run side by side.

    Raises:
        ValueError: they were measured at different steps.
    """
    first = parts[0]
    if any(part["steps"] != first["steps"] for part in parts):
        raise ValueError(f"the seeds were measured at different steps: {[part['steps'] for part in parts]}")

    def beside(*keys: str) -> Any:
        values = []
        for part in parts:
            value: Any = part
            for key in keys:
                value = value[key]
            values.append(np.atleast_2d(value))
        return rounded(np.concatenate(values, 1))

    return {
        "seeds": [seed for part in parts for seed in part["seeds"]],
        **{key: first[key] for key in ("steps", "images", "titles", "log_steps")},
        **{key: {name: beside(key, name) for name in first[key]} for key in ("scores", "again", "logged")},
        "least_gradient": beside("least_gradient")[0],
        "wall_time_s": round(sum(part["wall_time_s"] for part in parts), 1),
    }


def facts(run: Run, seeds: Sequence[int]) -> dict[str, Any]:
    """What is known of a run before it is started: the command of its first seeds, and its operations beside the
    recipe's."""
    words = command(run, seeds if run.together else seeds[:1], "CIFAR10", Path("runs") / run.recipe)
    full = recipes[run.recipe]
    own = full.changed(flags.read(run.flags))
    return {
        "command": f"gankit {shlex.join(words)}",
        "recipe": run.recipe,
        "operations": rounded(operations.of_recipe(own).total),
        "operations_of_the_recipe": rounded(operations.of_recipe(full).total),
        "network": run.network,
    }


def summarise(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The numbers that texts and ledgers quote, for each run.

    Returns:
        Per run: for each metric its median over the seeds at the end, with minimum and maximum; "dead", in how many
        seeds the generator's gradient was ever below 1e-3; "best", for the Frechet distance, the lowest reading of each
        seed, the other latents' reading of the same checkpoint, and the mean of all differences between the two sets
        of latents; and where `PAIRS` names one, the number of "pairs", and "below" and "above", metric -> in how many
        of them the end lies below or above the other run's.
    """
    table: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        row: dict[str, Any] = {"dead": int((np.array(run["least_gradient"]) < 1e-3).sum())}
        for metric, values in run["scores"].items():
            end = np.array(values, float)[-1]
            row |= {
                metric: rounded(np.median(end)),
                f"{metric}_min": rounded(end.min()),
                f"{metric}_max": rounded(end.max()),
            }
        row["best"] = reread(np.array(run["scores"]["fd"], float), np.array(run["again"]["fd"], float))
        if (other := runs.get(PAIRS.get(name, ""))) is not None and other["seeds"] == run["seeds"]:
            change = {
                metric: np.array(values)[-1] - np.array(other["scores"][metric])[-1]
                for metric, values in run["scores"].items()
            }
            row["pairs"] = len(run["seeds"])
            row["below"] = {metric: int((values < 0).sum()) for metric, values in change.items()}
            row["above"] = {metric: int((values > 0).sum()) for metric, values in change.items()}
        table[name] = row
    return table


def reread(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The lowest of T readings of each seed, and a second reading of the same checkpoint.

    Args:
        first, second: two independent readings of the same checkpoints, `[T, S]`.

    Returns:
        "step" (the index of the lowest), "lowest" and "again", `[S]` each; "too_low", the mean over the seeds of
        again - lowest; and "noise", the standard deviation of one reading, from the differences of the two.
    """
    lowest = first.argmin(0)

    def pick(readings: np.ndarray) -> np.ndarray:
        return np.take_along_axis(readings, lowest[None], 0)[0]

    # A difference of two readings has twice the variance of one.
    return {
        "step": lowest.tolist(),
        "lowest": rounded(pick(first)),
        "again": rounded(pick(second)),
        "too_low": rounded((pick(second) - pick(first)).mean()),
        "noise": rounded(float(np.sqrt(((second - first) ** 2).mean() / 2))),
    }


def draw_costs(result: Mapping[str, Any]) -> Figure:
    """Figure 8's last rows: the distance and D_JS of the classes over training, for the costs of the Conv-4."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    panels = ("fd", "FD, classifier's features (no unit)"), ("class_divergence", "$D_{JS}$ of classes (bits)")
    for ax, (metric, label) in zip(axes, panels, strict=False):
        _curves(ax, result, ("ns", "mm", "mm-nsat"), metric)
        ax.set(ylabel=label, yscale="log")
    label_distance(axes[0]), label_bits(axes[1])
    for name in ("ns", "mm", "mm-nsat"):
        if name in result["runs"]:
            run = result["runs"][name]
            gradient = np.maximum(np.array(run["logged"]["g_grad"], float), 1e-12)
            band(axes[2], run["log_steps"], gradient, color=RUNS[name].color)
    axes[2].set(xlabel="generator steps", ylabel="norm of G's gradient (no unit)", yscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def draw_biggans(result: Mapping[str, Any]) -> Figure:
    """Table 6's columns over training, for runs with a leak and without; leaks begin at the dotted line."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    labels = {"fd": "FD, classifier's features (no unit)", "precision": "precision", "recall": "recall"}
    for ax, (metric, label) in zip(axes, labels.items(), strict=True):
        _curves(ax, result, list(result["runs"]), metric)
        for start in {one for run in result["runs"].values() for one in _starts(run["command"])}:
            ax.axvline(start, color="black", lw=0.8, ls=":")
        ax.set_ylabel(label)
    axes[0].set_yscale("log")
    label_distance(axes[0])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _starts(command: str) -> list[int]:
    """The step at which the leak begins, from a command that says it."""
    words = shlex.split(command)
    return [int(words[words.index("--leak-start") + 1])] if "--leak-start" in words else []


def draw_pairs(result: Mapping[str, Any]) -> Figure:
    """How much lower MM-nsat's distance is than NS's, in each pair of runs at each kept checkpoint."""
    use_style()
    ours, other = (np.array(result["runs"][name]["scores"]["fd"], float) for name in ("mm-nsat", "ns"))
    steps = result["runs"]["ns"]["steps"]
    figure, ax = plt.subplots(figsize=(8, 2.6))
    ratio = np.log2(ours / other).T
    image = ax.imshow(ratio, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for seed, row in enumerate(ratio):
        for i, value in enumerate(row):
            winner, dark = "MM-nsat" if value < 0 else "NS", abs(value) > 0.6
            ax.text(i, seed, winner, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    ax.set_xticks(range(len(steps)), [f"{step:,}" for step in steps])
    ax.set_yticks(range(len(ratio)), result["runs"]["ns"]["seeds"])
    ax.set(xlabel="generator steps", ylabel="seed")
    ax.grid(visible=False)
    bar = figure.colorbar(image, ax=ax, ticks=[-1, 0, 1], extend="both", label="FD, MM-nsat / NS")
    bar.ax.set_yticklabels(["1/2", "1", "2"])
    return figure


def _curves(ax: plt.Axes, result: Mapping[str, Any], names: Sequence[str], metric: str) -> None:
    for name in names:
        if name in result["runs"]:
            run = result["runs"][name]
            values = np.array(run["scores"][metric], float)
            band(ax, run["steps"], values, label=RUNS[name].label, color=RUNS[name].color)
    ax.set_xlabel("generator steps")


def draw(result: Mapping[str, Any]) -> Figure:
    """The costs of the Conv-4 where they were trained, else the averaged generators."""
    return draw_costs(result) if "ns" in result["runs"] else draw_biggans(result)


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
