import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gankit as gk
from gankit.training import Diverged as FromTraining
from gankit.training.recording import Diverged, FolderInUse, Schedule, lock, stop_if_diverged

BAD = st.sampled_from([math.nan, math.inf, -math.inf])


@pytest.mark.parametrize("name", ["log_every", "callback_every", "save_every", "keep_every"])
def test_a_schedule_counts_from_one(name):
    Schedule(**({"log_every": 1, "callback_every": 1} | {name: 1}))
    with pytest.raises(ValueError, match=f"{name} must be at least 1 step, got 0"):
        Schedule(**({"log_every": 1, "callback_every": 1} | {name: 0}))


@given(data=st.data(), length=st.integers(1, 8), replicas=st.integers(0, 3), later=st.integers(0, 5))
def test_the_first_bad_cost_is_named(data, length, replicas, later):
    lead = (replicas,) if replicas else ()
    costs = [tuple(torch.randn(4, *lead)) for _ in range(length)]
    step = length + later
    stop_if_diverged(costs, step, lead, None)  # finite: nothing happens
    at = data.draw(st.integers(0, length - 1))
    player, replica = data.draw(st.integers(0, 1)), data.draw(st.integers(0, max(0, replicas - 1)))
    costs[at][player].view(-1)[replica] = data.draw(BAD)
    for after in costs[at + 1 :]:  # NaN spreads
        after[0].fill_(math.nan)
    who = ("the discriminator's cost", "the generator's cost")[player]
    where = f" in replica {replica}" if lead else ""
    with pytest.raises(Diverged) as error:
        stop_if_diverged(costs, step, lead, None)
    expected = f"{who} became NaN or infinite at step {later + at + 1}{where}; no checkpoint was written"
    assert str(error.value) == expected


def test_there_is_one_error_under_three_names():
    assert gk.Diverged is Diverged is FromTraining


@pytest.mark.parametrize(
    ("schedule", "rows", "calls", "files"),
    [
        ({"log_every": 3}, [3, 6, 7], [3, 6, 7], [7]),
        ({"log_every": 3, "callback_every": 2}, [2, 3, 4, 6, 7], [2, 4, 6, 7], [7]),
        ({"log_every": 9, "save_every": 5}, [5, 7], [7], [5, 7]),
        ({"log_every": 9, "keep_every": 2}, [2, 4, 6, 7], [7], [2, 4, 6, 7]),
        ({"log_every": 9, "save_every": 1, "keep_every": 3}, [1, 2, 3, 4, 5, 6, 7], [7], [3, 6, 7]),
    ],
)
def test_what_is_due_happens_and_all_of_it_at_the_end(tmp_path: Path, schedule, rows, calls, files):
    ring = gk.data.load("ring", n=100)
    run = gk.Trainer(*gk.models.mlp(ring.shape, z_dim=2, depth=2, width=4), ring, batch_size=4, device="cpu")
    called = []
    run.fit(7, out=tmp_path, callback=lambda run: called.append(run.steps), progress=False, **schedule)
    assert [row["step"] for row in run.history] == rows
    assert called == calls
    assert list(map(gk.checkpoints.step_of, gk.checkpoints.saved(tmp_path))) == files


# --- Signals, locks and folders --------------------------------------------------------------------------------------

SCRIPT = """
import sys
import gankit as gk
data = gk.data.load("digits", n=100)
G, D = gk.models.mlp(data.shape, z_dim=4, depth=3, width=8)
run = gk.Trainer(G, D, data, batch_size=8, device="cpu")
out = sys.argv[1]
if newest := gk.checkpoints.latest(__import__("pathlib").Path(out)):
    run.load(newest)
run.fit(int(sys.argv[2]) - run.steps, out=out, log_every=5, save_every=10**6, progress=len(sys.argv) > 3)
"""


def start(out: Path, steps: int, *more: str, **settings) -> subprocess.Popen:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), str(steps), *more],
        env=os.environ | {"PYTHONPATH": paths},
        **settings,
    )


