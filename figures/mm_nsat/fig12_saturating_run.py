"""Sample-weighting paper, figures 12 and 13: what happens while a minimax run saturates.

Gradients, mean logits and update sizes of both networks at every step, samples of a fixed z (figure 13), and a test
of the theory of section 2.4 on these numbers: over the epoch in which the mean logit of generated samples falls
fastest, does the update vanish at the rate that the four cases of equation 22 give for the fitted slope?

At quick scale on the digits, in a setting chosen such that minimax saturates; with --setting mnist-fc4 on MNIST.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.mm_nsat import gradients, runs
from figures.mm_nsat.fig05_early_gradients import axis
from figures.mm_nsat.runs import DEAD, Variant
from figures.provenance import command_line, rounded, stamp
from gankit.plotting import color_of
from gankit.scale import scale
from gankit.training import Trainer
from toy import adam

READINGS = 150
"""Points per curve kept for drawing."""

SNAPSHOTS = 5
"""How often the samples of the fixed z are taken, the end included."""

SHOWN = 12
"""Samples per snapshot."""


def compute(setting: str = "", n_seeds: int = 10, steps: int = 0) -> dict[str, Any]:
    """Train with minimax, read everything at every step, and hold the linear model against it.

    Args:
        setting: a key of `runs.SETTINGS` with pictures; "" takes "digits-saturating" at quick scale and "mnist-fc4"
            at full.
        n_seeds: seeds 0..n_seeds-1.
        steps: generator steps, at least two epochs and 5; 0 takes the recipe's, or 8 epochs of MNIST.

    Returns:
        "log_steps" `[T']`; "curves", for each of `gradients.QUANTITIES`, "g_update", "d_update" and "stand_in"
        `[T'][S]` (means over equal stretches, geometric for norms); "linear_model", per seed what `linear_model`
        returns; "stand_in", per seed the "correlation" of the logarithms of predicted and real update and the median
        "ratio" of the two; "summary"; "snapshots" with the "steps", the "pixels" of the samples (hexadecimal bytes,
        one string per picture, `[snapshots][SHOWN]`, of the "seed" whose gradient ended lowest), their "shape", and
        "moved" `[snapshots - 1][S]`, the mean change of a pixel from one snapshot to the next; black and white are 2
        apart; "setting", "steps", "steps_per_epoch" and "provenance".

    Raises:
        ValueError: too few steps.
    """
    begun = time.perf_counter()
    setting = setting or scale(quick="digits-saturating", full="mnist-fc4")
    recipe = runs.SETTINGS[setting]
    steps, per_epoch = gradients.length(setting, steps)
    epoch = round(per_epoch)
    if steps < max(2 * epoch, SNAPSHOTS):
        raise ValueError(f"steps must be at least two epochs, {2 * epoch}, got {steps}")
    watch, pictures = gradients.UpdateSizes(), Snapshots(recipe.networks.z_dim, steps)
    read = gradients.record(
        recipe, {"mm": Variant("mm", "MM")}, range(n_seeds), steps, lambda run: watch(run) | pictures(run)
    )["mm"]
    g_adam = recipe.g_optimizer
    n_params = sum(p.numel() for p in recipe.networks(gk.data.load(recipe.data).shape, 0)[0].parameters())
    read["stand_in"] = stand_in(read["g_grad"], n_params, g_adam.lr, g_adam.beta1, g_adam.beta2)
    models = [
        linear_model(*(read[key][:, s] for key in ("fake_logit", "g_grad", "g_update")), g_adam, epoch)
        for s in range(n_seeds)
    ]
    stand_ins = [compare(read["stand_in"][1:, s], read["g_update"][1:, s]) for s in range(n_seeds)]
    return {
        "setting": setting,
        "steps": steps,
        "steps_per_epoch": rounded(per_epoch),
        "log_steps": gradients.thin_steps(steps, READINGS),
        "curves": {
            key: rounded(gradients.thin(values, READINGS, geometric="logit" not in key), 3)
            for key, values in read.items()
        },
        "linear_model": models,
        "stand_in": stand_ins,
        "snapshots": pictures.result(lowest=int(read["g_grad"][-gradients.LAST :].mean(0).argmin())),
        "summary": summarise(read, models, stand_ins, g_adam.beta2, epoch),
        "provenance": stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy")),
    }


class Snapshots:
    """A callback for `gradients.record` that takes samples of the same z on the way.

    Args:
        z_dim: length of a z.
        steps: of the whole run; samples are taken at equal distances, the last at the end.
    """

    def __init__(self, z_dim: int, steps: int) -> None:
        self.z = torch.randn(SHOWN, z_dim, generator=torch.Generator().manual_seed(0))
        self.steps = [round(steps * (i + 1) / SNAPSHOTS) for i in range(SNAPSHOTS)]
        self.taken: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, run: Trainer) -> dict[str, Tensor]:
        if run.steps in self.steps:
            z = self.z.to(run.device).expand(*run.lead, *self.z.shape)
            self.taken.append(run.G(z).cpu())
        return {}

    def result(self, lowest: int) -> dict[str, Any]:
        """The part "snapshots" of `compute`'s result, with the pictures of one replica."""
        moved = [
            (b - a).abs().flatten(1).mean(1).tolist()
            for a, b in zip(self.taken, self.taken[1:], strict=False)
        ]
        pixels = [
            ((images[lowest].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8) for images in self.taken
        ]
        return {
            "steps": self.steps,
            "seed": lowest,
            "shape": list(pixels[0].shape[1:]),
            "pixels": [[bytes(image.flatten().tolist()).hex() for image in images] for images in pixels],
            "moved": rounded(np.array(moved), 3),
        }


def stand_in(g_grad: np.ndarray, n_params: int, lr: float, beta1: float, beta2: float) -> np.ndarray:
    """The update of n parameters whose gradients all have the size of the measured norm over sqrt(n), and one sign.

    One number is given to Adam (equation 8, epsilon 0) in place of a whole gradient, so nothing is left of its
    direction, only the history of its size.

    Args:
        g_grad: `[T, S]` norms.
        n_params: n.
        lr, beta1, beta2: of Adam.

    Returns:
        `[T, S]`, the norm of the update.
    """
    m, v, updates = np.zeros(g_grad.shape[1]), np.zeros(g_grad.shape[1]), np.empty(g_grad.shape)
    for i, g in enumerate(np.asarray(g_grad, float)):
        t = i + 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        updates[i] = (m / (1 - beta1**t)) / np.sqrt(np.maximum(v / (1 - beta2**t), np.finfo(float).tiny))
    return lr * np.sqrt(n_params) * updates


def linear_model(
    fake_logit: np.ndarray, g_grad: np.ndarray, g_update: np.ndarray, optimizer: gk.Adam, window: int
) -> dict[str, Any]:
    """Slopes over the window in which the mean logit of generated samples falls fastest, and equation 22's prediction.

    Args:
        fake_logit, g_grad, g_update: `[T]`, one run. Where no window is without a missing value, an error is raised.
        optimizer: Adam of G, for beta1 and beta2.
        window: steps, 2 <= window < T.

    Returns:
        "start", the first step of the window; "logit", the slope a of the mean logit; "gradient" and "update", the
        slopes of the logarithms of both norms; "predicted", the exponent of the update for this a, and "case";
        "predicted_from_gradient", the same with the gradient's slope for a, which skips the step from mean logit to
        gradient. All per step.

    Raises:
        ValueError: the window does not fit.
    """
    if not 2 <= window < len(fake_logit):
        raise ValueError(f"window must be between 2 and the number of steps, {len(fake_logit)}, got {window}")
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # an update of 0 has no logarithm, and its window no slope
        slopes = [
            _slopes(np.asarray(y, float), window) for y in (fake_logit, np.log(g_grad), np.log(g_update))
        ]
        usable = np.isfinite(slopes).all(0)
    start = int(np.where(usable, slopes[0], np.inf).argmin())
    logit, gradient, update = (float(one[start]) for one in slopes)
    betas = (optimizer.beta1, optimizer.beta2)
    return {
        "start": start + 1,
        "logit": rounded(logit, 4),
        "gradient": rounded(gradient, 4),
        "update": rounded(update, 4),
        "predicted": rounded(float(adam.exponent(logit, *betas)), 4),
        "case": int(adam.case(logit, *betas)),
        "predicted_from_gradient": rounded(float(adam.exponent(gradient, *betas)), 4),
    }


def compare(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """How well a positive curve is predicted, on a logarithmic scale: `[T]` each.

    Returns:
        "correlation" of the logarithms, the median "ratio" measured / predicted, and "decades", the logarithm (base
        10) of the largest over the smallest measured number. Steps where either is 0 are left out.
    """
    both = (predicted > 0) & (measured > 0)
    x, y = np.log10(predicted[both]), np.log10(measured[both])
    return {
        "correlation": rounded(np.corrcoef(x, y)[0, 1], 3),
        "ratio": rounded(10 ** np.median(y - x), 3),
        "decades": rounded(np.ptp(y), 3),
    }


def summarise(
    read: Mapping[str, np.ndarray],
    models: list[dict[str, Any]],
    stand_ins: list[dict[str, float]],
    beta2: float,
    epoch: int,
) -> dict[str, Any]:
    """Medians over the seeds of what the text and the ledger quote.

    Returns:
        "gradient": `gradients.vanished`; "threshold", log(beta2) / 2, and "below_threshold", the number of seeds whose
        fitted slope lies below it; medians of "slope", "predicted" and "measured" exponents and of the stand-in's
        "correlation"; "drop_in_an_epoch", the median over seeds of the largest fall of the update (logarithm to base
        10 of medians over a tenth of an epoch) from one epoch to the next; "final_logit", the median of the mean logit
        of generated samples over the last readings.
    """
    update = np.log10(np.maximum(read["g_update"][1:], np.finfo(float).tiny))
    tenth = max(1, epoch // 10)
    smooth = np.array([np.median(update[i : i + tenth], 0) for i in range(0, len(update) - tenth + 1, tenth)])
    later = max(1, round(epoch / tenth))
    drop = (smooth[:-later] - smooth[later:]).max(0)
    middle = lambda rows, key: rounded(np.median([row[key] for row in rows]), 3)  # noqa: E731
    return {
        "gradient": gradients.vanished(read["g_grad"]),
        "threshold": rounded(np.log(beta2) / 2, 4),
        "below_threshold": int(sum(row["logit"] < np.log(beta2) / 2 for row in models)),
        "slope": middle(models, "logit"),
        "predicted": middle(models, "predicted"),
        "predicted_from_gradient": middle(models, "predicted_from_gradient"),
        "measured": middle(models, "update"),
        "correlation": middle(stand_ins, "correlation"),
        "drop_in_an_epoch": rounded(np.median(drop), 3),
        "final_logit": rounded(np.median(read["fake_logit"][-gradients.LAST :]), 3),
    }


def draw(result: Mapping[str, Any], seeds: tuple[int, int] = (0, 1)) -> Figure:
    """Gradients, logits and updates of two seeds, one column each, with the window of the fit shaded."""
    gk.plotting.use_style()
    figure, axes = plt.subplots(3, 2, figsize=(7.6, 4.8), sharex=True, sharey="row")
    x, unit = axis(result)
    mm, curves = color_of("mm"), {key: np.array(values, float) for key, values in result["curves"].items()}
    for seed, column in zip(seeds, axes.T, strict=True):
        top, middle, bottom = column
        for ax, kind in ((top, "grad"), (bottom, "update")):
            ax.semilogy(x, curves[f"g_{kind}"][:, seed], color=mm, label="G")
            ax.semilogy(x, curves[f"d_{kind}"][:, seed], color="#777777", lw=1, label="D")
        bottom.semilogy(
            x, curves["stand_in"][:, seed], "k--", lw=1, label="G, predicted from its gradient's norm"
        )
        top.axhline(DEAD, color="black", lw=0.8, ls=":")
        middle.plot(x, curves["real_logit"][:, seed], color=color_of("real"), label="real")
        middle.plot(x, curves["fake_logit"][:, seed], color=mm, label="generated")
        model = result["linear_model"][seed]
        scale_x = 1 / result["steps_per_epoch"] if unit == "epochs" else 1
        window = np.array([model["start"], model["start"] + round(result["steps_per_epoch"])]) * scale_x
        for ax in column:
            ax.axvspan(*window, color="#E69F00", alpha=0.25, lw=0)
        top.set_title(f"seed {seed}: slope of the logit {model['logit']:.3f} per step", fontsize=9)
        bottom.set_xlabel(unit)
    for ax, label in zip(
        axes[:, 0], ("norm of the gradient", "mean logit", "norm of the update"), strict=True
    ):
        ax.set_ylabel(label, fontsize=9)
    axes[1, 0].legend(fontsize=8, loc="center right")
    figure.legend(*axes[2, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    return figure


def draw_samples(result: Mapping[str, Any]) -> Figure:
    """Figure 13: samples of the same z, one row per snapshot."""
    gk.plotting.use_style()
    snapshots = result["snapshots"]
    figure, axes = plt.subplots(len(snapshots["steps"]), 1, figsize=(6, 2.9))
    for ax, step, row in zip(axes, snapshots["steps"], snapshots["pixels"], strict=True):
        pixels = torch.tensor([list(bytes.fromhex(image)) for image in row], dtype=torch.float32)
        images = pixels.reshape(len(row), *snapshots["shape"]) / 127.5 - 1
        gk.plotting.grid(images, columns=len(row), ax=ax)
        x, unit = axis({**result, "log_steps": [step]})
        ax.set_title(f"after {x[0]:,.0f} {unit}", fontsize=8, loc="left", pad=2)
    return figure


def _slopes(y: np.ndarray, window: int) -> np.ndarray:
    """Least-squares slope of every window of y `[T]`: `[T - window + 1]`."""
    t = np.arange(window) - (window - 1) / 2
    return np.lib.stride_tricks.sliding_window_view(y, window) @ t / (t @ t)


if __name__ == "__main__":
    command_line(compute, draw)
