"""The pending comparisons of the ledger, in order of value: take what fits into the minutes at hand.

    python -m figures.queue --minutes 120                  on two cores, two items side by side
    python -m figures.queue --minutes 25 --device cuda     on one card
    python -m figures.queue --list cpu                     what is left, with estimates; runs nothing
    python -m figures.queue --minutes 120 --dry-run        what would be taken
    python -m figures.queue --check                        starts every item with a tiny budget, to find bugs early
    python -m figures.queue --rows                         rows for ledger.toml from the items that are done

`queue.toml` lists the items. Each is a command that a reader could type, the result that it writes, the number of
paired seeds, what data it needs below the data root (GANKIT_DATA), and an estimate of its minutes on one core ("cpu")
and on one card ("h100"). It is done when the result holds so many seeds. The rows that it decides are those of
`ledger.toml` that read this result; and new ones, whose claims `queue.toml` states before anything is run.

Items run as processes with low priority, on a CPU of one thread each. What is longer than the time left is begun only
when nothing that fits is left, and only if it can go on later: most commands keep finished parts and checkpoints in a
folder below runs/queue. At the end of the minutes, or at Ctrl-C, running items are asked to stop, which they do after
writing a checkpoint. The same command goes on where it stopped. Minutes spent are kept in runs/queue, and refine the
estimates: a finished item's own, and the others' by the ratio of this machine to the one of the estimates.

More seeds than a committed result has are a second look at one comparison: it is decided at the number of seeds that
queue.toml names, once, whatever came out before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from figures import ledger
from figures.provenance import RESULTS
from gankit.data import data_root
from gankit.files import write_json

QUEUE = Path(__file__).with_name("queue.toml")
ROOT = Path(__file__).parents[1]
"""Of the repository: commands run here."""
KEPT = Path("runs/queue")
"""Below `ROOT`: a folder for each item, with its checkpoints, its log and the minutes spent."""
DEVICES = {"cpu": "cpu", "cuda": "h100"}
"""--device -> the key of its estimates."""
GRACE = 300
"""Seconds that an item has to write a checkpoint after it was asked to stop: a judgement may be under way."""
NICE = 15


@dataclass(frozen=True)
class Item:
    """One entry of `queue.toml`.

    Attributes:
        name: of its folder below `KEPT`.
        about: what is compared, in a sentence.
        command: ``python -m figures...`` with its arguments. "{result}" stands for the result, "{kept}" for the item's
            folder below runs/queue, "{after}" for that of the item before it, "{shared}" for one of all items.
        result: file below `figures/results` that the command writes.
        seeds: paired seeds that the finished result holds.
        minutes: "cpu" (one core of a 2026 server) and "h100" (one card): estimates; without one, not for this device.
        data: files or folders below the data root.
        resumes: whether an interrupted run goes on from its folder.
        after: names of items that must be done first.
        tiny: arguments that make `--check` short; "{pictures}" stands for a folder of small pictures of ten classes.
        rows: of the ledger, to be decided: `ledger.Row`'s fields without result and command.
    """

    name: str
    about: str
    command: str
    result: str
    seeds: int
    minutes: Mapping[str, float]
    data: Sequence[str] = ()
    resumes: bool = True
    after: Sequence[str] = ()
    tiny: str = ""
    rows: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def typed(self, result: Path | None = None, kept: Path = KEPT) -> str:
        """The command: as the ledger states it, or with another result and another folder of all items."""
        places = {
            "result": Path("figures/results", self.result) if result is None else result,
            "kept": kept / self.name,
            "after": kept / next(iter(self.after), self.name),
            "shared": kept / "shared",
        }
        filled = self.command
        for name, path in places.items():
            filled = filled.replace(f"{{{name}}}", shlex.quote(str(path)))
        return filled

    def words(self, result: Path, kept: Path) -> list[str]:
        """The command for a process of this Python."""
        return [sys.executable, *shlex.split(self.typed(result, kept))[1:]]

    def missing(self) -> list[str]:
        """What of its data is not below the data root."""
        return [name for name in self.data if not (data_root() / name).exists()]

    def done(self, results: Path = RESULTS) -> bool:
        """Whether the result is there, with as many seeds."""
        path = results / self.result
        return path.is_file() and len(_stored(path)["provenance"]["seeds"]) >= self.seeds


def read(text: str | None = None) -> list[Item]:
    """The items, the most valuable first.

    Args:
        text: TOML with ``[[item]]`` tables; None reads `QUEUE`.

    Raises:
        ValueError: an unknown field, two items of one name, an `after` that names none, or a device that there is not.
    """
    text = QUEUE.read_text(encoding="utf-8") if text is None else text
    items: list[Item] = []
    for table in tomllib.loads(text).get("item", []):
        try:
            items.append(Item(**table))
        except TypeError as error:
            raise ValueError(f"item {table.get('name', len(items) + 1)!r} of the queue: {error}") from error
    names = [item.name for item in items]
    for item in items:
        if names.count(item.name) > 1:
            raise ValueError(f"two items of the queue are named {item.name!r}")
        if unknown := set(item.after) - set(names):
            raise ValueError(f"item {item.name!r} comes after {sorted(unknown)}, which the queue has not")
        if unknown := set(item.minutes) - set(DEVICES.values()):
            raise ValueError(
                f"minutes of {item.name!r} must be for {', '.join(DEVICES.values())}, got {sorted(unknown)}"
            )
    return items


# --- Estimates ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """Minutes that an item took so far on a device, and whether it is finished."""

    minutes: float = 0.0
    finished: bool = False


def spent(item: Item, device: str, kept: Path) -> Spent:
    """What was measured of an item here."""
    path = kept / item.name / "spent.json"
    return Spent(**json.loads(path.read_text()).get(device, {})) if path.is_file() else Spent()


def remember(item: Item, device: str, kept: Path, minutes: float, finished: bool) -> None:
    """Add to what was measured of an item."""
    path = kept / item.name / "spent.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    before = spent(item, device, kept)
    known[device] = {"minutes": round(before.minutes + minutes, 2), "finished": finished}
    write_json(path, known)


def factor(items: Sequence[Item], device: str, kept: Path) -> float:
    """This machine's minutes over the estimates', the median of what finished here; 1 before anything did."""
    ratios = [
        known.minutes / item.minutes[DEVICES[device]]
        for item in items
        if DEVICES[device] in item.minutes and (known := spent(item, device, kept)).finished
    ]
    return float(np.median(ratios)) if ratios else 1.0


def remaining(item: Item, device: str, kept: Path, scale: float) -> float:
    """Minutes that an item still needs: the estimate times `scale`, less what was spent; a tenth of it at least."""
    whole, known = item.minutes[DEVICES[device]] * scale, spent(item, device, kept)
    return max(whole - known.minutes, whole / 10) if item.resumes else whole


def pending(
    items: Sequence[Item], device: str, kept: Path, results: Path = RESULTS
) -> tuple[list[tuple[Item, float]], list[tuple[Item, str]]]:
    """What could run on a device: (item, minutes), in order; and what cannot: (item, why, as a sentence)."""
    scale, ready, barred = factor(items, device, kept), [], []
    undone = {item.name for item in items if not item.done(results)}
    for item in items:
        if item.name not in undone or DEVICES[device] not in item.minutes:
            continue
        if missing := item.missing():
            barred.append((item, f"{', '.join(missing)} is not below {data_root()} (set by GANKIT_DATA)."))
        elif waits := [name for name in item.after if name in undone]:
            barred.append((item, f"It comes after {', '.join(waits)}."))
        else:
            ready.append((item, remaining(item, device, kept, scale)))
    return ready, barred


def choose(ready: Sequence[tuple[Item, float]], minutes: float) -> tuple[Item, float] | None:
    """The first item that fits into the minutes; else the first that can go on another time; else none."""
    fits = (one for one in ready if one[1] <= minutes)
    return next(fits, next((one for one in ready if one[0].resumes), None)) if minutes > 0 else None


# --- The ledger ---------------------------------------------------------------------------------------------------


def rows_of(item: Item, tables: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The rows that an item decides: those of the ledger that read its result, then its own that are not there."""
    if tables is None:
        tables = tomllib.loads(ledger.LEDGER.read_text(encoding="utf-8"))["row"]
    there = [dict(table) for table in tables if table.get("result") == item.result]
    known = {(row["paper"], row["item"], row["scale"]) for row in there}
    mine = [dict(row) | {"result": item.result, "command": item.typed()} for row in item.rows]
    return there + [row for row in mine if (row["paper"], row["item"], row["scale"]) not in known]


