"""Lecture, SAGAN: what does a self-attention layer look at? Maps of a small denoiser on two photographs.

SAGAN's maps come from networks that trained for a week. This is the same layer (`gankit.models.blocks.SelfAttention`)
in the smallest network that gives it something to learn within seconds, and no GAN: a convolution, the attention, and a
linear read-out, which remove noise from 32 x 32 crops of the two photographs that come with scikit-learn. It trains
on their left parts, and all numbers and maps are of their right parts.

Where attention looks is compared with a random layer that is equally sharp: the mean distance in colour, and in place,
between a pixel and what it attends to, over the same for attention to everything alike.
"""

from __future__ import annotations

import math
import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from figures.provenance import command_line, rounded, spread, stamp
from gankit.models.blocks import SelfAttention
from gankit.plotting import use_style

NOISE = 0.5
"""Standard deviation of the noise; pixels lie in [-1, 1]."""

SIDE = 32
FILTERS = 32
BOUNDARY = 0.6
"""Share of the width that is trained on, from the left."""

QUERIES = {"china": ((14, 40), (56, 110)), "flower": ((44, 14), (24, 88))}
"""Row and column of pixels whose maps are drawn, in the crops of `views`."""


def photographs() -> dict[str, Tensor]:
    """ "china" and "flower", float32 `[3, 213, 320]` in [-1, 1]: a temple under the sky, and a flower before leaves."""
    pictures = [torch.tensor(np.array(image)).permute(2, 0, 1) for image in load_sample_images().images]
    halved = [F.interpolate(p[None] / 127.5 - 1, scale_factor=0.5, mode="area")[0] for p in pictures]
    return dict(zip(("china", "flower"), halved, strict=True))


def crops(n: int, part: str, generator: torch.Generator) -> Tensor:
    """n random crops `[n, 3, SIDE, SIDE]` of both photographs, of their "left" or "right" parts."""
    found = []
    for picture in photographs().values():
        height, width = picture.shape[-2:]
        edge = round(BOUNDARY * width)
        low, high = (0, edge) if part == "left" else (edge, width)
        rows = torch.randint(height - SIDE + 1, (n,), generator=generator).tolist()
        columns = torch.randint(low, high - SIDE + 1, (n,), generator=generator).tolist()
        found.append([picture[:, i : i + SIDE, j : j + SIDE] for i, j in zip(rows, columns, strict=True)])
    return torch.stack([found[i % 2][i] for i in range(n)])


def views() -> dict[str, Tensor]:
    """A large piece of each right part, `[3, 96, 128]`: what the maps are drawn on."""
    tops = {"china": 60, "flower": 60}
    return {name: p[:, tops[name] : tops[name] + 96, -128:] for name, p in photographs().items()}


def network(seed: int, attention: bool = True) -> nn.Sequential:
    """A denoiser, `[N, 3, H, W]` -> the same: 4 x 4 pixels to features, attention or nothing, features to 2 x 2 pixels.

    H and W are multiples of 4. Layer 2 is the attention.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, FILTERS, 4, stride=2, padding=1),
            nn.ReLU(),
            SelfAttention(FILTERS, nn.Conv2d) if attention else nn.Identity(),
            nn.Conv2d(FILTERS, 12, 1),
            nn.PixelShuffle(2),
        )


def train(seed: int, attention: bool = True, steps: int = 300) -> nn.Sequential:
    """Train a denoiser on noisy crops: squared error, Adam with learning rate 3e-3, minibatches of 16."""
    net = network(seed, attention)
    generator = torch.Generator().manual_seed(seed)
    pictures = crops(1_000, "left", generator)
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        x = pictures[torch.randint(len(pictures), (16,), generator=generator)]
        loss = (net(noisy(x, generator)) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return net


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """x with Gaussian noise on it."""
    return x + NOISE * torch.randn(x.shape, generator=generator)


def logits_of(layer: SelfAttention, h: Tensor) -> Tensor:
    """s_ij of SAGAN's equation 1, `[N, HW/4, HW]`: keys i (pooled), queries j."""
    return F.max_pool2d(layer.f(h), 2).flatten(-2).mT @ layer.g(h).flatten(-2)


@torch.no_grad()
def attention_map(net: nn.Sequential, x: Tensor) -> Tensor:
    """Weights beta of a trained network for noisy pictures x `[N, 3, H, W]`: `[N, (H/4)(W/4), (H/2)(W/2)]`."""
    return logits_of(net[2], net[:2](x)).softmax(-2)


def entropy(beta: Tensor) -> float:
    """Mean entropy of the weights over that of uniform ones, in [0, 1]."""
    return float(torch.special.entr(beta).sum(-2).mean() / math.log(beta.shape[-2]))


def as_sharp_as(logits: Tensor, target: float) -> Tensor:
    """Weights softmax(t logits) with the t for which their `entropy` is the target, found by bisection."""
    low, high = 0.0, 1e4
    for _ in range(40):
        middle = (low + high) / 2 if high < 1e4 else max(2 * low, 1.0)
        if entropy((middle * logits).softmax(-2)) > target:
            low = middle
        else:
            high = middle
    return (low * logits).softmax(-2)


