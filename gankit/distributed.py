"""The few collective operations that training and evaluation need.

Started by `torchrun`, several processes work on one run; started alone, a process is all there is, and every
function here returns its argument. No code has to ask which of the two it is.

    with distributed.processes():                      # joins the others where torchrun started some
        mine = samples[distributed.share(len(samples))]
        everyone = distributed.gather(score(mine))     # rows in the order of `samples`
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def processes(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the processes that `torchrun` started, and leave them at the end; alone, do nothing.

    Args:
        device: where the tensors lie that will be exchanged; a GPU uses NCCL, a CPU gloo.

    Raises:
        ValueError: if the process already belongs to a group.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 for the one that reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together, 1 if there is but one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(n: int) -> slice:
    """This process's share of n things: neighbours, as equally many as possible, in the order of the ranks.

    Raises:
        ValueError: if n is negative.
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


@torch.no_grad()
def mean(x: Tensor) -> Tensor:
    """Mean of a tensor over the processes, each of which has one of this shape; no gradient flows through it.

    A mean over a minibatch becomes the mean over all processes' minibatches, if these are equally large.
    """
    if world_size() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total.div_(world_size())


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Rows of all processes, in the order of the ranks: `[n_r, ...]` becomes `[sum n_r, ...]` in every process.

    The numbers of rows may differ; type and the other dimensions must agree.

    Raises:
        ValueError: if x is a scalar.
    """
    if x.ndim == 0:
        raise ValueError("x must have rows to be gathered, got a scalar")
    if world_size() == 1:
        return x.detach()
    x = x.detach().contiguous()
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(x)], device=x.device))
    longest = max(int(count) for count in counts)
    # Collectives exchange equal shapes: shorter shares are padded and cut again.
    padded = x.new_zeros(longest, *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
