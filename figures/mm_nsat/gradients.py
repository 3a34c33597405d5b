"""What the figures on saturation share: runs of which every step is read, and what counts as vanished.

Figures 5, 11 and 12 of the sample-weighting paper show gradients, logits and updates step by step. `record` trains
variants of a cost side by side (`gankit.study.run`) and reads them all; `vanished` counts; `thin` keeps
what a picture needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gankit as gk
from figures.mm_nsat import runs
from figures.mm_nsat.runs import DEAD, Variant
from figures.provenance import rounded
from gankit import study
from gankit.recipes import Recipe
from gankit.training import Trainer
from gankit.training.gradients import gradient_norm

QUANTITIES = ("g_grad", "d_grad", "real_logit", "fake_logit")
"""Read at every step: the norms of both gradients, and the mean logits of real and of generated samples."""

LAST = 50
"""A run is silent at the end if the median gradient of this many last steps is below `DEAD`."""

EPOCHS = 8
"""Length of a run on MNIST where nothing is said. In the paper minimax falls silent after about 3."""

Callback = Callable[[Trainer], dict[str, Tensor] | None]


def record(
    recipe: Recipe,
    variants: Mapping[str, Variant],
    seeds: Sequence[int],
    steps: int,
    callback: Callback | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Train all variants and seeds side by side and read every step.

    Args:
        recipe: what they share.
        variants: name -> variant; replicas of one seed share weights, z and data.
        seeds: S of them.
        steps: generator steps T, at least 1.
        callback: called after every step; its numbers, one per replica, are read as well.

    Returns:
        Per variant `[T, S]` of each of `QUANTITIES` and of what the callback returns.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    measures = () if callback is None else (callback,)
    result = study.run(recipe, runs.changes(variants), seeds, steps, measures=measures, every=1, log_every=1)
    apart = {"d_loss", "g_loss"}
    return {
        name: {key: np.array(values, float) for key, values in one.items() if key not in apart}
        for name, one in result["curves"].items()
    }


class UpdateSizes:
    """How far each network has moved since the last call: a callback for `record`.

    Called with a trainer, it returns "g_update" and "d_update", Euclidean norms of the change of all parameters, one
    per replica, float64. They are differences of the stored numbers: an update too small for float32 counts as none.

    Args:
        run: the trainer before its first step, or None: then the first call returns nan.
    """

    def __init__(self, run: Trainer | None = None) -> None:
        self._before = None if run is None else _copy(run)

    def __call__(self, run: Trainer) -> dict[str, Tensor]:
        now = _copy(run)
        before, self._before = self._before or now, now
        sizes = {
            name: gradient_norm([p.double() - q.double() for p, q in zip(*pair, strict=True)], run.lead)
            for name, pair in zip(("g_update", "d_update"), zip(now, before, strict=True), strict=True)
        }
        return (
            sizes if before is not now else {name: torch.full_like(x, torch.nan) for name, x in sizes.items()}
        )


def reset_generator(recipe: Recipe, every: int) -> Callback:
    """A callback for `record` that gives G a new optimiser, without memory, every so many steps.

    Args:
        recipe: of the run; its optimiser for G is built anew, with the same settings for all replicas.
        every: steps between two resets, at least 1.

    Raises:
        ValueError: every is below 1.

    Source: the sample-weighting paper, appendix L.1 (figure 11).
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 step, got {every}")

    def reset(run: Trainer) -> None:
        if run.steps % every == 0:
            run.g_opt = recipe.g_optimizer.build(run.g_params)

    return reset


def vanished(g_grad: np.ndarray, steps: Sequence[int] | None = None, last: int = LAST) -> dict[str, Any]:
    """In how many runs the generator's gradient vanished, when, and how deep it fell.

    Args:
        g_grad: `[T, S]` norms.
        steps: `[T]`, the steps they were read at; None for 1, 2, ..., T.
        last: readings at the end whose median says whether a run is silent then. (A vanished gradient is noisy:
            single steps may stand out.)

    Returns:
        "ever": the number of runs with a reading below `DEAD`; "at_end": those that are silent at the end;
        "first_step": the median over the former of the first such step, None without any; "lowest": the median over
        all runs of the smallest reading; "runs": S.
    """
    dead = g_grad < DEAD
    steps = np.arange(1, len(g_grad) + 1) if steps is None else np.asarray(steps)
    ever = dead.any(0)
    return {
        "ever": int(ever.sum()),
        "at_end": int((np.median(g_grad[-last:], 0) < DEAD).sum()),
        "first_step": rounded(np.median(steps[dead.argmax(0)[ever]])) if ever.any() else None,
        "lowest": rounded(np.median(g_grad.min(0)), 3),
        "runs": int(g_grad.shape[1]),
    }


def thin(values: np.ndarray, readings: int, *, geometric: bool = False) -> np.ndarray:
    """Means over equal stretches of a curve, to draw and to store.

    Args:
        values: `[T, ...]`.
        readings: T', the number of stretches; with fewer than two steps each, all values are kept.
        geometric: take the mean of the logarithms, for positive numbers of very different size.

    Returns:
        `[T', ...]`. nan is left out of a mean.
    """
    stretch = max(1, len(values) // readings)
    whole = values[: len(values) // stretch * stretch].reshape(-1, stretch, *values.shape[1:])
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # log 0 is fine, its mean is 0; and so is no number at all
        whole = np.log(whole) if geometric else whole
        known = ~np.isnan(whole)
        mean = np.where(known, whole, 0).sum(1) / known.sum(1)
    return np.exp(mean) if geometric else mean


def thin_steps(steps: int, readings: int) -> list[float]:
    """The middles of the stretches of `thin`, for steps 1..steps."""
    return thin(np.arange(1.0, steps + 1), readings).tolist()


def length(setting: str, steps: int = 0) -> tuple[int, float]:
    """How long a run of a setting is, and its epochs.

    Args:
        setting: a key of `runs.SETTINGS`.
        steps: generator steps; 0 takes the recipe's, or `EPOCHS` on MNIST.

    Returns:
        Generator steps, and generator steps per epoch: those in which the discriminator sees as many samples as the
        data have.
    """
    recipe = runs.SETTINGS[setting]
    per_epoch = len(gk.data.load(recipe.data)) / (recipe.batch_size * recipe.n_dis)
    return steps or (round(EPOCHS * per_epoch) if recipe.data == "mnist" else recipe.steps), per_epoch


def _copy(run: Trainer) -> tuple[list[Tensor], list[Tensor]]:
    return tuple([p.detach().clone() for p in params] for params in (run.g_params, run.d_params))
