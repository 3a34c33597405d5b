"""What `course.toml` says: which chapters and assignments are taught, and in which words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from book import taught
from course import source

COURSE = Path(__file__).resolve().parent
KEYS = {"title", "year", "chapters", "solutions", "site", "labels", "assignments"}


class SettingsError(Exception):
    """Something in course.toml that a lecturer can mend; the message says what came and what is allowed."""


@dataclass(frozen=True)
class Settings:
    """The course's settings.

    Attributes:
        title: of the course.
        year: chooses the variant of each assignment, a whole number from 0.
        chapters: numbers of the chapters taught; empty where all are.
        solutions: whether chapters are handed out with the solutions of their exercises.
        site: address of a public copy of the book, or "".
        labels: words, by name.
        points: of tests, by assignment and test, where they are others than the assignment's own.
    """

    title: str
    year: int
    chapters: tuple[int, ...]
    solutions: bool
    site: str
    labels: Mapping[str, Any]
    points: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def load(path: Path = COURSE / "course.toml") -> Settings:
    """Read the settings.

    Raises:
        SettingsError: for a key that is not known or a value of another type.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path.name} cannot be read: {error}") from None
    if unknown := set(raw) - KEYS:
        raise SettingsError(
            f"{path.name} has {', '.join(sorted(unknown))}; known are {', '.join(sorted(KEYS))}."
        )
    year, chapters = raw.get("year", 0), raw.get("chapters", [])
    if not isinstance(year, int) or year < 0:
        raise SettingsError(f"{path.name}: year is a whole number from 0; {year!r} came.")
    if not isinstance(chapters, list) or not all(isinstance(number, int) for number in chapters):
        raise SettingsError(f"{path.name}: chapters is a list of numbers, as [1, 2, 4]; {chapters!r} came.")
    points = {name: dict(own.get("points", {})) for name, own in raw.get("assignments", {}).items()}
    return Settings(
        raw.get("title", ""),
        year,
        tuple(chapters),
        bool(raw.get("solutions", False)),
        str(raw.get("site", "")).rstrip("/"),
        {**taught.ENGLISH, **raw.get("labels", {})},
        points,
    )


def assignment(number: str, settings: Settings, folder: Path = source.ASSIGNMENTS) -> source.Assignment:
    """An assignment as this course gives it: its variant of the year, its points."""
    path = source.find(number, folder)
    return source.read(path, settings.year, settings.points.get(path.stem))
