"""How the Frechet distance, the kernel distance and the Inception Score depend on the number of samples.

Two samples of n each are compared: two Gaussians, whose distance is known, and digits in a feature space. The Frechet
distance of finite samples is too large by about c / n, where c is known from the moments of the features (`slope`).
The kernel distance is not biased. Repeats draw anew, so the spread over them is that of one evaluation.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.book.measuring_damage import blur
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.plotting import use_style
from gankit.scale import scale

SIZES = (150, 200, 300, 450, 600, 898)
"""Samples of each of the two sets; 898 is half of the digits."""

CASES = ("equal Gaussians", "unequal Gaussians", "digits and digits", "digits and blurred digits")

DIMENSIONS = 16


def slope(features: Tensor) -> float:
    """The c of E[FD_n] = FD + c / n for n samples of a distribution against its exact moments.

    With eigenvalues l_i of the covariance and centred coordinates x_i along its eigenvectors,
    ``c = sum_i l_i + 1/2 sum_ij Var(x_i x_j) / (l_i + l_j)``: the mean's part, and the covariance's to second order.

    Args:
        features: `[N, d]`, from which the moments are estimated. Directions without variance count nothing.
    """
    x = features.double() - features.double().mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    kept = values > 1e-9 * values.max()
    values, x = values[kept], x @ vectors[:, kept]
    products = (x**2).T @ x**2 / len(x) - torch.diag(values**2)  # E x_i x_j = 0 for i != j
    return float(values.sum() + (products / (values[:, None] + values)).sum() / 2)


def gaussians(unequal: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means and standard deviations `[d]` of two Gaussians with diagonal covariances: m_1, s_1, m_2, s_2."""
    zero, deviation = torch.zeros(DIMENSIONS).double(), torch.linspace(0.5, 2, DIMENSIONS).double()
    return (zero, deviation, zero + 0.5, deviation.flip(0)) if unequal else (zero, deviation, zero, deviation)


def closed_form(m_1: Tensor, s_1: Tensor, m_2: Tensor, s_2: Tensor) -> float:
    """Frechet distance of two Gaussians with diagonal covariances: the means' plus the deviations' squared distance."""
    return float((m_1 - m_2).square().sum() + (s_1 - s_2).square().sum())


def compute(repeats: int | None = None) -> dict[str, Any]:
    """Both distances for every case, size and repeat.

    Args:
        repeats: draws for each size; 20 at quick scale and 200 at full.

    Returns:
        "sizes"; for each case "FD" and "KD", repeats x sizes, and "fit", `line` of FD; "exact", the closed forms of the
        Gaussian cases; "slope", the predicted 2c of both equal cases; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    repeats = scale(quick=20, full=200) if repeats is None else repeats
    data = gk.data.load("digits")
    space = metrics.features.classifier("digits", train=True)
    images = data.normalise(data.images)
    features = {"digits and digits": space(images), CASES[3]: space(blur(images))}
    result: dict[str, Any] = {"sizes": list(SIZES), "exact": {}, "slope": {}}
    for number, case in enumerate(CASES):
        generator = torch.Generator().manual_seed(number)
        distances = np.empty((2, repeats, len(SIZES)))
        for repeat in range(repeats):
            for i, n in enumerate(SIZES):
                if case in features:
                    order = torch.randperm(len(data), generator=generator)
                    a, b = features["digits and digits"][order[:n]], features[case][order[n : 2 * n]]
                else:
                    m_1, s_1, m_2, s_2 = gaussians(unequal=number == 1)
                    noise = torch.randn(2, n, DIMENSIONS, generator=generator, dtype=torch.float64)
                    a, b = m_1 + s_1 * noise[0], m_2 + s_2 * noise[1]
                distances[:, repeat, i] = metrics.frechet_distance(a, b), metrics.kernel_distance(a, b)
        fd, kd = distances
        result[case] = {"FD": rounded(fd), "KD": rounded(kd), "fit": line(fd)}
        if case not in features:
            result["exact"][case] = rounded(closed_form(*gaussians(unequal=number == 1)))
    # Of a Gaussian the fourth moments are known: Var(x_i x_j) = l_i l_j, and twice that for i = j.
    values = gaussians(unequal=False)[1] ** 2
    products = values[:, None] * values
    known = values.sum() + ((products + torch.diag(values**2)) / (values[:, None] + values)).sum() / 2
    result["slope"] = {CASES[0]: rounded(2 * float(known)), CASES[2]: rounded(2 * slope(features[CASES[2]]))}
    result["provenance"] = stamp(time.perf_counter() - begun, range(len(CASES)), packages=("torch", "numpy"))
    return result


def line(distances: np.ndarray) -> dict[str, float]:
    """Least squares of ``FD_n = FD + b / n`` through the means over repeats.

    Args:
        distances: repeats x sizes.

    Returns:
        "FD", the value extrapolated to n = infinity, its standard "error" over repeats, and the slope "b". Sizes are
        weighted by the inverse of their variance.
    """
    x = 1 / np.array(SIZES)
    weight = 1 / distances.std(0)
    solve = np.linalg.pinv(np.stack([np.ones_like(x), x], 1) * weight[:, None]) * weight
    intercepts, slopes = solve @ distances.T
    return {
        "FD": rounded(intercepts.mean()),
        "error": rounded(intercepts.std(ddof=1) / np.sqrt(len(distances))),
        "b": rounded(slopes.mean()),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: FD over 1/n with the extrapolated lines; right: KD. Above Gaussians, below digits."""
    use_style()
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 6), sharex=True)
    x = 1 / np.array(result["sizes"])
    ends = np.array([0, x.max()])
    for number, case in enumerate(CASES):
        color, row = ("#0072B2", "#D55E00")[number % 2], axes[number // 2]
        for ax, name in zip(row, ("FD", "KD"), strict=True):
            values = np.array(result[case][name])
            error = values.std(0, ddof=1) / np.sqrt(len(values))
            ax.errorbar(x, values.mean(0), error, fmt="o", ms=4, color=color, label=case)
        fit = result[case]["fit"]
        row[0].plot(ends, fit["FD"] + fit["b"] * ends, color=color, lw=1)
        if case in result["exact"]:
            row[0].plot(0, result["exact"][case], "*", ms=11, color=color, clip_on=False, zorder=3)
        if case in result["slope"]:
            row[0].plot(
                ends, result["slope"][case] * ends, ":", color="black", lw=1.2, label="theory, equal sets"
            )
    for row, space in zip(axes, ("Gaussians", "digits classifier"), strict=True):
        row[0].set_ylabel(f"FD (squared units)\n{space}")
        row[1].set_ylabel("KD (no unit)")
        row[1].axhline(0, color="black", lw=0.8)
        row[0].legend(fontsize=8)
    for ax in axes[1]:
        ax.set_xlabel("1 / n, samples of each set")
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