def verdicts(rows: Sequence[Mapping[str, Any]], path: Path) -> list[ledger.Verdict]:
    """What the rows' checks say of a result; "not-run" of one that is not there."""
    if not path.is_file():
        return [ledger.Verdict() for _ in rows]
    result = _stored(path)
    return [ledger.judge(row["check"], result, row.get("own_task", False)) for row in rows]


def as_toml(row: Mapping[str, Any]) -> str:
    """A row of the ledger as text."""

    def plain(value: Any) -> str:
        if isinstance(value, Mapping):
            return "{ " + ", ".join(f"{key} = {plain(one)}" for key, one in value.items()) + " }"
        return json.dumps(
            value, ensure_ascii=False
        )  # TOML's strings, numbers and truth values are those of JSON

    return "[[row]]\n" + "".join(f"{key} = {plain(value)}\n" for key, value in row.items())


def _stored(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


# --- Running ------------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """An item under way."""

    item: Item
    process: subprocess.Popen[bytes]
    log: Path
    lock: FileLock
    begun: float
    estimate: float

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.begun) / 60

    def said(self) -> str:
        """The end of its log, where progress bars are, in one short line."""
        with open(self.log, "rb") as f:
            f.seek(max(0, self.log.stat().st_size - 400))
            lines = f.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip()[:90] for line in reversed(lines) if line.strip()), "")


