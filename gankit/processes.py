"""The few collective operations that training and evaluation need.

Started by `torchrun`, several processes work on one run; started alone, a process is all there is, and every
function here returns its argument. No code has to ask which of the two it is.

    with processes.joined():                      # joins the others where torchrun started some
        mine = samples[processes.share(len(samples))]
        everyone = processes.gather(score(mine))     # rows in the order of `samples`

`Trainer` averages gradients itself (`means`) and does not use `DistributedDataParallel`, which follows one forward pass
and one `backward()`. A discriminator step has several passes, penalties differentiate twice, and gradients come from
`autograd.grad`, which DDP does not notice. The price: gradients travel after the backward pass, not during it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Disagreement(ValueError):
    """Processes that should work on the same run do not; the message says in what they differ."""


@contextmanager
def joined(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the processes that `torchrun` started, and leave them at the end; alone, do nothing.

    With `torchrun --max-restarts`, processes are started again when one of them dies. On several machines, set
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun then: otherwise new processes may find the addresses of dead
    ones (PyTorch issue 135712). On one machine this function keeps the attempts apart itself.

    Args:
        device: where the tensors lie that will be exchanged; a GPU uses NCCL, a CPU gloo.

    Raises:
        ValueError: if the process already belongs to a group.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if dist.is_initialized():
        raise ValueError("this process already belongs to a group of processes, and cannot join it twice")
    store, number, size = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # Machines count their restarts apart, so the number is a common name on one machine only.
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size)
    end_with_parent()
    try:
        yield
    finally:
        dist.destroy_process_group()


def end_with_parent(every: float = 1.0) -> None:
    """Stop this process, by SIGTERM, when the one that started it is gone: an agent of torchrun that was killed leaves
    workers that nobody waits for.

    Args:
        every: seconds between two looks.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


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


def _add_up(x: Tensor) -> Tensor:
    """x, into which the other processes' are added."""
    work = dist.all_reduce(x, async_op=True)
    if x.device.type == "cpu":
        # Most waits are shorter than a core takes to fall asleep and wake up again, in a virtual machine above all.
        while not work.is_completed():
            time.sleep(0)
    work.wait()
    return x


@torch.no_grad()
def mean(x: Tensor) -> Tensor:
    """Mean of a tensor over the processes, each of which has one of this shape; no gradient flows through it.

    A mean over a minibatch becomes the mean over all processes' minibatches, if these are equally large.
    """
    if world_size() == 1:
        return x.detach()
    return _add_up(x.detach().clone()).div_(world_size())


@torch.no_grad()
def means(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`mean` of each of many tensors. They travel together, so that the number of messages does not grow with theirs.

    Args:
        tensors: floating point, on one device; their shapes and types are the same in every process.
    """
    if world_size() == 1:
        return [x.detach() for x in tensors]
    averaged: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(x.dtype for x in tensors):
        mine = [i for i, x in enumerate(tensors) if x.dtype == dtype]
        flat = mean(torch.cat([tensors[i].reshape(-1) for i in mine]))
        parts = flat.split([tensors[i].numel() for i in mine])
        averaged |= {i: part.view(tensors[i].shape) for i, part in zip(mine, parts, strict=True)}
    return [averaged[i] for i in range(len(tensors))]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _add_up(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Every process's cost depends on this process's x.
        return _Sum.apply(gradient.contiguous())


def stack(x: Tensor) -> Tensor:
    """Each process's x, stacked in the order of the ranks, `[P, *shape]`, and differentiable.

    The gradient is that of the sum of all processes' costs, so averaged over the processes (`means`) it is that of the
    mean cost. Every process must go through here equally often, forwards and backwards.
    """
    if world_size() == 1:
        return x[None]
    mine = torch.arange(world_size(), device=x.device) == rank()
    return _Sum.apply(torch.where(mine.reshape(-1, *[1] * x.ndim), x[None], torch.zeros_like(x)[None]))


SAME_COMMAND = "Start all of them with the same command, and let them see the same files"
"""What to do if processes disagree, unless something better is known."""


def agree(facts: Mapping[str, Any], advice: str = SAME_COMMAND) -> None:
    """Make sure that all processes say the same.

    Args:
        facts: name -> anything whose `str` says what it is.
        advice: what to do if they differ, the end of the message.

    Raises:
        Disagreement: in every process, naming the facts that differ and the first ranks that differ in them.
    """
    if world_size() == 1:
        return
    everyone: list[dict[str, str]] = [{}] * world_size()
    dist.all_gather_object(everyone, {name: str(value) for name, value in facts.items()})
    for name in facts:
        for other, theirs in enumerate(everyone):
            if theirs.get(name) != everyone[0].get(name):
                raise Disagreement(
                    f"the processes do not work on the same run: {name} is {everyone[0].get(name)} in process 0 and "
                    f"{theirs.get(name)} in process {other}. {advice}"
                )


def checksum(tensors: Iterable[Tensor]) -> str:
    """Sixteen hexadecimal digits that change with any bit of any of the tensors."""
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(x.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


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
