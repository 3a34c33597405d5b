import html
import importlib.util
import itertools
import json
import re
import shlex
import time
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from figures import ledger
from figures.provenance import RESULTS
from gankit.recipes import recipes

ROWS = ledger.read()
RAW = tomllib.loads(ledger.LEDGER.read_text(encoding="utf-8"))["row"]
RUN = [row for row in ROWS if row.result]

GOOD = {
    "paper": "lecture",
    "item": "an example",
    "paper_value": 5,
    "setting": "none",
    "scale": "none",
    "check": {"kind": "identity", "key": "summary.work", "equals": 5},
    "command": "python -m figures.lecture.earth_mover",
    "result": "lecture/a.json",
}
RESULT = {
    "summary": {"work": 5.0, "words": "five", "share": 0.95, "count": 9, "all": 10},
    "a": {"fd": [[9, 9, 9, 9, 9, 9], [1.0, 2, 3, 4, 5, 6]]},
    "b (0.5)": {"fd": [[9, 9, 9, 9, 9, 9], [2.0, 3, 4, 5, 6, 7]]},
    "runs": [{"x": 1.0}, {"x": 3.0}],
    "provenance": {"device": "CPU: some", "date": "2020-01-02", "seeds": [0, 1]},
}
BELOW = {"kind": "paired", "first": "a.fd.-1", "than": '"b (0.5)".fd.-1', "claim": "below"}


def as_toml(row: dict) -> str:
    def literal(x: object) -> str:
        if isinstance(x, dict):
            return "{ " + ", ".join(f"{key} = {literal(value)}" for key, value in x.items()) + " }"
        return json.dumps(x)

    return "[[row]]\n" + "\n".join(f"{key} = {literal(value)}" for key, value in row.items())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "lecture").mkdir()
    (tmp_path / "lecture" / "a.json").write_text(json.dumps(RESULT))
    return tmp_path


def walk(result: object, path: str) -> object:
    """A path of the ledger, read in another way than the ledger does."""
    for part in re.sub(r'"([^"]*)"', lambda m: m[1].replace(".", "\0"), path).split("."):
        name = part.replace("\0", ".")
        if name == "*":
            return [entry[path.split("*.")[1]] for entry in result]
        result = result[int(name)] if isinstance(result, list) else result[name]
    return result


