"""The reproduction ledger: what each paper claims, what this repository measured, and what follows from it.

`ledger.toml` holds one ``[[row]]`` per comparison or, where nothing was run, per table cell. A row names a stored
result and a `check`; our value, the status, the machine and the day come from the result, and none of them is typed.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from figures.provenance import RESULTS

LEDGER = Path(__file__).parent / "ledger.toml"
PAPERS = ("leakyema", "mm_nsat", "incremental", "lecture")
STATUSES = ("identity", "reproduced", "same-trend", "undecided", "differs", "not-run")
SCALES = ("none", "toy", "digits", "mnist", "cifar-narrow", "full")
"""What was trained on: nothing (a formula), densities we know, 8 x 8 digits, MNIST, CIFAR-10 with few filters, all."""

LEVEL = 0.05
"""A comparison counts if luck alone brings one as lopsided with at most this probability."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        status: one of `STATUSES`.
        here: our value in words.
        wins, losses: pairs (or seeds, against a number) in which the claim holds, and in which its opposite does.
        p: chance of a count as lopsided under fair coins (:func:`sign_test`); None where nothing is tested.
    """

    status: str = "not-run"
    here: str = ""
    wins: int = 0
    losses: int = 0
    p: float | None = None


@dataclass(frozen=True)
class Row:
    """One comparison, or one table cell that nobody ran.

    Attributes:
        paper: one of `PAPERS`.
        item: where it stands in the paper and what it says.
        paper_value: the paper's number or words.
        setting: the conditions, in a few words.
        scale: one of `SCALES`: what we trained on; for a row that was not run, what the paper did.
        check: "kind", a name in `RULES`, and that rule's arguments; empty for a row that was not run.
        result: file below `figures/results` that the check reads.
        command: what produced the result: ``python -m figures...`` or ``gankit ...``, after any environment variables.
        own_task: our task and scale are the paper's, so that a claim which holds is reproduced.
        note: what a reader must know to compare the two.
        verdict: what the check found; never in the file.
        hardware, date: of the run, from the result.
    """

    paper: str
    item: str
    paper_value: str | float | bool
    setting: str
    scale: str
    check: Mapping[str, Any] = field(default_factory=dict)
    result: str = ""
    command: str = ""
    own_task: bool = False
    note: str = ""
    verdict: Verdict = Verdict()
    hardware: str = ""
    date: str = ""

    @property
    def status(self) -> str:
        """One of `STATUSES`, as the rule computed it."""
        return self.verdict.status

    @property
    def place(self) -> str:
        """The figure, table, equation or section of the paper, as "figure 3"; else the item up to its first colon.

        A row "on table 1", which tests the table's claim on other data, belongs to table 1.
        """
        numbered = re.match(r"(?:on )?((?:figure|table|equation|section)s? \d[\w.]*(?: and \d+)?)", self.item)
        return numbered[1] if numbered else self.item.partition(":")[0]


def places(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each figure, table, equation or section of one paper, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.place, []).append(row)
    return found


def standing(rows: Iterable[Row]) -> str:
    """One status for several rows: the worst of those that were run, and "not-run" where none was."""
    run = {row.status for row in rows}
    return next((status for status in STATUSES[4::-1] if status in run), "not-run")


def value_at(result: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted path, such as "summary.kl.shown.std".

    A number selects from a list (-1 is the last), ``*`` takes all of its entries, and a name that holds a dot stands in
    double quotes: ``"ns+mm(0.5)".divergence.-1``.

    Raises:
        KeyError: no such value; the message says what there is instead.
    """
    value: Any = result
    parts = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^."]+)', key)]
    for i, part in enumerate(parts):
        if part == "*" and isinstance(value, list):
            rest = ".".join(f'"{name}"' for name in parts[i + 1 :])
            return [value_at(entry, rest) for entry in value]
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            there = list(value) if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise KeyError(f"'{key}' leads nowhere at '{part}': there is {there}") from error
    return value


def _until_half(x: np.ndarray) -> np.ndarray:
    below = x <= x[0] / 2
    return np.where(below.any(0), below.argmax(0), len(x))


def _tenth(x: np.ndarray) -> int:
    return max(1, len(x) // 10)


REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "smallest": lambda x: x.min(0),
    "largest": lambda x: x.max(0),
    "mean": lambda x: x.mean(0),
    "first tenth": lambda x: x[: _tenth(x)].mean(0),
    "last tenth": lambda x: x[-_tenth(x) :].mean(0),
    "end": lambda x: np.median(x[-_tenth(x) :], 0),
    "jumps": lambda x: np.abs(np.diff(x, axis=0)).mean(0),
    "until half": _until_half,
    "largest share": lambda x: x.max(1),
    "smallest share": lambda x: x.min(1),
}
"""From readings [moments, seeds] one number for each seed; the shares take frequencies [seeds, classes].

"end" is the median of the last tenth, "jumps" the mean change from reading to reading, "until half" the index of the
first reading that is at most half of the first, or the number of readings.
"""


