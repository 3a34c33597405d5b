"""LeakyEMA paper, figure 7: how far pictures of fixed z move in one step of training, with and without LeakyEMA.

The paper averages LPIPS over 5,000 samples of the generator itself. LPIPS needs weights that are not in this book, so
the distance here is the squared one in the features of the book's classifier: its size means nothing beside the
paper's, the ratio of the two curves does. A second ratio leaves out the trivial reason for a smaller step, that the
picture moves less because its generator's gradient is smaller or its samples are all alike: it divides the
movement by the spread of the samples, the mean squared distance between pictures of two different z.

Quick scale trains on the digits, in minutes; --setting cifar10-sngan (GANKIT_SCALE=full) needs CIFAR-10 and a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gankit as gk
from figures.judging import classifier_of
from figures.leakyema import runs
from figures.leakyema.fig04_learning_curves import variants
from figures.leakyema.table02_variants import START
from figures.provenance import command_line, rounded
from gankit.classifiers import compute_features
from gankit.models.sampling import sample
from gankit.plotting import band, use_style
from gankit.scale import scale
from gankit.training import Trainer


def compute(
    setting: str = "", start: str = str(START), n_seeds: int = 8, every: int = 50, **others: Any
) -> dict[str, Any]:
    """Train both, measuring single steps.

    Args:
        start: N as a share of all steps.
        every: steps between two values; a divisor of those between two judgements.
        setting, n_seeds, others: as for `runs.experiment`.

    Returns:
        What `runs.experiment` returns, with "spread": for each variant the mean squared distance of two samples in
        features at each judgement, `[T][S]`; and "ratios": LeakyEMA's late movement over the conventional one, for each
        seed, `[S]` as it is ("plain") and of movements over spreads ("relative"). Late is after 1.5 N, when the
        average has forgotten the conventional part.
    """
    setting = setting or scale(quick="digits", full="cifar10-sngan")
    network = classifier_of(gk.data.load(runs.SETTINGS[setting].data))
    spread: dict[str, list[Any]] = {}

    def keep(run: Trainer, names: Sequence[str]) -> None:
        features = compute_features(network, sample(run.G, 500).cpu())  # [S, N, d]
        pairs = 2 * features.double().var(1).sum(-1)  # the mean squared distance of two independent samples
        for name, one in zip(names, pairs.unflatten(0, (len(names), n_seeds)), strict=True):
            spread.setdefault(name, []).append(rounded(one.numpy(), 4))

    result = runs.experiment(
        variants(start), setting, n_seeds=n_seeds, smoothness=every, frames=keep, **others
    )
    return result | {"spread": spread, "ratios": ratios(result, spread)}


def ratios(result: Mapping[str, Any], spread: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """Late movements of LeakyEMA over those of conventional training (see `compute`)."""
    since = 1.5 * result["starts"]["leakyema"]
    moved = {
        name: np.array(result[name][runs.HEARD], float)[np.array(result["heard_steps"]) > since].mean(0)
        for name in spread
    }
    apart = {
        name: np.array(s, float)[np.array(result["steps"]) > since].mean(0) for name, s in spread.items()
    }
    plain = moved["leakyema"] / moved["conventional"]
    return {
        "plain": rounded(plain, 4),
        "relative": rounded(plain * apart["conventional"] / apart["leakyema"], 4),
    }


def draw(result: dict[str, Any]) -> Figure:
    """The movement in one step during training (medians and bands over seeds), and the two ratios for every seed."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.3), width_ratios=[2, 1])
    for name, color in (("conventional", runs.CONVENTIONAL), ("leakyema", runs.LEAKY)):
        curves = np.array(result[name][runs.HEARD], float)
        band(left, np.array(result["heard_steps"]), curves, color=color, label=variants()[name].label)
    left.axvline(result["starts"]["leakyema"], color="black", lw=0.8, ls=":")
    left.set(
        xlabel="generator steps", ylabel="squared distance in features,\none step to the next", yscale="log"
    )
    left.legend()
    for i, values in enumerate(result["ratios"].values()):
        right.plot(i + np.linspace(-0.2, 0.2, len(values)), values, ".", color=runs.LEAKY)
        right.plot([i - 0.3, i + 0.3], [np.median(values)] * 2, color=runs.LEAKY, lw=2)
    right.axhline(1, color="black", lw=0.8, ls=":")
    right.set_xticks([0, 1], ["movement", "movement\nover spread"])
    right.set(
        xlabel="after 1.5 N, each seed", ylabel="LeakyEMA over conventional", ylim=(0, None), xlim=(-0.6, 1.6)
    )
    return figure


if __name__ == "__main__":
    command_line(compute, draw, runs.experiment)