def numbers(result: dict, key: str) -> list[float]:
    """One number for each seed, with Python's own loops."""
    path, _, how = key.partition(" @ ")
    found = walk(result, path)
    if not how:
        return found
    if how.endswith("share"):
        return [(max if how.startswith("largest") else min)(shares) for shares in found]
    tenth = max(1, len(found) // 10)
    curves = [list(curve) for curve in zip(*found, strict=True)]
    rules = {
        "smallest": min,
        "largest": max,
        "mean": lambda c: sum(c) / len(c),
        "first tenth": lambda c: sum(c[:tenth]) / tenth,
        "last tenth": lambda c: sum(c[-tenth:]) / tenth,
        "end": lambda c: float(np.percentile(c[-tenth:], 50)),
        "jumps": lambda c: sum(abs(y - x) for x, y in itertools.pairwise(c)) / (len(c) - 1),
        "until half": lambda c: next((i for i, x in enumerate(c) if x <= c[0] / 2), len(c)),
    }
    return [rules[how](curve) for curve in curves]


def status_of(table: dict, result: dict) -> str:
    """The status that the rules of `figures.ledger` promise, computed here a second time."""
    check, own = table["check"], table.get("own_task", False)
    held = "reproduced" if own else "same-trend"
    match check["kind"]:
        case "identity":
            found = walk(result, check["key"])
            if "above_key" in check:
                return "identity" if found > walk(result, check["above_key"]) else "differs"
            target = walk(result, check["equals_key"]) if "equals_key" in check else check["equals"]
            exact = isinstance(found, str | bool)
            equal = (
                found is target or found == target if exact else abs(found - target) <= check.get("within", 0)
            )
            return "identity" if equal else "differs"
        case "single":
            return "undecided"
        case "readings":
            some, all_ = walk(result, check["holds"]), walk(result, check["of"])
            return {0: "differs", all_: held}.get(some, "undecided")
        case "draw":
            ours = numbers(result, check["seeds"])
            ranks = [sum(x <= check["paper"] for x in ours), sum(x >= check["paper"] for x in ours)]
            return "differs" if 2 * (min(ranks) + 1) / (len(ours) + 1) <= 0.05 else "undecided"
        case "counted":
            found, n = walk(result, check["holds"]), check["seeds"]
            n = len(walk(result, n)) if isinstance(n, str) else n  # where the result says its seeds
            wins = round(found * n) if isinstance(found, float) else found
            losses = n - wins
        case "paired":
            first, than = numbers(result, check["first"]), check["than"]
            second = numbers(result, than) if isinstance(than, str) else [than] * len(first)
            sign = -1 if check["claim"] == "above" else 1
            differences = [sign * (y - x) for x, y in zip(first, second, strict=True)]
            wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if wins + losses == 0 or binomtest(wins, wins + losses).pvalue > 0.05:
        return "undecided"
    return "differs" if losses > wins or check.get("claim") == "equal" else held


@pytest.mark.parametrize(("row", "table"), list(zip(ROWS, RAW, strict=True)), ids=lambda x: "")
def test_every_status_follows_from_the_stored_result_and_the_rule(row: ledger.Row, table: dict) -> None:
    assert not {"status", "our_value", "date", "hardware", "verdict"} & set(table)
    if not table.get("result"):
        assert row.status == "not-run"
        return
    result = json.loads((RESULTS / row.result).read_text(encoding="utf-8"))
    assert row.status == status_of(table, result)
    assert (row.date, row.hardware) == (result["provenance"]["date"], result["provenance"]["device"])


def test_reading_the_ledger_is_quick() -> None:
    begun = time.process_time()
    ledger.read()
    assert time.process_time() - begun < 3


def test_no_row_comes_twice_and_every_paper_has_some() -> None:
    assert {row.paper for row in ROWS} == set(ledger.PAPERS)
    assert max(Counter((row.paper, row.item, row.setting) for row in ROWS).values()) == 1
    checks = Counter((row.result, json.dumps(dict(row.check))) for row in RUN if row.paper != "lecture")
    assert max(checks.values()) == 1, checks.most_common(1)  # one row for each comparison


def test_scales_are_what_the_results_say() -> None:
    # Seeds and settings of a result are the witnesses that a row's scale is not made up.
    for row in RUN:
        result = json.loads((RESULTS / row.result).read_text(encoding="utf-8"))
        if row.scale == "none":
            assert row.check["kind"] == "identity"
            assert len(result["provenance"]["seeds"]) <= 1
            continue
        searched = (
            len(tried) if isinstance(tried := result.get("settings"), list) else 1
        )  # settings drawn at random
        assert searched * len(result["provenance"]["seeds"]) >= 3
        if isinstance(said := result.get("setting"), str):
            word = "digits" if "digits" in said else "mnist" if "mnist" in said else "toy"
            assert row.scale == word, row
        elif row.result.startswith("book/cifar10"):
            assert row.scale == "cifar-narrow"
        assert not row.own_task or row.scale == "toy"  # nothing larger was run as its paper ran it


def test_a_status_never_says_more_than_its_test() -> None:
    for row in RUN:
        p = row.verdict.p
        if row.status in ("reproduced", "same-trend"):
            assert row.check["kind"] == "readings" or p <= 0.05
        if row.status == "undecided" and p is not None:
            assert p > 0.05


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("figure 8: class divergence, MNIST FC-4: MM-unit ends below NS", "undecided"),
        ("figure 8: class divergence, MNIST FC-4: MM with beta2 = 0.99 ends below NS", "undecided"),
        ("table 3: share of samples outside every mode in percent, NS", "undecided"),
        ("on table 6, CIFAR: IS rises with LeakyEMA", "undecided"),
        ("on table 6, CIFAR: FD falls with LeakyEMA", "undecided"),
        ("on figure 7: consecutive steps are nearer", "same-trend"),
        ("section 2.4: the logit of generated samples falls faster", "same-trend"),
        ("SAGAN: attention improves the network around it", "not-run"),
        ("BigGAN: orthogonal regularisation improves FID, at a hundred", "undecided"),
        ("BigGAN: orthogonal regularisation improves FID, at the paper's", "undecided"),
        ("figure 17: LS is erratic", "undecided"),
        ("figure 15: half NS, half MM stays near NS", "differs"),
        ("on table 3: SNGAN + LeakyEMA ends below SNGAN", "undecided"),
        ("on table 2: EMA sync ends below the baseline", "same-trend"),
        ("figure 14: recall of single classes", "undecided"),
    ],
)
def test_rows_that_once_said_too_much(said: str, status: str) -> None:
    assert next(row for row in ROWS if row.item.startswith(said)).status == status


