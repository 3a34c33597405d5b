"""course.toml: other words, fewer chapters, links to those that are absent; and what needs what."""

from collections.abc import Callable
from pathlib import Path

import pytest

from book import build, furniture, needs, taught

GERMAN = """
chapters = [1]
site = "https://example.org/book/"
[labels]
runtime = "Laufzeit."
seconds = "s auf zwei Kernen"
ending = ["Was das nicht erklärt", "Zusammenfassung", "Aufgaben", "Literatur"]
"""


def translate(book: Path, edit: Callable[[Path, str, str], None]) -> None:
    text = book / "01_the_game.md"
    edit(text, "**Quick runtime.**", "**Laufzeit.**")
    edit(text, "s on two cores", "s auf zwei Kernen")
    words = ("Was das nicht erklärt", "Zusammenfassung", "Aufgaben", "Literatur")
    for english, german in zip(taught.ENGLISH["ending"], words, strict=True):
        edit(text, f"## {english}\n", f"## {german}\n")


def test_a_translated_chapter_is_checked_in_its_own_words(book: Path, edit, capsys) -> None:
    translate(book, edit)
    assert build.main(["--book", str(book), "chapter"]) == 0
    assert build.main(["--book", str(book), "check"]) == 1
    assert "after the main matter come the sections What this does not explain" in capsys.readouterr().err
    (book.parent / "course").mkdir()
    (book.parent / "course" / "course.toml").write_text(GERMAN, "utf-8")
    assert build.main(["--book", str(book), "check"]) == 0
    [chapter] = build.find_chapters(book)
    assert chapter.card_seconds() == 20


def test_labels_without_words_are_refused(tmp_path: Path) -> None:
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "course.toml").write_text('[labels]\nending = ["One"]\n', "utf-8")
    with pytest.raises(ValueError, match="has a word for each of objectives"):
        taught.load(tmp_path / "book")


def test_links_to_absent_chapters_become_words_or_lead_to_the_site() -> None:
    text = (
        "See [The game](01_the_game.ipynb), [Divergences](02_divergences.ipynb#kl) and [a page](teaching.md)."
    )
    present = lambda name: name == "01_the_game"  # noqa: E731
    assert taught.without_absent(text, present) == (
        "See [The game](01_the_game.ipynb), Divergences and [a page](teaching.md)."
    )
    assert "(https://example.org/02_divergences.html#kl)" in taught.without_absent(
        text, present, "https://example.org"
    )


def test_a_misspelt_link_stays_a_link(book: Path) -> None:
    all_ = taught.Taught()
    assert all_.linked("01_teh_game", book)
    assert not all_.linked("07_leakyema", book)
    assert not taught.Taught(chapters=(2,)).linked("01_the_game", book)


def test_the_labels_of_the_book_are_those_that_the_kit_knows() -> None:
    assert taught.load(build.BOOK).labels.keys() >= taught.ENGLISH.keys()
    assert furniture.card_seconds("**Quick runtime.** 12.5 s on two cores") == 12.5


# --- what needs what -----------------------------------------------------------------------------


def test_every_chapter_needs_earlier_knowledge_and_none_itself() -> None:
    found = needs.read(build.BOOK, taught.Taught())
    level = needs.levels(found)
    assert level["01_the_game"] == 0
    assert all(level[other] < level[name] for name, one in found.items() for other in one.chapters)
    drawing = needs.svg(found)
    assert all(f'href="{name}.html"' in drawing for name in found)


def test_lines_that_follow_from_others_are_not_drawn() -> None:
    one = lambda *chapters: needs.Needs("t", frozenset(chapters))  # noqa: E731
    graph = {"01_a": one(), "02_b": one("01_a"), "03_c": one("01_a", "02_b")}
    assert needs.direct(graph) == [("01_a", "02_b"), ("02_b", "03_c")]
    assert [list(needs.following(graph, name)) for name in graph] == [["02_b"], ["03_c"], []]
    with pytest.raises(ValueError, match="01_a, 02_b"):
        needs.levels({"01_a": one("02_b"), "02_b": one("01_a")})
