"""A training step as CUDA graphs: recorded once, and from then on started as a whole.

    run = recipe.build([0], device="cuda").compile(mode="cuda-graph")

A step of small networks is a thousand operations of a few microseconds, and Python needs longer to ask for them than a
card to do them. A graph asks once. It repeats exactly what was recorded, at the same places in memory, so it can stand
for a step only where Python decides nothing and no tensor moves: `phase` says what Python decides (whether the leak
has begun, the average, a lazy term is due), and each phase has a graph of its own.

Random numbers differ from replay to replay as from step to step: a graph knows the run's generators, and moves them on
as much as the step does that it stands for.

Source: PyTorch's notes on CUDA graphs, "Whole-network capture".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gankit import processes
from gankit.data.dataset import MappedDataset
from gankit.game.play import Every
from gankit.training.gradients import GRADIENTS

if TYPE_CHECKING:
    from gankit.training.trainer import Trainer

WARM = 3
"""Steps of a phase that run one operation after the other before it is recorded: they choose algorithms and make what
is kept, such as the optimisers' means."""

Phase = tuple[Any, ...]


def phase(run: Trainer) -> Phase:
    """What Python decides in the step that comes: steps of equal phase are the same operations."""
    game, step = run.game, run.steps
    leaks = (
        () if game.leak is None else tuple(_listed(game.leak.replaced(step, run.own_batch_size, run.lead)))
    )
    due = tuple(
        step % term.interval == 0 for term in (*game.d_terms, *game.g_terms) if isinstance(term, Every)
    )
    return leaks, step < run.teacher.start, due


def _listed(counts: int | list[int]) -> list[int]:
    return [counts] if isinstance(counts, int) else counts


def check(run: Trainer) -> None:
    """Refuse a run whose step cannot be recorded.

    Raises:
        ValueError: saying what stands in the way.
    """
    hooks = [
        opt
        for opt in (run.g_opt, run.d_opt)
        if opt._optimizer_step_post_hooks or opt._optimizer_step_pre_hooks
    ]
    reasons = {
        "it needs a CUDA device, and this run is on " + str(run.device): run.device.type != "cuda",
        "images that stay in a file are read by the host in every step": isinstance(run.data, MappedDataset),
        "a learning rate that follows a schedule is a number of the host": any(
            schedule is not None for _, schedule in run.schedules.values()
        ),
        "a growing network changes its layers": any(hasattr(net, "growth") for net in (run.G, run.D)),
        f"{processes.world_size()} processes wait for one another in it": processes.world_size() > 1,
        "an optimiser has hooks, which Python would not run again": bool(hooks),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"mode 'cuda-graph' cannot record a step of this run: {reason}")


class Captured:
    """`run.update`, by graphs where its phase has been recorded.

    Args:
        run: whose steps these are. Its networks, optimisers and data must stay the same tensors from now on; after
            `Trainer.load`, which makes new ones, it begins anew.

    Raises:
        ValueError: see `check`.
    """

    def __init__(self, run: Trainer) -> None:
        check(run)
        self.run = run
        self.warm: Counter[Phase] = Counter()
        self.graphs: dict[Phase, tuple[torch.cuda.CUDAGraph, dict[str, Any]]] = {}
        self.states: dict[str, Tensor] = {name: x.clone() for name, x in run.states.items()}
        self.stream = torch.cuda.Stream(run.device)
        self.pool = torch.cuda.graph_pool_handle()
        capturable(run.g_opt), capturable(run.d_opt)

    def __call__(self) -> dict[str, Any]:
        """One step, with the statistics of `Trainer.update`."""
        now = phase(self.run)
        if now not in self.graphs:
            if self.warm[now] < WARM:
                self.warm[now] += 1
                return self._beside(self.run.update)
            self.graphs[now] = self._record()
        self._settle()
        graph, seen = self.graphs[now]
        graph.replay()
        # The next replay writes to the same places; gradients are looked at before it, numbers are kept longer.
        return {key: x if key in GRADIENTS else x.clone() for key, x in seen.items()}

    def _beside(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Work on a stream of its own, as recording asks for what comes before it."""
        current = torch.cuda.current_stream(self.run.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            seen = work()
        current.wait_stream(self.stream)
        return seen

    def _settle(self) -> None:
        """Bring the rules' states to the places where graphs find them."""
        for name, x in self.states.items():
            if (new := self.run.states[name]) is not x:
                x.copy_(new)
        self.run.states = self.states

    def _record(self) -> tuple[torch.cuda.CUDAGraph, dict[str, Any]]:
        """The graph of a step, which is not done thereby, and where it leaves its statistics."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.run.streams.generators:
            graph.register_generator_state(generator)
        self._settle()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            seen = self.run.update()
            for name, x in self.states.items():
                x.copy_(self.run.states[name])
        self.run.states = self.states
        return graph, seen


def capturable(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser's step be recorded: its counter of steps is on the device, where fused ones keep it."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
