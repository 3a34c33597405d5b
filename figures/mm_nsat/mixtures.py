"""What figures 4 and 19 of the sample-weighting paper share: generators of points in the plane, watched as they train.

All variants and seeds of a setting are trained side by side (`figures.mm_nsat.runs`) and read with the same noise every
time, so that what changes between two readings is the generator alone. From the readings come how many modes are
covered; which runs *hop*, with most of their points near one mode and soon near another; what becomes of a mode that
has little; and whether a discriminator scores modes as section 2.3 supposes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gankit as gk
from figures.judging import COVERED, judge
from figures.mm_nsat import runs
from figures.mm_nsat.coverage import chosen
from figures.mm_nsat.runs import Variant
from figures.provenance import rounded, stamp
from gankit import study
from gankit.data import Dataset
from gankit.metrics.modes import frequencies, mode_assignment
from gankit.recipes import Recipe
from gankit.training import Trainer

SAMPLES = 2_500
"""Points per reading and replica, the usual number for the ring."""

SETTINGS: Mapping[str, Recipe] = {
    "ring": runs.SETTINGS["ring"],
    "ring-hopping": runs.SETTINGS["ring"].changed({"batch_size": 128, "d_lr": 3e-4}),
    "spiral": runs.SETTINGS["spiral"],
}
"""Setting -> recipe. In "ring-hopping" the discriminator learns more slowly than the generator."""

SHOWN = ("ns", "mm", "mm-nsat")
"""Costs whose points and shares are kept for one seed, to be drawn."""

SMALL = 0.5
"""A mode is small below this part of its share in the data, as long as it is covered."""

AHEAD = 200
"""So many steps later one looks what has become of a small mode."""

TOGETHER = 60
"""Replicas trained side by side; more would be slower on one core."""


class Watch:
    """Readings of every replica's points, all made with the same noise. A callback for `Trainer.fit`.

    Args:
        data: the mixture that the run trains on.
        z_dim: length of a latent vector.
        kept: of how many points the coordinates are kept.

    Attributes:
        shares: per reading ``[S, K]``, the share of the points within 3 standard deviations of each mode.
        nearest: per reading ``[S, K]``, the share of the points to which each mode is the nearest.
        scores, logits: per reading ``[S, K]``, the mean of D's probability and of its logit over a mode's points,
            NaN where it has none.
        score: per reading ``[S]``, the mean probability of all points.
        points: per reading ``[S, kept, 2]``.
    """

    def __init__(self, data: Dataset, z_dim: int, kept: int = 200) -> None:
        self.data, self.kept = data, kept
        self.z = torch.randn(SAMPLES, z_dim, generator=torch.Generator().manual_seed(0))
        self.measure = judge(data)
        self.shares: list[Tensor] = []
        self.nearest: list[Tensor] = []
        self.scores: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.score: list[Tensor] = []
        self.points: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, run: Trainer) -> dict[str, Tensor]:
        """Take a reading; returns what `judge` measures of the same points."""
        points = run.G(self.z.expand(*run.lead, *self.z.shape))
        logits = run.D(points).double()
        centers, std = self.data.centers, self.data.std
        label = mode_assignment(points, centers, std)
        everywhere = mode_assignment(points, centers, std, radius=torch.inf)
        self.shares.append(frequencies(label, len(centers)))
        self.nearest.append(frequencies(everywhere, len(centers)))
        self.scores.append(mean_by_mode(logits.sigmoid(), label, len(centers)))
        self.logits.append(mean_by_mode(logits, label, len(centers)))
        self.score.append(logits.sigmoid().mean(-1))
        self.points.append(points[:, : self.kept].clone())
        return self.measure(points)


def mean_by_mode(values: Tensor, label: Tensor, n_modes: int) -> Tensor:
    """The mean of values ``[S, N]`` over the points of each mode, ``[S, n_modes]``; NaN for a mode without points.

    Labels ``[S, N]`` of -1 belong to no mode.
    """
    member = label[..., None] == torch.arange(n_modes)
    return (values[..., None] * member).sum(-2) / member.sum(-2)


# ---------------------------------------------------------------------------------------------- what readings say


def hops(nearest: np.ndarray) -> np.ndarray:
    """How often the mode that holds most of the points changes, from one reading to the next.

    Args:
        nearest: ``[T, S, K]``, the share of the points to which each mode is the nearest.

    Returns:
        int ``[S]``: pairs of neighbouring readings in both of which one mode holds more than half of the points, and
        not the same one.
    """
    holder = np.where(nearest.max(-1) > 0.5, nearest.argmax(-1), -1)
    before, after = holder[:-1], holder[1:]
    return ((before >= 0) & (after >= 0) & (before != after)).sum(0)


def is_small(shares: np.ndarray, due: np.ndarray) -> np.ndarray:
    """Which modes have between a tenth (`judging.COVERED`) and half (`SMALL`) of their due: bool, shape of `shares`."""
    return (shares >= COVERED * due) & (shares < SMALL * due)


def fates(shares: np.ndarray, due: np.ndarray, ahead: int) -> dict[str, int]:
    """What became of small and of missing modes some readings later.

    Args:
        shares: ``[T, S, K]``.
        due: ``[K]``, the shares in the data.
        ahead: readings between now and later, at least 1 and below T.

    Returns:
        "small": pairs of a reading and a mode that is small in it; of these, "dropped": below a tenth of its due
        later, and "recovered": at half of its due or more. "missing": pairs of a reading and a mode that is not covered
        in it; of these, "found": covered later.
    """
    if not 1 <= ahead < len(shares):
        raise ValueError(f"ahead must lie in [1, {len(shares) - 1}] for {len(shares)} readings, got {ahead}")
    small, missing, later = is_small(shares[:-ahead], due), shares[:-ahead] < COVERED * due, shares[ahead:]
    return {
        "small": int(small.sum()),
        "dropped": int((small & (later < COVERED * due)).sum()),
        "recovered": int((small & (later >= SMALL * due)).sum()),
        "missing": int(missing.sum()),
        "found": int((missing & (later >= COVERED * due)).sum()),
    }


def hearing(shares: np.ndarray, scores: np.ndarray, score: np.ndarray, due: np.ndarray) -> dict[str, float]:
    """How much louder than by its number a small mode is heard, under NS's and under minimax's weights.

    A mode's voice is its part of the sum of all weights, over all points, those outside every mode included.

    Args:
        shares, scores: ``[T, S, K]``, share and mean probability of each mode.
        score: ``[T, S]``, mean probability of all points.
        due: ``[K]``.

    Returns:
        "ns" and "mm": the median of voice over share, over all small modes of all readings; NaN if none was small.
    """
    small = is_small(shares, due)
    total = np.broadcast_to(score[..., None], shares.shape)[small]
    own = scores[small]
    # The share itself cancels: voice = share * (mean weight of the mode) / (mean weight of all points).
    return {
        "ns": float(np.median((1 - own) / (1 - total))) if small.any() else np.nan,
        "mm": float(np.median(own / total)) if small.any() else np.nan,
    }


def score_slope(shares: np.ndarray, logits: np.ndarray, due: np.ndarray) -> float:
    """The slope of a mode's mean logit against the logarithm of its share, within a reading of a run.

    The optimal discriminator has -1: its logit is log(due / share) wherever modes do not overlap and have their
    right shape. One that does not see shares has 0.

    Args:
        shares, logits: ``[T, S, K]``.
        due: ``[K]``.

    Returns:
        The least-squares slope over all covered modes of readings with at least two of them, each reading's means
        taken off; NaN if there is no such reading.
    """
    covered = shares >= COVERED * due
    x = np.where(covered, np.log(np.where(covered, shares, 1) / due), np.nan)
    y = np.where(covered, logits, np.nan)
    enough = covered.sum(-1) >= 2
    x, y = x[enough], y[enough]
    if len(x) == 0:
        return np.nan
    x, y = (v - np.nanmean(v, axis=-1, keepdims=True) for v in (x, y))
    return float(np.nansum(x * y) / np.nansum(x * x))


# ------------------------------------------------------------------------------------------------------ training


def compute(
    variants: Mapping[str, Variant],
    setting: str,
    costs: str = "",
    n_seeds: int = 20,
    steps: int = 0,
    every: int = 50,
) -> dict[str, Any]:
    """Train variants on a mixture and watch them.

    Args:
        variants: name -> variant.
        setting: a key of `SETTINGS`.
        costs: names of some of the variants, with commas between them; "" trains all.
        n_seeds: seeds 0..n_seeds-1 for every variant.
        steps: generator steps; 0 takes the recipe's.
        every: steps between two readings; at least fifteen must fit into the training.

    Returns:
        "setting", "samples", "names"; "steps" ``[T]`` of every fourth reading, the last among them; per variant
        "covered", "divergence" and "outside" ``[T][S]`` (`judge`) at these, "frequencies" ``[S][K]`` at the end,
        "least_gradient" ``[S]``, the smallest norm of the generator's gradient at any reading, and "late_hops" ``[S]``,
        the `hops` in the last third; "summary", of all readings (`runs.summarise` and `summarise`); "shown" (see
        `shown`); "provenance".

    Raises:
        ValueError: an unknown cost or setting, or readings too far apart.
    """
    begun = time.perf_counter()
    if setting not in SETTINGS:
        raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
    names, recipe = chosen(variants, costs), SETTINGS[setting]
    steps, per_run = steps or recipe.steps, max(1, TOGETHER // n_seeds)
    if not 1 <= every <= steps // 15:
        raise ValueError(f"every must lie in [1, {steps // 15}] for {steps} steps, got {every}")
    result: dict[str, Any] = {"setting": setting, "samples": SAMPLES, "names": names, "summary": {}}
    watches: dict[str, tuple[Watch, slice]] = {}
    data = gk.data.load(recipe.data)
    for first in range(0, len(names), per_run):
        group = names[first : first + per_run]
        watch = Watch(data, recipe.networks.z_dim)
        changes = runs.changes({name: variants[name] for name in group})
        trained = study.run(
            recipe, changes, range(n_seeds), steps, measures=[watch], every=every, log_every=5, data=data
        )
        result |= runs.curves(trained, len(data))
        watches |= {name: (watch, slice(i * n_seeds, (i + 1) * n_seeds)) for i, name in enumerate(group)}
    basic = runs.summarise(result, names)
    due, taken = data.class_frequencies().numpy(), np.array(result["steps"])
    for name in names:
        result["summary"][name] = basic[name] | summarise(*watches[name], taken, due)
        result[name] = kept(result[name], *watches[name], taken)
    reference = result["ns" if "ns" in names else names[0]]
    result["shown"] = shown(watches, int(np.argmin(reference["covered"][-1])), taken)
    result["steps"] = _every_fourth(taken).tolist()
    for key in ("log_steps", "epochs", "images_per_epoch"):
        del result[key]
    result["provenance"] = stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy"))
    return result


def summarise(watch: Watch, mine: slice, steps: np.ndarray, due: np.ndarray) -> dict[str, Any]:
    """What the readings of one variant say, beside `runs.summarise`.

    The first third of training, in which points only gather into modes, is left out of all but the hops and the end.

    Args:
        watch: the readings of the run.
        mine: the variant's replicas.
        steps: ``[T]`` of the readings.
        due: ``[K]``, the modes' shares in the data.

    Returns:
        "hopping", the number of runs that still hop in the last third of training; "small", "dropped", "recovered",
        "missing" and "found" (`fates`, `AHEAD` steps or one reading later); "heard_ns" and "heard_mm"
        (`hearing`); "score_slope"; and "outside", the median share of points in no mode at the end.
    """
    late = steps >= steps[-1] / 3
    shares, scores, logits = (_stack(x, mine)[late] for x in (watch.shares, watch.scores, watch.logits))
    ahead = min(max(1, AHEAD // int(steps[1] - steps[0])), len(shares) - 1)
    heard = hearing(shares, scores, _stack(watch.score, mine)[late], due)
    return {
        "hopping": int((late_hops(watch, mine, steps) > 0).sum()),
        **fates(shares, due, ahead),
        **{f"heard_{name}": rounded(value, 3) for name, value in heard.items()},
        "score_slope": rounded(score_slope(shares, logits, due), 3),
        "outside": rounded(np.median(1 - shares[-1].sum(-1)), 3),
    }


def late_hops(watch: Watch, mine: slice, steps: np.ndarray) -> np.ndarray:
    """The `hops` of a variant's runs in the last third of training, int ``[S]``."""
    return hops(_stack(watch.nearest, mine)[steps >= steps[-1] * 2 / 3])


