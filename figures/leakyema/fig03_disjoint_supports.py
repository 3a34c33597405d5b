"""LeakyEMA paper, figure 3: two Gaussians in R^32 whose supports hardly meet, and four ways to train (section 3.5).

Left: norms of the generator's mean mu over training. Right: D's outputs on generated samples after step 200. The
paper shows one run each and does not say which of several readings of its text it ran; this module runs many seeds
with the readings of `toy.gaussians.Choices`, and `fig03_choices` tries the others.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from figures.provenance import command_line, rounded, spread, stamp
from gankit.plotting import band, use_style
from gankit.scale import scale
from toy.gaussians import SETUPS, Choices, Run, train

COLORS = {
    "default": "#000000",
    "instance-noise": "#56B4E9",
    "instance-noise-1024": "#0072B2",
    "leakyema": "#CC79A7",
}
"""One colour per set-up, from the palette of Okabe and Ito."""

SNAPSHOT = 200
BINS = 40


def steps_below(norms: np.ndarray, bound: float) -> np.ndarray:
    """First generator step after which |mu| is below a bound.

    Args:
        norms: ``[T + 1, S]``.
        bound: > 0.

    Returns:
        ``[S]``, infinite for a seed that never gets there.
    """
    below = norms < bound
    return np.where(below.any(axis=0), below.argmax(axis=0).astype(float), np.inf)


def summarise(run: Run) -> dict[str, Any]:
    """The numbers by which set-ups are compared, as spreads over seeds.

    Returns:
        "final_norm" and "mean_norm" (over training) of mu, "steps_to_half" of the first norm, "steps_to_one", and
        after the snapshot step the median output sigma(D(G(z))) and the share of samples "rejected" (output below
        0.1), both without and with the instance noise that D sees in training.
    """
    result = {
        "final_norm": spread(run.norms[-1]),
        "mean_norm": spread(run.norms.mean(axis=0)),
        "steps_to_half": spread(steps_below(run.norms, run.norms[0, 0] / 2)),
        "steps_to_one": spread(steps_below(run.norms, 1.0)),
    }
    for name, outputs in (("output", run.outputs), ("noisy_output", run.noisy_outputs)):
        result[name] = spread(np.median(outputs, axis=1))
        result[f"{name}_rejected"] = spread((outputs < 0.1).mean(axis=1))
    return result


def compare(runs: dict[str, Run]) -> dict[str, Any]:
    """How LeakyEMA does against each other set-up, seed by seed (a seed is the same first D everywhere).

    Returns:
        "order": by each of three measures of speed, set-ups from the smallest median to the largest; "leakyema_first":
        by each, whether LeakyEMA leads, as in the paper; and for each other set-up the share of seeds in which LeakyEMA
        has the smaller mean norm ("slower_than_leakyema") and in which its D is the less confident
        ("more_confident"), in [0, 1].
    """
    speeds = {
        "mean_norm": {name: run.norms.mean(axis=0) for name, run in runs.items()},
        "steps_to_half": {name: steps_below(run.norms, run.norms[0, 0] / 2) for name, run in runs.items()},
        "steps_to_one": {name: steps_below(run.norms, 1.0) for name, run in runs.items()},
    }
    order = {
        measure: sorted(runs, key=lambda name, v=values: float(np.quantile(v[name], 0.5, method="higher")))
        for measure, values in speeds.items()
    }
    confidence = {name: np.abs(run.noisy_outputs - 0.5).mean(axis=1) for name, run in runs.items()}
    means, others = speeds["mean_norm"], [name for name in runs if name != "leakyema"]
    return {
        "order": order,
        "leakyema_first": {measure: names[0] == "leakyema" for measure, names in order.items()},
        "slower_than_leakyema": {n: float((means["leakyema"] < means[n]).mean()) for n in others},
        "more_confident": {n: float((confidence["leakyema"] < confidence[n]).mean()) for n in others},
    }


def compute(seeds: int | None = None, steps: int = 5000, choices: Choices | None = None) -> dict[str, Any]:
    """Train the four set-ups.

    Args:
        seeds: number of seeds, >= 1; None for 20 at quick scale and 100 at full scale.
        steps: generator steps, >= 200.
        choices: the readings; None for the defaults.

    Returns:
        "steps" and "norms" (``[T][S]`` per set-up) of the curves, histograms of the outputs ("edges", and "outputs"
        and "noisy_outputs" as densities per set-up), "summary" (:func:`summarise`), "comparison" (:func:`compare`),
        "settings" and "provenance".

    Raises:
        ValueError: as `toy.gaussians.train`.
    """
    choices = choices or Choices()
    numbers = range(seeds if seeds is not None else scale(quick=20, full=100))
    begin = time.perf_counter()
    runs = {
        name: train(
            setup, numbers, steps, choices, snapshot=SNAPSHOT, progress=lambda r, n=name: tqdm(r, desc=n)
        )
        for name, setup in SETUPS.items()
    }
    wall_time = time.perf_counter() - begin
    # Every 10 steps while the curves fall, every 50 afterwards: what a picture can show.
    kept = np.array([t for t in range(steps + 1) if t % 50 == 0 or (t <= 600 and t % 10 == 0)])
    edges = np.linspace(0, 1, BINS + 1)

    def density(outputs: np.ndarray) -> Any:
        return rounded(np.histogram(outputs, edges, density=True)[0], 4)

    return {
        "steps": kept.tolist(),
        "norms": {name: rounded(run.norms[kept], 4) for name, run in runs.items()},
        "edges": rounded(edges),
        "outputs": {name: density(run.outputs) for name, run in runs.items()},
        "noisy_outputs": {name: density(run.noisy_outputs) for name, run in runs.items()},
        "summary": {name: summarise(run) for name, run in runs.items()},
        "comparison": compare(runs),
        "settings": {"steps": steps, "snapshot": SNAPSHOT, **vars(choices)},
        "provenance": stamp(wall_time, numbers, ("numpy", "torch")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Three panels, from the result of :func:`compute`: lines are medians, bands span all seeds.

    Left the distance over training, in the middle its first 500 steps, right what D says.
    """
    use_style()
    figure, (left, zoom, right) = plt.subplots(1, 3, figsize=(11.5, 3.6))
    for name, setup in SETUPS.items():
        steps, norms = np.array(result["steps"]), np.array(result["norms"][name])
        for ax in (left, zoom):
            band(ax, steps, norms, label=setup.title, color=COLORS[name])
        right.stairs(
            result["noisy_outputs"][name], result["edges"], color=COLORS[name], lw=1.8, label=setup.title
        )
    zoom.axhline(norms[0].mean() / 2, color="black", lw=0.8, ls=":")
    zoom.set(xlabel="generator steps", xlim=(0, 500), ylim=(0, None), title="the first 500 steps")
    left.set(xlabel="generator steps", ylabel=r"norm of the generator's mean $\|\mu\|$", ylim=(0, None))
    right.set(
        xlabel=rf"D's output $\sigma(D(G(z)))$ after step {result['settings']['snapshot']}",
        ylabel="density",
        yscale="log",
        xlim=(0, 1),
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(SETUPS))
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
