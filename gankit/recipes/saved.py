"""The networks of a saved run, to sample from: nothing but its folder is needed, no training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gankit.device import channels_last, pick_device
from gankit.models.ensemble import pair
from gankit.models.sampling import Sampler
from gankit.recipes.opening import find_checkpoint, stored_recipe
from gankit.recipes.recipe import Recipe
from gankit.training import checkpoints
from gankit.training.average import Teacher


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
            labels: class names or numbers that take turns, for a conditional generator; None draws them uniformly.
            seed: of z, and of labels that are drawn.
            truncation: largest |z|; None for the whole normal distribution.

        Returns:
            `[n, *shape]`, or `[S, n, *shape]` for S seeds: pictures in [-1, 1], points as they are.

        Raises:
            ValueError: a class is unknown, or the generator knows no classes.
        """
        return self.sampler(n, labels=labels, seed=seed, truncation=truncation)(n)

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

    Raises:
        ValueError: a class is unknown (the message lists them), or `net` is not conditional.
    """
    n_classes = getattr(net, "n_classes", 0)
    if not n_classes:
        raise ValueError("labels are for a conditional generator, and this one learned no classes")
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
