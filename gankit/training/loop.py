"""The loop around a training step: when to log, to measure, to save and to stop. `Trainer.fit` is the way in.

Steps follow one another without waiting for the device. Only where something is due is it waited for, and then the
costs of all steps since the last time are looked at first: what is logged, measured or saved is of a run in which all
of them were finite.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gankit import processes
from gankit.data.dataset import Dataset
from gankit.device import threads_for
from gankit.training import checkpoints
from gankit.training.gradients import GRADIENTS, gradient_norm

if TYPE_CHECKING:
    from gankit.training import Trainer


class Diverged(RuntimeError):
    """Training met NaN or infinity; the message says at which step, in which cost and in which replica."""


@dataclass(frozen=True)
class Schedule:
    """How many steps lie between two of a kind; None for never.

    Attributes:
        log_every: rows of the history.
        callback_every: calls of the callback.
        save_every: checkpoints of which the newest two are kept.
        keep_every: checkpoints that are kept for good.

    Raises:
        ValueError: if a number is below 1.
    """

    log_every: int
    callback_every: int
    save_every: int | None = None
    keep_every: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 step, got {value}")


def fit(
    run: Trainer,
    steps: int,
    schedule: Schedule,
    *,
    out: Path | None,
    callback: Callable[[Trainer], dict[str, Any] | None] | None,
    best: str | None,
    progress: bool,
) -> None:
    """`steps` more steps of a run; the arguments, and what is raised, are those of `Trainer.fit`."""
    check_agreement(run)
    writes = processes.rank() == 0
    log = checkpoints.Log(out, after=run.steps) if out is not None and writes else None
    kept = checkpoints.Best(out, best) if best is not None and writes else None
    last, costs = run.steps + steps, []
    run.G.train(), run.D.train()
    with _bar(steps, shown=progress and writes) as bar, threads_for(run.G, run.D):
        begun = time.perf_counter() - run.seconds
        while run.steps < last:
            stats = run.step()
            costs.append((stats["d_loss"], stats["g_loss"]))
            measures = callback is not None and _due(schedule.callback_every, run.steps, last)
            saving = (schedule.save_every, schedule.keep_every)
            saves = out is not None and any(_due(every, run.steps, last) for every in saving)
            if measures or saves or _due(schedule.log_every, run.steps, last):
                stop_if_diverged(costs, run.steps, run.lead, out)
                costs = []
                run.seconds = time.perf_counter() - begun
                row = _row(run, stats)
                if measures:
                    row |= {name: _plain(value) for name, value in (callback(run) or {}).items()}
                    run.G.train(), run.D.train()
                run.history.append(row)
                if log is not None:
                    log.write(row)
                bar.set_postfix_str(_postfix(row), refresh=False)
                if measures and kept is not None and kept.improved(row):
                    run.save(kept.path)
            if saves:
                run.save(checkpoints.path_of(out, run.steps))
                if writes:
                    checkpoints.prune(out, keep=2, every=schedule.keep_every)
            bar.update()


def check_agreement(run: Trainer) -> None:
    """Refuse to train with processes that have other settings, data or weights, or are at another step.

    Raises:
        Disagreement: in every process, saying in what they differ.
    """
    if processes.world_size() == 1:
        return
    weights = [x for net in (run.G, run.D, run.teacher) for x in net.state_dict().values()]
    facts = {
        "the recipe": json.dumps(run.recipe),
        "the data": repr(run.data),
        "the data's checksum": _checksum_of_some(run.data),
        "the loss": run.loss.name,
        "the seed": run.seeds,
        "batch_size": run.batch_size,
        "n_dis": run.n_dis,
        "the step": run.steps,
        "the weights' checksum": processes.checksum(weights),
        "the random streams' checksum": processes.checksum(run.streams.state_dict()["states"]),
    }
    processes.agree(facts)


def _checksum_of_some(data: Dataset) -> str:
    """Of all labels and a thousand samples: machines may have other pictures under one name, and reading all of a pack
    would take minutes."""
    some = torch.linspace(0, len(data) - 1, min(len(data), 1_000), dtype=torch.float64, device=data.device)
    return processes.checksum([data.labels, data.images[some.long()]])


def stop_if_diverged(
    costs: Sequence[tuple[Tensor, Tensor]], step: int, lead: tuple[int, ...], out: Path | None
) -> None:
    """Raise `Diverged` if a cost was NaN or infinite.

    Args:
        costs: of the discriminator and of the generator, `[*lead]` each, in the steps up to this one.
        step: the last of them.
        lead: (S,) for an ensemble, () for a plain run.
        out: folder whose newest checkpoint the message names; None if there are none.
    """
    finite = torch.stack([torch.stack(pair) for pair in costs]).isfinite().cpu()  # [T, 2, *lead]
    if finite.all():
        return
    first = int((~finite.flatten(1)).any(1).nonzero()[0])
    bad = ~finite[first]
    which = "the discriminator's cost" if bad[0].any() else "the generator's cost"
    where = f" in replica {', '.join(map(str, bad.any(0).nonzero().flatten().tolist()))}" if lead else ""
    kept = checkpoints.latest(out) if out is not None else None
    raise Diverged(
        f"{which} became NaN or infinite at step {step - len(costs) + first + 1}{where}; "
        + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was written")
    )


def _due(every: int | None, step: int, last: int) -> bool:
    """Whether what happens every so many steps happens after this one. After the last one all of it does."""
    return step == last or (every is not None and step % every == 0)


def _bar(steps: int, shown: bool) -> tqdm:
    # tqdm's notebook bar does not read its own environment variable.
    silent = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(total=steps, unit="step", disable=silent)


def _row(run: Trainer, stats: dict[str, Any]) -> dict[str, Any]:
    """What the log says of a step: where the run is, and its statistics with the norms of its gradients."""
    head = {"step": run.steps, "images": run.images, "seconds": round(run.seconds, 3)}
    numbers = {key: value for key, value in stats.items() if key not in GRADIENTS}
    norms = {key: gradient_norm(stats[key], run.lead) for key in GRADIENTS}
    return head | {key: _plain(value) for key, value in (numbers | norms).items()}


def _plain(value: Any) -> Any:
    """A number, or nested lists of numbers, for JSON."""
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _postfix(row: dict[str, Any]) -> str:
    """The row's main quantities in short; of several replicas, the median."""
    names = [key for key in row if key not in ("step", "images", "seconds") and np.ndim(row[key]) <= 1]
    return ", ".join(f"{key} {float(np.median(row[key])):.3g}" for key in names if row[key] is not None)
