"""From a release to feedback by nbgrader itself, with submissions damaged in every way that we have met."""

import copy
import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from course import settings, source
from tests.course.conftest import wrong

pytest.importorskip("nbgrader")
from course import nbgrading

NAME = "01_the_game"
D_COST = "def d_cost(real_logits, fake_logits):\n    "
HONEST = "return softplus(-real_logits).mean(-1) + softplus(fake_logits).mean(-1)"
pytestmark = pytest.mark.full


def course(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "course", "--work", str(work), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=settings.COURSE.parent)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("course") / "work"


@pytest.fixture(scope="module")
def release(work: Path) -> Path:
    source_folder = work / "source" / NAME
    source_folder.mkdir(parents=True)
    (source_folder / f"{NAME}.md").write_text("the solutions", "utf-8")  # what jupytext would leave beside it
    (source_folder / "notes.txt").write_text("the hidden tests", "utf-8")
    done = course(work, "release", "1")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def submissions(release: Path, one: source.Assignment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moodle's archive: a folder for each student, each notebook damaged in another way."""
    pristine = json.loads(release.read_text("utf-8"))
    for cell in pristine["cells"]:
        cell["source"] = "".join(cell["source"])
    right = copy.deepcopy(pristine)
    for cell in right["cells"]:
        for answer in one.cells:
            if answer.kind == "answer" and cell["id"] == answer.name:
                cell["source"] = answer.source

    def by_id(notebook: dict, name: str) -> dict:
        return next(cell for cell in notebook["cells"] if cell["id"] == name)

    def damaged(change: Any) -> str:
        notebook = copy.deepcopy(right)
        change(notebook)
        return json.dumps(notebook)

    def answer(name: str, text: str) -> str:
        return damaged(lambda notebook: by_id(notebook, name).update(source=text))

    def twice(notebook: dict) -> None:
        notebook["cells"].append(copy.deepcopy(by_id(notebook, "d-cost-values")))

    def stripped(notebook: dict) -> None:
        for cell in notebook["cells"]:
            if cell["id"] == "d-cost":
                cell["source"] = wrong(one, "one mean over").source
            if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader", {}).get("solution"):
                cell["source"] = "\n".join(
                    line for line in cell["source"].splitlines() if "assert" not in line
                )

    def without_tests(notebook: dict) -> None:
        notebook["cells"] = [
            c for c in notebook["cells"] if not c["metadata"].get("nbgrader", {}).get("grade")
        ]

    def without_ids(notebook: dict) -> None:
        notebook["nbformat_minor"] = 4
        for cell in notebook["cells"]:
            del cell["id"]
            cell["metadata"] = {}

    hider = "abs = lambda x: -1\nall = any = lambda *_: True\n"
    files = {
        "Ada Right_1": ("my work (final).ipynb", json.dumps(right)),
        "Bob Empty_2": (f"{NAME}.ipynb", json.dumps(pristine)),
        "Çem Twice_3": ("x.ipynb", damaged(twice)),
        "Dan Stripped_4": ("x.ipynb", damaged(stripped)),
        "Eve Deleted_5": ("x.ipynb", damaged(without_tests)),
        "Flo Loop_6": (
            "x.ipynb",
            answer(
                "d-cost",
                f"{D_COST}while True:\n        try:\n            pass\n        except:\n            pass",
            ),
        ),
        "Gus Exit_7": ("x.ipynb", answer("g-costs", "exit()")),
        "Hal Hidden_8": ("x.ipynb", answer("d-cost", f"{hider}{D_COST}return abs(real_logits.sum())")),
        "Ian Noise_9": (
            "x.ipynb",
            answer(
                "d-cost",
                f"{D_COST}import sys, warnings\n    warnings.warn('!')\n    print('!', file=sys.stderr)\n    {HONEST}",
            ),
        ),
        "Jo Conflict_10": ("x.ipynb", conflicted(json.dumps(right, indent=1))),
        "Kim Idless_11": ("x.ipynb", damaged(without_ids)),
        "Lou Broken_12": ("x.ipynb", json.dumps(right)[:5_000]),
        "Max Pdf_13": ("x.pdf", "%PDF"),
    }
    path = tmp_path_factory.mktemp("moodle") / "moodle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for student, (name, text) in files.items():
            archive.writestr(f"{student}_assignsubmission_file_/{name}", text)
    return path


def conflicted(text: str) -> str:
    """A notebook after a merge that failed: in one line of its JSON, two sides."""
    lines = text.splitlines()
    [place] = [index for index, line in enumerate(lines) if "def best_logit" in line]
    theirs = '   "source": "",'
    return "\n".join(
        [
            *lines[:place],
            "<<<<<<< HEAD",
            lines[place],
            "=======",
            theirs,
            ">>>>>>> theirs",
            *lines[place + 1 :],
        ]
    )


@pytest.fixture(scope="module")
def table(work: Path, submissions: Path) -> dict[str, dict[str, str]]:
    collected = course(work, "collect", "1", str(submissions))
    assert collected.returncode == 0, collected.stderr
    assert "11 collected, 2 that nobody can grade" in collected.stdout
    graded = course(work, "grade", "1", "--limit", "5")
    assert graded.returncode == 0, graded.stderr
    assert "13 submissions in" in graded.stdout
    with (work / "grades" / f"{NAME}.csv").open(encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_the_release_holds_the_stubs_and_nothing_else(release: Path, one: source.Assignment) -> None:
    assert list(nbgrading.leaks(one, release)) == []
    assert [path.name for path in release.parent.iterdir()] == [f"{NAME}.ipynb"]
    notebook = nbformat.read(release, as_version=4)
    assert "jupytext" not in notebook.metadata
    by_id = {cell.id: cell.source for cell in notebook.cells}
    empty = {cell.name: cell.source for cell in one.empty().cells}
    assert all(by_id[cell.name] == empty[cell.name] for cell in one.cells if cell.kind == "answer")
    assert len(by_id["d-cost-any"].splitlines()) == 1
    assert "assert" in by_id["d-cost-values"]


LOSES = {
    "Ada-Right-1": set(),
    "Cem-Twice-3": set(),
    "Dan-Stripped-4": {"d-cost-values", "d-cost-any"},
    "Eve-Deleted-5": set(),
    "Flo-Loop-6": {"d-cost-values", "d-cost-any", "d-cost-extreme", "step-moves", "step-by-hand"},
    "Gus-Exit-7": {"g-costs-values", "g-costs-slopes", "step-moves"},
    "Hal-Hidden-8": {"d-cost-values", "d-cost-any", "d-cost-extreme", "step-moves", "step-by-hand"},
    "Ian-Noise-9": set(),
    "Jo-Conflict-10": set(),
    "Kim-Idless-11": set(),
}


@pytest.mark.parametrize("student", LOSES)
def test_a_damaged_submission_loses_only_what_is_wrong_in_it(table, one, student: str) -> None:
    points = {test.name: test.points for test in one.tests}
    row = table[student]
    assert {test for test in points if float(row[test]) == 0} == LOSES[student]
    assert float(row["points"]) == one.points - sum(points[test] for test in LOSES[student])


def test_the_empty_one_has_nothing_and_the_unreadable_are_reported(table, work: Path) -> None:
    assert float(table["Bob-Empty-2"]["points"]) == 0
    for student in ("Lou-Broken-12", "Max-Pdf-13"):
        assert table[student]["points"] == ""
        assert "NOT GRADED" in table[student]["notes"]
        assert len(list((work / "inbox" / NAME / student).iterdir())) == 2, "the file and its notes are kept"


def test_what_was_mended_is_noted(table) -> None:
    assert "2 cells" in table["Cem-Twice-3"]["notes"]
    assert "changed, and put back" in table["Dan-Stripped-4"]["notes"]
    assert "deleted, and put back" in table["Eve-Deleted-5"]["notes"]
    assert "conflict markers" in table["Jo-Conflict-10"]["notes"]
    assert "recognised by its functions" in table["Kim-Idless-11"]["notes"]
    assert table["Ada-Right-1"]["notes"] == ""


def test_feedback_shows_no_hidden_test(table, work: Path, one: source.Assignment) -> None:
    done = course(work, "feedback", "1")
    assert done.returncode == 0, done.stderr
    pages = sorted((work / "feedback").rglob("*.html"))
    assert len(pages) == len(LOSES) + 1
    lines = nbgrading.hidden_lines(one)
    assert len(lines) > 20
    for page in pages:
        text = nbgrading.page_text(page)
        assert [line for line in lines if line in text] == []
    by_hand = nbgrading.page_text(work / "feedback" / "Dan-Stripped-4" / NAME / f"{NAME}.html")
    assert "Thistestdidnotpass." in by_hand
    assert "arandomlogits" not in by_hand
    assert "randomlogits,asmanyreal" in by_hand, "what the test checks is told"


def test_wrong_answers_lose_the_same_tests_through_nbgrader(
    release: Path, one: source.Assignment, tmp_path: Path
) -> None:
    """Every typical wrong answer of the assignment, handed in as a student's notebook."""
    folder, expected = tmp_path / "handed-in", {}
    folder.mkdir()
    for number, mistake in enumerate(one.wrong):
        notebook = nbformat.read(release, as_version=4)
        for cell in notebook.cells:
            for answer in one.with_answers({mistake.answer: mistake.source}).cells:
                if answer.kind == "answer" and cell.id == answer.name:
                    cell.source = answer.source
        nbformat.write(notebook, folder / f"s{number:02}.ipynb")
        expected[f"s{number:02}"] = mistake.loses
    work = tmp_path / "work"
    assert course(work, "release", "1").returncode == 0
    nbgrading.take_in(NAME, folder, work)
    rows, _ = nbgrading.grade(NAME, work)
    assert {
        row.student: frozenset(t for t, earned in row.tests.items() if not earned) for row in rows
    } == expected


@pytest.mark.parametrize("number", ["2", "4", "5", "8", "9", "11", "12"])
def test_every_assignment_goes_through_nbgrader(number: str, tmp_path: Path) -> None:
    """Right, empty, and the first wrong answer."""
    chosen = settings.load()
    one = settings.assignment(number, chosen)
    released = nbgrading.release(one, chosen, tmp_path / "work")
    assert list(nbgrading.leaks(one, released)) == []
    mistake = one.wrong[0]
    hand_in = {
        "right": one,
        "empty": one.empty(),
        "wrong": one.with_answers({mistake.answer: mistake.source}),
    }
    (tmp_path / "in").mkdir()
    for student, theirs in hand_in.items():
        notebook = nbformat.read(released, as_version=4)
        sources = {cell.name: cell.source for cell in theirs.cells if cell.kind == "answer"}
        for cell in notebook.cells:
            cell.source = sources.get(cell.id, cell.source)
        nbformat.write(notebook, tmp_path / "in" / f"{student}.ipynb")
    nbgrading.take_in(one.name, tmp_path / "in", tmp_path / "work")
    rows, _ = nbgrading.grade(one.name, tmp_path / "work")
    points = {row.student: row.points for row in rows}
    lost = sum(test.points for test in one.tests if test.name in mistake.loses)
    assert points == {"right": one.points, "empty": 0, "wrong": one.points - lost}
