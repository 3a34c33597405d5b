"""Incremental learning paper, tables 3, 4 and A.2: several GANs, each trained on what the others left out, or not.

The first GAN learns the real images. Weights by Algorithm 1 (A_mu, A_sigma, B, C), or by a density ratio read off the
discriminators (D, our own), decide how often the second sees each of them, and those by both decide for the third. A
classifier learns from all, on the fly and filtered. The baseline trains second and third GANs from other seeds on
unweighted images; a method's GANs have the baseline's seeds, so each comparison is paired.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from figures.book.measuring_damage import zoom
from figures.incremental import runs
from figures.incremental.runs import WORLDS
from figures.provenance import command_line, rounded, stamp
from gankit import metrics
from gankit.classifiers import weights as weighing
from gankit.classifiers.synthetic import Generated
from gankit.data import Dataset
from gankit.models.sampling import score
from gankit.models.union import Union
from gankit.plotting import use_style
from gankit.training import Trainer

METHODS = ("none", *weighing.METHODS, "D", "shuffled", "edge")
"""How the next GAN's images are weighted; "none" is the paper's baseline, "shuffled" gives A_mu's weights to other
images of the same class: weights as uneven, and blind. "edge" is A_mu with the real images in the place of generated
ones: it looks at no generator."""

STAR = (3 / 4, 1 / 4)
"""Shares of the first and the second generator in the row that the paper marks with a star."""

SEED_STEP = 100
"""The GAN number k + 1 of seed s has the seed s + k SEED_STEP."""

PAPER = {
    "1 none": 88.56, "2 A_mu": 88.12, "2 A_sigma": 89.06, "2 B": 89.27, "2 C": 89.33, "2 none": 90.24,
    "2* A_mu": 88.81, "2* A_sigma": 89.43, "2* B": 89.56, "2* C": 89.69,
    "3 A_mu": 88.02, "3 A_sigma": 88.57, "3 C": 90.25, "3 none": 90.61, "4 none": 90.56, "5 none": 91.04,
}  # fmt: skip
"""Best accuracy in percent, on CIFAR-10."""


def compute(
    n_seeds: int = 6, most: int = 2, baseline: int = 3, methods: str = " ".join(METHODS[:-1])
) -> dict[str, Any]:
    """Train the GANs one after another, and classifiers on their unions.

    Args:
        n_seeds: seeds 0..n_seeds-1.
        most: GANs of each weighted sequence, at least 2.
        baseline: unweighted GANs, at least `most`.
        methods: names from `METHODS`, the first of which is "none".

    Returns:
        "accuracy": "|G| method" -> last accuracy for each seed ("2*" is weighted 3/4, 1/4); "ess": "|G| method" ->
        effective share of the images that GAN number |G| saw; "distance" of unions and "distance_alone" of GANs: FD,
        intra-FD and MS-SSIM; "comparisons" with the baseline of equally many GANs; "provenance". JSON-able.
    """
    begun = time.perf_counter()
    setting, seeds = WORLDS["digits"], tuple(range(n_seeds))
    train, test = setting.load()
    judge = setting.judge(train, test)
    space = runs.features_of_digits
    chosen = methods.split()
    first = runs.train_gans(setting, train, seeds)
    sequences: dict[str, list[nn.Module]] = {method: [first.teacher.net] for method in chosen}
    ratios = _ratio(first, train)
    ratios = ratios.expand(len(chosen), *ratios.shape)
    ess: dict[str, Any] = {}
    for k in range(1, most):
        held = {method: _weights(method, sequences[method], ratios[i], train, space, k + 1)
                for i, method in enumerate(chosen)}  # fmt: skip
        ess |= {
            f"{k + 1} {m}": rounded(weighing.effective_sample_size(w).numpy() / len(train))
            for m, w in held.items()
        }
        # All methods side by side: replicas of one seed share initial weights and z.
        run = runs.train_gans(
            setting,
            train,
            [s + k * SEED_STEP for s in seeds] * len(chosen),
            weights=torch.cat(list(held.values())),
        )
        for i, method in enumerate(chosen):
            sequences[method].append(part(run.teacher.net, i * n_seeds, n_seeds))
        # The new GAN's q over its own weighted target, times that target over p, is q over p.
        relative = torch.stack([w / w.mean(-1, keepdim=True) for w in held.values()])
        newest = _ratio(run, train).reshape(relative.shape) * relative
        ratios = ratios + (newest - ratios) / (k + 1)
    if baseline > most:
        run = runs.train_gans(
            setting, train, [s + k * SEED_STEP for k in range(most, baseline) for s in seeds]
        )
        sequences["none"] += [part(run.teacher.net, i * n_seeds, n_seeds) for i in range(baseline - most)]

    accuracy: dict[str, list[float]] = {}
    unions: dict[str, nn.Module] = {"1 none": sequences["none"][0]}
    for k in range(2, baseline + 1):
        unions |= {f"{k} {m}": Union(gans[:k]) for m, gans in sequences.items() if len(gans) >= k}
    unions |= {f"2* {m}": Union(gans[:2], STAR) for m, gans in sequences.items()}
    for name, G in unions.items():
        learned = runs.learn(setting, Generated(G, judge=judge), test, seeds)
        accuracy[name] = learned.last.tolist()
    alone = {f"{k + 1} {m}": gans[k] for m, gans in sequences.items() for k in range(1, len(gans))}
    return {
        "accuracy": {name: rounded(values) for name, values in accuracy.items()},
        "ess": ess,
        "distance": {name: _distances(G, test, space) for name, G in unions.items() if "*" not in name},
        "distance_alone": {name: _distances(G, test, space) for name, G in alone.items()},
        "comparisons": comparisons(accuracy),
        "provenance": stamp(time.perf_counter() - begun, seeds, packages=("torch", "numpy", "scipy")),
    }


def comparisons(accuracy: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Each row against the baseline of equally many GANs, and the baselines against one GAN."""
    found = {}
    for name, values in accuracy.items():
        k, method = name.split()
        base = f"{k.rstrip('*')} none" if method != "none" or "*" in k else "1 none"
        if name != base:
            found[f"{name} - {base}"] = runs.compare(values, accuracy[base])
    return found


