"""LeakyEMA on the digits, twenty paired seeds: the plain game, a teacher, and the generator's own samples.

Three runs of the same fully connected GAN with the non-saturating cost. From step 500 on, half of the real digits are
replaced: by nothing in the first run, by samples of the averaged generator in the second (LeakyEMA), by fresh samples
of the generator itself in the third. A seed has the same initial weights, z and data in each.

The small counterpart of rows of tables 1 and 2 of "Mean teachers can train superior GANs". The networks are those of
`figures.leakyema.table02_variants` at quick scale, which compares more variants over longer runs; here the logits of
every 50th step are kept, too, and all three are the same run until leaking begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

import gankit as gk
from figures.leakyema.fig03_disjoint_supports import COLORS
from figures.leakyema.runs import SETTINGS
from figures.provenance import command_line, rounded, spread, stamp
from gankit import classifiers
from gankit.data import Dataset
from gankit.metrics.evaluation import evaluate_classes
from gankit.models.sampling import sample
from gankit.plotting import band, use_style
from gankit.recipes.recipe import Recipe
from gankit.training import Trainer

BASELINE = SETTINGS["digits"]
LEAKY = replace(BASELINE, leak=gk.Leak(0.5, 500))
RUNS = {"baseline": BASELINE, "teacher": LEAKY, "generator": LEAKY.changed({"leak.source": "generator"})}
"""Name -> recipe."""

MEASURES = {"FD": "distance", "D_JS": "divergence", "FD of average": "average_distance"}


def train(recipe: Recipe, n_seeds: int, steps: int, judge_every: int = 250, samples: int = 500) -> Trainer:
    """One run with seeds 0..n_seeds-1, as an ensemble.

    Args:
        recipe: of `RUNS`, say.
        n_seeds: S replicas.
        steps: generator steps.
        judge_every: steps between two judgements.
        samples: generated digits in each, of the generator and of its average.

    Returns:
        The trainer; its `curve` knows "FD", "D_JS" and "FD of average" `[T, S]` beside costs and logits.
    """
    data, seeds = gk.data.load(recipe.data), range(n_seeds)
    G, D = gk.pair(lambda seed: recipe.networks(data.shape, seed), seeds)
    run = recipe.trainer(G, D, data, seeds)
    return run.fit(steps, callback=quality(data, samples), callback_every=judge_every)


def quality(data: Dataset, samples: int) -> Callable[[Trainer], dict[str, Tensor]]:
    """A callback: distance and class divergence of the generator, and the distance of its average, `[S]` each."""
    judge = classifiers.load("digits", train=True)

    def measure(run: Trainer) -> dict[str, Tensor]:
        student = evaluate_classes(sample(run.G, samples), data, judge)
        teacher = evaluate_classes(run.teacher.sample(samples), data, judge)
        distance = "FD[digits classifier]"
        return {"FD": student[distance], "D_JS": student["D_JS[classes]"], "FD of average": teacher[distance]}

    return measure


def compute(n_seeds: int = 20, steps: int = 1_500) -> dict[str, Any]:
    """All three runs.

    Args:
        n_seeds: paired seeds.
        steps: generator steps.

    Returns:
        "steps" `[T]` and "log_steps" `[T']`; for each of `RUNS` "distance", "divergence" and "average_distance"
        `[T][S]` and "gap" `[T'][S]` (mean logit of the real minibatch, leaked samples included, minus that of
        the fakes); "summary", with the spread of each measure at the end and for each two runs the number of seeds in
        which the first is the better ("wins", "teacher < baseline" and so on); "provenance".
    """
    begun = time.perf_counter()
    result: dict[str, Any] = {}
    for name, recipe in RUNS.items():
        run = train(recipe, n_seeds, steps)
        result["log_steps"], real = run.curve("real_logit")
        result["steps"], _ = run.curve("FD")
        result[name] = {new: run.curve(key)[1] for key, new in MEASURES.items()}
        result[name]["gap"] = real - run.curve("fake_logit")[1]
    final = {name: {key: result[name][key][-1] for key in MEASURES.values()} for name in RUNS}
    summary: dict[str, Any] = {
        name: {key: spread(values) for key, values in row.items()} for name, row in final.items()
    }
    pairs = (("teacher", "baseline"), ("generator", "baseline"), ("teacher", "generator"))
    summary["wins"] = {
        f"{a} < {b}": {key: int((final[a][key] < final[b][key]).sum()) for key in MEASURES.values()}
        for a, b in pairs
    }
    for name in RUNS:
        result[name] = {key: rounded(values, 4) for key, values in result[name].items()}
    return result | {
        "steps": result["steps"].tolist(),
        "log_steps": result["log_steps"].tolist(),
        "summary": summary,
        "provenance": stamp(time.perf_counter() - begun, range(n_seeds), packages=("torch", "numpy")),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: distance of the generator's digits; right: how far apart D holds its two kinds of samples.

    Lines are medians, bands run from the lower to the upper quartile of the seeds. The runs with a leak are drawn from
    its start on, since until then they are the baseline; that with the generator's own samples has no band.
    """
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.3))
    look = {
        "baseline": (COLORS["default"], "baseline"),
        "teacher": (COLORS["leakyema"], "LeakyEMA"),
        "generator": (COLORS["instance-noise-1024"], "own samples"),
    }
    for name, (color, label) in look.items():
        for ax, at, values in ((left, "steps", "distance"), (right, "log_steps", "gap")):
            steps = np.array(result[at])
            # The last reading before the leak, so that the three lines part in one point.
            first = 0 if name == "baseline" else max((steps <= LEAKY.leak.start).sum() - 1, 0)
            low, middle, high = np.percentile(result[name][values], [25, 50, 75], axis=1)[:, first:]
            style = {"color": color, "label": label}
            if name == "generator":
                ax.plot(steps[first:], middle, "--", **style)
            else:
                band(ax, steps[first:], np.stack((low, middle, high), axis=1), **style)
    left.set(xlabel="generator steps", ylabel="FD[digits classifier] (no unit)", yscale="log")
    left.set_yticks([20, 30, 50, 100, 200], ["20", "30", "50", "100", "200"])
    left.minorticks_off()
    right.set(xlabel="generator steps", ylabel="real minus generated logit")
    for ax in (left, right):
        ax.axvline(LEAKY.leak.start, color="#BBBBBB", lw=1, zorder=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(look))
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
