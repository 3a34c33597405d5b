"""The diagrams: the files are what the code draws, chapters show them with their own words, and they can be read."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from book import diagrams

BOOK = Path(__file__).parents[2] / "book"
SHOWN = re.compile(r"!\[([^\]]*)\]\(_static/diagrams/(\w+)\.svg\)")


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_the_file_is_what_its_code_draws(name: str) -> None:
    stored = (diagrams.FOLDER / f"{name}.svg").read_text("utf-8")
    assert stored == diagrams.DIAGRAMS[name]().svg(), "run `python -m book.diagrams`"


def test_chapters_show_them_with_the_alternative_text_that_the_code_has() -> None:
    shown = [
        found
        for path in sorted(BOOK.glob("[0-9][0-9]_*.md"))
        for found in SHOWN.findall(path.read_text("utf-8"))
    ]
    assert {name for _, name in shown} == set(diagrams.DIAGRAMS), "each has its place"
    for alternative, name in shown:
        assert alternative == diagrams.DIAGRAMS[name]().told, name


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_everything_lies_inside_the_picture_and_text_inside_its_box(name: str) -> None:
    d = diagrams.DIAGRAMS[name]()
    root = ElementTree.fromstring(d.svg())
    of = "{http://www.w3.org/2000/svg}"
    boxes = [
        tuple(float(box.get(key)) for key in ("x", "y", "width", "height"))
        for box in root.iter(f"{of}rect")
        if box.get("x")
    ]
    assert boxes
    for x, y, width, height in boxes:
        assert min(x, y, d.width - x - width, d.height - y - height) >= 0
    for text in root.iter(f"{of}text"):
        words, x, y = "".join(text.itertext()), float(text.get("x")), float(text.get("y"))
        width = 0.56 * diagrams.SIZE * len(words)  # Helvetica's letters are about half as wide as high
        left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor")]
        assert left >= -2, words
        assert left + width <= d.width + 8, words
        around = [b for b in boxes if b[0] < x < b[0] + b[2] and b[1] < y - 5 < b[1] + b[3]]
        assert all(width <= b[2] + 10 for b in around), f"{words!r} is wider than its box"
