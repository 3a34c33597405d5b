"""The first use of a word of the glossary in a chapter is a link to it. Chapters need no mark-up for that.

A word is looked for in running text alone: not in headings, code, formulas, captions or links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from docutils import nodes

GLOSSARY = Path(__file__).with_name("glossary.md")
APART = (
    nodes.title,
    nodes.literal,
    nodes.math,
    nodes.reference,
    nodes.caption,
    nodes.raw,
    nodes.image,
    nodes.table,
)
"""What a word inside is left alone."""


def anchor(term: str) -> str:
    """The id of an entry: "Fréchet distance, FD" is at `term-fr-chet-distance-fd`."""
    return nodes.make_id(f"term-{term}")


@cache
def words(text: str) -> dict[str, str]:
    """Each word of a glossary's text -> the anchor of its entry. "Mode collapse, mode dropping" are two words."""
    entries = re.findall(r"^(\S.*)\n: ", text, re.MULTILINE)
    return {word: anchor(entry) for entry in entries for word in entry.split(", ")}


def pattern_of(word: str) -> re.Pattern[str]:
    """Where a word stands: as it is written if it is an abbreviation or a name, else with any initial and plural."""
    spelled = re.escape(word)
    if not re.search(r"[A-Z]", word[1:]):
        spelled = f"[{word[0].upper()}{word[0].lower()}]{re.escape(word[1:])}s?"
    return re.compile(rf"(?<![\w-]){spelled}(?![\w-])")


def name_entries(tree: nodes.document) -> None:
    """Give each entry of the glossary its anchor."""
    for term in tree.findall(nodes.term):
        term["ids"].append(anchor(term.astext()))


def link(tree: nodes.document, known: dict[str, str], page: str = "glossary.html") -> None:
    """Make a link of the first use of each entry in a chapter."""
    open_words = {
        word: (pattern_of(word), at) for word, at in sorted(known.items(), key=lambda pair: -len(pair[0]))
    }
    linked: set[str] = set()
    for text in list(running_text(tree)):
        found = sorted(
            (hit.start(), -len(word), hit.end(), at)
            for word, (pattern, at) in open_words.items()
            if at not in linked
            for hit in pattern.finditer(text)
        )
        pieces, done = [], 0
        for start, _, end, at in found:  # of words that overlap, the longer one
            if start < done or at in linked:
                continue
            linked.add(at)
            to = nodes.reference(
                "", text[start:end], refuri=f"{page}#{at}", internal=True, classes=["first-use"]
            )
            pieces += [nodes.Text(text[done:start]), to]
            done = end
        if pieces:
            text.parent.replace(
                text, [piece for piece in (*pieces, nodes.Text(text[done:])) if piece.astext()]
            )


def complete_card(tree: nodes.document, later: Mapping[str, str]) -> None:
    """Say below a chapter's card what it leads to, where its words, letters and names are explained, and for what
    machine its runtime holds.

    Args:
        tree: a chapter; it is changed.
        later: page -> title of the chapters that build on it.
    """
    for card in tree.findall(
        lambda node: "chapter-card" in getattr(node, "attributes", {}).get("classes", [])
    ):
        to = lambda text, page: nodes.reference("", text, refuri=page, internal=True)  # noqa: E731
        line = nodes.paragraph("", "", classes=["where-explained"])
        for i, (page, title) in enumerate(later.items()):
            line += [nodes.Text(", " if i else "This chapter leads to "), to(title, page)]
        if later:
            line += nodes.Text(". ")
        line += [nodes.Text("Words with a dotted line are in the "), to("glossary", "glossary.html")]
        line += [nodes.Text(", letters in "), to("Notation", "notation.html")]
        line += [nodes.Text(", names of code in the "), to("Reference", "api.html")]
        line += [nodes.Text(". The runtime is that of two quiet cores of a server of 2026.")]
        card.parent.insert(card.parent.index(card) + 1, line)
        return


def running_text(tree: nodes.document) -> Iterator[nodes.Text]:
    """Texts of paragraphs, in their order."""
    for text in tree.findall(nodes.Text):
        above, node = [], text.parent
        while node is not None:
            above.append(node)
            node = node.parent
        classes = {name for one in above for name in one.get("classes", [])}
        is_running = any(isinstance(one, nodes.paragraph) for one in above)
        is_apart = any(isinstance(one, APART) for one in above) or classes & {"chapter-card", "cell_output"}
        if is_running and not is_apart:
            yield text
