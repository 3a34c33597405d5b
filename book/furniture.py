"""What every chapter must have, as rules that a test can fail.

Readers find their way in a book whose chapters are built alike: the same card at the head, the same
four sections at the end, equations and figures that can be referred to, exercises with solutions.
CONTRIBUTING.md shows how to write them; `problems` says in a sentence each what a chapter lacks.
"""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

from book import captions, taught
from book.offline import loads_of_page
from book.quotes import check_quotes
from book.taught import ENGLISH

Labels = Mapping[str, Any]  # words of cards and headings, see `book.taught`
SLOWEST = 60.0  # seconds that a chapter may take at quick scale
WIDEST_LINE = 88  # columns of code: wider lines are cut off on the page
LONGEST_CELL = 20  # lines of code, not counting comments, docstrings and blank lines
LARGEST_NOTEBOOK = 1_500_000  # bytes
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
STARS = re.compile(r"★{1,3} \S")
TAGS = {"nbval-check-output", "nbval-skip", "skip-execution", "raises-exception"}


def card_seconds(text: str, labels: Labels = ENGLISH) -> float | None:
    """The quick runtime that a chapter's card promises, or None where the card has none."""
    runtime, seconds = re.escape(labels["runtime"]), re.escape(labels["seconds"])
    found = re.search(rf"\*\*{runtime}\*\*\s+(\d+(?:\.\d+)?) {seconds}", text)
    return float(found[1]) if found else None


