"""Every chapter has its furniture; and each rule fails on a chapter that breaks it."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from book import build, furniture
from tests.book.conftest import FIXTURE, ROOT, example_chapter

BOOK = ROOT / "book"
BIBLIOGRAPHY = BOOK / "references.bib"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.md"))


@pytest.mark.parametrize("text", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(text: Path) -> None:
    assert furniture.problems(text, text.with_suffix(".ipynb"), BIBLIOGRAPHY) == []
    assert build.check_pair(build.Chapter(text)) is None


def test_the_example_for_authors_is_in_order(tmp_path: Path) -> None:
    text = tmp_path / "04_example.md"
    text.write_text(example_chapter(), "utf-8")
    assert furniture.problems(text, tmp_path / "none", BIBLIOGRAPHY) == []


# What a rule must notice: a passage of the small chapter, what stands there instead, and the complaint.
BROKEN = {
    "pairing": ("formats: ipynb,md:myst", "formats: md:myst", "formats: ipynb,md:myst"),
    "kernel": ("name: python3", "name: julia", "kernel `python3`"),
    "title": ("# A fixture: the coin\n", "", "starts with its title"),
    "two titles": ("## Theory", "# Theory", "has one title"),
    "section missing": ("## Summary", "## In short", "after the main matter"),
    "sections in another order": ("## Summary", "## References", "after the main matter"),
    "text after the ending": ("```{bibliography}", "## More\n\n```{bibliography}", "after the main matter"),
    "no card": (":::{card} Before you start", ":::{note}", "`:::{card}`"),
    "card of another class": (":class-card: chapter-card", ":class-card: mine", "`:::{card}`"),
    "card without prerequisites": ("**Prerequisites.**", "Prerequisites:", "the card holds"),
    "card in another order": ("**Objectives.**", "**Quick runtime.**", "the card holds"),
    "card without time": ("20 s on two cores", "a few seconds", "the measured time"),
    "card with a long time": ("20 s on two cores", "61 s on two cores", "promises 61 s"),
    "equation without label": ("$$ (fixture-estimate)", "$$", "has no label"),
    "equation inside a paragraph": ("never makes is", "never makes is $$x = y$$ or", "has no label"),
    "math directive without label": (":label: fixture-variance\n", "", "has no label"),
    "amsmath without label": ("## Summary", "\\begin{align}\nx\n\\end{align}\n\n## Summary", "has no label"),
    "equation in an admonition": ("## Summary", ":::{note}\n$$\nx\n$$\n:::\n\n## Summary", "has no label"),
    "exercise without stars": ("★ The standard", "The standard", "★, ★★ or ★★★"),
    "exercise with too many stars": ("★★★ A biased", "★★★★ A biased", "★, ★★ or ★★★"),
    "exercise without label": (":label: fixture-ex-bias\n", "", "no `:label:`"),
    "exercise without solution": (
        "{solution-start} fixture-ex-bias",
        "{solution-start} fixture-x",
        "0 solutions",
    ),
    "solution of nothing": ("{solution-start} fixture-ex-bias", "{solution-start} fixture-x", "no exercise"),
    "solution in sight": (
        "fixture-ex-deviation\n:class: dropdown",
        "fixture-ex-deviation\n:class: tip",
        "is not hidden",
    ),
    "empty solution": ("At $p = 1/2$, where the derivative $1 - 2p$ vanishes.", "", "solution is empty"),
    "no solution with code": (
        "```{code-cell} ipython3\nexpected",
        "```python\nexpected",
        "no solution has a code cell",
    ),
    "unknown citation": ("goodfellow2014", "goodfellow1914", "not in references.bib"),
    "nothing cited": ("{cite:t}`goodfellow2014`", "that he", "nothing is cited"),
    "table without caption": (
        "## Summary",
        "Two.\n\n| a cost | w |\n|---|---|\n| b | c |\n\n## Summary",
        "no caption",
    ),
    "heading of a symbol": (
        "## Summary",
        "**Table.** Two.\n\n| cost | $w$ |\n|---|---|\n| b | c |\n\n## Summary",
        "words beside a symbol",
    ),
    "bibliography of all": (":filter: docname in docnames\n", "", "one {bibliography}"),
    "long cell": ("heads = rng", "x = 1\n" * 20 + "heads = rng", "lines of code"),
    "wide line": ("heads = rng", f"x = {1!r:>90}\nheads = rng", "has a line of 94 columns"),
    "half a skip": ("[nbval-skip, skip-execution]", "[nbval-skip]", "go together"),
    "misspelt tag": ("nbval-check-output", "nbval-check-outputs", "the tag nbval-check-outputs"),
    "nothing checked": (":tags: [nbval-check-output]\n", "", "claims are tests"),
    "picture from elsewhere": ("Coins that", "![x](https://example.org/x.png) Coins that", "works offline"),
    "script from elsewhere": (
        "Coins that",
        "<script src='//example.org/x.js'></script> Coins that",
        "works offline",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_text_is_noticed(case: str, tmp_path: Path) -> None:
    old, new, complaint = BROKEN[case]
    source = FIXTURE.read_text("utf-8")
    assert old in source
    text = tmp_path / "01_fixture.md"
    text.write_text(source, "utf-8")
    assert furniture.problems(text, tmp_path / "none", BIBLIOGRAPHY) == []
    text.write_text(source.replace(old, new, 1), "utf-8")
    found = furniture.problems(text, tmp_path / "none", BIBLIOGRAPHY)
    assert any(complaint in problem for problem in found), found


def stream(name: str, text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name=name, text=text)


def error() -> nbformat.NotebookNode:
    return nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])


def display(kind: str, content: str = "") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data={kind: content})


FIGURE = {"mystnb": {"figure": {"caption": "A coin.", "name": "coin"}, "image": {"alt": "a coin"}}}
OUTPUTS: dict[str, tuple[dict, nbformat.NotebookNode, str]] = {
    "error": ({}, error(), "holds the error ValueError"),
    "warning": ({}, stream("stderr", "UserWarning: no"), "prints to stderr"),
    "path": ({}, stream("stdout", f"saved {Path.home()}/x"), "path of this machine"),
    "no caption": ({"mystnb": {"image": {"alt": "a"}}}, display("image/png"), "`mystnb: figure: caption:`"),
    "no name": (
        {"mystnb": {**FIGURE["mystnb"], "figure": {"caption": "A coin."}}},
        display("image/png"),
        "`name:`",
    ),
    "no alt": ({"mystnb": {"figure": {"caption": "c", "name": "n"}}}, display("image/png"), "alt:"),
    "compared picture": (
        {**FIGURE, "tags": ["nbval-check-output"]},
        display("image/png"),
        "compared by nbval",
    ),
    "widget": ({}, display("application/vnd.jupyter.widget-view+json"), "shows a widget"),
    "table": ({}, display("text/html", "<table><tr><th scope='row'>1</th></tr></table>"), "has no caption"),
    "script": ({}, display("text/html", "<script src='https://example.org/x.js'>"), "works offline"),
    "too large": (FIGURE, display("image/png", "A" * 1_500_000), "bytes"),
}


def notebook_with(path: Path, metadata: dict, output: nbformat.NotebookNode) -> list[str]:
    cell = nbformat.v4.new_code_cell("x", metadata=metadata, outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return furniture.problems(FIXTURE, path, BIBLIOGRAPHY)


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_bad_output_is_noticed(case: str, tmp_path: Path) -> None:
    metadata, output, complaint = OUTPUTS[case]
    found = notebook_with(tmp_path / "01_fixture.ipynb", metadata, output)
    assert len(found) == 1, found
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("metadata", "output"),
    [
        ({"tags": ["raises-exception"]}, error()),
        (FIGURE, display("image/png", "AAAA")),
        ({}, display("text/html", "<a href='https://example.org'>a link is fine</a>")),
    ],
)
def test_a_good_output_passes(metadata: dict, output: nbformat.NotebookNode, tmp_path: Path) -> None:
    assert notebook_with(tmp_path / "01_fixture.ipynb", metadata, output) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("x = 1\n\n# why\ny = 2", 2),
        ('def f():\n    """One.\n\n    Two.\n    """\n    return 1', 2),
        ('"""A text.\n\nIn three lines."""', 3),
        ("f(\n    1,\n    2,\n)", 4),
        ("%matplotlib inline\nx = 1", 2),
        ("if x:\n    # only a comment\n    pass", 2),
    ],
)
def test_code_lines(source: str, lines: int) -> None:
    assert furniture.code_lines(source) == lines


def test_a_rule_names_the_line(tmp_path: Path, edit: Callable[[Path, str, str], None]) -> None:
    text = tmp_path / "01_fixture.md"
    text.write_text("\n".join(FIXTURE.read_text("utf-8").splitlines()), "utf-8")
    edit(text, "## Summary", ":::{note}\nA note.\n\n$$\nx\n$$\n:::\n\n## Summary")
    number = (
        text.read_text("utf-8").splitlines().index("x")
    )  # the line of the opening dollars, counted from 1
    assert furniture.problems(text, tmp_path / "none", BIBLIOGRAPHY) == [
        f"01_fixture.md: line {number}: the equation has no label; write `$$ ... $$ (chapter-name)`."
    ]