def _weights(method: str, gans: list[nn.Module], ratio: Tensor, train: Dataset, space: Any, n: int) -> Tensor:
    """Weights ``[S, N]`` of the real images for the GAN number n, given those before."""
    if method == "none":
        return torch.ones(len(ratio), len(train), dtype=torch.float64)
    if method == "D":
        # At least a thousandth: a class that D takes for wholly covered is still drawn.
        return weighing.balance(weighing.density_ratio_weights(ratio, n).clamp_min(1e-3), train.labels)
    real = space(train.normalise(train.images))
    if method == "edge":
        fake, labels = real.expand(len(ratio), -1, -1), train.labels
    else:
        made, labels = Generated(Union(gans), seed=n).draw(len(train))
        fake = space(made)
    distances = weighing.class_distances(real, train.labels, fake, labels)
    f = method if method in weighing.METHODS else "A_mu"
    w = weighing.transform(weighing.by_range(distances, train.labels), train.labels, f)
    return weighing.balance(_shuffle(w, train.labels) if method == "shuffled" else w, train.labels)


def _shuffle(w: Tensor, labels: Tensor) -> Tensor:
    """The same weights in another order inside each class."""
    generator, result = torch.Generator().manual_seed(0), w.clone()
    for k in labels.unique():
        own = (labels == k).nonzero()[:, 0]
        result[:, own] = w[:, own[torch.randperm(len(own), generator=generator)]]
    return result


@torch.no_grad()
def _ratio(run: Trainer, train: Dataset) -> Tensor:
    """q/p at the real images as the discriminator has it, ``[S, N]``: exp(-logit)."""
    x, y = train.batch(torch.arange(len(train)))
    lead = run.D.replicas
    return score(run.D, x.expand(lead, *x.shape), y.expand(lead, -1)).neg().clamp_max(20).exp().double()


def part(net: nn.Module, start: int, n: int) -> nn.Module:
    """Replicas start..start+n-1 of an ensemble, as an ensemble of its own."""
    from figures.book.measuring_truncation import LabelledGenerator

    return LabelledGenerator(lambda i: net.replica(i), range(start, start + n))


def _distances(G: nn.Module, test: Dataset, space: Any) -> dict[str, Any]:
    """Frechet distances to the test images and similarity inside classes, of 1,000 samples, for each seed."""
    images, labels = Generated(G, seed=7).draw(1_000)
    real, fake = space(test.normalise(test.images)), space(images)
    inside = metrics.intra_class(metrics.frechet_distance, real, test.labels, fake, labels)
    alike = [metrics.ms_ssim_diversity(zoom(x), y, pairs=25) for x, y in zip(images, labels, strict=True)]
    return {
        "FD": rounded(metrics.frechet_distance(fake, real).numpy()),
        "intra-FD": rounded(inside.mean.numpy()),
        "MS-SSIM": rounded([float(one.mean) for one in alike]),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: accuracy over the number of GANs, a line for each method. Right: difference to the baseline, with 2*."""
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 1.4))
    rows = result["accuracy"]
    for i, method in enumerate(METHODS):
        values = {
            int(k): rows[name] for name in rows for k, m in [name.split()] if m == method and "*" not in k
        }
        if not values:
            continue
        values = {1: rows["1 none"]} | values
        x, y = list(values), 100 * np.array(list(values.values()))
        color = "black" if method == "none" else f"C{i - 1}"
        axes[0].plot(x, y.mean(1), "o-", ms=3, color=color, label=LABELS[method])
    axes[0].set(xlabel="number of GANs", ylabel="mean test accuracy (%)", xticks=range(1, 1 + max(
        int(name[0]) for name in rows)))  # fmt: skip
    axes[0].legend(fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), columnspacing=1)
    names = [name for name in rows if name.split()[1] != "none"]
    for i, name in enumerate(names):
        k, method = name.split()
        difference = 100 * (np.array(rows[name]) - np.array(rows[f"{k.rstrip('*')} none"]))
        color = f"C{METHODS.index(method) - 1}"
        axes[1].scatter(np.full(len(difference), i), difference, s=9, color=color, alpha=0.5, lw=0)
        axes[1].hlines(difference.mean(), i - 0.3, i + 0.3, color=color, lw=2)
    axes[1].axhline(0, color="black", lw=1)
    axes[1].set_xticks(
        range(len(names)), [f"{n.split()[0]} {LABELS[n.split()[1]]}" for n in names], rotation=90
    )
    axes[1].set(xlabel="number of GANs and weights", ylabel="accuracy − baseline (points)")
    return figure


LABELS = {
    "none": "unweighted",
    "A_mu": "$A_μ$",
    "A_sigma": "$A_σ$",
    "B": "$B$",
    "C": "$C$",
    "D": "$D$",
    "shuffled": "shuffled",
    "edge": "of real",
}


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
