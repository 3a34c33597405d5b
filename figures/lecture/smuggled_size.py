"""Lecture, "StyleGAN2": what a network writes into maps that instance norm will divide by their deviation.

Three convolutions must return white noise whose size varies from sample to sample. Between the second and the third
stands instance norm, or a division by the deviation that is expected for white input (demodulation). Measured is how
much larger the normalised maps are on their rim than inside: a rim that stands out is a reference, by which the size of
the rest passes instance norm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.provenance import command_line, rounded, stamp
from gankit.models.blocks import seeded
from gankit.models.stylegan import instance_norm
from gankit.plotting import use_style

SIDE = 20
NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "instance norm": lambda h, kernel: instance_norm(h),
    "demodulation": lambda h, kernel: h / kernel.square().sum((1, 2, 3)).sqrt()[:, None, None],
}
"""Name -> function of feature maps and of the kernel that made them."""


class Carrier(nn.Module):
    """Three convolutions with `c` filters, the second one's result normalised."""

    def __init__(self, norm: Callable[[Tensor, Tensor], Tensor], c: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, c), (c, c), (c, 1))
        )
        self.norm = norm

    def maps(self, x: Tensor) -> Tensor:
        """The normalised maps."""
        return self.norm(self.second(F.leaky_relu(self.first(x), 0.2)), self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.maps(x), 0.2))


def parcels(n: int, generator: torch.Generator) -> Tensor:
    """White noise `[n, 1, SIDE, SIDE]`, each sample with a size of its own, uniform in [0.2, 3.2]."""
    size = 0.2 + 3 * torch.rand(n, 1, 1, 1, generator=generator)
    return size * torch.randn(n, 1, SIDE, SIDE, generator=generator)


def train(name: str, seed: int, steps: int) -> tuple[float, float]:
    """Rim over inside, and the squared error over the input's mean square."""
    with seeded(seed):
        net = Carrier(NORMS[name])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        x = parcels(16, generator)
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()
    x = parcels(200, torch.Generator().manual_seed(9))
    with torch.no_grad():
        h = net.maps(x)
        h = (h - h.mean((-2, -1), keepdim=True)).abs().mean((0, 1))
        error = (net(x) - x).square().mean() / x.square().mean()
    inside = h[1:-1, 1:-1]
    rim = (h.sum() - inside.sum()) / (h.numel() - inside.numel())
    return float(rim / inside.mean()), float(error)


def compute(n_seeds: int = 6, steps: int = 250) -> dict[str, Any]:
    """Both normalisations, all seeds.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        steps: of Adam.

    Returns:
        Name -> "rim" and "error", `[S]` each; "provenance".
    """
    begun = time.perf_counter()
    found = {name: np.array([train(name, seed, steps) for seed in range(n_seeds)]) for name in NORMS}
    return {
        **{name: {"rim": rounded(x[:, 0], 4), "error": rounded(x[:, 1], 5)} for name, x in found.items()},
        "provenance": stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Rim over inside, and the error, a point for each seed."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 3))
    for ax, key, label in zip(
        axes, ("rim", "error"), ("rim over inside", "relative squared error"), strict=True
    ):
        for i, (name, color) in enumerate(zip(NORMS, ("#D55E00", "#0072B2"), strict=True)):
            ends = result[name][key]
            ax.scatter([i] * len(ends), ends, color=color, s=18, lw=0)
        ax.set(ylabel=label, xlim=(-0.5, 1.5))
        ax.set_xticks(range(len(NORMS)), list(NORMS))
    return figure


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