def test_cells_without_a_claim_have_no_row() -> None:
    assert not [row.item for row in RUN if row.paper_value in ("?", "-")]


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_test_is_that_of_scipy(wins: int, losses: int) -> None:
    p = ledger.sign_test(wins, losses)
    assert p == pytest.approx(binomtest(wins, wins + losses).pvalue if wins + losses else 1.0)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=20))
def test_opposite_claims_have_opposite_verdicts(pairs: list[tuple[int, int]]) -> None:
    result = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    found = {
        c: ledger.judge(BELOW | {"first": "a", "than": "b", "claim": c}, result)
        for c in ("below", "above", "equal")
    }
    assert (found["below"].wins, found["below"].losses) == (found["above"].losses, found["above"].wins)
    opposite = {"same-trend": "differs", "differs": "same-trend", "undecided": "undecided"}
    assert found["above"].status == opposite[found["below"].status]
    assert (found["equal"].status == "differs") == (found["below"].status != "undecided")
    assert (
        ledger.judge(BELOW | {"first": "b", "than": "a", "claim": "above"}, result).status
        == found["below"].status
    )


@given(st.integers(1, 60))
def test_a_draw_from_the_same_distribution_seldom_differs(n: int) -> None:
    # The share of ranks, each as likely, at which the rule says "differs" must not exceed its level.
    ours = [float(i) for i in range(n)]
    verdicts = [ledger.draw({"x": ours}, True, seeds="x", paper=k - 0.5).status for k in range(n + 1)]
    assert verdicts.count("differs") / (n + 1) <= 0.05
    assert set(verdicts) <= {"differs", "undecided"}


@pytest.mark.parametrize(
    ("check", "own", "status"),
    [
        (BELOW, False, "same-trend"),
        (BELOW, True, "reproduced"),
        (BELOW | {"claim": "above"}, True, "differs"),
        (BELOW | {"claim": "equal"}, True, "differs"),
        (BELOW | {"than": 3.5}, True, "undecided"),
        (BELOW | {"first": "a.fd @ largest", "than": 9.5}, False, "same-trend"),
        ({"kind": "counted", "holds": "summary.share", "seeds": 20}, True, "reproduced"),
        ({"kind": "counted", "holds": "summary.count", "seeds": 12}, True, "undecided"),
        ({"kind": "readings", "holds": "summary.count", "of": "summary.all"}, False, "undecided"),
        ({"kind": "readings", "holds": "summary.all", "of": "summary.all"}, False, "same-trend"),
        ({"kind": "single", "key": "summary.work"}, True, "undecided"),
        ({"kind": "identity", "key": "summary.work", "equals": 5}, False, "identity"),
        ({"kind": "identity", "key": "summary.work", "equals": 4}, False, "differs"),
        ({"kind": "identity", "key": "summary.words", "equals": "five"}, False, "identity"),
        ({"kind": "identity", "key": "summary.work", "above": 5.0}, False, "differs"),
        ({"kind": "identity", "key": "summary.work", "above_key": "summary.share"}, False, "identity"),
    ],
)
def test_what_each_rule_says(check: dict, own: bool, status: str) -> None:
    assert ledger.judge(check, RESULT, own).status == status


