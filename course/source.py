"""One assignment, written once: `course/assignments/NN_slug.md` holds text, answers, tests and typical wrong answers.

The file is a MyST notebook, as a chapter is. What a code cell is for is one of its options:

    :given:                        code that students get and that graders run: imports, data
    :answer: d-cost                theirs to write; what lies between BEGIN SOLUTION and END SOLUTION is taken out
    :test: d-cost-values           a visible test, with `:points:` and one sentence `:about:` what it checks
    :hidden: true                  ... which students do not see: they see the sentence
    :experiment:                   run by students alone: an observation, which no test depends on
    :wrong: a sum, no mean         a typical wrong answer to the answer above it, with `:loses: [d-cost-values]`

`<<name>>` stands for a value of the variant, so that a hidden test asks for something else every year. Text between
`<!-- BEGIN SOLUTION -->` and `<!-- END SOLUTION -->` is for lecturers. A test belongs to the answer above it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jupytext
import yaml
from jupytext.myst import MystMetadataParsingError

ASSIGNMENTS = Path(__file__).resolve().parent / "assignments"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = (
    "# YOUR CODE HERE",
    "raise NotImplementedError()",
)  # nbgrader's own, so that both make the same notebook
KINDS = ("given", "answer", "test", "experiment", "wrong")
OPTIONS = {"points", "about", "hidden", "loses", *KINDS}
SOLUTION_TEXT = re.compile(r"<!-- BEGIN SOLUTION -->\n(.*?)<!-- END SOLUTION -->\n?", re.S)


class SourceError(Exception):
    """Something in an assignment's text that its author can mend; the message says where and how."""


