"""Chapter 21's picture of a run of the whole pipeline, twice killed: stages, steps, costs, samples, truncation.

The numbers come from `tools/pipeline/imagenet.py`, which runs every command that a BigGAN on ImageNet needs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from gankit.plotting import use_style

Row = dict[str, Any]
"""Of a run's log."""

TRACED = ("step", "at_s", "seconds", "cpu_s", "d_loss", "g_loss")

COLORS = {
    "pack": "#009E73", "speed": "#999999", "two": "#0072B2",
    "one": "#56B4E9", "evaluate": "#E69F00", "sweep": "#CC79A7",
}  # fmt: skip
KILL = "#D55E00"
LABELS = {
    "pack": "pack", "speed": "measure speed", "two": "train on two", "one": "go on with one",
    "evaluate": "evaluate, sample", "sweep": "truncation",
}  # fmt: skip


def draw(result: dict[str, Any]) -> Figure:
    """Stages over time; steps over time, and costs over steps, with the kill; samples; the truncation sweep."""
    use_style()
    stages = result["stages"]
    figure = plt.figure(figsize=(9.5, 8))
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1.2, 1.9, 1.7))
    _draw_stages(top.subplots(), stages)
    left, right = middle.subplots(1, 2)
    _draw_steps(left, stages["two"], stages["one"])
    _draw_costs(right, stages["two"], stages["one"], result["settings"]["leak_start"])
    *pictures, last = bottom.subplots(1, 3)
    for ax, (network, text) in zip(pictures, stages["evaluate"]["samples"].items(), strict=True):
        ax.imshow(Image.open(io.BytesIO(base64.b64decode(text))))
        ax.set_title(f"{network}, step {stages['one']['end']}", fontsize=9)
        ax.axis("off")
    _draw_sweep(last, stages["sweep"])
    return figure


def _draw_stages(ax: plt.Axes, stages: Mapping[str, Any]) -> None:
    at = 0.0
    for i, (name, one) in enumerate(stages.items()):
        begun = at
        for part, took in one["parts"].items():
            minutes = took["seconds"] / 60
            ax.barh(i, minutes, left=at, color=COLORS[name], edgecolor="white", lw=0.8)
            at += minutes
            if part == "killed":
                ax.plot(at, i, "X", color=KILL, ms=9)
        if "killed_s" in one:
            ax.plot(begun + one["killed_s"] / 60, i, "X", color=KILL, ms=9)
    ax.set_yticks(range(len(stages)), [LABELS[name] for name in stages])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="minutes (crosses: a process killed by SIGKILL)", xlim=(0, None))


def _draw_steps(ax: plt.Axes, two: Mapping[str, Any], one: Mapping[str, Any]) -> None:
    begun = two["parts"]["train"]["seconds"]
    for part in attempts(rows_from(two["trace"])):
        ax.plot([row["at_s"] for row in part], [row["step"] for row in part], color=COLORS["two"])
    ax.plot([], [], color=COLORS["two"], label="two processes")
    later = [begun + at for at in one["trace"]["at_s"]]
    ax.plot(later, one["trace"]["step"], color=COLORS["one"], label="one process")
    ax.plot(two["killed_s"], two["killed_at_step"], "X", color=KILL, ms=9, label="one of two killed")
    ax.axhline(two["resumed_from"], color=KILL, lw=0.8, ls=":")
    ax.annotate(
        f"checkpoint of step {two['resumed_from']}", (0.98, two["resumed_from"]), (0, -3), ha="right", va="top",
        xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8, color=KILL,
    )  # fmt: skip
    ax.set(xlabel="seconds since training was started", ylabel="generator step", xlim=(0, None))
    ax.legend(loc="upper left", fontsize=8)


def _draw_costs(ax: plt.Axes, two: Mapping[str, Any], one: Mapping[str, Any], leak_start: int) -> None:
    first, *others = attempts(rows_from(two["trace"]))
    resumed, killed = two["resumed_from"], two["killed_at_step"]
    kept = [row for row in first if row["step"] <= resumed] + [row for part in others for row in part]
    kept += rows_from(one["trace"])
    for name, color, label in (("d_loss", "#0072B2", "D"), ("g_loss", "#E69F00", "G")):
        ax.plot([row["step"] for row in kept], [row[name] for row in kept], color=color, label=label)
        ax.plot([row["step"] for row in first], [row[name] for row in first], "k:", lw=1.2)
    ax.plot([], [], "k:", lw=1.2, label="before the kill")
    ax.axvspan(resumed, killed, color=KILL, alpha=0.15, lw=0)
    marks = {"leak": (leak_start, "black"), "done twice": ((resumed + killed) / 2, KILL)}
    for text, (step, color) in (marks | {"one process": (two["end"], "black")}).items():
        ax.text(step, 1.02, text, transform=ax.get_xaxis_transform(), ha="center", fontsize=8, color=color)
        if color == "black":
            ax.axvline(step, color=color, lw=0.6)
    ax.set(xlabel="generator step", ylabel="hinge cost")
    ax.legend(fontsize=8)


def _draw_sweep(ax: plt.Axes, found: Mapping[str, Any]) -> None:
    names = ["none" if limit is None else f"{limit:g}" for limit in found["limits"]]
    for score, color in (("precision", "#CC79A7"), ("recall", "#009E73")):
        ax.plot(names, found[score], "o-", ms=4, color=color, label=f"{score}, teacher")
        ax.axhline(found["real"][score], color=color, ls=":", lw=1.2, label=f"{score}, real")
    ax.set(xlabel="largest |z|", ylabel="share", ylim=(-0.05, 1.05))
    ax.set_title(f"truncation, in {found['space']}", fontsize=9)
    ax.legend(fontsize=7, loc="center right")


def attempts(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows in the order in which they were written, cut wherever the step falls back."""
    found: list[list[Row]] = []
    for row in rows:
        if not found or row["step"] <= found[-1][-1]["step"]:
            found.append([])
        found[-1].append(row)
    return found


def rows_from(trace: Mapping[str, Sequence[float | None]]) -> list[Row]:
    """The rows of a stored trace."""
    return [
        dict(zip(TRACED, values, strict=True)) for values in zip(*(trace[n] for n in TRACED), strict=True)
    ]
