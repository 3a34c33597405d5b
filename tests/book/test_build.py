"""The book's tool: what runs again, what is kept when a cell fails, and what counts as drift or as slow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from book import build

Edit = Callable[[Path, str, str], None]
NAME = "01_the_game"


def run(book: Path, *arguments: str) -> int:
    return build.main(["--book", str(book), *arguments])


def age(path: Path, seconds: float) -> None:
    """Make a file `seconds` older: file systems may not tell two edits of the same instant apart."""
    stat = path.stat()
    os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))


def test_a_chapter_runs_when_it_or_the_code_changed_and_only_then(
    book: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    text, notebook = book / f"{NAME}.md", book / "_build" / "executed" / f"{NAME}.ipynb"
    assert run(book, "execute") == 0
    assert "(card: 20 s)" in capsys.readouterr().out
    first = notebook.read_bytes()
    printed = [o.text for c in nbformat.read(notebook, 4).cells for o in c.get("outputs", []) if "text" in o]
    assert printed == ["0.236 of the trials give five heads of ten\n"]

    assert run(book, "execute") == 0
    assert "unchanged, not run again" in capsys.readouterr().out
    assert run(book, "execute", "--force", "1") == 0
    assert "unchanged" not in capsys.readouterr().out
    assert notebook.read_bytes() == first, "a run without a change must change nothing"

    (book.parent / "toy" / "coin.py").write_text("P = 0.5\n", "utf-8")
    assert run(book, "execute") == 0
    assert "unchanged" not in capsys.readouterr().out
    (book.parent / "toy" / "__pycache__").mkdir()
    (book.parent / "toy" / "__pycache__" / "coin.pyc").write_bytes(b"compiled")
    assert run(book, "execute") == 0
    assert "unchanged" in capsys.readouterr().out

    edit(text, "1_000", "2_000")
    assert run(book, "execute") == 0
    assert "unchanged" not in capsys.readouterr().out
    assert notebook.read_bytes() != first


def test_a_failing_cell_is_shown_and_the_old_notebook_stays(
    book: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (book / f"{NAME}.md").read_text("utf-8")
    (book / "02_second.md").write_text(good, "utf-8")
    (book / f"{NAME}.ipynb").write_text("the old one", "utf-8")
    age(book / f"{NAME}.ipynb", 60)
    edit(book / f"{NAME}.md", "expected = np.sqrt(0.25 / 10)", "expected = np.sqrt(vairance)")

    assert run(book, "chapter") == 1
    output = capsys.readouterr()
    assert f"{NAME} failed after" in output.err
    assert "expected = np.sqrt(vairance)" in output.err
    assert "NameError: name 'vairance' is not defined" in output.err
    assert "\x1b[" not in output.err
    assert (book / f"{NAME}.ipynb").read_text("utf-8") == "the old one"
    assert (book / "02_second.ipynb").exists(), "one chapter's failure must not stop the others"
    assert not list(book.glob(".*")), "nothing half-written may stay"


def test_edits_typed_into_the_notebook_are_not_overwritten(
    book: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(book, "chapter") == 0
    age(book / f"{NAME}.md", 60)
    edit(book / f"{NAME}.ipynb", "Coins that land on their edge.", "Coins that never land.")
    assert run(book, "chapter") == 1
    message = capsys.readouterr().err
    assert "jupytext --sync" in message
    assert "Coins that never land." in (book / f"{NAME}.ipynb").read_text("utf-8")
    # Taking the edit into the text, as the message says, mends it.
    subprocess.run([sys.executable, "-m", "jupytext", "--sync", str(book / f"{NAME}.ipynb")], check=True)
    assert "Coins that never land." in (book / f"{NAME}.md").read_text("utf-8")
    assert run(book, "chapter") == 0
    assert run(book, "check") == 0


@pytest.mark.skipif(os.name == "nt", reason="sends a signal as a terminal's Ctrl-C does")
def test_ctrl_c_stops_every_kernel_and_writes_nothing(book: Path, edit: Edit) -> None:
    sleep = "import os, time\nopen(f'pid{os.getpid()}', 'w').close()\ntime.sleep(60)\nrng = "
    edit(book / f"{NAME}.md", "rng = ", sleep)
    (book / "02_second.md").write_text((book / f"{NAME}.md").read_text("utf-8"), "utf-8")
    command = [sys.executable, str(book / "build.py"), "chapter"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while len(kernels := list(book.glob("pid*"))) < 2:
            assert time.monotonic() < deadline, "the kernels did not start"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=20)
    assert process.returncode == 130
    assert message == "Stopped; the chapters that had finished are kept.\n"
    assert not list(book.glob("*.ipynb"))
    for kernel in kernels:
        with pytest.raises(ProcessLookupError):
            os.kill(int(kernel.name.removeprefix("pid")), 0)


def test_an_edit_made_during_a_run_counts_as_newer(book: Path, edit: Edit) -> None:
    edit(
        book / f"{NAME}.md",
        "expected = np.sqrt(0.25 / 10)",
        f"with open('{NAME}.md', 'a') as file:\n    file.write('\\nTyped meanwhile.\\n')\nexpected = np.sqrt(0.025)",
    )
    age(book / f"{NAME}.md", 60)
    assert run(book, "chapter") == 0
    chapter = build.find_chapters(book)[0]
    assert "differ" in (build.pair_difference(chapter) or "")
    build.refuse_lost_edits(chapter)  # would raise if the notebook passed for the newer of the two
    assert build.reason_to_run(chapter, build.digest_of_code(book.parent)) == "its text changed"


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as somebody, without the settings of whoever runs the tests."""
    who = {
        f"GIT_{role}_{what}": "student@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **who, **plain}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sources(notebook: Path) -> str:
    return "\n".join(cell.source for cell in nbformat.read(notebook, 4).cells)


def test_a_days_work_does_not_stand_in_the_way_of_an_update(
    book: Path, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = book / "02_second.md"
    second.write_text((book / f"{NAME}.md").read_text("utf-8").replace("the-game", "second"), "utf-8")
    assert run(book, "chapter") == 0
    (book.parent / ".gitignore").write_text((build.BOOK.parent / ".gitignore").read_text("utf-8"), "utf-8")
    git(book.parent, "init", "--quiet", "--initial-branch", "main")
    git(book.parent, "add", "--all")
    git(book.parent, "commit", "--quiet", "--message", "The book")
    git(tmp_path, "clone", "--quiet", str(book.parent), "student")
    clone, work = tmp_path / "student", tmp_path / "student" / "work"

    # The day: a copy is changed, another one only run, and the book is run.
    assert run(clone / "book", "copy") == 0
    assert (work / "_static" / "laboratory.html").exists()
    edit(work / f"{NAME}.ipynb", "size=(1_000, 10)", "size=(9_000, 10)")
    edit(work / "02_second.ipynb", "0.236 of the trials", "0.5 of the trials")
    assert run(clone / "book", "execute", "1") == 0
    assert git(clone, "status", "--porcelain") == ""

    # The book goes on, and the student pulls it.
    for chapter in (book / f"{NAME}.md", second):
        edit(chapter, "Coins that land on their edge.", "Coins that never land.")
    assert run(book, "chapter") == 0
    git(book.parent, "commit", "--quiet", "--all", "--message", "Better")
    git(clone, "pull", "--quiet", "--ff-only")
    capsys.readouterr()
    assert run(clone / "book", "copy") == 0
    said = capsys.readouterr().out
    assert f"{NAME}.ipynb: yours is kept" in said
    assert "size=(9_000, 10)" in sources(work / f"{NAME}.ipynb")
    assert "02_second.ipynb: brought up to date" in said
    assert "Coins that never land." in sources(work / "02_second.ipynb")
    assert git(clone, "status", "--porcelain") == ""

    # A renamed copy makes room for the newer one; a second call has nothing to say.
    (work / f"{NAME}.ipynb").rename(work / "mine.ipynb")
    assert run(clone / "book", "copy") == 0
    assert "Coins that never land." in sources(work / f"{NAME}.ipynb")
    capsys.readouterr()
    assert run(clone / "book", "copy") == 0
    assert capsys.readouterr().out == ""


def test_a_copy_that_is_no_notebook_is_kept(book: Path) -> None:
    assert run(book, "chapter") == 0
    assert run(book, "copy") == 0
    broken = book.parent / "work" / f"{NAME}.ipynb"
    broken.write_text("half a notebook", "utf-8")
    assert run(book, "copy") == 0
    assert broken.read_text("utf-8") == "half a notebook"


def test_the_site_of_a_run_needs_the_run(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(book, "chapter") == 0
    (book / "_build" / "executed" / f"{NAME}.ipynb").unlink()
    assert run(book, "site", "--executed") == 1
    assert "build.py execute` makes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (".md", "Coins that land on their edge.", "Coins that never land.", "differ"),
        (".md", "size=(1_000, 10)", "size=(2_000, 10)", "differ"),
        (".ipynb", "size=(1_000, 10)", "size=(2_000, 10)", "differ"),
        (".ipynb", '"executed": "', '"executed": "0', "outputs of an older text"),
    ],
)
def test_check_finds_drift(
    book: Path, edit: Edit, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, complaint: str
) -> None:
    assert run(book, "chapter") == 0
    assert run(book, "check") == 0
    edit(book / f"{NAME}{file}", old, new)
    assert run(book, "check") == 1
    assert complaint in capsys.readouterr().err


def test_check_finds_a_synced_notebook_with_stale_outputs(
    book: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(book, "chapter") == 0
    edit(book / f"{NAME}.md", "heads of ten", "heads in ten")
    os.utime(book / f"{NAME}.md")
    subprocess.run([sys.executable, "-m", "jupytext", "--sync", str(book / f"{NAME}.md")], check=True)
    assert build.pair_difference(build.find_chapters(book)[0]) is None, "jupytext has made the pair agree"
    assert run(book, "check") == 1
    assert "outputs of an older text" in capsys.readouterr().err


def test_check_finds_a_missing_half(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (book / "09_orphan.ipynb").write_text("{}", "utf-8")
    assert run(book, "check") == 1
    message = capsys.readouterr().err
    assert f"{NAME}.ipynb is missing" in message
    assert "09_orphan.ipynb has no text" in message


def test_an_unknown_chapter_is_refused_in_one_line(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(book, "execute", "7") == 1
    assert capsys.readouterr().err == f"There is no chapter '7'; there are {NAME}.\n"


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_no_jobs_at_all_are_refused(book: Path, capsys: pytest.CaptureFixture[str], jobs: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(book, "execute", f"--jobs={jobs}")
    assert f"{jobs!r} came; a whole number from 1 is allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "card", "slowness", "fails"),
    [
        (9, 20, 1, False),
        (30, 20, 1, False),
        (30.1, 20, 1, True),
        (60, 50, 1, False),
        (61, 60, 1, True),
        (59, 20, 2, False),
        (61, 20, 2, True),
        (16, 20, 0.5, True),
    ],
)
def test_too_slow(seconds: float, card: float, slowness: float, fails: bool) -> None:
    assert bool(build.too_slow(seconds, card, slowness)) is fails


def test_times_prints_and_fails_only_on_a_hang(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(book, "times") == 1
    assert "not measured" in capsys.readouterr().err

    build.write_text(book.parent / ".build" / "nbval.json", json.dumps({NAME: 190.0}))
    assert run(book, "times") == 0, "nine times its card: a slow machine"
    assert "190.0 s   (card: 20 s)" in capsys.readouterr().out

    build.write_text(book.parent / ".build" / "nbval.json", json.dumps({NAME: 210.0}))
    assert run(book, "times") == 1
    assert "something hangs" in capsys.readouterr().err


def test_strict_times_holds_the_card_at_the_speed_of_its_machine(
    book: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "calibrate", lambda: build.CALIBRATION)
    edit(book / f"{NAME}.md", "20 s on two cores", "0.01 s on two cores")
    assert run(book, "strict-times") == 1
    assert "its card says 0.01 s" in capsys.readouterr().err
    assert not (book / f"{NAME}.ipynb").exists(), "measuring writes no notebook"

    monkeypatch.setattr(build, "calibrate", lambda: 1e4 * build.CALIBRATION)
    assert run(book, "strict-times") == 0, "on a machine ten thousand times as slow, a second or two pass"
    assert "calibration: 10000.00" in capsys.readouterr().out


def test_calibration_is_a_time() -> None:
    assert 0 < build.calibrate() < 600


def test_nbval_compares_tagged_outputs_and_measures(book: Path, edit: Edit) -> None:
    assert run(book, "chapter") == 0
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-n",
        "2",
        "--dist",
        "loadscope",
    ]
    command += ["-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", f"book/{NAME}.ipynb"]
    done = subprocess.run(command, cwd=book.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "4 passed, 1 skipped" in done.stdout
    measured = json.loads((book.parent / ".build" / "nbval.json").read_text("utf-8"))
    assert measured.keys() == {NAME}
    assert 0.1 < measured[NAME] < 60

    edit(book / f"{NAME}.ipynb", "0.236 of the trials", "0.237 of the trials")
    done = subprocess.run(command, cwd=book.parent, capture_output=True, text=True)
    assert done.returncode == 1
    assert "0.237 of the trials" in done.stdout
