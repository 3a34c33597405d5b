"""What happens between the steps of a run: rows of the log, measurements, checkpoints, and an end in good order.

Steps follow one another without waiting for the device. Only where something is due is it waited for, and then the
costs of all steps since the last time are looked at first: what is logged, measured or saved is of a run in which all
of them were finite.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from gankit import processes
from gankit.files import write_json
from gankit.training import checkpoints
from gankit.training.gradients import GRADIENTS, gradient_norm

if TYPE_CHECKING:
    from gankit.training.listeners import Listener
    from gankit.training.trainer import Trainer

LARGEST_LOGIT = 1e12
"""Mean logits beyond this are those of a run that has left the numbers float32 can tell apart."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Diverged(RuntimeError):
    """Training met NaN or infinity; the message says at which step, in which cost and in which replica."""


class FolderInUse(ValueError):
    """A folder that holds, or is being written by, another run."""


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


class Recorder:
    """A context around the steps of `Trainer.fit`, told after each of them; the arguments are those of `fit`.

    SIGINT, SIGTERM and SIGHUP wait for the end of the step that they interrupt. A checkpoint is written, if there is a
    folder, and then the process does what the signal asks. A signal that the process was started to ignore (SIGHUP
    under nohup, SIGINT behind a script's &) stays ignored.
    """

    def __init__(
        self, run: Trainer, steps: int, schedule: Schedule, out: Path | None,
        callback: Callable[[Trainer], dict[str, Any] | None] | None, best: str | None, progress: bool,
        listeners: Sequence[Listener] = (), survive: bool = False,
    ) -> None:  # fmt: skip
        self.listeners, self.survive = tuple(listeners), survive
        self.run, self.schedule, self.out, self.callback = run, schedule, out, callback
        self.last, self.best, self.progress = run.steps + steps, best, progress
        self.writes = processes.rank() == 0
        self.costs: list[tuple[Tensor, ...]] = []
        self.caught: int | None = None

    def __enter__(self) -> Recorder:
        if self.out is not None and self.writes:
            self.lock = lock(self.out)
            refuse_another_run(self.out, self.run)
            self.log = checkpoints.Log(self.out, after=self.run.steps)
            if self.run.recipe is not None:
                write_json(self.out / "recipe.json", self.run.recipe)
            self.kept = checkpoints.Best(self.out, self.best) if self.best is not None else None
        else:
            self.lock = self.log = self.kept = None
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self.handlers = {number: signal.signal(number, self._catch) for number in heeded}
        self.bar = _bar(self.last - self.run.steps, shown=self.progress and self.writes)
        self.begun = time.perf_counter() - self.run.seconds
        return self

    def _catch(self, number: int, _: Any) -> None:
        self.caught = number

    def after(self, stats: dict[str, Any]) -> None:
        """Do what is due after a step of these statistics."""
        run, schedule = self.run, self.schedule
        self.costs.append(tuple(stats[name] for name in ("d_loss", "g_loss", "real_logit", "fake_logit")))
        stops = self.caught is not None
        measures = self.callback is not None and self._due(schedule.callback_every)
        saves = self.out is not None and (
            stops or self._due(schedule.save_every) or self._due(schedule.keep_every)
        )
        if measures or saves or self._due(schedule.log_every):
            stop_if_diverged(self.costs, run.steps, run.lead, self.out, self.survive)
            self.costs = []
            run.seconds = time.perf_counter() - self.begun
            row = _row(run, stats)
            if measures:
                row |= {name: _plain(value) for name, value in (self.callback(run) or {}).items()}
                run.G.train(), run.D.train()
            run.history.append(row)
            if self.log is not None:
                self.log.write(row)
            if self.writes:
                for listener in self.listeners:
                    listener(run, row)
            self.bar.set_postfix_str(_postfix(row), refresh=False)
            if measures and self.kept is not None and self.kept.improved(row):
                run.save(self.kept.path)
        if saves:
            run.save(checkpoints.path_of(self.out, run.steps))
            if self.writes:
                checkpoints.prune(self.out, keep=2, every=schedule.keep_every)
        self.bar.update()
        if stops:
            self._obey()

    def _due(self, every: int | None) -> bool:
        """Whether what happens every so many steps happens now. After the last step all of it does."""
        return self.run.steps == self.last or (every is not None and self.run.steps % every == 0)

    def _obey(self) -> None:
        number, self.caught = self.caught, None
        self._leave()
        if self.writes:
            kept = (
                f"saved {checkpoints.path_of(self.out, self.run.steps)}"
                if self.out is not None
                else "kept in memory"
            )
            tqdm.write(
                f"{signal.Signals(number).name} at step {self.run.steps:,}: {kept}", file=Deaf(sys.stderr)
            )
        signal.raise_signal(number)

    def _leave(self) -> None:
        """Give back the signals, the bar and the lock; once."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}
        self.bar.close()
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def __exit__(self, *_: Any) -> None:
        self._leave()


def lock(folder: Path) -> FileLock:
    """The right to write into a run's folder, until it is released or the process ends.

    Raises:
        FolderInUse: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        held.acquire()
    except Timeout:
        raise FolderInUse(
            f"another process is writing into {folder}: wait for it, stop it, or give another folder as out"
        ) from None
    return held