@pytest.mark.parametrize("command", sorted({row.command for row in ROWS if row.command}))
def test_commands_can_be_run(command: str) -> None:
    words = [word for word in shlex.split(command) if not word.partition("=")[0].isupper()]
    if words[0] == "gankit":
        assert words[1] in ("train", "sample", "evaluate", "pack", "import-biggan")
        assert words[1] != "train" or words[2] in recipes
        return
    assert words[:2] == ["python", "-m"]
    assert words[2].startswith("figures.")
    spec = importlib.util.find_spec(words[2])
    assert spec is not None
    assert '__name__ == "__main__"' in Path(spec.origin).read_text(encoding="utf-8")


def test_results_are_small_and_each_belongs_to_a_module() -> None:
    for path in RESULTS.rglob("*.json"):
        assert path.stat().st_size < 200_000, path
        stamp = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        assert {"seeds", "versions", "device", "wall_time_s", "date"} <= set(stamp), path


def test_the_printed_ledger_is_that_of_today() -> None:
    chapter = Path(ledger.LEDGER).parents[1] / "book" / "22_ledger.ipynb"
    outputs = [o for cell in json.loads(chapter.read_text("utf-8"))["cells"] for o in cell.get("outputs", [])]
    printed = "".join(line for output in outputs for line in output.get("data", {}).get("text/html", []))
    missing = [row.item for row in ROWS if html.escape(row.item) not in printed]
    assert not missing, f"run `make chapter N=22`; it lacks {len(missing)} rows, such as {missing[0]!r}"


def test_the_tables_of_the_leakyema_paper_are_all_there() -> None:
    counts = {f"table {n}": 0 for n in range(1, 7)}
    for row in ROWS:
        if row.paper == "leakyema" and row.item.startswith("table"):
            counts[row.item[:7]] += 1
    assert counts == {"table 1": 16, "table 2": 4, "table 3": 11, "table 4": 6, "table 5": 11, "table 6": 24}


def test_the_tables_of_the_other_papers_are_all_there() -> None:
    cells = {
        # 55 cells, and comparisons between them that were run: table 1's in three worlds, the others' on digits.
        "incremental": {
            "table 1": 13 + 11 + 11 + 5,
            "table 2": 8 + 6,
            "table 3": 14 + 13,
            "table 4": 10 + 10,
            "table in appendix A.2": 10 + 4 + 6,
        },
        "lecture": {
            "projection table": 8 + 3 + 3,
            "StyleGAN table": 12,
            "StyleGAN2 table": 52,
            "StyleGAN2 architecture table": 18,
            "CR augmentation table": 4,
            "CR table": 11,
            "ADA table of few data": 36,
            "ADA table of small data sets": 40,
            "ADA table of CIFAR-10": 24,
        },
        # Tables 1 and 3 were run: their cells are one draw of a few comparisons. Three cells of table 2 claim nothing.
        "mm_nsat": {"table 1": 2, "table 2": 21, "table 3": 3, "table 4": 9},
    }
    for paper, tables in cells.items():
        places = ledger.places(row for row in ROWS if row.paper == paper)
        assert {place: len(places[place]) for place in tables} == tables


