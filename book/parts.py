"""The parts of the book, and what the landing page says of the chapters in each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from book.taught import Taught


@dataclass(frozen=True)
class Part:
    """A part: its title, and the numbers of its first and last chapter."""

    title: str
    first: int
    last: int


PARTS = (
    Part("I. The game", 1, 3),
    Part("II. Dynamics", 4, 7),
    Part("III. Who is heard", 8, 11),
    Part("IV. The discriminator", 12, 14),
    Part("V. Large networks", 15, 16),
    Part("VI. Judging and using", 17, 19),
    Part("VII. Full scale", 20, 22),
)


def chapters_by_part(book: Path, taught: Taught) -> Iterator[tuple[Part, list[Path]]]:
    """The parts that have chapters, with the texts of those that are taught and were run.

    Raises:
        ValueError: a chapter belongs to no part.
    """
    texts = [path.with_suffix(".md") for path in sorted(book.glob("[0-9][0-9]_*.ipynb"))]
    texts = [path for path in texts if path.exists() and taught.teaches(path.stem)]
    for path in texts:
        if not any(part.first <= int(path.stem[:2]) <= part.last for part in PARTS):
            raise ValueError(f"{path.name} belongs to no part: its number must be from 1 to {PARTS[-1].last}")
    for part in PARTS:
        if inside := [path for path in texts if part.first <= int(path.stem[:2]) <= part.last]:
            yield part, inside


def landing(book: Path, taught: Taught) -> str:
    """MyST for the landing page: each part, with what its chapters' cards say."""
    labels = (re.escape(taught.labels[key]) for key in ("objectives", "runtime"))
    patterns = (r"^# (.+)$", *(rf"^\*\*{label}\*\* (.+)$" for label in labels))
    lines = []
    for part, texts in chapters_by_part(book, taught):
        lines.append(f"### {part.title}\n")
        for path in texts:
            text = path.read_text("utf-8")
            title, aims, time = (re.search(pattern, text, re.MULTILINE) for pattern in patterns)
            if title and aims and time:
                seconds = re.match(r"\d+ s", time[1])
                lines.append(
                    f"**[{int(path.stem[:2])}. {title[1]}]({path.stem}.ipynb)**"
                    f"{f' ({seconds[0]})' if seconds else ''}\n: {aims[1]}\n"
                )
    return "\n".join(lines)


def contents(book: Path, taught: Taught) -> str:
    """MyST for the site's table of contents: a list of chapters for each part."""
    lists = []
    for part, texts in chapters_by_part(book, taught):
        names = "\n".join(path.stem for path in texts)
        options = f":caption: {part.title}\n:hidden:\n:numbered: 1\n:maxdepth: 1"
        lists.append(f"```{{toctree}}\n{options}\n\n{names}\n```\n")
    return "\n".join(lists)
