"""A small book to try the book's tools on: one chapter that runs in a second, beside a package of one function."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from book import build

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests" / "book" / "data" / "01_fixture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PACKAGE = '''"""A package of one function."""


def norm(x: float) -> float:
    """The size |x| of one of the `float`s, `int | None` left as it is."""
    return abs(x)
'''


def make_book(root: Path) -> Path:
    """Copy the frame of the real book into `root`, with the small chapter and package; return its book folder."""
    book = root / "book"
    shutil.copytree(
        ROOT / "book",
        book,
        ignore=shutil.ignore_patterns("[0-9][0-9]_*", "_build", "assignments"),
    )
    # The chapter that links to the others in CONTRIBUTING.md calls this one by its name in the book.
    shutil.copy(FIXTURE, book / "01_the_game.md")
    for folder in build.CODE:
        (root / folder).mkdir()
        (root / folder / "__init__.py").write_text(f'"""{folder}."""\n', "utf-8")
    (root / "gankit" / "__init__.py").write_text(PACKAGE, "utf-8")
    return book


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return make_book(tmp_path)


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Replace one passage of a file; a passage that is not there is an error of the test."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_text("utf-8")
        assert old in text, f"{old!r} is not in {path.name}"
        path.write_text(text.replace(old, new), "utf-8")

    return replace


def example_chapter() -> str:
    """The chapter that CONTRIBUTING.md shows to authors."""
    found = re.search(r"^`{8}md\n(.*?)^`{8}$", CONTRIBUTING.read_text("utf-8"), flags=re.M | re.S)
    assert found, "CONTRIBUTING.md shows no chapter"
    return found[1]
