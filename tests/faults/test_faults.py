"""Faults against a run: what is tried, what survives it, and what is lost, which must be nothing.

A run survives a fault if it goes on to exactly the parameters of an uninterrupted one; a damaged file, if it is refused
in one line or read as it was. `pytest -m "" -s tests/faults` prints the table.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gankit as gk
from gankit.training import checkpoints

STEPS = 300
TABLE: dict[str, list[int]] = {}
"""Fault -> how often it was tried, survived, and lost a run."""


def command(out: Path) -> list[str]:
    flags = f"--steps {STEPS} --width 8 --save-every 20 --log-every 5 --quiet --device cpu --out {out}"
    return [sys.executable, "-m", "gankit", "train", "ns-digits", *flags.split()]


def start(out: Path, **settings: object) -> subprocess.Popen:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **settings
    )


def wait_for_rows(out: Path, process: subprocess.Popen, more_than: int) -> None:
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > more_than):
        time.sleep(0.005)


def networks(out: Path) -> dict[str, torch.Tensor]:
    state = checkpoints.read(checkpoints.path_of(out, STEPS))
    return {f"{part}.{name}": x for part in ("G", "D", "teacher") for name, x in state[part].items()}


def count(fault: str, survived: bool) -> None:
    row = TABLE.setdefault(fault, [0, 0, 0])
    row[0] += 1
    row[1 if survived else 2] += 1


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert start(out).wait() == 0
    return out


def goes_on(out: Path, whole: Path) -> bool:
    process = start(out)
    process.communicate()
    return process.returncode == 0 and same(networks(out), networks(whole))


@pytest.mark.full
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_kills_and_signals(name: str, whole: Path, tmp_path: Path) -> None:
    rng = random.Random(name)
    for i in range(3):
        out = tmp_path / str(i)
        process = start(out)
        wait_for_rows(out, process, rng.randrange(2, 40))
        process.send_signal(getattr(signal, name))
        process.communicate()
        count(name, goes_on(out, whole))
    assert TABLE[name][2] == 0


@pytest.mark.full
def test_a_disk_that_fills_up(whole: Path, tmp_path: Path) -> None:
    """A limit on the length of a file stands for the disk; the run is told of it as of a full one."""
    size = checkpoints.path_of(whole, STEPS).stat().st_size
    for i, share in enumerate((0.0, 0.3, 0.9)):
        out = tmp_path / str(i)

        def limit(length: int = max(1, int(share * size))) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))

        process = start(out, preexec_fn=limit)
        _, said = process.communicate()
        assert process.returncode != 0
        count("full disk", b"Traceback" not in said and goes_on(out, whole))
    assert TABLE["full disk"][2] == 0


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zeroed(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content)), rng.randrange(1, 4096)
    return content[:at] + bytes(min(length, len(content) - at)) + content[at + length :]


@pytest.mark.full
@pytest.mark.parametrize("damage", [truncated, flipped, zeroed])
def test_damaged_checkpoints(
    damage: Callable[[bytes, random.Random], bytes], whole: Path, tmp_path: Path
) -> None:
    good, expected = checkpoints.path_of(whole, STEPS).read_bytes(), networks(whole)
    bad, rng = checkpoints.path_of(tmp_path, STEPS), random.Random(0)
    for _ in range(60):
        bad.write_bytes(damage(good, rng))
        try:
            survived = same(networks(tmp_path), expected)
            gk.load(tmp_path, device="cpu")
        except checkpoints.CheckpointError as error:
            survived = str(bad) in str(error)
        count(f"checkpoint {damage.__name__}", survived)
    assert TABLE[f"checkpoint {damage.__name__}"][2] == 0


@pytest.mark.full
def test_two_writers(whole: Path, tmp_path: Path) -> None:
    for i in range(2):
        out = tmp_path / str(i)
        first = start(out)
        wait_for_rows(out, first, 2)
        second = start(out)
        _, said = second.communicate()
        first.communicate()
        refused = second.returncode == 2 and b"another process is writing" in said
        # The second may have come after the first had ended; then it has nothing to do.
        count("two writers", (refused or second.returncode == 0) and same(networks(out), networks(whole)))
    assert TABLE["two writers"][2] == 0


@pytest.mark.full
def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Comes last: what was tried in this process, in numbers."""
    with capsys.disabled():
        print(f"\n{'fault':22} tried  survived  lost")
        for fault, (tried, survived, lost) in TABLE.items():
            print(f"{fault:22} {tried:5}  {survived:8}  {lost:4}")
    assert sum(row[2] for row in TABLE.values()) == 0
