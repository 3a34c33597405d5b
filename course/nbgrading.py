"""Release, grade and feedback by nbgrader, with this kit's runner in place of a kernel.

nbgrader keeps the gradebook, makes the release and the feedback pages. What it is not good at is done beside it: cells
run in `course.runner`, so that no submission can stop a batch; each student is graded on their own, so that an error
is one line of the report; and a feedback page that shows a line of a hidden test is not written.
"""

from __future__ import annotations

import csv
import html
import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    GetGrades,
    LimitOutput,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from traitlets import Float
from traitlets.config import Config

from course import collect, runner
from course.notebooks import HIDDEN, assignment_notebook
from course.settings import Settings
from course.source import BEGIN, Assignment

BETWEEN = re.compile(rf"^{re.escape(HIDDEN[0])}\n(.*?)\n{re.escape(HIDDEN[1])}$", re.M | re.S)
BOOK = Path(__file__).resolve().parent.parent / "book"


class GradingError(Exception):
    """Something that a lecturer can mend; the message says what and how."""


# --- what nbgrader is given ----------------------------------------------------------------------


class RunCells(NbGraderPreprocessor):
    """Runs a submission in `course.runner` and writes what its cells showed, as a kernel would."""

    limit = Float(runner.LIMIT, help="seconds for one cell").tag(config=True)

    def preprocess(self, nb: nbformat.NotebookNode, resources: Any) -> tuple[nbformat.NotebookNode, Any]:
        run = {cell.id: cell for cell in nb.cells if cell.cell_type == "code" and not _experiment(cell)}
        outcomes = runner.run(
            [runner.Step(name, cell.source, _kind(cell)) for name, cell in run.items()], self.limit
        )
        for number, (name, cell) in enumerate(run.items(), start=1):
            outcome = outcomes[name]
            outputs = list(outcome.outputs)
            if not outcome.ok:
                error = {"output_type": "error", "ename": outcome.error, "evalue": outcome.message}
                outputs.append({**error, "traceback": (outcome.trace or outcome.message).splitlines()})
            cell.outputs = [nbformat.from_dict(output) for output in outputs]
            cell.execution_count = number
        return nb, resources


class HideTests(NbGraderPreprocessor):
    """Takes hidden tests out of a graded notebook, and what they printed or raised, which may quote them."""

    def preprocess(self, nb: nbformat.NotebookNode, resources: Any) -> tuple[nbformat.NotebookNode, Any]:
        for cell in nb.cells:
            if cell.cell_type == "code" and HIDDEN[0] in cell.source:
                lost = any(output.output_type == "error" for output in cell.outputs)
                cell.source = BETWEEN.sub("", cell.source).strip()
                text = "This test did not pass." if lost else "This test passed."
                cell.outputs = [nbformat.from_dict({"output_type": "stream", "name": "stdout", "text": text})]
        return nb, resources


def _experiment(cell: nbformat.NotebookNode) -> bool:
    return bool(cell.metadata.get("course", {}).get("experiment"))


def _kind(cell: nbformat.NotebookNode) -> str:
    role = cell.metadata.get("nbgrader", {})
    if role.get("grade"):
        return "test"
    return "answer" if role.get("solution") else "given" if role.get("locked") else "other"


def _api(work: Path, limit: float = runner.LIMIT) -> NbGraderAPI:
    here = str(Path(sys.executable).parent)
    if here not in os.environ.get("PATH", "").split(os.pathsep):  # nbgrader starts `alembic` by its name
        os.environ["PATH"] = os.pathsep.join((here, os.environ.get("PATH", "")))
    config = Config()
    config.CourseDirectory.root = str(work)
    config.CourseDirectory.db_url = _database(work)
    config.CourseDirectory.ignore = ["*"]  # notebooks are found without it; nothing else is ever copied
    config.Autograde.autograde_preprocessors = [RunCells, LimitOutput, SaveAutoGrades, CheckCellMetadata]
    config.RunCells.limit = limit
    config.GenerateFeedback.preprocessors = [HideTests, GetGrades, CSSHTMLHeaderPreprocessor]
    config.NbGraderAPI.log_level = logging.ERROR
    return NbGraderAPI(coursedir=CourseDirectory(config=config), config=config)


def _database(work: Path) -> str:
    return f"sqlite:///{work / 'gradebook.db'}"


