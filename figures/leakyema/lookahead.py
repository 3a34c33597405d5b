"""Lookahead-minmax, the baseline of the LeakyEMA paper's table 5: both players step back towards where they were.

The paper names it and prints neither k nor alpha. Its authors (Chavdarova, Pagliardini, Stich, Fleuret and Jaggi,
"Taming GANs with Lookahead-Minmax", ICLR 2021, algorithm 1) keep slow copies of both players' weights. After every k
steps of training the slow ones move the share alpha of the way to the fast ones, and training goes on from there. Here
alpha = 0.5 and k = 5 unless said otherwise.

It averages weights, as the mean teacher does, but it is the *training* that goes on from the average, and of the
discriminator too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gankit.training import Trainer


@torch.no_grad()
def step_back(slow: Sequence[Tensor], fast: Sequence[Tensor], alpha: float) -> None:
    """Move `slow` the share alpha of the way to `fast`, and `fast` to the same place; both in place."""
    torch._foreach_lerp_(slow, fast, alpha)
    torch._foreach_copy_(fast, slow)


class Lookahead:
    """Lookahead-minmax for a run, from now on.

        >>> lookahead = Lookahead(run, k=5)
        >>> run.fit(5_000)

    It listens to G's optimiser, which steps last: the discriminator has made its steps by then, and the averaged
    generator (`run.teacher`) follows afterwards, so it averages what training goes on from. The optimisers' own running
    means stay. Buffers stay as well. Slow weights are in no checkpoint: resume a run where k divides its steps, since
    slow and fast ones are equal there.

    Args:
        run: one run or an ensemble.
        k: generator steps between two looks back, at least 1.
        alpha: share of the way that remains, in (0, 1]; 1 changes nothing.

    Raises:
        ValueError: k or alpha out of range.
    """

    def __init__(self, run: Trainer, k: int = 5, alpha: float = 0.5) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1 generator step, got {k}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is a share of the way and must lie in (0, 1], got {alpha}")
        self.run, self.k, self.alpha = run, k, alpha
        self.fast = [*run.g_params, *run.d_params]
        self.slow = [p.detach().clone() for p in self.fast]
        self._done = run.steps
        self._hook = run.g_opt.register_step_post_hook(self._after_step)

    def remove(self) -> None:
        """Stop listening to the optimiser."""
        self._hook.remove()

    def _after_step(self, *_: object) -> None:
        now = self.run.steps + 1  # the step that ends now is not counted yet
        # An optimiser may call its hooks twice in one step.
        if now % self.k == 0 and now != self._done:
            self._done = now
            step_back(self.slow, self.fast, self.alpha)