def wait_for_rows(out: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not ((out / "log.jsonl").exists() and (out / "log.jsonl").read_text().count("\n") > 2):
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_says_so_and_ends_as_it_asks(number, tmp_path):
    out = tmp_path / "run"
    heed = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731  whatever this process was started with
    process = start(out, 10**6, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    wait_for_rows(out, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=600)
    assert (
        process.returncode == (-number if number != signal.SIGINT else -signal.SIGINT)
        or "KeyboardInterrupt" in said
    )
    (kept,) = gk.checkpoints.saved(out)
    step = gk.checkpoints.step_of(kept)
    assert f"{number.name} at step {step:,}: saved" in said
    # Not a step is lost: gone on with, the run is the uninterrupted one.
    assert start(out, step + 7).wait(600) == 0
    assert start(tmp_path / "whole", step + 7).wait(600) == 0
    names = [folder / f"checkpoint-{step + 7:08d}.pt" for folder in (out, tmp_path / "whole")]
    ours, other = (gk.checkpoints.read(name)["G"] for name in names)
    assert all(torch.equal(ours[key], other[key]) for key in ours)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(number, tmp_path):
    """As under nohup, or behind an & of a shell script: the run neither stops nor lets another one write beside it."""
    out = tmp_path / "run"
    ignore = lambda: signal.signal(number, signal.SIG_IGN)  # noqa: E731
    process = start(out, 10**6, stderr=subprocess.PIPE, text=True, preexec_fn=ignore)
    try:
        wait_for_rows(out, process)
        process.send_signal(number)
        seen = (out / "log.jsonl").read_text().count("\n")
        while (out / "log.jsonl").read_text().count("\n") < seen + 5:
            assert process.poll() is None, "the run ended"
            time.sleep(0.01)
        assert not gk.checkpoints.saved(out)
        with pytest.raises(FolderInUse):
            lock(out)
    finally:
        process.kill()
        process.communicate()


def test_a_closed_pipe_does_not_end_a_run(tmp_path):
    out = tmp_path / "run"
    process = start(out, 400, "bar", stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.wait(600) == 0
    assert (out / "checkpoint-00000400.pt").exists()


def test_two_writers_are_refused_and_the_lock_dies_with_its_process(tmp_path):
    out = tmp_path / "run"
    process = start(out, 10**6)
    wait_for_rows(out, process)
    with pytest.raises(FolderInUse, match="another process is writing into"):
        lock(out)
    process.kill()
    process.wait()
    lock(out).release()


def small_run(seed: int = 0) -> gk.Trainer:
    data = gk.data.load("digits", n=100)
    return gk.Trainer(
        *gk.models.mlp(data.shape, z_dim=4, depth=3, width=8, seed=seed), data, batch_size=8, device="cpu"
    )


def test_a_used_folder_is_not_emptied(tmp_path):
    first = small_run().fit(3, out=tmp_path, progress=False)
    log = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(FolderInUse, match=r"holds checkpoint-00000003.pt of another run"):
        small_run(1).fit(2, out=tmp_path, progress=False)
    assert (tmp_path / "log.jsonl").read_bytes() == log
    first.fit(2, out=tmp_path, progress=False)  # the run itself goes on
    small_run().load(tmp_path / "checkpoint-00000005.pt").fit(1, out=tmp_path, progress=False)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        3,
        5,
        6,
    ]


def test_other_data_under_the_same_name_are_noticed(tmp_path):
    small_run().fit(2, out=tmp_path, progress=False)
    run, path = small_run(), tmp_path / "checkpoint-00000002.pt"
    images = run.data.images.clone()
    images[7] = 16 - images[7]
    run.data = dataclasses.replace(run.data, images=images)
    with pytest.raises(gk.checkpoints.CheckpointError, match="samples or labels differ"):
        run.load(path)
    run = small_run()
    run.data = dataclasses.replace(run.data, classes=tuple("abcdefghij"))
    with pytest.raises(gk.checkpoints.CheckpointError, match="classes was"):
        run.load(path)
    run.load(path, same_data=False)


def test_dropout_of_the_users_own_resumes_exactly(tmp_path):
    def run() -> gk.Trainer:
        torch.manual_seed(5)
        data = gk.data.load("digits", n=100)
        G, D = gk.models.mlp(data.shape, z_dim=4, depth=3, width=8)
        return gk.Trainer(G, nn.Sequential(nn.Dropout(0.5), *D), data, batch_size=8, device="cpu")

    whole = run().fit(6, progress=False)
    run().fit(3, out=tmp_path, progress=False)
    torch.manual_seed(99)
    resumed = run().load(tmp_path / "checkpoint-00000003.pt").fit(3, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.D.parameters(), resumed.D.parameters(), strict=True))


def test_logits_beyond_all_measure_stop_a_run():
    run = small_run()
    run.d_opt.param_groups[0]["lr"] = 1e6
    with pytest.raises(Diverged, match=r"logits went beyond 1e\+12|NaN or infinite"):
        run.fit(400, log_every=10, progress=False)