@dataclass(frozen=True)
class Cell:
    """One cell of an assignment.

    Attributes:
        kind: text, given, answer, test or experiment.
        name: its id, unique in the assignment.
        source: with the solution in it.
        points: of a test, a positive whole number; else 0.
        about: of a test: what it checks, one sentence.
        hidden: of a test: whether students do not see it.
        answer: of a test: the name of the answer that it belongs to.
    """

    kind: str
    name: str
    source: str
    points: int = 0
    about: str = ""
    hidden: bool = False
    answer: str = ""


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer: what replaces the cell `answer`, and the tests that it must lose."""

    title: str
    answer: str
    source: str
    loses: frozenset[str]


@dataclass(frozen=True)
class Assignment:
    """An assignment with the values of one variant in it."""

    name: str
    title: str
    chapters: tuple[int, ...]
    minutes: int
    variant: Mapping[str, Any]
    cells: tuple[Cell, ...]
    wrong: tuple[Wrong, ...]

    @property
    def tests(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.kind == "test")

    @property
    def points(self) -> int:
        return sum(test.points for test in self.tests)

    def with_answers(self, answers: Mapping[str, str]) -> Assignment:
        """The same with other sources of some answers."""
        cells = (replace(cell, source=answers.get(cell.name, cell.source)) for cell in self.cells)
        return replace(self, cells=tuple(cells))

    def empty(self) -> Assignment:
        """The same with every answer as students get it."""
        return self.with_answers(
            {c.name: without_solution(c.source) for c in self.cells if c.kind == "answer"}
        )


# --- reading -------------------------------------------------------------------------------------


def find(number: str, folder: Path = ASSIGNMENTS) -> Path:
    """The text of an assignment, by its number ("5", "05") or its name."""
    texts = sorted(folder.glob("[0-9][0-9]_*.md"))
    for path in texts:
        if number in (path.stem, path.stem[:2], str(int(path.stem[:2]))):
            return path
    raise SourceError(
        f"There is no assignment {number!r}; there are {', '.join(path.stem for path in texts)}."
    )


def variants(path: Path) -> int:
    """How many variants an assignment has, at least 1."""
    return max(1, len(_header(path, path.read_text("utf-8")).get("variants", [])))


def read(path: Path, year: int = 0, points: Mapping[str, int] | None = None) -> Assignment:
    """Read one assignment.

    Args:
        path: its text.
        year: chooses the variant, in turn; 0 is the first.
        points: other points for some tests, by name.

    Raises:
        SourceError: for anything that is not as the module's docstring says, naming the cell.
    """
    text = path.read_text("utf-8")
    header = _header(path, text)
    among = header.get("variants") or [{}]
    variant = among[year % len(among)]
    for name, value in variant.items():
        text = text.replace(f"<<{name}>>", str(value))
    if left := re.search(r"<<(\w+)>>", text):
        raise SourceError(f"{path.name}: {left[0]} is no value of its variants.")
    try:
        raw = jupytext.reads(text, fmt="md:myst").cells
    except MystMetadataParsingError as error:
        raise SourceError(f"{path.name}: {error}") from None
    cells, wrong = _cells(path.name, raw)
    if unknown := set(points or {}) - {cell.name for cell in cells if cell.kind == "test"}:
        raise SourceError(f"{path.name} has no test {', '.join(sorted(unknown))} to give other points to.")
    cells = [replace(cell, points=(points or {}).get(cell.name, cell.points)) for cell in cells]
    title = re.search(r"^# (.+)$", text, re.M)
    if not title:
        raise SourceError(f"{path.name} has no title, `# ...`.")
    chapters = tuple(header["chapters"])
    return Assignment(path.stem, title[1], chapters, header["minutes"], variant, tuple(cells), tuple(wrong))


def _header(path: Path, text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)^---$", text, re.S | re.M)
    header = (yaml.safe_load(found[1]) if found else {}).get("assignment", {})
    if not isinstance(header.get("minutes"), int) or not isinstance(header.get("chapters"), list):
        raise SourceError(
            f"{path.name}: its header holds `assignment:` with `chapters: [1]` and `minutes: 100`."
        )
    return header


def _cells(file: str, raw: Sequence[Any]) -> tuple[list[Cell], list[Wrong]]:
    cells: list[Cell] = []
    wrong: list[Wrong] = []
    count = {"text": 0, "given": 0, "experiment": 0}
    answer = ""
    for one in raw:
        options = dict(one.metadata)
        where = f"{file}, the cell that starts {one.source.strip()[:40].splitlines()[:1]}"
        kinds = [kind for kind in KINDS if kind in options] if one.cell_type == "code" else ["text"]
        if len(kinds) != 1:
            raise SourceError(f"{where}: a code cell is one of {', '.join(KINDS)}; {kinds or 'none'} came.")
        if unknown := set(options) - OPTIONS:
            raise SourceError(
                f"{where} has the option {', '.join(unknown)}; known are {', '.join(sorted(OPTIONS))}."
            )
        [kind] = kinds
        if kind in count:
            count[kind] += 1
            cells.append(Cell(kind, f"{kind}-{count[kind]}", one.source))
        elif kind == "answer":
            answer = str(options["answer"])
            without_solution(one.source, where)
            cells.append(Cell(kind, answer, one.source))
        elif kind == "test":
            cells.append(_test(where, one.source, options, answer))
        else:
            wrong.append(
                Wrong(str(options["wrong"]), answer, one.source, frozenset(options.get("loses", [])))
            )
    names = [cell.name for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SourceError(f"{file}: two cells have the name {', '.join(twice)}.")
    tests = {cell.name for cell in cells if cell.kind == "test"}
    for one in wrong:
        if not one.loses or not one.loses <= tests:
            raise SourceError(
                f"{file}: the wrong answer {one.title!r} must say `:loses:` which tests, of {tests}."
            )
    return cells, wrong


def _test(where: str, source: str, options: Mapping[str, Any], answer: str) -> Cell:
    points, about, body = options.get("points"), options.get("about"), ast.parse(source).body
    if not isinstance(points, int) or points < 1 or not about:
        raise SourceError(f"{where}: a test has `:points:`, a whole number from 1, and a sentence `:about:`.")
    if not answer:
        raise SourceError(f"{where}: a test comes after the answer that it belongs to.")
    if not body or (isinstance(body[-1], ast.Expr) and not isinstance(body[-1].value, ast.Call)):
        # nbgrader would take the value of a last expression for partial credit.
        raise SourceError(f"{where}: a test ends in an `assert` or a call, not in an expression.")
    return Cell("test", str(options["test"]), source, points, str(about), bool(options.get("hidden")), answer)


# --- what students get ---------------------------------------------------------------------------


def without_solution(source: str, where: str = "the cell") -> str:
    """An answer as students get it: the solution replaced by a stub that raises.

    Raises:
        SourceError: if BEGIN SOLUTION and END SOLUTION do not alternate, or there are none.
    """
    lines, inside, seen = [], False, False
    for line in source.splitlines():
        mark = line.strip()
        if mark in (BEGIN, END):
            if (mark == BEGIN) == inside:
                raise SourceError(f"{where}: {BEGIN} and {END} must alternate.")
            if mark == BEGIN:
                indent = line[: len(line) - len(line.lstrip())]
                lines += [indent + stub for stub in STUB]
            inside, seen = not inside, True
        elif not inside:
            lines.append(line)
    if inside or not seen:
        raise SourceError(f"{where}: an answer holds {BEGIN} and, below it, {END}.")
    return "\n".join(lines)


def without_solution_text(source: str) -> str:
    """A text as students get it."""
    return SOLUTION_TEXT.sub("", source).strip()


def with_solution_text(source: str) -> str:
    """A text as lecturers get it: the marks gone, what they enclose kept."""
    return SOLUTION_TEXT.sub(r"\1", source).strip()
