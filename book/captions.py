"""Captions and scopes of tables, for all who read them and for those who hear them.

A Markdown table's caption is the paragraph above it that begins with `**Table.**`: JupyterLab shows it as it stands,
the site puts it inside the table. The first column names the row. What a cell of code returns as HTML says both itself.
"""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import Any

from docutils import nodes

WORD = re.compile(r"[^\W\d_]{2,}")


class table_caption(nodes.General, nodes.TextElement):
    """A caption inside a table. (Docutils' own, a title, would have Sphinx count Markdown tables and no others.)"""


def take(tree: nodes.document, label: str) -> None:
    """Move the caption above each table into it, and make its first column the rows' heads.

    Args:
        tree: a page; it is changed.
        label: the word that a caption begins with in bold, as "Table.".
    """
    for table in list(tree.findall(nodes.table)):
        for group in table.findall(nodes.tgroup):
            next(iter(group.findall(nodes.colspec)))["stub"] = 1
        at = table.parent.index(table)
        above = table.parent[at - 1] if at else None
        # MyST puts an empty text before a paragraph's first word in bold.
        said = [node for node in above if node.astext()] if isinstance(above, nodes.paragraph) else []
        match said:
            case [nodes.strong() as word, nodes.Text() as text, *rest] if word.astext() == label:
                table.parent.remove(above)
                table.insert(0, table_caption("", "", nodes.Text(text.lstrip()), *rest))


def visit(translator: Any, _node: table_caption) -> None:
    translator.body.append("<caption>")


def depart(translator: Any, _node: table_caption) -> None:
    translator.body.append("</caption>\n")


def say_scopes(html: str) -> str:
    """Sphinx's HTML of tables, whose head cells say of what they are the head."""
    return re.sub(
        r'<th class="(head|stub)',
        lambda found: f'<th scope="{"col" if found[1] == "head" else "row"}" class="{found[1]}',
        html,
    )


def number(html: str, name: str) -> str:
    """A chapter's HTML with numbered captions, "Table 3.1" for the name "Table 3"; outputs of cells are counted too."""
    count = itertools.count(1)
    return re.sub(
        "<caption>", lambda _: f'<caption><span class="caption-number">{name}.{next(count)} </span>', html
    )


class _Tables(HTMLParser):
    """Collects what tables lack."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tables = 0
        self.layout = 0  # tables of one that lays a page out
        self.math = 0
        self.text: str | None = None  # of a caption or a head cell that is open
        self.caption, self.within, self.row_head, self.spanned = "", "", False, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "span" and (self.math or "math" in values.get("class", "").split()):
            self.math += 1
        if tag == "table" and "indextable" not in values.get("class", "") and not self.layout:
            self.tables += 1
            self.caption, self.within, self.spanned = "", "tbody", 0
        elif tag == "table":
            self.layout += 1
        if self.layout:
            return
        if tag in ("thead", "tbody"):
            self.within = tag
        elif tag == "tr":
            self.row_head, self.spanned = self.spanned > 0, max(0, self.spanned - 1)
        elif tag in ("th", "td"):
            self.spanned = max(self.spanned, int(values.get("rowspan", 1)) - 1)
        if tag == "th":
            scope = values.get("scope")
            self.row_head |= scope == "row"
            if scope not in ("row", "col", "rowgroup", "colgroup"):
                self.found.append(f"{self._name()} has a head cell without a scope")
        if tag == "caption" or (tag == "th" and self.within == "thead"):
            self.text = ""

    def handle_data(self, data: str) -> None:
        if self.text is not None and not self.math:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self.math:
            self.math -= 1
        if tag == "table" and self.layout:
            self.layout -= 1
        elif tag == "table" and not self.caption:
            self.found.append(f"{self._name()} has no caption")
        elif tag == "caption":
            self.caption, self.text = " ".join((self.text or "").split()), None
        elif tag == "th" and self.text is not None:
            if not WORD.search(self.text):
                self.found.append(f"{self._name()} has a column whose heading has no words: {self.text!r}")
            self.text = None
        elif tag == "tr" and self.within == "tbody" and not self.layout and not self.row_head:
            self.found.append(f"{self._name()} has a row without a head")

    def _name(self) -> str:
        return f"table {self.tables} ({self.caption[:40]!r})"


def problems(html: str) -> tuple[int, list[str]]:
    """How many tables a page, or a piece of one, has, and what they lack: a caption, scopes, words in a heading."""
    page = _Tables()
    page.feed(html)
    return page.tables, list(dict.fromkeys(page.found))


def has_words(heading: str) -> bool:
    """Whether a Markdown heading has a word beside its formulas."""
    return bool(WORD.search(re.sub(r"\$[^$]*\$", "", heading)))
