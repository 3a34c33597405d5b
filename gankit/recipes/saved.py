"""The networks of a saved run, to sample from: nothing but its folder is needed, no training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gankit.device import channels_last, pick_device
from gankit.models.ensemble import lead_shape, pair
from gankit.models.sampling import Sampler, class_path, z_path
from gankit.recipes.opening import find_checkpoint, stored_recipe
from gankit.recipes.recipe import Recipe
from gankit.streams import Streams
from gankit.training import checkpoints
from gankit.training.average import Teacher

PATHS = ("z", "class")
"""What `Saved.interpolate` and `gankit sample --interpolate` change along a row."""


@dataclass(frozen=True, eq=False)
class Saved:
    """What `load` found in a folder.

    Attributes:
        G: the generator at this step, in evaluation mode; of several seeds, an `Ensemble`.
        teacher: the averaged generator, likewise.
        recipe: how the run was trained.
        seeds: of the run.
        step: generator steps done.
        shape: of one sample.
        classes: names of the classes that it was trained on.
    """

    G: nn.Module
    teacher: nn.Module
    recipe: Recipe
    seeds: tuple[int, ...]
    step: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]

    def sample(
        self,
        n: int,
        *,
        labels: str | int | Sequence[str | int] | Tensor | None = None,
        seed: int = 0,
        truncation: float | None = None,
    ) -> Tensor:
        """n samples of the averaged generator.

        Args:
            n: how many, at least 1.
            labels: class names or numbers that take turns, for a conditional generator, or shares of the classes, float
                `[n, K]`; None draws them uniformly.
            seed: of z, and of labels that are drawn.
            truncation: largest |z|; None for the whole normal distribution.

        Returns:
            `[n, *shape]`, or `[S, n, *shape]` for S seeds: pictures in [-1, 1], points as they are.

        Raises:
            ValueError: a class is unknown, or the generator knows no classes.
        """
        return self.sampler(n, labels=labels, seed=seed, truncation=truncation)(n)

    def interpolate(
        self,
        over: str = "z",
        *,
        rows: int = 8,
        steps: int = 8,
        labels: str | int | Sequence[str | int] | Tensor | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Samples of the averaged generator on the way from one to another.

        Args:
            over: "z", from one latent to another (`gankit.models.sampling.z_path`), each row of a class; or "class",
                through classes, each row with one latent (`gankit.models.sampling.class_path`).
            rows: ways.
            steps: samples on each, both ends included, at least 2.
            labels: for "z", the classes of the rows, which take turns (drawn uniformly when None, and only for a
                conditional generator); for "class", those on the way, at least 2.
            seed: of the latents and of labels that are drawn.

        Returns:
            `[rows, steps, *shape]`, or `[S, rows, steps, *shape]` for S seeds.

        Raises:
            ValueError: a class is unknown, the generator knows no classes, or a number is out of range.
        """
        sampler = path_sampler(self.teacher, over, rows, steps, labels, self.classes, seed)
        return sampler(rows * steps).unflatten(len(lead_shape(self.teacher)), (rows, steps))

    def sampler(
        self,
        n: int,
        *,
        labels: str | int | Sequence[str | int] | Tensor | None = None,
        seed: int = 0,
        truncation: float | None = None,
        net: nn.Module | None = None,
    ) -> Sampler:
        """What draws the n samples of `sample` batch by batch; of another network than the teacher, if one is given."""
        net = self.teacher if net is None else net
        numbers = None if labels is None else label_numbers(labels, n, self.classes, net)
        return Sampler(net, seed, numbers, truncation)


