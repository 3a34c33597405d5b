"""One assignment that was released, and notebooks with right, empty and wrong answers to it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from course import notebooks, settings, source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def one() -> source.Assignment:
    return settings.assignment("1", settings.load())


def as_released(one: source.Assignment) -> nbformat.NotebookNode:
    """What nbgrader makes of an assignment: the same cells with stubs for answers and without hidden tests."""
    notebook = notebooks.assignment_notebook(one, settings.load(), ROOT / "book", solutions=False)
    hidden = {cell.name for cell in one.cells if cell.hidden}
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = source.without_solution(cell.source)
        if cell.id in hidden:
            cell.source = cell.source.splitlines()[0]
    return notebook


@pytest.fixture
def released(one: source.Assignment) -> nbformat.NotebookNode:
    return as_released(one)


@pytest.fixture
def answered(one: source.Assignment) -> Callable[..., dict[str, Any]]:
    """The release with right answers, some of them replaced: a notebook as a dictionary, to be damaged."""

    def make(released: nbformat.NotebookNode, **other: str) -> dict[str, Any]:
        answers = {cell.name: cell.source for cell in one.cells if cell.kind == "answer"}
        answers |= {name.replace("_", "-"): text for name, text in other.items()}
        notebook = json.loads(nbformat.writes(released))
        for cell in notebook["cells"]:
            if cell["id"] in answers:
                cell["source"] = answers[cell["id"]]
        return notebook

    return make


def wrong(one: source.Assignment, title: str) -> source.Wrong:
    return next(wrong for wrong in one.wrong if wrong.title.startswith(title))