def _check(done: dict[str, Any], what: str) -> None:
    if not done.get("success"):
        raise GradingError(f"{what} failed: {_reason(done)}")


def _reason(done: dict[str, Any]) -> str:
    """The first exception in nbgrader's log: the last one only says that there was another."""
    said = f"{done.get('log', '')}\n{done.get('error', '')}"
    found = re.search(r"^\s*([\w.]*(?:Error|Exception|Invalid\w*): .+)$", said, re.M)
    return found[1] if found else "nbgrader does not say why"


# --- release -------------------------------------------------------------------------------------


def release(one: Assignment, settings: Settings, work: Path, book: Path = BOOK) -> Path:
    """Make the students' notebook of an assignment.

    Returns:
        `work/release/NAME/NAME.ipynb`, the only file beside it being none.

    Raises:
        GradingError: if nbgrader fails, or the release holds anything that students must not see.
    """
    source = work / "source" / one.name
    shutil.rmtree(source, ignore_errors=True)  # what lies beside a source would be handed out with it
    shutil.rmtree(work / "release" / one.name, ignore_errors=True)
    source.mkdir(parents=True)
    nbformat.write(assignment_notebook(one, settings, book, solutions=False), source / f"{one.name}.ipynb")
    _check(_api(work).generate_assignment(one.name), f"the release of {one.name}")
    target = work / "release" / one.name / f"{one.name}.ipynb"
    if found := list(leaks(one, target)):
        shutil.rmtree(target.parent)
        raise GradingError(f"{one.name} was not released, since it would show: {'; '.join(found)}")
    return target


def leaks(one: Assignment, released: Path) -> Iterator[str]:
    """What a release shows that students must not see: files, solutions, hidden tests, jupytext's pairing."""
    for path in sorted(released.parent.rglob("*")):
        if path.is_file() and path != released:
            yield f"the file {path.relative_to(released.parent)}"
    notebook = nbformat.read(released, as_version=4)
    if "jupytext" in notebook.metadata:
        yield "jupytext's pairing"
    text = "\n".join(cell.source for cell in notebook.cells)
    if BEGIN in text or HIDDEN[0] in text or "BEGIN SOLUTION" in text:
        yield "a mark of a solution or a hidden test"
    if any(cell.get("outputs") for cell in notebook.cells):
        yield "outputs"
    shown = {line.strip() for line in text.splitlines()}
    for line in secrets(one):
        if line in shown:
            yield f"the line {line!r}"


def secrets(one: Assignment) -> list[str]:
    """Lines of solutions and hidden tests that are in nothing that students get."""
    shown = {
        line.strip() for cell in one.empty().cells if not cell.hidden for line in cell.source.splitlines()
    }
    hidden = [cell for cell in one.cells if cell.kind == "answer" or cell.hidden]
    lines = {line.strip() for cell in hidden for line in cell.source.splitlines()}
    return sorted(line for line in lines - shown if len(line) > 12 and not line.startswith("###"))


# --- collect -------------------------------------------------------------------------------------


def take_in(name: str, handed_in: Path, work: Path) -> list[collect.Submission]:
    """Read what students handed in, keep it in `work/inbox`, and put their answers into `work/submitted`.

    Raises:
        GradingError: if the assignment was not released here.
    """
    released = work / "release" / name / f"{name}.ipynb"
    if not released.exists():
        raise GradingError(f"{name} has not been released here: `make release A={name[:2]}`")
    submissions = collect.collect(handed_in, nbformat.read(released, as_version=4))
    for one in submissions:
        inbox = work / "inbox" / name / one.student
        inbox.mkdir(parents=True, exist_ok=True)
        for number, (file, content) in enumerate(one.files):
            stem, dot, suffix = file.rpartition(".")
            (inbox / f"{number}-{collect.folder_name(stem)}{dot}{collect.folder_name(suffix)}").write_bytes(
                content
            )
        (inbox / "notes.json").write_text(json.dumps(one.notes, ensure_ascii=False, indent=1) + "\n", "utf-8")
        submitted = work / "submitted" / one.student / name
        shutil.rmtree(submitted, ignore_errors=True)
        if one.notebook is not None:
            submitted.mkdir(parents=True)
            nbformat.write(one.notebook, submitted / f"{name}.ipynb")
    return submissions