def path_sampler(
    net: nn.Module,
    over: str,
    rows: int,
    steps: int,
    labels: str | int | Sequence[str | int] | Tensor | None,
    classes: Sequence[str],
    seed: int = 0,
) -> Sampler:
    """What draws the ``rows * steps`` samples of `Saved.interpolate`, row by row.

    Raises:
        ValueError: as `Saved.interpolate`.
    """
    if over not in PATHS:
        raise ValueError(f"over must be one of {', '.join(PATHS)}, got {over!r}")
    if rows < 1 or steps < 2:
        raise ValueError(f"rows must be at least 1 and steps at least 2, got {rows} and {steps}")
    n_classes = getattr(net, "n_classes", 0)
    streams = Streams([seed], (), "cpu", "interpolate")
    starts, ends = streams.normal(rows, net.z_dim), streams.normal(rows, net.z_dim)
    if over == "z":
        numbers = None
        if labels is not None:
            numbers = label_numbers(labels, rows, classes, net).repeat_interleave(steps)
        elif n_classes:
            numbers = streams.integers(n_classes, rows).repeat_interleave(steps)
        return Sampler(net, labels=numbers, z=z_path(starts, ends, steps).flatten(0, 1))
    if labels is None or isinstance(labels, str | int) or len(labels) < 2:
        raise ValueError(f"a way through classes needs labels, at least 2, got {labels!r}")
    shares = class_path(label_numbers(labels, len(labels), classes, net), steps, n_classes)
    return Sampler(net, labels=shares.repeat(rows, 1), z=starts.repeat_interleave(steps, 0))


def load(
    folder: str | Path, *, step: int | None = None, best: bool = False, device: str | torch.device = "auto"
) -> Saved:
    """The networks of the run in a folder, at its newest checkpoint, at its best one or at that of a step.

    >>> import gankit as gk
    >>> saved = gk.load("runs/a")                            # doctest: +SKIP
    >>> gk.plotting.grid(saved.sample(64, labels="cat"))     # doctest: +SKIP

    Args:
        folder: where `gankit train` wrote it.
        step: of a checkpoint that was kept.
        best: the checkpoint that `gankit train --best` kept.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged, or was written without a recipe.
    """
    found = find_checkpoint(Path(folder), step, best)
    state = checkpoints.read(found)
    recipe, seeds = stored_recipe(found)
    shape, classes = tuple(state["data"]["shape"]), tuple(state["data"]["classes"])
    networks = partial(recipe.networks, shape, n_classes=len(classes))
    G, _ = networks(seeds[0]) if len(seeds) == 1 else pair(networks, seeds)
    G = channels_last(G.to(pick_device(device)))
    teacher = Teacher(G, recipe.ema, recipe.batch_size)
    with checkpoints.loading(found, "G"):
        checkpoints.check_architecture(state, {"G": G}, found)
        G.load_state_dict(state["G"])
    with checkpoints.loading(found, "teacher"):
        checkpoints.check_architecture(state, {"teacher": teacher}, found)
        teacher.load_state_dict(state["teacher"])
    return Saved(G.eval().requires_grad_(False), teacher.net, recipe, seeds, state["step"], shape, classes)


def label_numbers(
    labels: str | int | Sequence[str | int] | Tensor, n: int, classes: Sequence[str], net: nn.Module
) -> Tensor:
    """Labels int64 `[n]` of class names or numbers, which take turns.

    Shares of the classes, float `[n, K]`, stay as they are.

    Raises:
        ValueError: a class is unknown (the message lists them), or `net` is not conditional.
    """
    n_classes = getattr(net, "n_classes", 0)
    if not n_classes:
        raise ValueError("labels are for a conditional generator, and this one learned no classes")
    if isinstance(labels, Tensor) and labels.is_floating_point():
        return labels
    given = labels.tolist() if isinstance(labels, Tensor) else labels
    given = [given] if isinstance(given, str | int) else list(given)
    numbers = []
    for label in given:
        if label in classes:
            numbers.append(list(classes).index(label))
        elif str(label).isdecimal() and int(label) < n_classes:
            numbers.append(int(label))
        else:
            known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
            raise ValueError(
                f"labels must be classes ({known}) or numbers from 0 to {n_classes - 1}, got {label!r}"
            )
    if not numbers:
        raise ValueError("labels must name at least one class")
    return torch.tensor(numbers).repeat(-(-n // len(numbers)))[:n]
