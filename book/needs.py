"""Which chapter needs which, read from the chapters' cards, and its drawing."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from book.taught import LINK, Taught

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 150, 34, 18, 46, 8  # of a box and between boxes, in pixels


@dataclass(frozen=True)
class Needs:
    """A chapter, by its file's name: its title, and the chapters that its card names as prerequisites."""

    title: str
    chapters: frozenset[str]


def read(book: Path, taught: Taught) -> dict[str, Needs]:
    """What each chapter that is taught needs, of the others that are."""
    texts = [path for path in sorted(book.glob("[0-9][0-9]_*.md")) if taught.teaches(path.stem)]
    names = {path.stem for path in texts}
    found = {}
    for path in texts:
        text = path.read_text("utf-8")
        title = re.search(r"^# (.+)$", text, re.M)
        line = re.search(rf"^\*\*{re.escape(taught.labels['prerequisites'])}\*\* (.+)$", text, re.M)
        linked = {link[2] for link in LINK.finditer(line[1] if line else "")}
        found[path.stem] = Needs(title[1] if title else path.stem, frozenset(linked & names - {path.stem}))
    return found


def levels(needs: Mapping[str, Needs]) -> dict[str, int]:
    """How many chapters must come before each, one after the other: 0 for those that need none.

    Raises:
        ValueError: if chapters need each other in a circle, naming them.
    """
    level: dict[str, int] = {}
    while len(level) < len(needs):
        ready = [name for name, one in needs.items() if name not in level and one.chapters <= level.keys()]
        if not ready:
            raise ValueError(
                f"these chapters need each other: {', '.join(sorted(needs.keys() - level.keys()))}"
            )
        level |= {
            name: 1 + max((level[other] for other in needs[name].chapters), default=-1) for name in ready
        }
    return level


def direct(needs: Mapping[str, Needs]) -> list[tuple[str, str]]:
    """Pairs (earlier, later), without those that follow from others: the lines of the drawing."""
    before: dict[str, set[str]] = {}
    for name in sorted(needs, key=levels(needs).__getitem__):
        before[name] = set(needs[name].chapters).union(
            *(before[other] for other in needs[name].chapters), set()
        )
    return [
        (other, name)
        for name, one in needs.items()
        for other in sorted(one.chapters)
        if not any(other in before[third] for third in one.chapters)
    ]


def following(needs: Mapping[str, Needs], name: str) -> dict[str, str]:
    """Name -> title of the chapters that build on one: where its lines in the drawing end."""
    return {later: needs[later].title for earlier, later in direct(needs) if earlier == name}


def svg(needs: Mapping[str, Needs]) -> str:
    """The drawing: a row for each level, a box that links to each chapter, a line to what needs it."""
    level = levels(needs)
    rows: dict[int, list[str]] = {}
    for name in needs:
        rows.setdefault(level[name], []).append(name)
    across = max(map(len, rows.values()), default=0)
    width = 2 * MARGIN + across * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + len(rows) * (HEIGHT + GAP_Y) - GAP_Y
    places = {}
    for row, names in rows.items():
        start = (width - len(names) * (WIDTH + GAP_X) + GAP_X) / 2
        for column, name in enumerate(names):
            places[name] = (start + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    lines = []
    for earlier, later in direct(needs):
        (x, y), (u, v) = places[earlier], places[later]
        lines.append(
            f'<path d="M{x + WIDTH / 2:g},{y + HEIGHT:g} C{x + WIDTH / 2:g},{y + HEIGHT + GAP_Y / 2:g} '
            f'{u + WIDTH / 2:g},{v - GAP_Y / 2:g} {u + WIDTH / 2:g},{v:g}"/>'
        )
    named = {name: f"{int(name[:2])} {html.escape(one.title)}" for name, one in needs.items()}
    boxes = [
        f'<a href="{name}.html"><rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 4:g}">{named[name]}</text></a>'
        for name, (x, y) in places.items()
    ]
    told = "; ".join(f"{needs[later].title} needs {needs[earlier].title}" for earlier, later in direct(needs))
    return (
        f'<svg class="needs" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(told)}" '
        'xmlns="http://www.w3.org/2000/svg" style="max-width: 100%; height: auto">'
        "<style>.needs path { fill: none; stroke: currentColor; opacity: .45 } .needs rect { fill: none; "
        "stroke: currentColor } .needs text { fill: currentColor; font-size: 11.5px; text-anchor: middle }</style>"
        f"{''.join(lines)}{''.join(boxes)}</svg>\n"
    )