def problems(text: Path, notebook: Path, bibliography: Path) -> list[str]:
    """Everything that a chapter's furniture lacks, one sentence each; an empty list means it is in order."""
    source, chapter = text.read_text("utf-8"), jupytext.read(text, fmt="md:myst")
    parts, labels = list(walk(source)), taught.load(text.parent).labels
    keys = set(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", bibliography.read_text("utf-8"), flags=re.M))
    found = [
        *check_header(chapter),
        *check_headings(parts, labels),
        *check_card(parts, labels),
        *check_equations(parts),
        *check_tables(parts, labels),
        *check_exercises(parts),
        *check_citations(source, parts, keys),
        *check_pictures(source),
        *check_quotes(source),
        *check_cells(chapter),
    ]
    if notebook.exists():  # whether it exists and agrees with its text is the pair check's business
        found += check_outputs(notebook)
    return [f"{text.name}: {problem}" for problem in found]


# --- reading MyST --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A heading, a paragraph, an equation, a table or a directive, and the line on which it starts."""

    kind: str  # "heading", "text", "math", "directive", "table" or "head" (of a column)
    line: int
    name: str = ""  # h1, h2 for a heading; the directive's name
    argument: str = ""  # what follows a directive's name; a heading's title
    content: str = ""  # the rest, options included

    def option(self, name: str) -> str | None:
        """A directive's `:name: value`, or None."""
        found = re.search(rf"^:{name}:[ \t]*(.*)$", self.content, flags=re.M)
        return found[1].strip() if found else None


def walk(text: str, first: int = 1) -> Iterator[Part]:
    """The parts of a text in order, those inside directives too (but not the code in code cells)."""
    parser = MarkdownIt("commonmark").enable("table").use(front_matter_plugin).use(colon_fence_plugin)
    parser.use(dollarmath_plugin, double_inline=True).use(amsmath_plugin)
    tokens = parser.parse(text)
    for token, following in itertools.pairwise([*tokens, None]):
        line = first + (token.map[0] if token.map else 0)
        if token.type in ("fence", "colon_fence"):
            if not (found := re.match(r"\{([\w:-]+)\}\s*(.*)", token.info.strip())):
                continue
            yield Part("directive", line, found[1], found[2], token.content)
            if found[1] not in ("code-cell", "math", "code-block", "mermaid"):
                options = re.match(
                    r"(?:---\n.*?^---$|(?::[\w-]+:.*\n?)+)?", token.content, flags=re.M | re.S
                )[0]
                yield from walk(token.content[len(options) :], line + 1 + options.count("\n"))
        elif token.type == "heading_open" and following is not None:
            yield Part("heading", line, token.tag, following.content)
        elif token.type == "table_open":
            yield Part("table", line)
        elif token.type == "th_open" and following is not None:
            yield Part("head", line, content=following.content)
        elif token.type in ("math_block", "math_block_label", "amsmath"):
            yield Part(
                "math", line, token.info if token.type == "math_block_label" else "", content=token.content
            )
        elif token.type == "inline":
            yield Part("text", line, content=token.content)
            inner = (child for child in token.children or [] if child.type == "math_inline_double")
            yield from (Part("math", line, content=child.content) for child in inner)


# --- the rules -----------------------------------------------------------------------------------


def check_header(chapter: nbformat.NotebookNode) -> Iterator[str]:
    if chapter.metadata.get("jupytext", {}).get("formats") != "ipynb,md:myst":
        yield "the header must say `jupytext: formats: ipynb,md:myst`, which makes text and notebook a pair."
    if chapter.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the header must name the kernel `python3`."


def check_headings(parts: list[Part], labels: Labels) -> Iterator[str]:
    headings = [part for part in parts if part.kind == "heading"]
    if not parts or parts[0].kind != "heading" or parts[0].name != "h1":
        yield "a chapter starts with its title, `# ...`."
    if sum(part.name == "h1" for part in headings) != 1:
        yield "a chapter has one title, `# ...`; its sections are `## ...`."
    sections = [part.argument for part in headings if part.name == "h2"]
    ending = labels["ending"]
    if sections[-len(ending) :] != ending or len(sections) == len(ending):
        yield f"after the main matter come the sections {', '.join(ending)}; these came: {', '.join(sections)}."


def check_card(parts: list[Part], labels: Labels) -> Iterator[str]:
    directives = [part for part in parts if part.kind == "directive"]
    card = directives[0] if directives else None
    if card is None or card.name != "card" or card.option("class-card") != "chapter-card":
        yield "below the title comes a `:::{card}` with `:class-card: chapter-card`."
        return
    entries = [f"**{labels[key]}**" for key in ("objectives", "prerequisites", "runtime")]
    places = [card.content.find(entry) for entry in entries]
    if -1 in places or places != sorted(places):
        yield f"the card holds {', '.join(entries)}, in this order."
    seconds = card_seconds(card.content, labels)
    if seconds is None:
        yield f"the card gives the measured time as `**{labels['runtime']}** 38 {labels['seconds']}`."
    elif seconds > SLOWEST:
        yield f"the card promises {seconds:g} s; a chapter may take {SLOWEST:g} s at quick scale."


def check_equations(parts: list[Part]) -> Iterator[str]:
    for part in parts:
        if part.kind == "math" and not part.name:
            yield f"line {part.line}: the equation has no label; write `$$ ... $$ (chapter-name)`."
        if part.kind == "directive" and part.name == "math" and not part.option("label"):
            yield f"line {part.line}: the equation has no label; write `:label: chapter-name`."


def check_tables(parts: list[Part], labels: Labels) -> Iterator[str]:
    label = f"**{labels['table']}**"
    for before, part in itertools.pairwise([None, *parts]):
        if part.kind == "table" and not (before and before.content.startswith(f"{label} ")):
            yield f"line {part.line}: the table has no caption; write `{label} ...` in a paragraph above it."
        if part.kind == "head" and not captions.has_words(part.content):
            yield f"a table's column is headed {part.content!r}; write words beside a symbol."


def check_exercises(parts: list[Part]) -> Iterator[str]:
    exercises: dict[str, Part] = {}
    solved: list[str] = []
    open_solution: Part | None = None
    filled = executed = False
    for part in parts:
        if part.name in ("exercise", "exercise-start"):
            if not (label := part.option("label")):
                yield f"line {part.line}: the exercise has no `:label:`."
            if not STARS.match(part.argument):
                yield f"line {part.line}: an exercise's title starts with ★, ★★ or ★★★; {part.argument!r} came."
            exercises[label or f"line {part.line}"] = part
        elif part.name in ("solution", "solution-start"):
            solved.append(part.argument)
            if "dropdown" not in (part.option("class") or ""):
                yield f"line {part.line}: the solution is not hidden; write `:class: dropdown`."
            body = re.sub(r"^:[\w-]+:.*$", "", part.content, flags=re.M).strip()
            open_solution, filled = part, bool(body)
            if part.name == "solution":
                open_solution = None
                if not filled:
                    yield f"line {part.line}: the solution is empty."
        elif part.name == "solution-end":
            if open_solution is not None and not filled:
                yield f"line {open_solution.line}: the solution is empty."
            open_solution = None
        elif open_solution is not None:
            filled = filled or part.kind in ("text", "directive", "math")
            executed = executed or part.name == "code-cell"
    if not exercises:
        yield "the section Exercises has no exercise."
    elif not executed:
        yield "no solution has a code cell between `{solution-start}` and `{solution-end}`."
    for label, part in exercises.items():
        if solved.count(label) != 1:
            yield f"line {part.line}: the exercise {label!r} has {solved.count(label)} solutions; it needs one."
    for label in sorted(set(solved) - set(exercises)):
        yield f"the solution of {label!r} belongs to no exercise of this chapter."


def check_citations(source: str, parts: list[Part], keys: set[str]) -> Iterator[str]:
    cited = {key.strip() for group in CITATION.findall(source) for key in group.split(",")}
    for key in sorted(cited - keys):
        yield f"{key!r} is cited and is not in references.bib."
    if not cited:
        yield "nothing is cited; write {cite:t}`goodfellow2014`."
    lists = [part for part in parts if part.name == "bibliography"]
    good = [x for x in lists if x.option("list") == "bullet" and x.option("filter") == "docname in docnames"]
    if len(lists) != 1 or not good:
        yield "References holds one {bibliography} with `:list: bullet` and `:filter: docname in docnames`."


def check_pictures(source: str) -> Iterator[str]:
    for address in re.findall(r"!\[[^\]]*\]\(\s*((?:https?:)?//[^)\s]+)", source) + loads_of_page(source):
        yield f"the text loads {address}; the book works offline."


def check_cells(chapter: nbformat.NotebookNode) -> Iterator[str]:
    cells = [cell for cell in chapter.cells if cell.cell_type == "code"]
    for cell in cells:
        tags, where = (
            set(cell.metadata.get("tags", [])),
            f"the cell starting {cell.source[:40].splitlines()[:1]}",
        )
        for line in cell.source.splitlines():
            if len(line) > WIDEST_LINE:
                yield f"{where} has a line of {len(line)} columns, {WIDEST_LINE} is the most: {line.strip()[:40]}"
        if (lines := code_lines(cell.source)) > LONGEST_CELL:
            yield f"{where} has {lines} lines of code; {LONGEST_CELL} is the most."
        if len(tags & {"nbval-skip", "skip-execution"}) == 1:
            yield f"{where}: the tags `nbval-skip` and `skip-execution` go together."
        if unknown := {tag for tag in tags if tag.startswith("nbval")} - TAGS:
            yield f"{where} has the tag {', '.join(sorted(unknown))}; nbval's tags here are {', '.join(sorted(TAGS))}."
    if not any("nbval-check-output" in cell.metadata.get("tags", []) for cell in cells):
        yield "claims are tests: no cell has the tag `nbval-check-output`."


def code_lines(source: str) -> int:
    """The number of lines that hold code: neither blank, nor comment, nor docstring."""
    python = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.splitlines())
    idle = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(python).readline):
        if token.type not in idle | {tokenize.ENDMARKER}:
            used.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(python)):
        documented = isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            used -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(used)


