"""The house style: one colour per cost everywhere, bands over seeds, grids of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

COLORS: Mapping[str, str] = MappingProxyType(
    {
        "real": "#000000",
        "ns": "#0072B2",
        "mm": "#D55E00",
        "mm-nsat": "#009E73",
        "ns-unit": "#56B4E9",
        "mm-unit": "#E69F00",
        "hinge": "#CC79A7",
        "ls": "#7F6A3F",
        "wgan": "#4D4D4D",
        "rpgan": "#9944FF",
        "began": "#440055",
    }
)
"""One colour per cost, the same in every figure. The first seven are of the palette of Okabe and Ito (2008), and the
others are chosen to lie as far from them and from each other, also to readers with any form of colour blindness."""

STYLE: Mapping[str, object] = MappingProxyType(
    {
        "figure.dpi": 110,
        "savefig.dpi": 150,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.prop_cycle": plt.cycler(
            color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
        ),
        "legend.frameon": False,
        "font.size": 10,
        "svg.hashsalt": "gankit",
    }
)


def use_style() -> None:
    """Apply the house style to every figure drawn from now on."""
    plt.rcParams.update(STYLE)


def color_of(name: str) -> str:
    """The colour of a cost; costs without one of their own are grey."""
    return COLORS.get(name, "#BBBBBB")


def band(
    ax: Axes,
    x: np.ndarray,
    runs: np.ndarray,
    *,
    label: str | None = None,
    color: str | None = None,
    quantiles: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw the median of several runs as a line, and their spread as a band.

    Args:
        ax: where to draw.
        x: `[T]`, steps say.
        runs: `[T, S]`, one column per run.
        label: name in the legend.
        color: of line and band.
        quantiles: lower and upper edge of the band, in [0, 1]; the default is minimum to maximum, as in the
            figures of the sample-weighting paper.

    Raises:
        ValueError: if `runs` is not `[T, S]` with the T of `x`.
    """
    runs = np.asarray(runs)
    if runs.ndim != 2 or runs.shape[0] != len(x):
        raise ValueError(f"runs must have shape [T, S] with T = {len(x)}, got {runs.shape}")
    low, middle, high = np.quantile(runs, [quantiles[0], 0.5, quantiles[1]], axis=1)
    (line,) = ax.plot(x, middle, label=label, color=color, lw=1.8)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.18, lw=0)


def lines(
    ax: Axes, x: np.ndarray, runs: np.ndarray, *, label: str | None = None, color: str | None = None
) -> None:
    """Draw several runs as thin lines, and their median as a thick one; the arguments are those of `band`."""
    (middle,) = ax.plot(x, np.median(runs, axis=1), label=label, color=color, lw=1.8)
    ax.plot(x, runs, color=middle.get_color(), lw=0.5, alpha=0.5)


def dots(ax: Axes, columns: Mapping[str, np.ndarray], colors: Sequence[str], *, rotation: float = 40) -> None:
    """Draw a column of dots for each group of numbers, with a dash at the median.

    Args:
        ax: where to draw.
        columns: label -> `[S]`. Dots stand side by side in their order, so that a seed has the same place in each.
        colors: one per column.
        rotation: of the labels, in degrees.
    """
    for i, (values, color) in enumerate(zip(columns.values(), colors, strict=True)):
        ax.plot(i + np.linspace(-0.25, 0.25, len(values)), values, ".", color=color, ms=5, alpha=0.8)
        ax.plot([i - 0.35, i + 0.35], [np.median(values)] * 2, color=color, lw=2)
    ax.set_xticks(range(len(columns)), list(columns), rotation=rotation, ha="right", fontsize=8)
    ax.grid(axis="x", visible=False)


def curves(
    runs: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], names: Sequence[str], columns: int = 3
) -> Figure:
    """Learning curves of several runs: a panel for each quantity, a colour for each run.

    Args:
        runs: label -> quantity -> steps `[T]` and values `[T, S]`, as `gankit.training.curves.read_curves` gives them.
            The line is the median of the S replicas, the band their range.
        names: the quantities to draw. A run that does not have one is left out of its panel.
        columns: panels side by side, at most.

    Raises:
        ValueError: no run, no name, or a name that no run has; the message lists what there is.
    """
    known = list(dict.fromkeys(name for held in runs.values() for name in held))
    if not runs or not names or (missing := [name for name in names if name not in known]):
        asked = ", ".join(missing) if runs and names else "none"
        raise ValueError(f"names must be among {', '.join(known) or 'those of a run'}, got {asked}")
    use_style()
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 0.4 + 2.8 * rows), squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        for i, (label, held) in enumerate(runs.items()):
            if name in held:
                band(ax, *held[name], label=label, color=f"C{i}")
                if len(held[name][0]) <= 20:  # few enough to see where something was measured
                    ax.get_lines()[-1].set(marker="o", markersize=3)
        drawn = np.concatenate([line.get_ydata() for line in ax.get_lines()])
        # Distances fall by powers of ten; costs and logits change their sign.
        if drawn.min() > 0 and drawn.max() > 5 * drawn.min():
            ax.set_yscale("log")
        ax.set(title=name, xlabel="generator steps")
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(runs), 4))
    return figure


