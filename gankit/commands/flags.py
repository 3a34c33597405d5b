"""Flags that several commands share, and the parser that says in one line what is wrong with them."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from gankit.recipes import Recipe
    from gankit.recipes.records import Field

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

    commands: Mapping[str, argparse.ArgumentParser] = {}
    """Parsers of the commands, where there are any."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Formatter} | settings)

    def of(self, command: str | None) -> argparse.ArgumentParser:
        """The parser of a command, or this one."""
        return self.commands.get(command, self)

    def error(self, message: str) -> NoReturn:
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        near = [flag for word in unknown for flag in _near(word.partition("=")[0], flags)]
        hint = f"did you mean {' '.join(near)}?" if near else f"`{self.prog} --help` lists what there is"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")


def _near(word: str, flags: Sequence[str]) -> list[str]:
    """The flag that may be meant: one that ends so, as --sample-seed does of --seed, or is spelt alike."""
    if not word.startswith("--"):
        return []
    longer = [flag for flag in flags if flag.endswith(word[1:])]
    return (longer or difflib.get_close_matches(word, flags, n=1))[:1]


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
    from gankit.recipes.recipe import ALIASES
    from gankit.recipes.records import PLACES

    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in fields():
        title = field.name.partition(".")[0]
        if field.name in ALIASES:
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
    from gankit.recipes.recipe import value

    for field in fields():
        command._option_string_actions[_flag(field.name)].help += f" ({value(recipe, field.name)})"


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What flags set, for `Recipe.changed`."""
    return {
        field.name: getattr(arguments, field.name) for field in fields() if hasattr(arguments, field.name)
    }


def changed(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with what flags set.

    Raises:
        ValueError: a value that is refused, naming its flag.
    """
    changes = given(arguments)
    try:
        return recipe.changed(changes)
    except ValueError as error:
        message = str(error)
        named = lambda field: message.startswith(field.name.rpartition(".")[2])  # noqa: E731
        for field in sorted(fields(), key=named, reverse=True):
            rest = {name: value for name, value in changes.items() if name != field.name}
            if field.name in changes and _refusal(recipe, rest) != message:
                raise ValueError(f"{_flag(field.names[0])}: {message}") from error
        raise


def _refusal(recipe: Recipe, changes: Mapping[str, Any]) -> str | None:
    """Why a recipe refuses these changes, or None if it does not."""
    try:
        recipe.changed(changes)
    except ValueError as error:
        return str(error)
    return None


def read(words: Sequence[str]) -> dict[str, Any]:
    """The same from words of `gankit train`; those of other flags are passed over."""
    parser = Parser(add_help=False)
    add_fields(parser)
    return given(parser.parse_known_args(words)[0])


def fields() -> list[Field]:
    """The fields of a recipe that have a flag."""
    from gankit.recipes import recipe

    return [f for f in recipe.fields() if f.read is not None and f.name not in ("name", "about", "paper")]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
