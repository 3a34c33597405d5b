"""Links from the first use of a word to the glossary, on small trees (`test_site` looks at a built page)."""

from docutils import nodes
from docutils.core import publish_doctree

from book import first_uses

GLOSSARY = (
    "# Glossary\n\nMode collapse, mode dropping\n: x\n\nMode\n: x\n\nFréchet distance, FD\n: x\n\nBand\n: x\n"
)


def linked(source: str) -> list[tuple[str, str]]:
    tree = publish_doctree(source)
    first_uses.link(tree, first_uses.words(GLOSSARY))
    assert tree.astext() == publish_doctree(source).astext(), "the text itself stays"
    return [
        (node.astext(), node["refuri"])
        for node in tree.findall(nodes.reference)
        if "first-use" in node["classes"]
    ]


def test_entries_have_a_word_for_each_of_their_names() -> None:
    known = first_uses.words(GLOSSARY)
    assert list(known) == ["Mode collapse", "mode dropping", "Mode", "Fréchet distance", "FD", "Band"]
    assert known["Mode collapse"] == known["mode dropping"] == "term-mode-collapse-mode-dropping"


def test_the_first_use_is_linked_and_no_other() -> None:
    assert linked("A band. Bands, and a band again.") == [("band", "glossary.html#term-band")]


def test_the_longer_of_two_words_wins_and_the_shorter_is_linked_later() -> None:
    found = linked("After mode collapse comes mode dropping; a mode is lost.")
    assert [text for text, _ in found] == ["mode collapse", "mode"]


def test_abbreviations_are_taken_as_written_and_parts_of_words_are_not() -> None:
    assert linked("The fd of a husband or a model-band") == []
    assert [text for text, _ in linked("FD falls")] == ["FD"]


def test_headings_code_and_links_are_left_alone() -> None:
    assert linked("Band\n====\n\nA ``band`` and a `band <x.html>`_ are none; a band is.") == [
        ("band", "glossary.html#term-band")
    ]