@pytest.mark.parametrize(("paper", "last"), [("leakyema", 17), ("mm_nsat", 25), ("incremental", 2)])
def test_every_numbered_figure_has_a_row(paper: str, last: int) -> None:
    places = ledger.places(row for row in ROWS if row.paper == paper)
    found = " ".join(place for place in places if re.match(r"figures? \d", place))
    assert {int(n) for n in re.findall(r"\b\d+\b", found)} == set(range(1, last + 1))


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ("figure 3 left: slower (share of seeds)", "figure 3"),
        ("figure 11 and Lemma 1: stable", "figure 11"),
        ("section 2.4: slope", "section 2.4"),
        ("on table 5: SNGAN", "table 5"),
        ("figures 16 and 17: samples", "figures 16 and 17"),
        ("figure 6, on digits: divergence", "figure 6"),
        ("table in appendix A.2: FID, B", "table in appendix A.2"),
        ("Wasserstein distance, example: W(P, Q)", "Wasserstein distance, example"),
    ],
)
def test_the_place_of_a_row(item: str, place: str) -> None:
    row = ledger.Row("lecture", item, 1, "closed form", "none")
    assert row.place == place
    assert ledger.places([row, row]) == {place: [row, row]}


def test_several_rows_stand_as_their_worst_that_was_run() -> None:
    def row(status: str) -> ledger.Row:
        return ledger.Row("lecture", "figure 1: x", 1, "x", "toy", verdict=ledger.Verdict(status))

    assert ledger.standing(row(status) for status in ledger.STATUSES) == "differs"
    assert ledger.standing([row("reproduced"), row("undecided"), row("not-run")]) == "undecided"
    assert ledger.standing([row("identity"), row("same-trend"), row("reproduced")]) == "same-trend"
    assert ledger.standing([row("not-run"), row("identity")]) == "identity"
    assert ledger.standing([row("not-run")]) == ledger.standing([]) == "not-run"


def test_a_good_row_is_read(results: Path) -> None:
    (row,) = ledger.parse(as_toml(GOOD), results)
    assert (row.status, row.verdict.here, row.date, row.hardware) == (
        "identity",
        "5",
        "2020-01-02",
        "CPU: some",
    )
    assert ledger.parse("", results) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "large"}, "scale one of"),
        ({"paper": "other"}, "paper must be one of"),
        ({"status": "reproduced"}, "unknown fields \\['status'\\]"),
        ({"result": "lecture/b.json"}, "does not exist"),
        ({"command": ""}, "come together, got \\['check', 'result'\\] alone"),
        ({"check": {"kind": "luck"}}, "kind must be one of"),
        ({"check": {"kind": "paired", "first": "a"}}, "cannot be computed: paired\\(\\) missing"),
        ({"check": BELOW}, "scale 'none' is for identities"),
        ({"check": {"kind": "identity", "key": "summary.play", "equals": 5}}, "leads nowhere at 'play'"),
        ({"scale": "toy", "check": BELOW | {"claim": "better"}}, "claim must be below, above or equal"),
        ({"scale": "toy", "check": BELOW | {"first": "a.fd"}}, "one finite number for each seed"),
        (
            {"scale": "toy", "check": BELOW | {"first": "runs.*.x"}},
            "between equal numbers of seeds; got 'below', 2, 6",
        ),
        ({"scale": "toy", "check": BELOW | {"first": "a.fd @ luck"}}, "asks for 'luck'"),
        (
            {"scale": "toy", "check": {"kind": "counted", "holds": "summary.count", "seeds": 8}},
            "some of 8 seeds",
        ),
        ({"item": None}, "are missing"),
    ],
)
def test_a_wrong_row_is_refused(results: Path, change: dict, message: str) -> None:
    row = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        ledger.parse(as_toml(row), results)


def test_paths_into_a_result() -> None:
    result = {"a": [{"b": 1}, {"b": 2}]}
    assert ledger.value_at(result, "a.1.b") == 2
    assert ledger.value_at(result, "a.-1.b") == 2
    assert ledger.value_at(result, "a.*.b") == [1, 2]
    assert ledger.value_at({"x 0.5": {"y": 3}}, '"x 0.5".y') == 3
    for key in ("a.2.b", "a.x", "c", "a.0.b.d"):
        with pytest.raises(KeyError, match="leads nowhere"):
            ledger.value_at(result, key)