def per_seed(result: Mapping[str, Any], key: str) -> np.ndarray:
    """One number for each seed, at a path that may end in `` @ `` and a name of `REDUCTIONS`.

    Raises:
        KeyError: the path leads nowhere, or no such reduction.
        ValueError: what is there is not a list of finite numbers, one for each seed.
    """
    path, _, name = key.partition(" @ ")
    values = np.asarray(value_at(result, path), dtype=float)
    if name:
        if name not in REDUCTIONS:
            raise KeyError(f"'{key}' asks for '{name}'; there are {sorted(REDUCTIONS)}")
        values = REDUCTIONS[name](values)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"'{key}' must lead to one finite number for each seed, got shape {values.shape}")
    return values


def sign_test(wins: int, losses: int) -> float:
    """Chance that `wins + losses` fair coins fall at least as lopsidedly, to either side; ties do not count."""
    n = wins + losses
    tail = sum(math.comb(n, j) for j in range(max(wins, losses), n + 1))
    return min(1.0, 2 * tail / 2**n)


def _status(wins: int, losses: int, p: float, claim: str, own_task: bool) -> str:
    if p > LEVEL:
        return "undecided"
    if claim == "equal" or losses > wins:
        return "differs"
    return "reproduced" if own_task else "same-trend"


def paired(result: Mapping, own_task: bool, *, first: str, than: str | float, claim: str) -> Verdict:
    """A claim that `first` is "below", "above" or "equal" to `than`, by a sign test over seeds.

    Args:
        result: what was stored.
        own_task: see `Row`.
        first: a path for :func:`per_seed`.
        than: another, of the same seeds; or a number.
        claim: what the paper says. "equal" can be refuted and never shown.

    Returns:
        At p <= `LEVEL` "same-trend" (with `own_task` "reproduced") or "differs"; else "undecided".
    """
    a = per_seed(result, first)
    b = per_seed(result, than) if isinstance(than, str) else np.full_like(a, than)
    if claim not in ("below", "above", "equal") or len(a) != len(b):
        raise ValueError(
            f"claim must be below, above or equal, between equal numbers of seeds; got {claim!r}, {len(a)}, {len(b)}"
        )
    wins, losses = int((a < b).sum()), int((a > b).sum())
    if claim == "above":
        wins, losses = losses, wins
    p = sign_test(wins, losses)
    word = "below" if claim == "equal" else claim
    things, medians = ("pairs", f"medians {np.median(a):.3g} and {np.median(b):.3g}")
    if not isinstance(than, str):
        things, medians = "seeds", f"median {np.median(a):.3g} against {than:g}"
    here = f"{word} in {wins} of {len(a)} {things}, p = {p:.2g}; {medians}"
    return Verdict(_status(wins, losses, p, claim, own_task), here, wins, losses, p)


def counted(result: Mapping, own_task: bool, *, holds: str, seeds: int | str) -> Verdict:
    """A claim counted over seeds when the result was made: `holds` leads to a count, or to a share of `seeds`, which is
    their number or leads to their list."""
    found = value_at(result, holds)
    seeds = len(value_at(result, seeds)) if isinstance(seeds, str) else seeds
    wins = round(found * seeds) if isinstance(found, float) else int(found)
    if not 0 <= wins <= seeds:
        raise ValueError(f"'{holds}' must count some of {seeds} seeds, got {found}")
    p = sign_test(wins, seeds - wins)
    status = _status(wins, seeds - wins, p, "above", own_task)
    return Verdict(status, f"holds in {wins} of {seeds} seeds, p = {p:.2g}", wins, seeds - wins, p)


def draw(result: Mapping, own_task: bool, *, seeds: str, paper: float) -> Verdict:
    """A paper's number from a single run, as one more draw beside our seeds.

    If it came from the same distribution, each rank among the n + 1 would be as likely: p = 2 (k + 1) / (n + 1) with k
    the number of our seeds beyond it, on the side where there are fewer. "differs" or "undecided", never more.
    """
    ours = per_seed(result, seeds)
    beyond = min((ours <= paper).sum(), (ours >= paper).sum())
    p = float(min(1.0, 2 * (beyond + 1) / (len(ours) + 1)))
    spread = f"from {ours.min():.3g} to {ours.max():.3g} over {len(ours)} seeds"
    here = f"median {np.median(ours):.3g}, {spread}, p = {p:.2g}"
    return Verdict("differs" if p <= LEVEL else "undecided", here, p=p)


