"""Pages about the code that are made from the code: the reference by purpose, and the flags of the command line."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

# What one wants -> where that is: modules, each with all that lies below it. The first that fits counts.
GROUPS = {
    "Start here": ("gankit",),
    "Costs and penalties": ("gankit.game",),
    "Networks": ("gankit.models",),
    "Training": (
        "gankit.training",
        "gankit.recipes",
        "gankit.study",
        "gankit.streams",
        "gankit.device",
        "gankit.processes",
        "gankit.scale",
    ),
    "Measuring": ("gankit.metrics", "gankit.classifiers"),
    "Data and files": ("gankit.data", "gankit.files"),
    "Pictures": ("gankit.plotting",),
    "Command line": ("gankit.commands", "gankit.version"),
    "Toy worlds": ("toy",),
    "Figures of the papers, and of the book": ("figures",),
    "Other": (),
}


def modules(package: ModuleType) -> list[str]:
    """Names of a package and of all its modules that are public: no part begins with an underscore."""
    found = [package.__name__]
    found += [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return sorted(name for name in found if not any(part.startswith("_") for part in name.split(".")))


def group_of(module: str) -> str:
    """What a module is for: a key of `GROUPS`, "Other" where none says so."""
    for group, places in GROUPS.items():
        for place in places:
            below = place != "gankit" and module.startswith(f"{place}.")
            if module == place or below:
                return group
    return "Other"


def summary(thing: Any) -> str:
    """The first paragraph of a docstring on one line, as Markdown; "" where there is none."""
    first = re.split(r"\n\s*\n", inspect.cleandoc(thing.__doc__ or ""))[0]
    words = " ".join(first.split())
    pieces = re.split(r"(`+[^`]*`+|\*\w[^*]*\*)", words)  # code and stressed words stay
    return "".join(
        piece if piece.startswith(("`", "*")) else re.sub(r"([*_$<\[\]|])", r"\\\1", piece)
        for piece in pieces
    )


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names that a module defines and describes, in the order of its source."""
    mine = [
        (name, thing)
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and getattr(thing, "__module__", None) == module.__name__
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and getattr(thing, "__name__", None) == name
        and thing.__doc__
        and not thing.__doc__.startswith(f"{name}(")  # what a dataclass without words says of itself
    ]
    yield from mine


def page(module: ModuleType) -> str:
    """The page of one module: what it describes, and where the names are described that it passes on.

    The list by purpose leads to it; in the sidebar of every page, 150 of them would hide the book.
    """
    name = module.__name__
    above = f"[Reference](../api.md): {group_of(name).lower()}"
    text = f"---\norphan: true\n---\n\n# {name}\n\n{above}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"
    rows = []
    for short in sorted(getattr(module, "__all__", ()), key=str.lower):
        thing = getattr(module, short)
        if inspect.ismodule(thing):
            rows.append(f"- [{short}]({thing.__name__}.md) · {summary(thing)}")
        elif inspect.isclass(thing) or inspect.isfunction(thing):
            home = thing.__module__
            described = home != name and thing.__doc__ and home.partition(".")[0] == name.partition(".")[0]
            if described:
                rows.append(f"- {{py:obj}}`{short} <{home}.{thing.__qualname__}>` · {summary(thing)}")
    return text + ("\n## Names from elsewhere\n\n" + "\n".join(rows) + "\n" if rows else "")


def by_purpose(names: Iterable[str]) -> str:
    """MyST that lists modules by what they are for, and a line for each public name."""
    sections: dict[str, list[str]] = {}
    for name in names:
        module = importlib.import_module(name)
        lines = sections.setdefault(group_of(name), [])
        lines.append(f"**[{name}](reference/{name}.md)** · {summary(module)}\n")
        rows = [
            f"- {{py:obj}}`{thing} <{name}.{thing}>` · {summary(value)}" for thing, value in public(module)
        ]
        lines.extend([*rows, ""])
    text = []
    for group in GROUPS:
        if group in sections:
            text += [f"## {group}\n", *sections[group]]
    return "\n".join(text)


def _table(actions: Sequence[argparse.Action], parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in actions:
        if action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            takes = (
                ""
                if action.nargs == 0
                else f" {formatter._format_args(action, formatter._get_default_metavar_for_optional(action))}"
            )
            names = ", ".join(f"`{flag}`" for flag in action.option_strings)
            names += f" `{takes.strip()}`" if takes.strip() else ""
        else:
            names = (
                f"`{formatter._format_args(action, formatter._get_default_metavar_for_positional(action))}`"
            )
        said = formatter._expand_help(action) if action.help else ""
        said = (
            re.sub(r"([*_$<\[\]|])", r"\\\1", " ".join(said.split()))
            if "`" not in said
            else " ".join(said.split())
        )
        yield f"{names}\n: {said or 'no description'}\n"


def command_line(parser: argparse.ArgumentParser) -> str:
    """MyST with a section for each command of a parser, and in it every flag, by the parser's own words."""
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    lines = []
    for name, command in commands.choices.items():
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        lines += [f"## {parser.prog} {name}\n", f"{command.description or ''}\n", f"```text\n{usage}\n```\n"]
        for group in command._action_groups:
            if shown := list(_table(group._group_actions, command)):
                lines += [f"**{(group.title or '').capitalize()}**\n", *shown]
        if command.epilog and "\n" not in command.epilog.strip():
            lines.append(f"{command.epilog}\n")
    return "\n".join(lines)
