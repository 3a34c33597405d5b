"""Every table of the site says what it shows, and each of its heads of what it is the head."""

import re
from pathlib import Path

import nbformat
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from book import build, captions

BOOK = build.BOOK
GOOD = (
    '<table><caption>What one sees.</caption><thead><tr><th scope="col">cost</th><th scope="col">weight '
    '<span class="math">\\(w\\)</span></th></tr></thead><tbody><tr><th scope="row">hinge</th><td>1</td></tr>'
    "</tbody></table>"
)


def test_a_table_in_order_passes() -> None:
    assert captions.problems(GOOD) == (1, [])
    assert captions.problems(f"<p>{GOOD}</p>" + GOOD.replace("hinge", "<b>MM</b>")) == (2, [])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("<caption>What one sees.</caption>", "", "has no caption"),
        ("What one sees.", " ", "has no caption"),
        ('<th scope="col">cost', "<th>cost", "a head cell without a scope"),
        ('<th scope="row">hinge', "<th>hinge", "a head cell without a scope"),
        ('<th scope="row">hinge</th>', "<td>hinge</td>", "a row without a head"),
        (
            "</tbody>",
            "<tr><td>LS</td><td>2</td></tr></tbody>",
            "a row without a head",
        ),
        ("weight <span", "<span", "whose heading has no words"),
        (">cost<", "><", "whose heading has no words"),
        (">cost<", "> 0.25 <", "whose heading has no words"),
    ],
)
def test_what_a_table_lacks_is_noticed(old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    for before, after in (("", ""), (GOOD, ""), ("", GOOD)):  # wherever it stands among others
        _, found = captions.problems(before + GOOD.replace(old, new) + after)
        assert any(complaint in one for one in found), found


def test_a_second_line_belongs_to_the_row_that_spans_it() -> None:
    two = GOOD.replace(
        '<tr><th scope="row">hinge</th><td>1</td></tr>',
        '<tr><td rowspan="2">?</td><th scope="row">hinge</th></tr><tr><td>more</td></tr>',
    )
    assert captions.problems(two) == (1, [])
    _, [found] = captions.problems(two.replace(' rowspan="2"', ""))
    assert "a row without a head" in found


SOURCE = """\
**Table.** Weights of *two* costs.

====  ===
cost  w
====  ===
NS    1/2
====  ===

After it.
"""


def taken(source: str, label: str = "Table.") -> nodes.document:
    tree = publish_doctree(source)
    captions.take(tree, label)
    return tree


def test_the_paragraph_above_becomes_the_caption() -> None:
    tree = taken(SOURCE)
    [caption] = tree.findall(captions.table_caption)
    assert isinstance(caption.parent, nodes.table)
    assert caption.astext() == "Weights of two costs."
    assert [node.astext() for node in tree.findall(nodes.emphasis)] == ["two"]
    assert [node.astext() for node in tree.children if isinstance(node, nodes.paragraph)] == ["After it."]
    assert [spec.get("stub") for spec in tree.findall(nodes.colspec)] == [1, None]


@pytest.mark.parametrize(
    "source",
    [
        SOURCE.replace("**Table.**", "Table."),
        SOURCE.replace("**Table.**", "**Careful.**"),
        SOURCE.replace("costs.\n", "costs.\n\nA paragraph between.\n"),
        SOURCE.replace("**Table.** Weights of *two* costs.", "**Table.**"),
    ],
)
def test_other_paragraphs_stay_where_they_are(source: str) -> None:
    tree = taken(source)
    assert not list(tree.findall(captions.table_caption))
    assert tree.astext() == publish_doctree(source).astext()


def test_the_empty_text_that_myst_puts_first_is_no_matter() -> None:
    tree = publish_doctree(SOURCE)
    next(iter(tree.findall(nodes.paragraph))).insert(0, nodes.Text(""))
    captions.take(tree, "Table.")
    assert [one.astext() for one in tree.findall(captions.table_caption)] == ["Weights of two costs."]


def test_captions_are_counted_in_order() -> None:
    html = captions.number("<caption>a</caption><p></p><caption>b</caption>", "Tabelle 3")
    assert re.sub("<[^>]+>", "", html) == "Tabelle 3.1 aTabelle 3.2 b"


def test_outputs_of_the_chapters_say_what_they_are() -> None:
    count = 0
    for path in sorted(BOOK.glob("[0-9][0-9]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                tables, lacks = captions.problems("".join(output.get("data", {}).get("text/html", "")))
                assert lacks == [], path.name
                count += tables
    assert count >= 5


def tables_of(site: Path) -> dict[str, tuple[int, list[str]]]:
    """For each page: how many tables it has, and what they lack."""
    pages = (*site.glob("*.html"), *site.glob("reference/*.html"))
    return {page.stem: captions.problems(page.read_text("utf-8")) for page in pages}


@pytest.mark.full
def test_every_page_of_the_site() -> None:
    assert build.main(["site"]) == 0
    found = tables_of(BOOK / "_build" / "html")
    assert {page: lacks for page, (_, lacks) in found.items() if lacks} == {}
    assert sum(tables for tables, _ in found.values()) >= 20
