"""Lecture, BigGAN's table of ablations: the column of parameters, counted from networks and taken apart.

The rows differ in how the class and z reach the generator: a gain and a bias for each class and channel ("not shared"),
one embedding of the classes that linear maps turn into gains and biases ("shared"), and chunks of z beside it
("skip-z"). All networks are built from `gankit.models` on the meta device, which needs no memory for weights.

The paper's numbers come out to the last digit if the shared embedding itself is left out of the count.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import nn

import gankit as gk
from figures.provenance import command_line, stamp
from gankit.models.biggan import BIGGAN
from gankit.models.blocks import ConditionalBatchNorm2d
from gankit.models.resnet import conditional, generator_layers
from gankit.models.spectral import SNConv2d, SNLinear
from gankit.plotting import use_style

SHAPE = (3, 128, 128)
N_CLASSES = 1000
Z_DIM = 128
"""Length of z without skip-z; with it, z has 120 numbers in six chunks."""

PRINTED = {
    ("not shared", 64): 81.5,
    ("not shared", 96): 173.5,
    ("shared", 96): 160.6,
    ("shared, skip-z", 96): 158.3,
    ("shared, skip-z", 64): 71.3,
}
"""Millions of parameters, as in table 1 of Brock, Donahue and Simonyan 2019, which the lecture shows."""

PARTS = ("discriminator", "convolutions", "first layer", "gains and biases", "shared embedding")


def generator(kind: str, ch: int) -> nn.Module:
    """The generator of one row, for counting: only the last kind is a whole network that can be called."""
    plan = BIGGAN[SHAPE[-1]]
    if kind == "not shared":
        build = conditional(
            plan,
            SHAPE,
            N_CLASSES,
            Z_DIM,
            ch,
            ch,
            SNConv2d,
            SNLinear,
            wide=True,
            attention=plan.attention,
            seed=0,
        )
        return build[0]
    if kind == "shared, skip-z":
        return gk.models.biggan(SHAPE, N_CLASSES, width=ch)[0]

    def norm(channels: int) -> ConditionalBatchNorm2d:
        return ConditionalBatchNorm2d(channels, lambda c: SNLinear(128, c, bias=False))

    attention = plan.attention[0]
    layers = generator_layers(plan, SHAPE[0], Z_DIM, ch, SNConv2d, SNLinear, norm, attention=attention)
    return nn.Sequential(nn.Embedding(N_CLASSES, 128), *layers)


def parts(kind: str, ch: int) -> dict[str, int]:
    """Numbers of parameters of G's parts and of D, `PARTS` -> count."""
    with torch.device("meta"):
        G, D = generator(kind, ch), gk.models.biggan(SHAPE, N_CLASSES, width=ch)[1]
    norms = [m for m in G.modules() if isinstance(m, ConditionalBatchNorm2d)]
    gains = sum(map(count, norms))
    first = next(count(m) for m in G.modules() if isinstance(m, nn.Linear))
    inside = {id(m) for norm in norms for m in norm.modules()}
    shared = sum(count(m) for m in G.modules() if isinstance(m, nn.Embedding) and id(m) not in inside)
    rest = count(G) - gains - first - shared
    return dict(zip(PARTS, (count(D), rest, first, gains, shared), strict=True))


def count(net: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in net.parameters())


def compute() -> dict[str, Any]:
    """All rows of the table.

    Returns:
        "rows": a list with "kind", "ch", "parts", "printed" (millions, the paper's), "total" and "without_embedding";
        "summary": the last as millions with one digit, by "<kind>, ch <ch>"; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    rows = []
    for (kind, ch), printed in PRINTED.items():
        of = parts(kind, ch)
        total = sum(of.values())
        without = total - of["shared embedding"]
        rows.append(
            {
                "kind": kind,
                "ch": ch,
                "parts": of,
                "printed": printed,
                "total": total,
                "without_embedding": without,
            }
        )
    summary = {f"{row['kind']}, ch {row['ch']}": round(row["without_embedding"] / 1e6, 1) for row in rows}
    return {
        "rows": rows,
        "summary": summary,
        "provenance": stamp(time.perf_counter() - begun, packages=("torch",)),
    }


def draw(result: dict[str, Any]) -> Figure:
    """A bar for each row of the table, made of its parts; crosses are the printed numbers."""
    use_style()
    figure, ax = plt.subplots(figsize=(7.5, 2.8))
    colors = dict(zip(PARTS, ("#BBBBBB", "#56B4E9", "#0072B2", "#D55E00", "#000000"), strict=True))
    names = [f"{row['kind']}, ch = {row['ch']}" for row in result["rows"]]
    left = [0.0] * len(names)
    for part in PARTS:
        width = [row["parts"][part] / 1e6 for row in result["rows"]]
        ax.barh(names, width, left=left, color=colors[part], label=part)
        left = [a + b for a, b in zip(left, width, strict=True)]
    ax.plot([row["printed"] for row in result["rows"]], names, "x", color="black", ms=7, zorder=3)
    ax.invert_yaxis()
    ax.set(xlabel="parameters (millions)", xlim=(0, 185))
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