def kept(curves: Mapping[str, Any], watch: Watch, mine: slice, steps: np.ndarray) -> dict[str, Any]:
    """What is written down of one variant (see `compute`)."""
    return {
        **{key: rounded(_every_fourth(np.array(curves[key], float)), 3) for key in ("divergence", "outside")},
        "covered": _every_fourth(np.array(curves["covered"], int)).tolist(),
        "frequencies": curves["frequencies"],
        "least_gradient": rounded(np.array(curves["g_grad"], float).min(0), 3),
        "late_hops": late_hops(watch, mine, steps).tolist(),
    }


def shown(
    watches: Mapping[str, tuple[Watch, slice]], seed: int, steps: np.ndarray, moments: int = 5
) -> dict[str, Any]:
    """The points of one seed at the last few readings and its shares at all of them, under the costs of `SHOWN`.

    In `compute` it is the seed for which NS covers fewest modes at the end, the first of several.

    Returns:
        "seed", "steps" ``[moments]`` of the points, "share_steps" ``[T]``, and per cost "points" ``[moments][M][2]``
        and "shares" ``[T][K]``.
    """
    result: dict[str, Any] = {"seed": seed, "steps": steps[-moments:].tolist(), "share_steps": steps.tolist()}
    for name in (name for name in SHOWN if name in watches):
        watch, mine = watches[name]
        result[name] = {
            # To a hundredth: a fifth of a mode's width, and less than a dot's.
            "points": np.round(_stack(watch.points[-moments:], mine)[:, seed].astype(float), 2).tolist(),
            "shares": rounded(_stack(watch.shares, mine)[:, seed], 3),
        }
    return result


def _stack(readings: Sequence[Tensor], mine: slice) -> np.ndarray:
    """Readings ``[S, ...]`` of all replicas -> ``[T, S', ...]`` of some."""
    return torch.stack([reading[mine] for reading in readings]).numpy()


def _every_fourth(readings: np.ndarray) -> np.ndarray:
    """Every fourth of ``[T, ...]``, the last among them."""
    return readings[::-4][::-1]
