"""The reproduction ledger: what each paper claims, what this repository measured, and where the number lies.

`ledger.toml` holds one ``[[row]]`` per table cell or claim; this module reads and checks it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from figures.provenance import RESULTS

LEDGER = Path(__file__).parent / "ledger.toml"
PAPERS = ("leakyema", "mm_nsat", "incremental", "lecture")
STATUSES = ("reproduced", "same-trend", "differs", "not-run")
SCALES = {
    "MNIST": "MNIST",
    "digits": "digits",
    "larger": "CIFAR|ImageNet|LSUN|FFHQ|CAT",
    "photographs": "photographs",
    "toy": "seeds|ring|spiral",
}
"""What a run was trained on: a word for each scale, and what its setting says. Where none fits, nothing was trained."""


@dataclass(frozen=True)
class Row:
    """One table cell or claim.

    Attributes:
        paper: one of `PAPERS`.
        item: where it stands in the paper and what it says.
        paper_value: the paper's number or words.
        setting: the conditions, in a few words.
        status: one of `STATUSES`; all but "not-run" need the fields below.
        our_value: what `key` finds in `result`.
        command: what produced the result: ``python -m figures...`` or ``gankit ...``, after any environment variables.
        hardware: the device in words.
        date: of the run, ISO 8601.
        result: file below `figures/results`.
        key: dotted path to our value in that file; a number selects from a list.
        note: what a reader must know to compare the two.
        pairs: where our value counts pairs of runs, those in which the comparison in `item` holds (an integer), or is
            their share (a float): how many pairs there are. 0 for every other row.
    """

    paper: str
    item: str
    paper_value: str | float | bool
    setting: str
    status: str
    our_value: str | float | bool | None = None
    command: str = ""
    hardware: str = ""
    date: str = ""
    result: str = ""
    key: str = ""
    note: str = ""
    pairs: int = 0

    @property
    def place(self) -> str:
        """The figure, table, equation or section of the paper, as "figure 3"; else the item up to its first colon.

        A row "on table 1", which tests the table's claim on other data, belongs to table 1.
        """
        numbered = re.match(r"(?:on )?((?:figure|table|equation|section)s? \d[\w.]*(?: and \d+)?)", self.item)
        return numbered[1] if numbered else self.item.partition(":")[0]

    @property
    def scale(self) -> str:
        """What was trained on, a word of `SCALES`; "exact" where nothing was trained."""
        words = f"{self.setting} {self.item}"
        return next((name for name, said in SCALES.items() if re.search(said, words)), "exact")

    @property
    def wins(self) -> int:
        """Of `pairs` pairs of runs, those in which the comparison holds."""
        return (
            round(self.our_value * self.pairs)
            if isinstance(self.our_value, float)
            else int(self.our_value or 0)
        )


def places(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each figure, table, equation or section of one paper, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.place, []).append(row)
    return found


def standing(rows: Iterable[Row]) -> str:
    """One status for several rows: the worst of those that were run, and "not-run" where none was."""
    run = {row.status for row in rows} - {"not-run"}
    return next((status for status in ("differs", "same-trend", "reproduced") if status in run), "not-run")


def value_at(result: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted path, such as "summary.kl.shown.std".

    Raises:
        KeyError: no such value; the message says what there is instead.
    """
    value: Any = result
    for part in key.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            there = list(value) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise KeyError(f"'{key}' leads nowhere at '{part}': there is {there}") from error
    return value


def parse(text: str, results: Path = RESULTS) -> list[Row]:
    """Read and check a ledger.

    Args:
        text: TOML with ``[[row]]`` tables.
        results: the folder that `result` names files in.

    Returns:
        The rows in the order of the text.

    Raises:
        ValueError: a row has an unknown, missing or empty field, an unknown paper or status, a result that does not
            exist, or a value that is not the one in the result; the message names the row.
    """
    names = {field.name for field in fields(Row)}
    rows = []
    for number, table in enumerate(tomllib.loads(text).get("row", []), start=1):
        where = f"ledger row {number} ({table.get('item', 'no item')})"
        if unknown := set(table) - names:
            raise ValueError(f"{where}: unknown fields {sorted(unknown)}; a row has {sorted(names)}")
        if missing := {"paper", "item", "paper_value", "setting", "status"} - set(table):
            raise ValueError(f"{where}: fields {sorted(missing)} are missing")
        row = Row(**table)
        if row.paper not in PAPERS or row.status not in STATUSES:
            raise ValueError(
                f"{where}: paper must be one of {PAPERS} and status one of {STATUSES}, got {row.paper}, {row.status}"
            )
        if row.status == "not-run":
            if row.our_value is not None or row.result or row.pairs:
                raise ValueError(f"{where}: a row that was not run has no our_value, no result and no pairs")
        else:
            _check_result(row, where, results)
        rows.append(row)
    return rows


def _check_result(row: Row, where: str, results: Path) -> None:
    empty = [name for name in ("command", "hardware", "date", "result", "key") if not getattr(row, name)]
    if empty or row.our_value is None:
        raise ValueError(
            f"{where}: status '{row.status}' needs our_value, command, hardware, date, result and key"
        )
    path = results / row.result
    if not path.is_file():
        raise ValueError(f"{where}: the result {path} does not exist")
    result = json.loads(path.read_text(encoding="utf-8"))
    found = value_at(result, row.key)
    if found != row.our_value or isinstance(found, bool) != isinstance(row.our_value, bool):
        raise ValueError(f"{where}: our_value is {row.our_value!r}, the result says {found!r} at '{row.key}'")
    for name, key in (("date", "date"), ("hardware", "device")):
        stamped = result.get("provenance", {}).get(key)
        if stamped is not None and stamped != getattr(row, name):
            raise ValueError(f"{where}: {name} is {getattr(row, name)!r}, the result says {stamped!r}")
    if row.pairs and not (isinstance(row.our_value, int | float) and 0 <= row.wins <= row.pairs):
        raise ValueError(f"{where}: of {row.pairs} pairs, our_value counts {row.our_value!r}")


def read() -> list[Row]:
    """The rows of this repository's ledger. Raises: as :func:`parse`."""
    return parse(LEDGER.read_text(encoding="utf-8"))