def readings(result: Mapping, own_task: bool, *, holds: str, of: str) -> Verdict:
    """A claim tried under every reading of a text: true in all, it stands; in none, it differs; else undecided."""
    some, all_ = value_at(result, holds), value_at(result, of)
    held = "reproduced" if own_task else "same-trend"
    status = held if some == all_ else "differs" if some == 0 else "undecided"
    return Verdict(status, f"under {some} of {all_} readings of the text")


def single(result: Mapping, own_task: bool, *, key: str) -> Verdict:
    """A number without seeds beside it: shown, and undecided whatever it is."""
    return Verdict("undecided", f"{value_at(result, key):.3g}")


def identity(
    result: Mapping,
    own_task: bool,
    *,
    key: str,
    equals: Any = None,
    equals_key: str = "",
    above: float | None = None,
    above_key: str = "",
    within: float = 0.0,
) -> Verdict:
    """A definition, a count or a formula: the value at `key` equals one (numbers: `within` so much), or is above it."""
    found = value_at(result, key)
    against = value_at(result, equals_key or above_key) if equals_key or above_key else equals
    if above is not None or above_key:
        holds = found > (above if above is not None else against)
    elif isinstance(found, str | bool) or isinstance(against, str | bool):
        holds = type(found) is type(against) and found == against
    else:
        holds = abs(found - against) <= within
    return Verdict(
        "identity" if holds else "differs",
        f"{found:.4g}" if isinstance(found, float) else str(found),
    )


RULES: dict[str, Callable[..., Verdict]] = {
    rule.__name__: rule for rule in (identity, paired, counted, draw, readings, single)
}
"""From a stored result to a status, by the name that a row's check has as its kind."""


def judge(check: Mapping[str, Any], result: Mapping[str, Any], own_task: bool = False) -> Verdict:
    """Apply a row's check to the result that it names.

    Raises:
        ValueError: an unknown kind, or arguments that its rule does not take or cannot use.
        KeyError: a path that leads nowhere.
    """
    arguments = dict(check)
    kind = arguments.pop("kind", None)
    if kind not in RULES:
        raise ValueError(f"kind must be one of {sorted(RULES)}, got {kind!r}")
    try:
        return RULES[kind](result, own_task, **arguments)
    except TypeError as error:
        raise ValueError(f"the check of kind '{kind}' cannot be computed: {error}") from error


def parse(text: str, results: Path = RESULTS) -> list[Row]:
    """Read a ledger and compute what its rows' checks say.

    Args:
        text: TOML with ``[[row]]`` tables.
        results: the folder that `result` names files in.

    Returns:
        The rows in the order of the text.

    Raises:
        ValueError: a row has an unknown or missing field, an unknown paper or scale, a result that does not exist, or a
            check that cannot be computed; the message names the row.
    """
    names = {field.name for field in fields(Row)} - {"verdict", "hardware", "date"}
    rows: list[Row] = []
    stored: dict[str, dict[str, Any]] = {}
    for number, table in enumerate(tomllib.loads(text).get("row", []), start=1):
        where = f"ledger row {number} ({table.get('item', 'no item')})"
        if unknown := set(table) - names:
            raise ValueError(f"{where}: unknown fields {sorted(unknown)}; a row has {sorted(names)}")
        if missing := {"paper", "item", "paper_value", "setting", "scale"} - set(table):
            raise ValueError(f"{where}: fields {sorted(missing)} are missing")
        row = Row(**table)
        if row.paper not in PAPERS or row.scale not in SCALES:
            raise ValueError(
                f"{where}: paper must be one of {PAPERS} and scale one of {SCALES}, got {row.paper}, {row.scale}"
            )
        there = [name for name in ("check", "result", "command") if getattr(row, name)]
        if len(there) not in (0, 3):
            raise ValueError(f"{where}: check, result and command come together, got {there} alone")
        if there:
            if row.result not in stored:
                stored[row.result] = _load(results / row.result, where)
            row = _computed(row, where, stored[row.result])
        rows.append(row)
    return rows


def _load(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{where}: the result {path} does not exist")
    return json.loads(path.read_text(encoding="utf-8"))


def _computed(row: Row, where: str, result: Mapping[str, Any]) -> Row:
    try:
        verdict = judge(row.check, result, row.own_task)
        stamped = {"hardware": result["provenance"]["device"], "date": result["provenance"]["date"]}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{where}: {error.args[0]}") from error
    if row.scale == "none" and row.check["kind"] != "identity":
        raise ValueError(
            f"{where}: scale 'none' is for identities, got a check of kind '{row.check['kind']}'"
        )
    return Row(**{f.name: getattr(row, f.name) for f in fields(Row)} | stamped | {"verdict": verdict})


def read() -> list[Row]:
    """The rows of this repository's ledger. Raises: as :func:`parse`."""
    return parse(LEDGER.read_text(encoding="utf-8"))
