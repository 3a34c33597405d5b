"""Frozen records as plain values and back, and their fields by dotted names: how a recipe is stored and changed.

A recipe is a record of records. `register` tells what each of its fields may hold; a record that is registered can be
written to JSON, read back, and set on the command line::

    @register("d_terms")
    @dataclass(frozen=True)
    class Centred:
        '''weight times the squared mean logit of real samples.

        Attributes:
            weight: strength, at least 0.
        '''

        weight: float = 1.0

    recipe.changed({"centred": 0.1})            # gankit train ns-digits --centred 0.1
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)

KINDS: dict[str, type] = {}
"""Name of a class -> the class, of all that a stored recipe may hold."""
PLACES: dict[str, dict[str, type]] = {}
"""Field of a recipe -> the kinds of records that it may hold, by `short_name`."""


def register(*places: str) -> Callable[[Class], Class]:
    """Let a frozen dataclass be stored, and be set in these fields of a recipe.

    Raises:
        ValueError: another class of that name is registered.
    """

    def add(kind: Class) -> Class:
        known = KINDS.setdefault(kind.__name__, kind)
        if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
            raise ValueError(f"a record {kind.__name__} is registered already, by {known.__module__}")
        KINDS[kind.__name__] = kind  # a cell of a notebook may define it again
        for place in places:
            PLACES.setdefault(place, {})[short_name(kind)] = kind
        return kind

    return add


def short_name(kind: type) -> str:
    """`WganGP` is `wgan_gp`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def plain(value: Any) -> Any:
    """Records as dicts with their "kind", tuples as lists; numbers, texts and None as they are.

    Raises:
        ValueError: anything else, or a record that is not registered.
    """
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if KINDS.get(type(value).__name__) is not type(value):
        raise ValueError(f"a recipe stores numbers, texts and registered records, got {value!r}")
    fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    return {"kind": type(value).__name__} | fields


