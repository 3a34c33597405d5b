"""An assignment as a notebook with nbgrader's metadata, from which nbgrader makes the students' release."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course.settings import Settings
from course.source import Assignment, Cell, with_solution_text, without_solution_text

HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def assignment_notebook(
    one: Assignment, settings: Settings, book: Path, solutions: bool
) -> nbformat.NotebookNode:
    """The notebook of an assignment, answers and hidden tests in it.

    Args:
        one: the assignment.
        settings: of the course, for the words of its first cell.
        book: folder of the chapters, for their titles.
        solutions: whether texts for lecturers are kept. Answers always are: nbgrader takes them out.

    Returns:
        A notebook whose cells have the names of the source as ids, and as nbgrader's grade ids.
    """
    cells = []
    for cell in one.cells:
        if cell.kind == "text":
            text = with_solution_text(cell.source) if solutions else without_solution_text(cell.source)
            if text:
                cells.append(new_markdown_cell(text, id=cell.name))
        else:
            cells.append(_code(cell, settings))
    cells.insert(1, new_markdown_cell(_head(one, settings, book), id="how-it-works"))
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "course": {"assignment": one.name}}
    return new_notebook(cells=cells, metadata=metadata)


def _head(one: Assignment, settings: Settings, book: Path) -> str:
    words = settings.labels
    titles = []
    for number in one.chapters:
        texts = sorted(book.glob(f"{number:02}_*.md"))
        found = re.search(r"^# (.+)$", texts[0].read_text("utf-8"), re.M) if texts else None
        title = found[1] if found else str(number)
        here = settings.site and texts
        titles.append(f"[{title}]({settings.site}/{texts[0].stem}.html)" if here else f"*{title}*")
    sizes = f"**{one.points} {words['points']}, {one.minutes} {words['minutes']}.**"
    return f"{sizes} {words['chapter_of']} {', '.join(titles)}.\n\n{words['how']}"


def _code(cell: Cell, settings: Settings) -> nbformat.NotebookNode:
    source, words = cell.source, settings.labels
    if cell.kind == "experiment":
        return new_code_cell(source, id=cell.name, metadata={"course": {"experiment": True}})
    if cell.kind == "test":
        number = f"{cell.points} {words['point' if cell.points == 1 else 'points']}"
        head = f"# {number}{', ' + words['hidden'] if cell.hidden else ''}: {cell.about}."
        body = "\n".join((HIDDEN[0], source, HIDDEN[1])) if cell.hidden else source
        source = f"{head}\n{body}"
    grade: dict[str, Any] = {
        "grade": cell.kind == "test",
        "grade_id": cell.name,
        "locked": cell.kind != "answer",
        "schema_version": 3,
        "solution": cell.kind == "answer",
        "task": False,
    }
    if cell.kind == "test":
        grade["points"] = cell.points
    return new_code_cell(source, id=cell.name, metadata={"nbgrader": grade})
