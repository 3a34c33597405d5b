"""The queue: its list, its estimates, what it takes, and that it stops and goes on as it says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures import ledger, queue
from figures.queue import Item, Queue

ITEMS = queue.read()
PROGRAM = """
import json, pathlib, signal, sys, time
result, kept = map(pathlib.Path, sys.argv[1:3])
seconds, status = float(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGTERM, lambda *_: ((kept / "asked").write_text("to stop"), sys.exit(143)))
(kept / "starts").open("a").write("x")
print("a" * 200, flush=True)
time.sleep(0 if (kept / "asked").exists() else seconds)
if status == 0:
    result.write_text(json.dumps({"provenance": {"seeds": [0, 1]}, "a": [1, 2], "b": [2, 3]}))
sys.exit(status)
"""


ELSEWHERE = """
import pathlib, runpy, sys
names = runpy.run_path(sys.argv[1])
folder, program = map(pathlib.Path, sys.argv[2:4])
sys.exit(names["run"]([names["item"]("slow", program, float(sys.argv[4]))], folder)[1])
"""
"""A queue in another process."""


def item(name: str, program: Path, seconds: float = 0, status: int = 0, **others: object) -> Item:
    """An item whose command waits, writes a result of two seeds, and goes on at once if it was stopped before."""
    command = f"python {shlex.quote(str(program))} {{result}} {{kept}} {seconds} {status}"
    settings = {"result": f"{name}.json", "seeds": 2, "minutes": {"cpu": 1.0}} | others
    return Item(name, f"about {name}", command, **settings)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def wait_for(path: Path) -> None:
    until = time.monotonic() + 400
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)


def run(items: list[Item], folder: Path, minutes: float = 1.0, workers: int = 1) -> tuple[Queue, int]:
    one = Queue(items, minutes, "cpu", workers, results=folder, kept=folder / "kept")
    return one, one.run()


# --- The list -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", ITEMS, ids=lambda one: one.name)
def test_items_are_commands_whose_flags_exist_and_rows_that_are_complete(one: Item, capsys) -> None:
    words = shlex.split(one.typed())
    assert words[:2] == ["python", "-m"]
    assert "{" not in one.typed()
    assert "{result}" in one.command
    assert one.result.endswith(".json")
    module = Path(queue.ROOT, *words[2].split(".")).with_suffix(".py")
    assert '__name__ == "__main__"' in module.read_text(encoding="utf-8")
    assert one.tiny, "an item that --check cannot start may be broken"
    assert one.minutes
    assert all(minutes > 0 for minutes in one.minutes.values())
    assert one.resumes == any(place in one.command for place in ("{kept}", "{shared}"))
    for row in one.rows:
        assert {"paper", "item", "paper_value", "setting", "scale", "check"} == set(row)
        assert row["paper"] in ledger.PAPERS
        assert row["scale"] in ledger.SCALES
        assert row["check"]["kind"] in ledger.RULES
    assert queue.rows_of(one) or one.name == "gpu-measurements", "it decides nothing"


def test_no_two_items_write_one_result_and_new_rows_are_not_in_the_ledger_yet() -> None:
    names = [one.result for one in ITEMS]
    assert len(set(names)) == len(names)
    there = {(row.paper, row.item) for row in ledger.read() if row.status != "not-run"}
    for one in ITEMS:
        if not one.done():
            assert not {(row["paper"], row["item"]) for row in one.rows} & there


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[item]]\nname = "a"', "item 'a' of the queue"),
        ('[[item]]\nname = "a"\nsteps = 3', "unexpected keyword argument 'steps'"),
        (
            '[[item]]\nname="a"\nabout=""\ncommand=""\nresult=""\nseeds=1\nminutes={cpu=1}\nafter=["b"]',
            r"comes after \['b'\], which the queue has not",
        ),
        (
            '[[item]]\nname="a"\nabout=""\ncommand=""\nresult=""\nseeds=1\nminutes={tpu=1}',
            r"must be for cpu, h100, got \['tpu'\]",
        ),
        ('[[item]]\nname="a"\nabout=""\ncommand=""\nresult=""\nseeds=1\nminutes={cpu=1}\n' * 2, "two items"),
    ],
)
def test_a_wrong_list_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        queue.read(text)


def test_rows_can_be_pasted_into_the_ledger() -> None:
    row = next(row for one in ITEMS for row in one.rows) | {
        "result": "a.json",
        "command": 'say "x"',
        "own_task": True,
    }
    assert tomllib.loads(queue.as_toml(row)) == {"row": [row]}


# --- What is taken ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(1, 100), st.booleans()), max_size=8),
    st.floats(-5, 200),
)
def test_the_first_that_fits_is_taken_else_one_that_can_go_on(sizes, minutes) -> None:
    ready = [
        (Item(str(i), "", "", "", 1, {"cpu": need}, resumes=resumes), need)
        for i, (need, resumes) in enumerate(sizes)
    ]
    chosen = queue.choose(ready, minutes)
    fits = [one for one in ready if one[1] <= minutes]
    if minutes <= 0:
        assert chosen is None
    elif fits:
        assert chosen == fits[0]
    else:
        assert chosen == next((one for one in ready if one[0].resumes), None)


def test_estimates_follow_what_was_measured_here(tmp_path: Path) -> None:
    first, second = (Item(name, "", "", f"{name}.json", 2, {"cpu": 10.0}) for name in "ab")
    whole = Item("c", "", "", "c.json", 2, {"cpu": 10.0}, resumes=False)
    assert queue.factor([first, second], "cpu", tmp_path) == 1
    queue.remember(first, "cpu", tmp_path, 12, finished=False)
    queue.remember(first, "cpu", tmp_path, 8, finished=True)
    queue.remember(second, "cpu", tmp_path, 5, finished=False)
    queue.remember(whole, "cpu", tmp_path, 5, finished=False)
    queue.remember(second, "cuda", tmp_path, 5, finished=True)  # says nothing about a CPU
    items = [first, second, whole]
    assert queue.factor(items, "cpu", tmp_path) == 2
    assert queue.remaining(second, "cpu", tmp_path, 2.0) == 15
    assert queue.remaining(whole, "cpu", tmp_path, 2.0) == 20  # it begins anew
    queue.remember(second, "cpu", tmp_path, 50, finished=False)
    assert queue.remaining(second, "cpu", tmp_path, 2.0) == 2  # late, not finished
    ready, _ = queue.pending([second], "cpu", tmp_path, tmp_path)
    assert [one.name for one, _ in ready] == ["b"]
    (tmp_path / "b.json").write_text('{"provenance": {"seeds": [0]}}')
    assert queue.pending([second], "cpu", tmp_path, tmp_path)[0]  # too few seeds
    (tmp_path / "b.json").write_text('{"provenance": {"seeds": [0, 1]}}')
    assert queue.pending([second], "cpu", tmp_path, tmp_path) == ([], [])


def test_what_cannot_run_says_why(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GANKIT_DATA", str(tmp_path))
    first = Item("a", "first", "", "a.json", 2, {"cpu": 1.0}, data=["faces.zip"])
    second = Item("b", "second", "", "b.json", 2, {"cpu": 1.0}, after=["a"])
    card = Item("c", "third", "", "c.json", 2, {"h100": 1.0})
    _, barred = queue.pending([first, second, card], "cpu", tmp_path, tmp_path)
    assert [why for _, why in barred] == [
        f"faces.zip is not below {tmp_path} (set by GANKIT_DATA).",
        "It comes after a.",
    ]
    text = queue.table([first, second, card], "cuda", tmp_path, tmp_path)
    assert "c: third" in text
    assert "skipped" not in text
    (tmp_path / "faces.zip").touch()
    ready, _ = queue.pending([first, second], "cpu", tmp_path, tmp_path)
    assert [one.name for one, _ in ready] == ["a"]


def test_a_plan_fills_the_workers(tmp_path: Path) -> None:
    items = [
        Item(name, "", "", f"{name}.json", 2, {"cpu": need})
        for name, need in zip("abcd", (30, 50, 20, 90), strict=True)
    ]
    lines = queue.plan(items, "cpu", 60, 2, tmp_path, tmp_path).splitlines()
    assert [line.split() for line in lines] == [
        ["0", "to", "30", "min", "worker", "1", "a"],
        ["0", "to", "50", "min", "worker", "2", "b"],
        ["30", "to", "50", "min", "worker", "1", "c"],
        ["50", "to", "60", "min", "worker", "1", "d,", "80", "min", "left", "for", "another", "time"],
    ]  # fmt: skip
    assert queue.plan([], "cpu", 60, 2, tmp_path, tmp_path) == "  nothing fits"


# --- Running ------------------------------------------------------------------------------------------------------


def test_items_run_side_by_side_and_are_judged(tmp_path: Path, program: Path, capsys) -> None:
    row = {"paper": "mm_nsat", "item": "a is below b", "paper_value": "below", "setting": "", "scale": "toy"}
    check = {"kind": "paired", "first": "a", "than": "b", "claim": "below"}
    items = [item("one", program, 1.5, rows=[row | {"check": check}]), item("two", program, 1.5)]
    _, status = run(items, tmp_path, workers=2)
    assert status == 0
    assert all(i.done(tmp_path) for i in items)
    assert queue.spent(items[0], "cpu", tmp_path / "kept").finished
    printed = capsys.readouterr().out
    assert printed.index("two begins") < printed.index("one is done")  # not one after the other
    assert "undecided    a is below b: below in 2 of 2 pairs, p = 0.5" in printed
    assert "one (done)" in printed
    assert run(items, tmp_path)[0].taken == {}  # nothing is left


def test_a_failure_is_told_and_the_rest_goes_on(tmp_path: Path, program: Path, capsys) -> None:
    items = [item("bad", program, 0, 3), item("next", program, after=["bad"]), item("good", program)]
    _, status = run(items, tmp_path)
    printed = capsys.readouterr().out
    assert status == 1
    assert "bad ended with status 3" in printed
    assert "a" * 200 in printed
    assert items[2].done(tmp_path)
    assert not items[1].done(tmp_path)
    assert "skipped next: It comes after bad." in printed
    assert "bad (failed)" in printed


def test_when_the_minutes_are_over_items_stop_and_go_on_later(tmp_path: Path, program: Path, capsys) -> None:
    slow = item("slow", program, 600)
    one = Queue([slow], 60, "cpu", 1, results=tmp_path, kept=tmp_path / "kept")

    def end() -> None:
        wait_for(tmp_path / "kept" / "slow" / "starts")
        one.end = time.monotonic()

    threading.Thread(target=end, daemon=True).start()
    assert one.run() == 0
    assert not slow.done(tmp_path)
    assert (tmp_path / "kept" / "slow" / "asked").exists()  # it was asked, not killed
    assert not queue.spent(slow, "cpu", tmp_path / "kept").finished
    assert "slow (goes on)" in capsys.readouterr().out
    run([slow], tmp_path)
    assert slow.done(tmp_path)
    assert (tmp_path / "kept" / "slow" / "starts").read_text() == "xx"


def test_a_signal_stops_cleanly(tmp_path: Path, program: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, __file__, str(tmp_path), str(program), "600"],
        stdout=subprocess.PIPE,
    )
    kept = tmp_path / "kept" / "slow"
    wait_for(kept / "starts")
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=400)[0].decode()
    assert process.returncode == 128 + signal.SIGINT
    assert (kept / "asked").exists()
    assert "slow (goes on)" in printed
    assert "left" in printed


def test_two_queues_do_not_run_one_item_twice(tmp_path: Path, program: Path) -> None:
    one = item("slow", program)
    folder = tmp_path / "kept" / "slow"
    folder.mkdir(parents=True)
    with queue.FileLock(folder / "queue.lock"):
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE, __file__, str(tmp_path), str(program), "0"],
            check=False,
            capture_output=True,
        )
    assert done.returncode == 0
    assert b"spent\n\nleft" in done.stdout
    assert not one.done(tmp_path)


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="priorities are those of POSIX")
def test_items_have_one_thread_low_priority_and_no_card(tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps([dict(os.environ), os.getpriority(os.PRIO_PROCESS, 0)]), flush=True)"
    with open(tmp_path / "log", "wb") as log:
        process = queue.launch([sys.executable, "-c", f"import time; time.sleep(1); {code}"], "cpu", log)
        assert process.wait() == 0
    seen, nice = json.loads((tmp_path / "log").read_text())
    assert nice >= queue.NICE
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in set(queue.environment("cuda")) - set(os.environ)


def test_a_check_finds_what_cannot_start_or_be_judged(tmp_path: Path, program: Path, capsys) -> None:
    row = {"paper": "mm_nsat", "item": "x", "paper_value": "", "setting": "", "scale": "toy"}
    wrong = row | {"check": {"kind": "paired", "first": "c", "than": "b", "claim": "below"}}
    program.write_text(
        PROGRAM.replace('(kept / "starts")', 'kept.mkdir(parents=True, exist_ok=True)\n(kept / "starts")')
    )
    good = item("good", program, 0, tiny="x")
    items = [
        good,
        item("bad", program, 0, 3, tiny="x"),
        item("next", program, after=["bad"]),
        item("unjudged", program, rows=[wrong]),
        item("card", program, minutes={"h100": 1.0}),
        item("far", program, data=["nowhere.zip"]),
    ]
    assert queue.check(items, "cpu", 2) == 3
    printed = capsys.readouterr().out
    assert "good: starts, writes and can be judged" in printed
    assert "bad: FAILED with status 3" in printed
    assert "next: not started, since bad did not pass" in printed
    assert "unjudged: FAILED: a row cannot be judged: 'c' leads nowhere" in printed
    assert "far: skipped, nowhere.zip is not below" in printed
    assert "card" not in printed


# --- The command line ---------------------------------------------------------------------------------------------


def test_the_command_line_lists_plans_and_teaches(capsys, monkeypatch) -> None:
    assert queue.main(["--list", "cpu"]) == 0
    assert "minutes of one core" in capsys.readouterr().out
    assert queue.main(["--list", "gpu"]) == 0
    assert "minutes of one card" in capsys.readouterr().out
    assert queue.main(["--minutes", "30", "--dry-run", "--workers", "3"]) == 0
    assert queue.main(["--rows"]) == 0
    for arguments, message in {
        (): "--minutes must say how much time there is",
        ("--minutes", "-1"): "above 0",
        ("--only", "nothing"): "no item nothing; there are gpu-measurements",
        ("--minutes", "1", "--workers", "-1"): "--workers must be at least 1, got -1",
    }.items():
        with pytest.raises(SystemExit):
            queue.main(arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        queue.main(["--help"])
    assert "goes on where it stopped" in capsys.readouterr().out