def revived(value: Any) -> Any:
    """What `plain` was given; lists become tuples.

    Raises:
        ValueError: a kind that is not registered.
    """
    if isinstance(value, list):
        return tuple(revived(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if (kind := KINDS.get(value["kind"])) is None:
        raise ValueError(
            f"record {value['kind']!r} is unknown{near(value['kind'], KINDS)}: import what registers it"
        )
    return kind(**{name: revived(inner) for name, inner in value.items() if name != "kind"})


def near(name: str, known: Iterable[str]) -> str:
    """A question that names what may have been meant, or nothing."""
    found = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(found)}?" if found else ""


# --- Fields by dotted names ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A field of a recipe or of a record in it.

    Attributes:
        name: dotted, "g_optimizer.lr" or "d_terms.r1.gamma".
        help: what its record's docstring says of it.
        read: makes a value of a text, where a text can say it.
        names: all that it goes by; that of a term alone ("r1") stands for what gives it its strength.
    """

    name: str
    help: str
    read: Callable[[str], Any] | None
    names: tuple[str, ...]


def fields(record: type) -> Iterator[Field]:
    """The fields of a record and of all that its fields may hold, depth first."""
    told, hints = attributes(record), _hints(record)
    for f in dataclasses.fields(record):
        kinds, hint = PLACES.get(f.name, {}), hints[f.name]
        several, optional = typing.get_origin(hint) is tuple, type(None) in typing.get_args(hint)
        if not kinds:
            yield Field(f.name, told.get(f.name, ""), reader(hint), (f.name,))
        elif not several and (optional or len(kinds) > 1):
            about = f"{told.get(f.name, '')}: {', '.join(kinds)}{' or none' if optional else ''}"
            yield Field(f.name, about, reader(str | None if optional else str), (f.name,))
        inner: dict[str, Field] = {}
        for name, kind in kinds.items():
            for i, leaf in enumerate(fields(kind)):
                path = f"{f.name}.{name}.{leaf.name}" if several else f"{f.name}.{leaf.name}"
                names = (name, path) if several and i == 0 else (path,)
                inner.setdefault(path, Field(path, leaf.help, leaf.read, names))
            if f.name.endswith("_terms"):
                path = f"{f.name}.{name}.every"
                inner[path] = Field(
                    path, "only in every so many-th generator step, so many times as strong", int, (path,)
                )
        yield from inner.values()


def value_at(record: Any, name: str) -> Any:
    """The value at a dotted name; None where what would hold it is not there."""
    for head in name.split("."):
        if isinstance(record, tuple):
            record = next((item for item in record if short_name(type(_term(item))) == head), None)
        elif head == "every":
            record = record and getattr(record, "interval", 1)
        else:
            record = _term(record)
            record = getattr(record, head, None)
    return short_name(type(record)) if type(record).__name__ in KINDS else record


def differences(a: Any, b: Any) -> dict[str, Any]:
    """The values of `a` where `b` has another, by dotted names; a record that only one has stands as a whole."""
    if type(a) is not type(b) or type(a).__name__ not in KINDS:
        return {} if a == b else {"": a}
    found = {}
    for f in dataclasses.fields(a):
        for name, value in differences(getattr(a, f.name), getattr(b, f.name)).items():
            found[f"{f.name}.{name}".removesuffix(".")] = value
    return found


def replaced(record: Any, changes: Mapping[str, Any]) -> Any:
    """The record with other values at dotted names; see `Recipe.changed`.

    Raises:
        ValueError: a field that the record does not have, or a value that it refuses.
    """
    values, hints = {}, _hints(type(record))
    for name, part in _by_head(changes).items():
        if name not in (told := [f.name for f in dataclasses.fields(record)]):
            raise ValueError(f"{short_name(type(record))} has no {name}, it has {', '.join(told)}")
        values[name] = _merged(name, getattr(record, name), part, type(None) in typing.get_args(hints[name]))
    return dataclasses.replace(record, **values)


def _by_head(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The first words of dotted names -> what comes behind the dot -> value."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        parts.setdefault(head, {})[rest] = value
    return parts


def _merged(place: str, old: Any, part: dict[str, Any], optional: bool) -> Any:
    """What a field holds after changes, of itself (under "") or of fields of it."""
    kinds, kind = PLACES.get(place, {}), type(old)
    if "" in part:
        new = part.pop("")
        if isinstance(new, str) and kinds:  # a record of this kind, with the values that both kinds have
            if new not in kinds:
                raise ValueError(f"{place} must be one of {', '.join(kinds)}, got {new!r}")
            kind = kinds[new]
            shared = {f.name: getattr(old, f.name) for f in dataclasses.fields(kind) if hasattr(old, f.name)}
            return _with(None, kind, shared | part, place, optional)
        old = () if isinstance(old, tuple) and new is None else new
    if not part:
        return old
    if not isinstance(old, tuple):
        if old is None and len(kinds) != 1:
            raise ValueError(f"{place} is none, so give {place} beside {place}.{next(iter(part))}")
        return _with(old, next(iter(kinds.values())) if old is None else kind, part, place, optional)
    held = {type(_term(item)): item for item in old}
    for name, inner in _by_head(part).items():
        kind, item = kinds[name], held.get(kinds[name])
        interval = inner.pop("every", getattr(item, "interval", 1) if item is not _term(item) else 1)
        new = _with(_term(item), kind, inner, f"{place}.{name}", True)
        held[kind] = new if new is None or interval == 1 else KINDS["Every"](new, interval)
    order = [*kinds.values(), *held]  # that of the changes must not matter to a run
    return tuple(sorted(filter(None, held.values()), key=lambda item: order.index(type(_term(item)))))


def _term(item: Any) -> Any:
    """The term that a lazy one holds (`gankit.game.play.Every`); any other as it is."""
    return item.term if type(item).__name__ == "Every" else item


def _with(old: Any, kind: type, part: dict[str, Any], place: str, optional: bool) -> Any:
    """A record with other values, a new one if there was none, or None where its strength becomes 0."""
    names = [f.name for f in dataclasses.fields(kind)]
    if optional and names and not part.get(names[0], True):
        return None
    if old is not None:
        return replaced(old, part)
    for f in dataclasses.fields(kind):
        if f.default is f.default_factory and f.name not in part:
            raise ValueError(f"{place} is none, and a new one needs {place}.{f.name}")
    if unknown := set(part) - set(names):
        raise ValueError(f"{short_name(kind)} has no {', '.join(unknown)}, it has {', '.join(names)}")
    return kind(**part)


def _hints(record: type) -> dict[str, Any]:
    """The types of a record's fields; `object` for one that is named only where types are checked."""
    hints: dict[str, Any] = {}
    for base in reversed(record.__mro__):
        for name, hint in inspect.get_annotations(base).items():
            hints[name] = object
            with contextlib.suppress(NameError):
                known = vars(sys.modules[base.__module__])
                hints[name] = eval(hint, known) if isinstance(hint, str) else hint
    return hints


def reader(annotation: Any) -> Callable[[str], Any] | None:
    """What reads a value of this type from a text, where `none` is None if it may be; None if no text says it."""
    options = typing.get_args(annotation) or (annotation,)
    kind = next((k for k in (int, float, str, bool) if k in options), None)
    if kind is None:
        return None

    def read(text: str) -> Any:
        if text == "none" and type(None) in options:
            return None
        if kind is bool and text not in ("true", "false"):
            raise ValueError(f"must be true or false, got {text!r}")
        return text == "true" if kind is bool else kind(text)

    read.__name__ = kind.__name__  # argparse says "invalid int value"
    return read


def attributes(record: type) -> dict[str, str]:
    """Field -> the first clause that the record's docstring has of it, under "Attributes:"."""
    block = inspect.getdoc(record).partition("Attributes:\n")[2].partition("\n\n")[0]
    told = {}
    for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n {6,}.*)*)", block, re.MULTILINE):
        clause = re.split(r"[.;:](?:\s|$)", " ".join(text.split()))[0]
        told |= {name: clause for name in names.split(", ")}
    return told