def environment(device: str) -> dict[str, str]:
    """Of an item's process: few lines of progress; on a CPU one thread and no card."""
    own = {"TQDM_MININTERVAL": "20", "PYTHONUNBUFFERED": "1"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    hidden = alone if device == "cpu" else {}
    return {**os.environ, **own, **hidden, "PYTHONPATH": path}


def launch(
    words: Sequence[str], device: str, log: IO[bytes], niceness: int = NICE
) -> subprocess.Popen[bytes]:
    """Start a command with low priority, in a process group of its own: Ctrl-C reaches the queue alone.

    Its niceness is the queue's own where that is higher."""
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(device), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, process.pid, max(own, niceness))
    return process


def stop(processes: Sequence[subprocess.Popen[bytes]], grace: float = GRACE) -> None:
    """Ask processes to stop, wait for their checkpoints, and end what is left after `grace` seconds."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


class Queue:
    """The items under way on one machine.

    Args:
        items: of `read`.
        minutes: wall-clock time at hand.
        device: a key of `DEVICES`.
        workers: items side by side.
        results, kept: where results and folders are; tests have others.
        every: seconds between two lines that say how far the running items are.
    """

    def __init__(
        self, items: Sequence[Item], minutes: float, device: str, workers: int, *, results: Path = RESULTS,
        kept: Path = ROOT / KEPT, every: float = 300,
    ) -> None:  # fmt: skip
        self.items, self.device, self.workers = items, device, workers
        self.results, self.kept, self.every = results, kept, every
        self.end = time.monotonic() + 60 * minutes
        self.running: list[Running] = []
        self.failed: list[Item] = []
        self.taken: dict[str, float] = {}
        self.stopped: int | None = None

    def run(self) -> int:
        """Take items until the minutes are over, nothing is left, or a signal comes; then say what is left.

        Returns:
            The exit status: 0, 1 if an item failed, or 128 and the number of the signal.
        """
        handlers = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            told = time.monotonic()
            while self.stopped is None and time.monotonic() < self.end:
                self._collect()
                self._fill()
                if not self.running:
                    break
                if time.monotonic() - told > self.every:
                    told = time.monotonic()
                    for one in self.running:
                        say(
                            f"{one.item.name}: {one.minutes:.0f} of about {one.estimate:.0f} min  {one.said()}"
                        )
                time.sleep(0.2)
            self._collect()
            if self.running:
                say(f"stopping {', '.join(one.item.name for one in self.running)}, which write checkpoints")
            stop([one.process for one in self.running])
            self._collect()
        finally:
            stop([one.process for one in self.running], 5)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._summarise()
        return 128 + self.stopped if self.stopped is not None else int(bool(self.failed))

    def _catch(self, number: int, _: Any) -> None:
        self.stopped = number

    def _fill(self) -> None:
        """Start items while a worker is free and one is to be had."""
        busy: set[str] = set()
        while len(self.running) < self.workers:
            out = {one.item.name for one in self.running} | {item.name for item in self.failed} | busy
            ready, _ = pending(self.items, self.device, self.kept, self.results)
            free = [(item, need) for item, need in ready if item.name not in out]
            chosen = choose(free, (self.end - time.monotonic()) / 60)
            if chosen is None:
                return
            if not self._start(*chosen):
                busy.add(chosen[0].name)

    def _start(self, item: Item, need: float) -> bool:
        """Whether an item could be started: another queue on this machine may have it."""
        folder = self.kept / item.name
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "queue.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        log = folder / "log.txt"
        with open(log, "wb") as f:
            process = launch(item.words(self.results / item.result, self.kept), self.device, f)
        self.running.append(Running(item, process, log, lock, time.monotonic(), need))
        say(f"{item.name} begins, about {need:.0f} min: {item.about}")
        return True

    def _collect(self) -> None:
        """Look at the items that have ended."""
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            status = one.process.returncode
            finished = status == 0 and one.item.done(self.results)
            remember(one.item, self.device, self.kept, one.minutes, finished)
            one.lock.release()
            self.taken[one.item.name] = self.taken.get(one.item.name, 0) + one.minutes
            if finished:
                self._tell(one)
            elif self.stopped is None and time.monotonic() < self.end:
                self.failed.append(one.item)
                what = (
                    f"ended with status {status}" if status else f"wrote no result of {one.item.seeds} seeds"
                )
                say(f"{one.item.name} {what} after {one.minutes:.1f} min; {one.log} ends:")
                print("\n".join(one.log.read_text(errors="replace").splitlines()[-12:]), flush=True)

    def _tell(self, one: Running) -> None:
        say(f"{one.item.name} is done after {one.minutes:.1f} min; its rows of the ledger:")
        rows = rows_of(one.item)
        for row, verdict in zip(rows, verdicts(rows, self.results / one.item.result), strict=True):
            print(f"    {verdict.status:12} {row['item']}: {verdict.here}", flush=True)

    def _summarise(self) -> None:
        print("\nspent")
        for name, minutes in self.taken.items():
            state = "done" if any(i.name == name and i.done(self.results) for i in self.items) else "goes on"
            state = "failed" if name in {item.name for item in self.failed} else state
            print(f"  {minutes:7.1f} min  {name} ({state})")
        print("\nleft")
        print(table(self.items, self.device, self.kept, self.results))


def table(items: Sequence[Item], device: str, kept: Path, results: Path = RESULTS) -> str:
    """What is pending on a device, as text: minutes, rows of the ledger, name and comparison; then what is barred."""
    ready, barred = pending(items, device, kept, results)
    tables = tomllib.loads(ledger.LEDGER.read_text(encoding="utf-8"))["row"]
    head = "one core" if device == "cpu" else "one card"
    lines = [f"  {'minutes':>7}  {'seeds':>5}  {'rows':>4}  item  (minutes of {head})"]
    for item, need in ready:
        rows = rows_of(item, tables)
        open_rows = sum(v.status in ("undecided", "not-run") for v in verdicts(rows, results / item.result))
        lines.append(f"  {need:7.0f}  {item.seeds:5}  {open_rows:4}  {item.name}: {item.about}")
    lines.append(f"  {sum(need for _, need in ready):7.0f}  in all")
    lines += [f"  skipped {item.name}: {why}" for item, why in barred]
    return "\n".join(lines)


def plan(
    items: Sequence[Item], device: str, minutes: float, workers: int, kept: Path, results: Path = RESULTS
) -> str:
    """Who would run what, and when, if estimates are right: as text."""
    free = [0.0] * workers
    ready, lines = pending(items, device, kept, results)[0], []
    while ready:
        worker = min(range(workers), key=free.__getitem__)
        chosen = choose(ready, minutes - free[worker])
        if chosen is None:
            break
        ready.remove(chosen)
        item, need = chosen
        begin, end = free[worker], min(free[worker] + need, minutes)
        left = f", {need - minutes + begin:.0f} min left for another time" if begin + need > minutes else ""
        lines.append(f"  {begin:6.0f} to {end:4.0f} min  worker {worker + 1}  {item.name}{left}")
        free[worker] = end
    return "\n".join(lines) or "  nothing fits"


# --- Checking -----------------------------------------------------------------------------------------------------


def check(items: Sequence[Item], device: str, workers: int, limit: float = 1_200) -> int:
    """Run every item with its tiny budget into a temporary folder, and judge its rows by what it writes.

    Args:
        items: of `read`.
        device: a key of `DEVICES`.
        workers: items side by side.
        limit: seconds that an item may take.

    Returns:
        The number of items that failed.
    """
    failures = 0
    handler = signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # nothing is left behind
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        draw_pictures(pictures)
        waiting = [item for item in items if DEVICES[device] in item.minutes]
        for item in [item for item in waiting if item.missing()]:
            say(f"{item.name}: skipped, {', '.join(item.missing())} is not below {data_root()}")
            waiting.remove(item)
        under_way: list[tuple[Item, subprocess.Popen[bytes], Path, float]] = []
        passed: set[str] = set()
        try:
            while waiting or under_way:
                able = [item for item in waiting if set(item.after) & {i.name for i in items} <= passed]
                if not able and not under_way:
                    for item in waiting:
                        say(f"{item.name}: not started, since {', '.join(item.after)} did not pass")
                    failures += len(waiting)
                    break
                while able and len(under_way) < workers:
                    waiting.remove(item := able.pop(0))
                    own = Path(folder, item.name)
                    own.mkdir()
                    words = [
                        *item.words(own / "result.json", Path(folder, "kept")),
                        *shlex.split(item.tiny.replace("{pictures}", str(pictures))),
                    ]
                    with open(own / "log.txt", "wb") as log:
                        under_way.append((item, launch(words, device, log, -20), own, time.monotonic()))
                time.sleep(0.1)
                for one in list(under_way):
                    item, process, own, begun = one
                    if process.poll() is None and time.monotonic() - begun > limit:
                        stop([process], 10)
                    if process.poll() is not None:
                        under_way.remove(one)
                        problem = _problem(item, process.returncode, own)
                        failures += problem is not None
                        passed |= set() if problem else {item.name}
                        said = problem or "starts, writes and can be judged"
                        say(f"{item.name}: {said}, {time.monotonic() - begun:.0f} s")
        finally:
            stop([process for _, process, _, _ in under_way], 5)
            signal.signal(signal.SIGTERM, handler)
    return failures


def _problem(item: Item, status: int, own: Path) -> str | None:
    """What went wrong with a tiny run; None if nothing did."""
    if status:
        lines = (own / "log.txt").read_text(errors="replace").strip().splitlines()
        return f"FAILED with status {status}:\n" + "\n".join(lines[-12:])
    try:
        verdicts(rows_of(item), own / "result.json")
        return None if (own / "result.json").is_file() else "FAILED: it wrote no result"
    except (KeyError, ValueError) as error:
        return f"FAILED: a row cannot be judged: {error.args[0]}"


def draw_pictures(folder: Path, n: int = 45, side: int = 32) -> None:
    """A folder of small pictures of ten classes, n of each: noise, brighter from class to class."""
    rng = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for i in range(n):
            noise = (rng.integers(0, 60, (side, side, 3)) + 15 * label).astype(np.uint8)
            Image.fromarray(noise).save(folder / str(label) / f"{i}.png")


# --- The command line ---------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The flags."""
    own = argparse.ArgumentParser(
        prog="python -m figures.queue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("--minutes", type=float, help="wall-clock time at hand; begins to run, unless --dry-run")
    own.add_argument(
        "--device", choices=DEVICES, default="cpu", help="where items run (default: cpu; cards are hidden)"
    )
    own.add_argument(
        "--workers", type=int, help="items side by side (default: the cores at hand; 1 on a card)"
    )
    own.add_argument("--only", metavar="NAMES", help="names of items with commas between them (default: all)")
    what = own.add_mutually_exclusive_group()
    what.add_argument("--list", choices=("cpu", "gpu"), help="print what is pending on this device")
    what.add_argument("--dry-run", action="store_true", help="print what would run when; runs nothing")
    what.add_argument("--check", action="store_true", help="start every item with a tiny budget")
    what.add_argument("--rows", action="store_true", help="print rows for the ledger of items that are done")
    return own


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    flags = parser()
    chosen = flags.parse_args(arguments)
    items = read()
    if chosen.only:
        names = chosen.only.split(",")
        if unknown := set(names) - {item.name for item in items}:
            flags.error(f"no item {', '.join(sorted(unknown))}; there are {', '.join(i.name for i in items)}")
        items = [item for item in items if item.name in names]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = chosen.workers or (cores if chosen.device == "cpu" else 1)
    if workers < 1:
        flags.error(f"--workers must be at least 1, got {workers}")
    kept = ROOT / KEPT
    if chosen.rows:
        new = [row for item in items if item.done() for row in rows_of(item)[_there(item) :]]
        print("\n".join(map(as_toml, new)), end="")
    elif chosen.list:
        print(table(items, "cpu" if chosen.list == "cpu" else "cuda", kept))
    elif chosen.check:
        return int(check(items, chosen.device, workers) > 0)
    elif chosen.minutes is None or chosen.minutes <= 0:
        flags.error("--minutes must say how much time there is, above 0 (or --list, --check, --rows; --help)")
    elif chosen.dry_run:
        print(
            plan(items, chosen.device, chosen.minutes, workers, kept),
            table(items, chosen.device, kept),
            sep="\n\n",
        )
    else:
        return Queue(items, chosen.minutes, chosen.device, workers).run()
    return 0


def _there(item: Item) -> int:
    """How many of an item's rows the ledger has."""
    return len(rows_of(item)) - len(rows_of(_without_rows(item)))


def _without_rows(item: Item) -> Item:
    return Item(**{**vars(item), "rows": ()})


if __name__ == "__main__":
    sys.exit(main())