def check_outputs(path: Path) -> Iterator[str]:
    if (size := path.stat().st_size) >= LARGEST_NOTEBOOK:
        yield f"the notebook has {size:,} bytes; {LARGEST_NOTEBOOK:,} is too many: fewer or smaller pictures."
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type != "code":
            continue
        tags, where = cell.metadata.get("tags", []), f"cell {number}"
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        pictures = {kind for kind in kinds if kind.startswith("image/")}
        if pictures:
            yield from check_picture(cell.metadata.get("mystnb", {}), where)
        if pictures and "nbval-check-output" in tags:
            yield f"{where} is compared by nbval and draws a picture, which differs between machines."
        if kinds & {"application/vnd.jupyter.widget-view+json"}:
            yield f"{where} shows a widget, which no page can: print or draw instead."
        for output in cell.outputs:
            html = "".join(output.get("data", {}).get("text/html", ""))
            for address in loads_of_page(html):
                yield f"{where} loads {address}; the book works offline."
            yield from (f"{where} returns HTML whose {problem}." for problem in captions.problems(html)[1])
            if output.output_type == "error" and "raises-exception" not in tags:
                yield f"{where} holds the error {output.ename}; one that is meant has the tag `raises-exception`."
            if output.output_type == "stream" and output.name == "stderr":
                yield f"{where} prints to stderr: {output.text.strip().splitlines()[-1:]}."
        if any(str(place) in str(cell.outputs) for place in (path.resolve().parent.parent, Path.home())):
            yield f"{where} prints a path of this machine."


def check_picture(mystnb: dict, where: str) -> Iterator[str]:
    figure = mystnb.get("figure", {})
    if not str(figure.get("caption", "")).strip() or not figure.get("name"):
        yield f"{where} draws a picture without `mystnb: figure: caption:` and `name:`."
    if not str(mystnb.get("image", {}).get("alt", "")).strip():
        yield f"{where} draws a picture without `mystnb: image: alt:`, which screen readers read."
