"""Flags that several commands share, and the parser that says in one line what is wrong with them."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gankit.recipes import Recipe
from gankit.recipes import recipe as recipes
from gankit.recipes.records import PLACES, Field

Commands = argparse._SubParsersAction
"""What `add_subparsers` returns, to which each command adds itself."""


class Formatter(argparse.HelpFormatter):
    """Fills the paragraphs of a text, and keeps its indented lines apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = re.sub(r"(?<=\S)\n(?=\S)", " ", text).splitlines()
        columns = [re.match(r"( +\S+ +)?", line)[0] for line in lines]
        return "\n".join(
            textwrap.fill(line, width, subsequent_indent=" " * len(column), break_on_hyphens=False)
            for line, column in zip(lines, columns, strict=True)
        )


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; argparse would print every flag first."""

    flags: tuple[str, ...] = ()
    """Flags of all commands, to guess what a misspelt one means."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Formatter} | settings)

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        near = [
            flag
            for word in unknown
            for flag in difflib.get_close_matches(word.partition("=")[0], self.flags, n=1)
        ]
        hint = f"did you mean {' '.join(near)}?" if near else f"`{self.prog} --help` lists what there is"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number that PyTorch takes as a seed."""
    # PyTorch's CPU generator keeps 32 bits of a seed: larger ones would repeat the weights of smaller ones.
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**32 - 1}, got {text!r}")
    return int(text)


def common() -> Parser:
    """Where to compute, where datasets lie, and whether to show a bar."""
    common = Parser(add_help=False)
    common.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    common.add_argument(
        "--root",
        type=Path,
        help="folder of datasets and classifiers (default: $GANKIT_DATA, else a cache folder)",
    )
    common.add_argument("--quiet", action="store_true", help="no progress bar")
    return common


def reading() -> Parser:
    """Which samples of which run."""
    reading = Parser(add_help=False)
    reading.add_argument("folder", type=Path, help="folder of a run")
    which = reading.add_mutually_exclusive_group()
    which.add_argument(
        "--best", action="store_true", help="the checkpoint that `train --best` kept, not the newest"
    )
    which.add_argument(
        "--step", type=positive, help="the checkpoint of this step, which `train --keep-every` kept"
    )
    reading.add_argument(
        "--network",
        choices=("teacher", "generator"),
        default="teacher",
        help="averaged generator or the current one",
    )
    reading.add_argument("--sample-seed", type=seed, default=0, help="seed of z (default: %(default)s)")
    reading.add_argument("--truncation", type=float, help="largest |z| (default: none)")
    reading.add_argument(
        "--standing",
        type=positive,
        metavar="K",
        help="measure batch norm's statistics anew, over K batches of such z (default: those of training)",
    )
    return reading


def add_fields(command: argparse.ArgumentParser) -> None:
    """A flag for each field of a recipe, under all its names, in groups by the record that it belongs to."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in fields():
        title = field.name.partition(".")[0]
        if field.name in recipes.ALIASES:
            title = "both optimisers"
        elif title not in PLACES:
            title = "the run"
        group = groups.get(title) or groups.setdefault(title, command.add_argument_group(title))
        group.add_argument(
            *map(_flag, field.names),
            dest=field.name,
            type=field.read,
            metavar="X",
            default=argparse.SUPPRESS,
            help=field.help.replace("%", "%%"),
        )


def show_values(command: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Put a recipe's values behind the help of its flags."""
    for field in fields():
        command._option_string_actions[_flag(field.name)].help += f" ({recipes.value(recipe, field.name)})"


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What flags set, for `Recipe.changed`."""
    return {
        field.name: getattr(arguments, field.name) for field in fields() if hasattr(arguments, field.name)
    }


def read(words: Sequence[str]) -> dict[str, Any]:
    """The same from words of `gankit train`; those of other flags are passed over."""
    parser = Parser(add_help=False)
    add_fields(parser)
    return given(parser.parse_known_args(words)[0])


def fields() -> list[Field]:
    """The fields of a recipe that have a flag."""
    return [f for f in recipes.fields() if f.read is not None and f.name not in ("name", "about", "paper")]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
