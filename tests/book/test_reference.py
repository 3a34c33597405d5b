"""Pages made from the code: everything public has its place and its line, every flag its description."""

import argparse
import importlib

import pytest

import figures
import gankit
import toy
from book import landing, parts, reference, taught
from book.build import BOOK
from gankit.commands import _parser

NAMES = [name for package in (gankit, toy, figures) for name in reference.modules(package)]


def test_every_module_is_for_something() -> None:
    assert [name for name in NAMES if reference.group_of(name) == "Other"] == []
    assert reference.group_of("gankit.nothing") == "Other"


def test_every_public_name_has_a_line() -> None:
    text = reference.by_purpose(NAMES)
    assert "{py:obj}`Leak <gankit.game.leak.Leak>` · Which part of the real minibatch" in text
    for name in NAMES:
        for thing, value in reference.public(importlib.import_module(name)):
            assert f"<{name}.{thing}>` · " in text
            assert reference.summary(value), f"{name}.{thing} says nothing of itself"


def test_the_short_names_of_the_package_are_listed() -> None:
    page = reference.page(gankit)
    for name in ("Trainer", "EMA", "Leak"):
        assert f"`{name} <gankit." in page


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("The size |x|.\n\nMore.", r"The size \|x\|."),
        ("Uses `a_b` and c_d\n    twice.", r"Uses `a_b` and c\_d twice."),
    ],
)
def test_summary(words: str, shown: str) -> None:
    def thing() -> None: ...

    thing.__doc__ = words
    assert reference.summary(thing) == shown


def test_every_flag_is_on_the_page() -> None:
    parser = _parser()
    text = reference.command_line(parser)
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        section = text.partition(f"## gankit {name}\n")[2].partition("\n## ")[0]
        for flag in command._option_string_actions:
            assert f"`{flag}`" in section, f"{flag} of {name}"
    assert "no description" not in text


def test_every_chapter_is_in_one_part() -> None:
    text = parts.landing(BOOK, taught.Taught())
    for path in BOOK.glob("[0-9][0-9]_*.ipynb"):
        assert text.count(f"]({path.name})") == 1
    numbers = [number for part in parts.PARTS for number in range(part.first, part.last + 1)]
    assert numbers == list(range(1, 23))


def test_the_readme_names_the_parts() -> None:
    readme = (BOOK.parent / "README.md").read_text("utf-8")
    for part in parts.PARTS:
        assert f"{part.title.replace('. ', ' *')}* {part.first:02}-{part.last:02}" in readme


def test_the_landing_picture_is_what_its_code_draws() -> None:
    assert landing.TARGET.read_text("utf-8") == landing.svg()