def tile(images: Tensor, columns: int | None = None, pad: int = 1) -> np.ndarray:
    """Images side by side in one array.

    Args:
        images: `[N, C, H, W]` in [-1, 1] with C = 1 or 3.
        columns: images per row; about sqrt(N) when None.
        pad: pixels between images.

    Returns:
        uint8 `[rows, columns]` for grey images, `[rows, columns, 3]` for colour.

    Raises:
        ValueError: if `images` has another shape, or `columns` is below 1.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must have shape [N, C, H, W] with C = 1 or 3, got {tuple(images.shape)}")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    images = images.detach().float().cpu()
    n, c, h, w = images.shape
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    canvas = torch.full((c, rows * (h + pad) + pad, columns * (w + pad) + pad), 255, dtype=torch.uint8)
    # Rounded, not cut off: cutting would darken every picture by half a level.
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (h + pad) + pad, (i % columns) * (w + pad) + pad
        canvas[:, top : top + h, left : left + w] = image
    return canvas[0].numpy() if c == 1 else canvas.permute(1, 2, 0).numpy()


def grid(
    images: Tensor, *, columns: int | None = None, title: str | None = None, ax: Axes | None = None
) -> Figure:
    """Show images `[N, C, H, W]` in [-1, 1] as a grid; returns the figure.

    Raises:
        ValueError: if `images` has another shape.
    """
    picture = tile(images, columns)
    if ax is None:
        side = 4.0
        _, ax = plt.subplots(
            figsize=(side, side * picture.shape[0] / picture.shape[1] + (0.3 if title else 0))
        )
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(title)
    return ax.figure


def sheet(samples: Tensor, shape: Sequence[int], columns: int | None = None, pad: int = 2) -> np.ndarray:
    """Samples as one picture, those of several replicas side by side.

    Args:
        samples: `[*lead, N, *shape]`; images in [-1, 1], or points of the plane.
        shape: of one sample: (C, H, W) with C = 1 or 3, or (2,).
        columns: images per row of each replica; about sqrt(N) when None.
        pad: pixels between images.

    Returns:
        uint8 `[rows, columns, 3]`; small images are enlarged to about 512 rows.

    Raises:
        ValueError: samples of this shape have no picture.
    """
    rows = samples.detach().reshape(-1, *samples.shape[-len(shape) - 1 :])
    if tuple(shape) == (2,):
        figure, axes = plt.subplots(
            1, len(rows), figsize=(4 * len(rows), 4), squeeze=False, layout="constrained", dpi=100
        )
        for ax, cloud in zip(axes[0], rows.cpu(), strict=True):
            ax.scatter(*cloud.T, s=3, color=COLORS["ns"], lw=0)
            ax.set_aspect("equal")
            ax.set(xlabel="$x_1$", ylabel="$x_2$")
        figure.canvas.draw()
        picture = np.array(figure.canvas.buffer_rgba())[..., :3]
        plt.close(figure)
        return picture
    tiles = [tile(images, columns, pad) for images in rows]
    picture = np.concatenate(
        [t if t.ndim == 3 else np.repeat(t[..., None], 3, axis=2) for t in tiles], axis=1
    )
    zoom = max(1, 512 // picture.shape[0])
    return picture.repeat(zoom, 0).repeat(zoom, 1)


def points(
    ax: Axes, real: Tensor, fake: Tensor, *, color: str | None = None, title: str | None = None
) -> None:
    """Scatter real points (grey) and generated points over each other: `[N, 2]` each."""
    real, fake = real.detach().cpu(), fake.detach().cpu()
    ax.scatter(*real.T, s=3, color="#BBBBBB", lw=0, label="real", rasterized=True)
    ax.scatter(*fake.T, s=3, color=color or COLORS["ns"], lw=0, label="generated", rasterized=True)
    ax.set_aspect("equal")
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    if title:
        ax.set_title(title)