# --- grade ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One student's grade: points of those there are, by test, and what was noted. None: not graded."""

    student: str
    points: float | None
    of: float
    tests: dict[str, float]
    notes: list[str]


def grade(name: str, work: Path, limit: float = runner.LIMIT) -> tuple[list[Row], str]:
    """Grade every submission of an assignment and write `work/grades/NAME.csv`.

    Args:
        name: of the assignment.
        work: folder of the course's files.
        limit: seconds that one cell may take.

    Returns:
        A row for each student that was collected, and one line on the time and the memory that it took.
    """
    started, api = time.perf_counter(), _api(work, limit)
    rows = []
    for inbox in sorted((work / "inbox" / name).glob("*/")):
        student, notes = inbox.name, json.loads((inbox / "notes.json").read_text("utf-8"))
        points: dict[str, tuple[float, float]] = {}
        if (work / "submitted" / student / name).exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SQLAlchemy's, of how nbgrader uses it
                done = api.autograde(name, student)
            if done["success"]:
                points = dict(_points(name, student, work))
            else:
                notes.append(
                    f"NOT GRADED: {(done.get('error') or 'no reason given').strip().splitlines()[-1]}"
                )
        tests = {test: earned for test, (earned, _) in points.items()}
        of = sum(most for _, most in points.values())
        rows.append(Row(student, sum(tests.values()) if points else None, of, tests, notes))
    if not rows:
        raise GradingError(f"nothing was collected for {name}: `make collect A={name[:2]} FROM=archive.zip`")
    _write_table(rows, work / "grades" / f"{name}.csv")
    seconds = time.perf_counter() - started
    return (
        rows,
        f"{len(rows)} submissions in {seconds:.1f} s; the largest took {runner.peak() / 2**30:.2f} GiB",
    )


def _points(name: str, student: str, work: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    with Gradebook(_database(work)) as gradebook:
        try:
            submission = gradebook.find_submission(name, student)
        except MissingEntry:
            return
        for notebook in submission.notebooks:
            for one in sorted(notebook.grades, key=lambda one: one.cell.name):
                yield one.cell.name, (one.score, one.max_score)


def _write_table(rows: list[Row], path: Path) -> None:
    tests = sorted({test for row in rows for test in row.tests})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["student", "points", "of", *tests, "notes"])
        for row in rows:
            by_test = [row.tests.get(test, "") for test in tests]
            table.writerow(
                [
                    row.student,
                    "" if row.points is None else row.points,
                    row.of,
                    *by_test,
                    " | ".join(row.notes),
                ]
            )
    temporary.replace(path)


# --- feedback ------------------------------------------------------------------------------------


def feedback(one: Assignment, work: Path) -> list[Path]:
    """Write a page for each graded student, without hidden tests.

    Returns:
        The pages, `work/feedback/STUDENT/NAME/NAME.html`.

    Raises:
        GradingError: if nobody was graded, or a page would show a line of a hidden test; that page is removed.
    """
    graded = sorted(path.parent.name for path in (work / "autograded").glob(f"*/{one.name}"))
    if not graded:
        raise GradingError(f"nobody was graded for {one.name}: `make grade A={one.name[:2]}`")
    api, pages, found = _api(work), [], []
    for student in graded:
        _check(api.generate_feedback(one.name, student), f"the feedback for {student}")
        page = work / "feedback" / student / one.name / f"{one.name}.html"
        submitted = nbformat.read(work / "submitted" / student / one.name / f"{one.name}.ipynb", as_version=4)
        own = _squeezed("\n".join(cell.source for cell in submitted.cells))
        if shown := [line for line in hidden_lines(one) if line in page_text(page) and line not in own]:
            page.unlink()
            found.append(f"{student}: {shown[0]}")
        else:
            pages.append(page)
    if found:
        raise GradingError("these pages would show hidden tests and were removed: " + "; ".join(found))
    return pages


def hidden_lines(one: Assignment) -> list[str]:
    """Lines of hidden tests that students see nowhere else, without blanks."""
    return [
        _squeezed(line)
        for line in secrets(one)
        if any(line in test.source for test in one.tests if test.hidden)
    ]


def page_text(page: Path) -> str:
    """The text of a page, without tags and blanks."""
    return _squeezed(html.unescape(re.sub(r"<[^>]*>", "", page.read_text("utf-8"))))


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
