"""LeakyEMA paper, figure 14: FD, precision and recall inside chosen classes, of a conditional generator.

    python -m figures.leakyema.fig14_classes                                           # small GANs on digits
    python -m figures.leakyema.fig14_classes --run runs/baseline,runs/leaky --classes 937,980,800

All samples are asked for with one label and compared with real images of that class alone. The paper shows the three
classes that gain most from LeakyEMA; here all are measured unless some are named.
"""

from __future__ import annotations

import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from figures.leakyema.fig09_truncation import COLORS, K, Player, players, seen, space_of
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.device import pick_device
from gankit.metrics.features import FeatureSpace
from gankit.models.sampling import Sampler
from gankit.plotting import use_style

NAMES = ("FD", "precision", "recall")


def scores(player: Player, space: FeatureSpace, label: int, n: int) -> dict[str, list[float]]:
    """`NAMES` -> one number per seed, of n samples of one class against the real images of that class.

    Raises:
        ValueError: the generator is not conditional, does not know the class, or the data hold fewer than K + 1 images
            of it.
    """
    known = getattr(player.net, "n_classes", 0)
    if not 0 <= label < known:
        raise ValueError(f"classes must be labels of a conditional generator, 0..{known - 1}, got {label}")
    of_class = player.data.images[player.data.labels == label]
    if len(of_class) <= K:
        raise ValueError(
            f"the data hold {len(of_class)} images of class {label}; at least {K + 1} are needed"
        )
    device = next(player.net.parameters()).device
    real = seen(player.data.normalise(of_class), space)
    asked = torch.full((n,), label)
    batches = Sampler(player.net, 1 + label, labels=asked).batches(n, 500)
    fake = torch.cat([seen(images.to(device), space) for images, _ in batches], -2)
    fake = fake if fake.ndim == 3 else fake[None]
    near = [metrics.precision_recall(real, one, K) for one in fake]
    return {
        "FD": [float(metrics.frechet_distance(one, real)) for one in fake],
        "precision": [float(one.precision) for one in near],
        "recall": [float(one.recall) for one in near],
    }


def compute(
    run: str = "", data: str = "", classes: str = "", n: int = 200, seeds: int = 5, steps: int = 2_000
) -> dict[str, Any]:
    """Scores of every player in every class.

    Args:
        run, data, seeds, steps: see `figures.leakyema.fig09_truncation.players`.
        classes: labels separated by commas; empty for all.
        n: samples of each class, at least K + 1.

    Returns:
        "classes": their names; "space"; "players": name -> `NAMES` -> classes x seeds; "summary": player -> `NAMES` ->
        median over seeds of the mean over classes, and for the second of two players "better_fd" and "more_recall",
        the numbers of classes in which its median over seeds is better; "settings"; "provenance". JSON-able.

    Raises:
        ValueError: see `scores`.
    """
    begun = time.perf_counter()
    of = players(run, data, seeds, steps)
    first = next(iter(of.values()))
    labels = [int(c) for c in classes.split(",")] if classes else list(range(first.data.n_classes))
    space = space_of(first.data)
    rows = {name: [scores(player, space, label, n) for label in labels] for name, player in of.items()}
    found = {
        p: {name: np.array([row[name] for row in of_class]) for name in NAMES} for p, of_class in rows.items()
    }
    summary: dict[str, Any] = {
        p: {name: rounded(np.median(values.mean(0)), 4) for name, values in scored.items()}
        for p, scored in found.items()
    }
    if len(found) == 2:
        a, b = ({name: np.median(v, axis=1) for name, v in scored.items()} for scored in found.values())
        summary |= {
            "better_fd": int((b["FD"] < a["FD"]).sum()),
            "more_recall": int((b["recall"] > a["recall"]).sum()),
        }
    return {
        "classes": [first.data.classes[label] for label in labels],
        "space": space.name,
        "players": {p: {name: rounded(v, 4) for name, v in scored.items()} for p, scored in found.items()},
        "summary": summary,
        "settings": {"run": run, "data": first.data.name, "n": n, "steps": None if run else steps},
        "provenance": stamp(
            time.perf_counter() - begun,
            first.seeds,
            ("torch", "numpy"),
            None if pick_device("auto").type == "cpu" else torch.cuda.get_device_name(),
        ),
    }


def draw(result: dict[str, Any]) -> Figure:
    """A panel for each score: points are seeds, bars medians over them, by class and player."""
    use_style()
    figure, axes = plt.subplots(1, len(NAMES), figsize=(11, 3))
    at = np.arange(len(result["classes"]))
    units = {
        "FD": f"FD[{result['space']}] (squared units)",
        "precision": "precision (share)",
        "recall": "recall (share)",
    }
    for i, (player, scored) in enumerate(result["players"].items()):
        for ax, name in zip(axes, NAMES, strict=True):
            values = np.array(scored[name])
            x = at + 0.25 * (i - (len(result["players"]) - 1) / 2)
            ax.bar(x, np.median(values, axis=1), 0.22, color=COLORS[i], alpha=0.4, label=player)
            ax.plot(x, values, ".", ms=4, color=COLORS[i])
            ax.set_xticks(at, result["classes"])
            ax.set(xlabel="class", ylabel=units[name])
    axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command_line(compute, draw, players, threads=1)
