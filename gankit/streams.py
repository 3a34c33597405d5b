"""Random numbers of a run: one independent stream per seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class Streams:
    """The random numbers of a run: one independent stream per seed.

    A replica's numbers depend on its own seed alone, so it trains in the same way alone or beside others, and
    replicas of equal seed (with different costs, say) see the same z and the same data.

    Args:
        seeds: one seed per replica, each at least 0.
        lead: (S,) to draw for S replicas, () for one plain run.
        device: where the numbers are drawn. A stream on a GPU differs from one on a CPU.
        name: streams of different names are independent, also at the same seed.
        part: (r, P): of P processes this is number r. All of them draw the rows of all, from the same streams, and
            each keeps every P-th. So P processes have the numbers of one that draws P times as many, whatever P is,
            and a run may go on with another number of processes.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        lead: tuple[int, ...],
        device: torch.device | str,
        name: str = "train",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if any(seed < 0 for seed in seeds):
            raise ValueError(f"seeds must be at least 0, got {tuple(seeds)}")
        unique = list(dict.fromkeys(int(seed) for seed in seeds))
        self.lead = tuple(lead)
        self.generators = [torch.Generator(device=device).manual_seed(_mix(seed, name)) for seed in unique]
        self._rows = [unique.index(int(seed)) for seed in seeds]
        self.device = torch.device(device)
        self.part = part

    def each(self, draw) -> Tensor:
        """Stack `draw(generator)` over the seeds: shape `[...]` becomes `[S, ...]`, or stays for a plain run."""
        if not self.lead:
            return draw(self.generators[0])
        drawn = [draw(generator) for generator in self.generators]
        return torch.stack([drawn[row] for row in self._rows])

    def rows(self, n: int, draw: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """n rows for each seed, `[*lead, n, ...]`: this process's part of what `draw(rows, generator)` gives."""
        r, processes = self.part
        drawn = self.each(lambda g: draw(n * processes, g))
        if processes == 1:
            return drawn
        return drawn[(slice(None),) * len(self.lead) + (slice(r, None, processes),)]

    def normal(self, n: int, *shape: int) -> Tensor:
        """Standard normal numbers `[*lead, n, *shape]`, float32."""
        return self.rows(n, lambda n, g: torch.randn((n, *shape), generator=g, device=self.device))

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), `[*lead, n, *shape]`, float32."""
        return self.rows(n, lambda n, g: torch.rand((n, *shape), generator=g, device=self.device))

    def integers(self, high: int, n: int, *shape: int) -> Tensor:
        """Whole numbers in 0..high-1, `[*lead, n, *shape]`, int64."""
        return self.rows(n, lambda n, g: torch.randint(high, (n, *shape), generator=g, device=self.device))

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The generators' states, for a checkpoint."""
        return {"states": [generator.get_state() for generator in self.generators]}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ValueError: if the checkpoint was written with another number of distinct seeds.
        """
        if len(state["states"]) != len(self.generators):
            raise ValueError(
                f"the checkpoint holds {len(state['states'])} random streams, this run has {len(self.generators)}"
            )
        for generator, value in zip(self.generators, state["states"], strict=True):
            generator.set_state(value.cpu())


def _mix(seed: int, name: str) -> int:
    # PyTorch's CPU generator keeps 32 bits of its seed, and initial weights are drawn from the bare seed:
    # without mixing, the first z would repeat the numbers that made the weights.
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])