def refuse_another_run(folder: Path, run: Trainer) -> None:
    """Refuse to write into a folder whose newest checkpoint this run does not come from.

    Raises:
        FolderInUse: naming the checkpoint and what to do.
    """
    newest = checkpoints.latest(folder)
    if newest is not None and run.folder != folder.resolve():
        raise FolderInUse(
            f"{folder} holds {newest.name} of another run, which would be lost: load it to go on with it "
            f"(run.load({str(newest)!r})), or give another folder as out"
        )
    run.folder = folder.resolve()


def stop_if_diverged(
    costs: Sequence[tuple[Tensor, ...]],
    step: int,
    lead: tuple[int, ...],
    out: Path | None,
    survive: bool = False,
) -> None:
    """Raise `Diverged` if a cost was NaN or infinite, or logits were beyond `LARGEST_LOGIT`.

    Args:
        costs: of D and of G, and mean logits of real and generated samples, `[*lead]` each, in the steps up to this
            one.
        step: the last of them.
        lead: (S,) for an ensemble, () for a plain run.
        out: folder whose newest checkpoint the message names; None if there are none.
        survive: whether one sound replica is enough to go on.
    """
    numbers = torch.stack([torch.stack(one) for one in costs]).cpu()  # [T, 4, *lead]
    good = numbers.isfinite()
    good[:, 2:] &= numbers[:, 2:].abs() < LARGEST_LOGIT
    if good.all() or (survive and good.all((0, 1)).any()):
        return
    first = int((~good.flatten(1)).any(1).nonzero()[0])
    bad = ~good[first]
    if bad[:2].any():
        whose = "the discriminator's" if bad[0].any() else "the generator's"
        what = f"{whose} cost became NaN or infinite"
    else:
        what = f"the discriminator's logits went beyond {LARGEST_LOGIT:g}; a smaller learning rate may help,"
    where = f" in replica {', '.join(map(str, bad.any(0).nonzero().flatten().tolist()))}" if lead else ""
    kept = checkpoints.latest(out) if out is not None else None
    raise Diverged(
        f"{what} at step {step - len(costs) + first + 1}{where}; "
        + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was written")
    )


class Deaf:
    """A stream that does not mind if nobody reads it any more: a closed pipe must not end a run."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except BrokenPipeError:
            self.stream = open(os.devnull, "w")  # noqa: SIM115

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self.stream = open(os.devnull, "w")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _bar(steps: int, shown: bool) -> tqdm:
    # tqdm's notebook bar does not read its own environment variable.
    silent = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(total=steps, unit="step", disable=silent, **({} if silent else {"file": Deaf(sys.stderr)}))


def _row(run: Trainer, stats: dict[str, Any]) -> dict[str, Any]:
    """What the log says of a step: where the run is, and its statistics with the norms of its gradients."""
    head = {"step": run.steps, "images": run.images, "seconds": round(run.seconds, 3)}
    numbers = {key: value for key, value in stats.items() if key not in GRADIENTS}
    norms = {key: gradient_norm(stats[key], run.lead) for key in GRADIENTS}
    rates = {name: _rate(one) for name, (one, schedule) in run.schedules.items() if schedule is not None}
    return head | {key: _plain(value) for key, value in (numbers | norms).items()} | rates


def _rate(optimizer: torch.optim.Optimizer) -> float | list[float]:
    """The learning rate of the step before; of an ensemble whose replicas differ, one for each group of equals."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return rates[0] if len(set(rates)) == 1 else rates


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
