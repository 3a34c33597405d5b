"""Commands that are watched while they run: the time they take, the log they write, and a kill in the middle.

A run of `gankit train` writes a row of its log after every step; looked at often enough, the log tells when each step
was done, also those that a restart did once more.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from figures.book.imagenet_pipeline import TRACED, Row, attempts
from figures.provenance import rounded

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    # By default glibc returns large blocks to the kernel and gets them back zeroed, step after step: a quarter of the
    # processor's time in networks as narrow as these.
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}
POLL = 0.02
"""Seconds between two looks at what a command has written."""


# --- Commands -----------------------------------------------------------------------------------------------------


def gankit(*arguments: object) -> list[str]:
    """`gankit ARGUMENTS` for this Python."""
    return [sys.executable, "-m", "gankit", *map(str, arguments)]


def torchrun(*arguments: object) -> list[str]:
    """`torchrun ARGUMENTS` for this Python; what ran on two processes and was killed is started three times at most."""
    flags = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "3")
    return [sys.executable, "-m", "torch.distributed.run", *flags, "-m", "gankit", *map(str, arguments)]


def in_words(command: Sequence[str], data: Path) -> str:
    """A command as one would type it beside the data."""
    text = " ".join(command).replace(str(data), data.name)
    text = text.replace(f"{sys.executable} -m torch.distributed.run", "torchrun")
    return text.replace(f"{sys.executable} -m gankit", "gankit")


class Failed(RuntimeError):
    """A command ended in another way than it should; the message holds its last words."""


def run(
    command: Sequence[str], folder: Path, meanwhile: Callable[[subprocess.Popen], None] = lambda _: None
) -> tuple[dict[str, Any], str]:
    """A command in a folder, to its end.

    Args:
        command: its words.
        folder: where it runs.
        meanwhile: what is done while it runs; returns when it has ended or may be waited for.

    Returns:
        "seconds", "cpu_seconds" (of all its processes) and "code" (what it ended with); what it printed.
    """
    begun, used = time.perf_counter(), os.times()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT
        )
        try:
            meanwhile(process)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        out.seek(0)
        text = out.read().decode(errors="replace")
    now = os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    seconds = time.perf_counter() - begun
    return {"seconds": rounded(seconds, 4), "cpu_seconds": rounded(cpu, 4), "code": code}, text


def done(command: Sequence[str], folder: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """`run`, of a command that must succeed.

    Raises:
        Failed: it did not.
    """
    ran, text = run(command, folder, **options)
    if ran["code"]:
        raise Failed(f"{' '.join(command)} ended with {ran['code']}: {text[-2000:]}")
    return ran, text


# --- Logs ---------------------------------------------------------------------------------------------------------


def new_rows(before: Sequence[Row], now: Sequence[Row]) -> list[Row]:
    """Rows of a log that were not there before. A restart drops the last ones and writes others in their place."""
    same = 0
    while same < min(len(before), len(now)) and before[same] == now[same]:
        same += 1
    return list(now[same:])


def rows_of(log: Path) -> list[Row]:
    """The whole rows of a log that may still be written."""
    if not log.exists():
        return []
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def repeated(rows: Sequence[Row]) -> list[int]:
    """The steps that were done more than once."""
    steps = [row["step"] for row in rows]
    return sorted({step for step in steps if steps.count(step) > 1})


def difference(rows: Sequence[Row]) -> float:
    """How far the costs of a step's last attempt are from those of its first: the largest |a - b| / max(1, |b|)."""
    first: dict[int, Row] = {}
    worst = 0.0
    for row in rows:
        old = first.setdefault(row["step"], row)
        for name in ("d_loss", "g_loss"):
            worst = max(worst, abs(row[name] - old[name]) / max(1.0, abs(old[name])))
    return worst


def step_seconds(rows: Sequence[Row], after: int, until: int, clock: str = "seconds") -> float | None:
    """Median time of the steps after < step <= until, of those whose step before is in the same attempt.

    Args:
        rows: with "step" and the clock.
        after, until: which steps.
        clock: "seconds", the time that passes, or "cpu_s", that of the processor.
    """
    times = [
        b[clock] - a[clock]
        for part in attempts(rows)
        for a, b in itertools.pairwise(part)
        if after < b["step"] <= until and b["step"] == a["step"] + 1 and None not in (a[clock], b[clock])
    ]
    return float(np.median(times)) if times else None


class Observer:
    """Looks at the log of a run while it is written, and kills one of its processes.

    Attributes:
        rows: every row that was ever written, also those that were lost, with "at_s", seconds since the start, and
            "cpu_s", the processor's time of one of the processes that train (None if they had ended).
        killed_s: when a process was killed, None if none was.
    """

    def __init__(self, log: Path, kill_at: int | None = None) -> None:
        self.log, self.kill_at = log, kill_at
        self.rows: list[Row] = []
        self.killed_s: float | None = None
        self._before = rows_of(log)

    def __call__(self, process: subprocess.Popen) -> None:
        begun = time.perf_counter()
        while True:
            ended = process.poll() is not None
            now = rows_of(self.log)
            at = time.perf_counter() - begun
            if new := new_rows(self._before, now):
                clocks = {"at_s": at, "cpu_s": cpu_seconds(process.pid)}
                self.rows += [row | clocks for row in new]
            self._before = now
            if ended:
                return
            if self.kill_at is not None and self.rows and self.rows[-1]["step"] >= self.kill_at:
                workers(process.pid)[1].kill()
                self.killed_s, self.kill_at = time.perf_counter() - begun, None
            time.sleep(POLL)


def workers(launcher: int) -> list[Any]:
    """The processes that `torchrun` started, in the order of their ranks; none for a process that trains itself."""
    import psutil

    found = {}
    for child in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if rank := child.environ().get("RANK"):
                found[int(rank)] = child
    return [found[rank] for rank in sorted(found)]


def cpu_seconds(launcher: int) -> float | None:
    """Processor time of a process of a run so far, the mean over all of them; None if one has ended."""
    import psutil

    try:
        of = workers(launcher) or [psutil.Process(launcher)]
        return float(np.mean([sum(one.cpu_times()[:2]) for one in of]))
    except psutil.Error:
        return None


def traced(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """What an observer saw, for JSON: `TRACED` -> one number for each row."""
    numbers = {
        name: [None if row[name] is None else rounded(row[name], 6) for row in rows] for name in TRACED
    }
    return numbers | {"step": [row["step"] for row in rows]}