def distances(clean: Tensor) -> dict[str, Tensor]:
    """How far keys are from queries, in colour `[N, HW/16, HW/4]` and in place, in pixels, `[HW/16, HW/4]`."""
    keys, queries = (F.avg_pool2d(clean, size).flatten(-2).mT for size in (4, 2))
    side = clean.shape[-1]
    at = [torch.cartesian_prod(*[torch.arange(size / 2, side, size)] * 2) for size in (4, 2)]
    return {"colour": torch.cdist(keys, queries), "place": torch.cdist(*at)}


def ratios(beta: Tensor, clean: Tensor) -> dict[str, float]:
    """Mean distance under the weights beta over that under uniform ones: 1 is no preference, below 1 is nearness."""
    found = distances(clean)
    return {name: float((beta * d).sum(-2).mean() / d.mean()) for name, d in found.items()}


@torch.no_grad()
def measure(net: nn.Sequential, plain: nn.Sequential, seed: int = 0) -> dict[str, float]:
    """Measure a network with attention, and one trained without, on right parts."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    clean = crops(100, "right", generator)
    x = noisy(clean, generator)
    h, layer = net[:2](x), net[2]
    beta = logits_of(layer, h).softmax(-2)
    other = network(20_000 + seed)[2]
    by_chance = as_sharp_as(logits_of(other, h), entropy(beta))
    # The same layer that looks at everything alike: the mean of its values, for every pixel.
    alike = h + layer.gamma * layer.v(F.max_pool2d(layer.h(h), 2).mean((-2, -1), keepdim=True))
    error = {"attention": net(x), "uniform": net[3:](alike), "none": plain(x)}
    return {
        **{f"error, {name}": float((y - clean).square().mean()) for name, y in error.items()},
        **{f"learnt, {name}": value for name, value in ratios(beta, clean).items()},
        **{f"random, {name}": value for name, value in ratios(by_chance, clean).items()},
        "entropy": entropy(beta),
        "entropy, random": entropy(by_chance),
        "gamma": float(layer.gamma),
    }


def compute(seeds: int = 6, steps: int = 400) -> dict[str, Any]:
    """Errors and preferences of denoisers, one for each seed.

    Args:
        seeds: number of seeds, 0..seeds-1.
        steps: of Adam, for each network.

    Returns:
        "values": quantity -> one number per seed; "summary" with their spread, and in how many seeds attention
        prefers near colours to near places; "settings" and "provenance". JSON-able.
    """
    begun = time.perf_counter()
    rows = [measure(train(s, True, steps), train(s, False, steps), s) for s in range(seeds)]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    closer = int((values["learnt, colour"] < values["learnt, place"]).sum())
    return {
        "values": {name: rounded(of) for name, of in values.items()},
        "summary": {
            **{name: spread(of) for name, of in values.items()},
            "colour_before_place": f"{closer} of {seeds} seeds",
        },
        "settings": {"seeds": seeds, "steps": steps, "noise": NOISE},
        "provenance": stamp(time.perf_counter() - begun, range(seeds), ("torch", "scikit-learn")),
    }


def draw_maps(net: nn.Sequential, seed: int = 0) -> Figure:
    """For both photographs: the noisy view, what the network makes of it, and the maps of two pixels each."""
    use_style()
    figure, axes = plt.subplots(2, 4, figsize=(7.5, 3.3))
    generator = torch.Generator().manual_seed(seed)
    for row, (name, view) in zip(axes, views().items(), strict=True):
        x = noisy(view, generator)[None]
        beta = attention_map(net, x)[0]
        with torch.no_grad():
            cleaned = net(x)[0]
        for ax, picture, title in zip(row, (x[0], cleaned), ("noisy", "cleaned"), strict=False):
            ax.imshow(((picture + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy())
            ax.set_title(f"{name}, {title}", fontsize=9)
        for ax, (i, j) in zip(row[2:], QUERIES[name], strict=True):
            weights = beta[:, (i // 2) * (view.shape[-1] // 2) + j // 2]
            weights = weights.unflatten(0, (view.shape[-2] // 4, view.shape[-1] // 4))
            shown = F.interpolate(weights[None, None], scale_factor=4, mode="nearest")[0, 0]
            # A single bright key would leave the rest of the map dark.
            ax.imshow(shown.numpy(), cmap="viridis", vmin=0, vmax=float(weights.quantile(0.98)))
            ax.plot(j, i, "P", ms=8, color="white", mec="black")
            ax.set_title("where + looks", fontsize=9)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure


def draw(result: dict[str, Any]) -> Figure:
    """Left: preferences of the learnt and of the random layer, a point for each seed; right: errors."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    values = result["values"]
    for kind, color in (("learnt", "#009E73"), ("random", "#BBBBBB")):
        left.plot(values[f"{kind}, colour"], values[f"{kind}, place"], "o", color=color, label=kind)
    left.axhline(1, color="black", lw=0.8), left.axvline(1, color="black", lw=0.8)
    left.set(xlabel="distance in colour (share of uniform)", ylabel="distance in place (share)")
    left.legend()
    kinds = {"none": "no attention", "uniform": "uniform", "attention": "learnt"}
    for i, name in enumerate(kinds):
        right.plot([i] * len(values["gamma"]), values[f"error, {name}"], "o", color="#0072B2")
    right.set_xticks(range(3), kinds.values())
    right.set(xlabel="attention", ylabel="squared error (pixels in [-1, 1])", ylim=(0, None))
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    command_line(compute, draw)
