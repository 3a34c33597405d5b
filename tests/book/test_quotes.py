"""Numbers in the prose agree with the stored results that they are quoted from."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book import furniture
from book.quotes import check_quotes
from tests.book.conftest import ROOT, example_chapter

CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*.md"))
RESULT = {"wins": 8, "runs": 32, "list": [0.9531, -4.25], "truth": True, "steps": 12_000}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.json").write_text(json.dumps(RESULT))
    return tmp_path


def problems(said: str, comment: str, results: Path) -> list[str]:
    return list(check_quotes(f"# A title\n\n{said}.<!-- stored: {comment} -->\n\nMore text.\n", results))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_quote_what_the_files_say(chapter: Path) -> None:
    assert list(check_quotes(chapter.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("said", "comment"),
    [
        ("First in 8 of 32 readings", "8 of 32 = a/b: wins runs"),
        ("First in **eight of 32** readings", "eight of 32 = a/b: wins runs"),
        ("It is 95 % of them", "95 % = a/b: list.0"),
        ("It is 0.95\nor so", "0.95 or so = a/b: list.0"),
        ("It falls by −4.3, or so", "−4.3 = a/b: list.1"),
        ("After 12,000 steps", "12,000 steps = a/b: steps"),
        ("In code, `<!-- stored: 9 = no/file: key -->`, and 8", "8 = a/b: wins"),
    ],
)
def test_right_quotes_pass(said: str, comment: str, results: Path) -> None:
    assert problems(said, comment, results) == []


@pytest.mark.parametrize(
    ("said", "comment", "message"),
    [
        ("First in 9 of 32", "9 of 32 = a/b: wins runs", "'9 of 32' says 9, and a/b.json says 8 at 'wins'"),
        ("In nine of them", "nine = a/b: wins", "says nine"),
        ("It is 0.96", "0.96 = a/b: list.0", "says 0.9531"),
        ("It is 0.953 %", "0.953 % = a/b: list.0", "says 0.9531"),
        ("It is 1", "1 = a/b: truth", "says True"),
        ("First in 8 of them", "8 of 32 = a/b: wins runs", "does not say so"),
        ("First in 8 of 32", "8 of 32 = a/b: wins", "2 numbers and its comment names 1 keys"),
        ("First in 8", "8 = a/c: wins", "a/c.json, which does not exist"),
        ("First in 8", "8 = a/b: losses", "leads nowhere at 'losses'"),
        ("First in 8", "8 from a/b", "is not like"),
    ],
)
def test_wrong_quotes_are_found(said: str, comment: str, message: str, results: Path) -> None:
    (problem,) = problems(said, comment, results)
    assert message in problem


def test_a_comment_on_its_own_line_belongs_to_the_paragraph_above(results: Path) -> None:
    text = "First in 8 readings.\n\n<!-- stored: 8 = a/b: wins -->\n\nNine others.\n"
    assert list(check_quotes(text, results)) == []
    assert len(list(check_quotes(text.replace("in 8", "in some"), results))) == 1


@given(value=st.floats(-1e6, 1e6), digits=st.integers(0, 4))
def test_a_rounded_number_agrees_and_its_neighbour_does_not(value: float, digits: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "b.json").write_text(json.dumps({"x": value}))
        right, wrong = f"{value:.{digits}f}", f"{value + 2 * 10.0**-digits:.{digits}f}"
        said = "It is {}.<!-- stored: {} = b: x -->"
        assert list(check_quotes(said.format(right, right), Path(folder))) == []
        assert len(list(check_quotes(said.format(wrong, wrong), Path(folder)))) == 1


def test_the_chapters_check_looks_at_quotes(tmp_path: Path) -> None:
    text = tmp_path / "04_example.md"
    said = "Networks with more than one parameter."
    text.write_text(example_chapter().replace(said, said + "<!-- stored: 8 = no/file: key -->"), "utf-8")
    found = furniture.problems(text, tmp_path / "none", ROOT / "book" / "references.bib")
    assert any("marked as quoted" in problem for problem in found)
