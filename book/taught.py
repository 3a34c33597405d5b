"""What `course/course.toml` says of the chapters: which are taught, in which words, and where a public copy is.

Without that file, all chapters are taught, in English. The site, the checks and the course kit read it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENGLISH: dict[str, Any] = {
    "objectives": "Objectives.",
    "prerequisites": "Prerequisites.",
    "runtime": "Quick runtime.",
    "seconds": "s on two cores",
    "table": "Table.",
    "ending": ["What this does not explain", "Summary", "Exercises", "References"],
}
LINK = re.compile(r"\[([^\[\]]+)\]\((\d\d_\w+)\.(ipynb|md)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Taught:
    """What is taught.

    Attributes:
        chapters: numbers of chapters; empty where all are.
        site: address of a public copy of the book, or "".
        labels: words of cards and headings, those of `ENGLISH` among them.
    """

    chapters: tuple[int, ...] = ()
    site: str = ""
    labels: Mapping[str, Any] = field(default_factory=lambda: ENGLISH)

    def teaches(self, name: str) -> bool:
        """Whether a chapter is taught, by its file's name, as `04_dirac_gan`."""
        return not self.chapters or int(name[:2]) in self.chapters

    def linked(self, name: str, book: Path) -> bool:
        """Whether a chapter can be linked: it is taught, and one with its number is there.

        A link with a name that is misspelt stays, so that the build stops at it.
        """
        return self.teaches(name) and any(book.glob(f"{name[:2]}_*.md"))


def load(book: Path) -> Taught:
    """Read the course.toml beside a book folder.

    Raises:
        ValueError: if a label has no words, or `ending` not four of them.
    """
    path = book.parent / "course" / "course.toml"
    if not path.exists():
        return Taught()
    raw = tomllib.loads(path.read_text("utf-8"))
    labels = ENGLISH | raw.get("labels", {})
    if len(labels["ending"]) != len(ENGLISH["ending"]) or not all(labels.values()):
        raise ValueError(
            f"{path.name}: [labels] has a word for each of {', '.join(ENGLISH)}; `ending` has four."
        )
    return Taught(tuple(raw.get("chapters", [])), str(raw.get("site", "")).rstrip("/"), labels)


def without_absent(text: str, present: Callable[[str], bool], site: str = "") -> str:
    """A chapter's text whose links to absent chapters are their words, or lead to a public site.

    Args:
        text: Markdown, or a notebook's JSON.
        present: whether a chapter can be linked, by its file's name.
        site: address of the public site, or "".
    """

    def link(found: re.Match[str]) -> str:
        title, name, _, anchor = found.groups()
        if present(name):
            return found[0]
        return f"[{title}]({site}/{name}.html{anchor or ''})" if site else title

    return LINK.sub(link, text)
