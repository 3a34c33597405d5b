"""What a recipe costs, before it is run: its operations, counted, and the time they would take, estimated.

The networks are built and the training step itself is taken with PyTorch's fake and meta tensors, which have shapes and
no numbers: that takes no memory and no data. Counted are the products and sums of matrix products and convolutions,
forwards and backwards, with the formulas of `torch.utils.flop_counter`; everything else is small beside them in a large
network. The book's chapter on ImageNet predicts the same number on paper, from the forward passes of one image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gankit.data.named import SHAPES, sample_shape
from gankit.files import write_json
from gankit.game.losses import Relativistic, losses
from gankit.game.play import Game, Play, d_gradient, g_gradient
from gankit.models.growing import Growing
from gankit.recipes.recipe import Recipe
from gankit.recipes.table import recipes

GPU = "one NVIDIA A100"
RATE = 40e12
"""Operations per second that a training step is assumed to reach there: a quarter of the 156e12 that its tensor cores
can do in TF32, as NVIDIA states it. An assumption, not a measurement."""
LAUNCH = 3e-3
"""Seconds that one pass of a network forwards and back is assumed to take at least, however small it is."""


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        step: floating-point operations of a generator step and the discriminator steps before it.
        total: of all steps.
        hours: estimated on `GPU`, at `RATE` and not below `LAUNCH` per pass.
    """

    step: float
    total: float
    hours: float


ESTIMATE = (
    f"{GPU} at an assumed {RATE / 1e12:.0f} TFLOP/s in TF32 (--precision tf32), "
    f"and at least {1000 * LAUNCH:g} ms per pass of a network"
)
COUNTS = Path(__file__).with_name("counts.json")
"""`counts` of all recipes, which `gankit recipes` lists: `python -m gankit.recipes.operations` writes it anew."""


def counts() -> dict[str, Any]:
    """What all named recipes cost, and what the estimate of their time assumes, as plain values."""
    rows = {
        recipe.name: {"paper": recipe.paper, "data": recipe.data, "steps": recipe.steps}
        | dataclasses.asdict(of_recipe(recipe))
        for recipe in recipes.values()
    }
    return {"estimate": ESTIMATE, "recipes": rows}


def of_recipe(recipe: Recipe) -> Cost:
    """Count the operations of a recipe and estimate its time.

    A growing network is counted as if it were fully grown all the time, and a lazy term in every step as it costs in
    the steps that have it: upper bounds.

    Raises:
        ValueError: the size of its pictures is unknown, or its networks cannot be built for it.
    """
    sample_shape(recipe.data, recipe.size)  # names a path whose size is unknown
    # Only what the count depends on, so that recipes of the same networks are counted once.
    apart = {"name": "", "about": "", "paper": "", "steps": 1, "n_dis": 1, "accumulate": 1}
    # A cost of pairs lets D look at real samples in G's step too; all others are alike.
    apart["loss"] = recipe.loss if isinstance(losses[recipe.loss], Relativistic) else "ns"
    apart |= {"precision": "float32", "data": recipe.data if recipe.data in SHAPES else "path"}
    leak = recipe.leak if recipe.leak is None else dataclasses.replace(recipe.leak, start=0)
    plain, leaking = (_operations(dataclasses.replace(recipe, **apart, leak=one)) for one in (None, leak))
    leaks = 0 if recipe.leak is None else max(0, recipe.steps - recipe.leak.start)
    total = (recipe.steps - leaks) * (recipe.n_dis * plain[0] + plain[1])
    total += leaks * (recipe.n_dis * leaking[0] + leaking[1])
    total *= recipe.accumulate
    passes = recipe.steps * recipe.accumulate * (recipe.n_dis + 1)
    return Cost(total / recipe.steps, total, max(total / RATE, passes * LAUNCH) / 3600)


@lru_cache
def _operations(recipe: Recipe) -> tuple[float, float]:
    """Operations of one minibatch in the training step itself: of the discriminator's, of the generator's."""
    shape, n_classes = sample_shape(recipe.data, recipe.size)
    game = Game(
        losses[recipe.loss],
        recipe.leak,
        d_terms=recipe.d_terms,
        g_terms=recipe.g_terms,
        share_fakes=recipe.share_fakes,
    )
    # Both kinds of tensor have no numbers. Meta ones are several times faster to count with; fake ones claim to be on
    # a CPU, which the penalties' autocast asks for.
    with FakeTensorMode() if game.d_terms or game.g_terms else torch.device("meta"):
        G, D = recipe.networks(shape, 0, n_classes)
        teacher = recipe.networks(shape, 0, n_classes)[0].eval()
        for net in (G, D, teacher):
            _grow_up(net)
        states = {name: x for rule in recipe.rules for name, x in rule.init(()).items()}
        counts, play = [], None
        for learner, gradient in ((D, d_gradient), (G, g_gradient)):
            with _Operations() as count:
                new = partial(
                    Play,
                    game,
                    learner,
                    G,
                    D,
                    teacher,
                    _Shapes(shape),
                    _Streams(),
                    recipe.batch_size,
                    0,
                    states,
                )
                play = play.for_generator() if learner is G and game.share_fakes else new()
                gradient(play, list(learner.parameters()))
            counts.append(float(count.total))
    return tuple(counts)


def _grow_up(net: nn.Module) -> None:
    """A growing network at its last stage: all steps count as that one's, which cost most."""
    for module in net.modules():
        if isinstance(module, Growing):
            module.stage = torch.tensor(module.growth.last, device="cpu")
            module.alpha = torch.tensor(1.0, device="cpu")


class _Operations(TorchDispatchMode):
    """Adds up what `torch.utils.flop_counter` knows of each operator.

    Its own `FlopCounterMode` also attributes them to modules, and cannot do that inside a gradient's gradient.
    """

    total = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        if (count := flop_registry.get(operator.overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class _Streams:
    """Stands in for `gankit.streams.Streams` where numbers do not matter."""

    lead = ()

    def rows(self, n: int, draw: Callable[[int, None], torch.Tensor]) -> torch.Tensor:
        return draw(n, None)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int64)


@dataclass(frozen=True)
class _Shapes:
    """Stands in for a `gankit.data.Dataset` of samples of this shape."""

    shape: tuple[int, ...]

    def draw(self, n: int, _: None) -> torch.Tensor:
        return torch.empty(n, dtype=torch.int64)

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(*indices.shape, *self.shape), torch.empty(indices.shape, dtype=torch.int64)


if __name__ == "__main__":
    write_json(COUNTS, counts())
