import html
import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from figures import ledger
from figures.provenance import RESULTS
from gankit.recipes import recipes

ROWS = ledger.read()

GOOD = {
    "paper": "lecture",
    "item": "an example",
    "paper_value": 5,
    "our_value": 5.0,
    "setting": "none",
    "command": "python -m figures.lecture.earth_mover",
    "hardware": "CPU: some",
    "date": "2020-01-02",
    "status": "reproduced",
    "result": "lecture/a.json",
    "key": "summary.work",
}


def as_toml(row: dict) -> str:
    return "[[row]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in row.items())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "lecture").mkdir()
    stamp = {"device": "CPU: some", "date": "2020-01-02"}
    result = {"summary": {"work": 5.0, "share": 0.95, "list": [1, 2]}, "provenance": stamp}
    (tmp_path / "lecture" / "a.json").write_text(json.dumps(result))
    return tmp_path


def test_every_row_agrees_with_its_result() -> None:
    # `read` compares value, date and hardware of each row with its file.
    assert sum(row.status != "not-run" for row in ROWS) >= 30
    assert {row.paper for row in ROWS} == set(ledger.PAPERS)
    assert len({(row.paper, row.item, row.setting) for row in ROWS}) == len(ROWS)


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
        "incremental": {
            "table 1": 13,
            "table 2": 8,
            "table 3": 14,
            "table 4": 10,
            "table in appendix A.2": 10,
        },
        "lecture": {
            "projection table": 8,
            "StyleGAN table": 12,
            "StyleGAN2 table": 52,
            "StyleGAN2 architecture table": 18,
            "CR augmentation table": 4,
            "CR table": 11,
            "ADA table of few data": 36,
            "ADA table of small data sets": 40,
            "ADA table of CIFAR-10": 24,
        },
        "mm_nsat": {"table 1": 20, "table 2": 24, "table 3": 26, "table 4": 8},
    }
    for paper, tables in cells.items():
        places = ledger.places(row for row in ROWS if row.paper == paper)
        assert {place: len(places[place]) for place in tables} == tables


@pytest.mark.parametrize(("paper", "last"), [("leakyema", 17), ("mm_nsat", 25), ("incremental", 2)])
def test_every_numbered_figure_has_a_row(paper: str, last: int) -> None:
    places = ledger.places(row for row in ROWS if row.paper == paper)
    found = " ".join(place for place in places if re.match(r"figures? \d", place))
    assert {int(n) for n in re.findall(r"\b\d+\b", found)} == set(range(1, last + 1))


def test_what_was_trained_has_seeds_and_what_was_not_has_none_to_count() -> None:
    # `scale` reads prose; the result's seeds are the witness that it reads it well.
    for row in ROWS:
        if row.status != "not-run":
            seeds = json.loads((RESULTS / row.result).read_text(encoding="utf-8"))["provenance"]["seeds"]
            assert row.scale == "exact" or seeds, row
            assert row.pairs in (0, len(seeds)), row
            assert len(seeds) <= 1 or row.scale != "exact", row


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
    row = ledger.Row("lecture", item, 1, "closed form", "not-run")
    assert row.place == place
    assert ledger.places([row, row]) == {place: [row, row]}


def test_several_rows_stand_as_their_worst_that_was_run() -> None:
    rows = {s: ledger.Row("lecture", "figure 1: x", 1, "digits", s) for s in ledger.STATUSES}
    assert ledger.standing(rows.values()) == "differs"
    assert ledger.standing([rows["reproduced"], rows["same-trend"], rows["not-run"]]) == "same-trend"
    assert ledger.standing([rows["not-run"], rows["reproduced"]]) == "reproduced"
    assert ledger.standing([rows["not-run"]]) == ledger.standing([]) == "not-run"


def test_pairs_are_counted_or_given_as_a_share(results: Path) -> None:
    (share,) = ledger.parse(
        as_toml({**GOOD, "key": "summary.share", "our_value": 0.95, "pairs": 20}), results
    )
    (count,) = ledger.parse(as_toml({**GOOD, "key": "summary.list.1", "our_value": 2, "pairs": 5}), results)
    assert (share.wins, count.wins) == (19, 2)


def test_a_good_row_is_read(results: Path) -> None:
    (row,) = ledger.parse(as_toml(GOOD), results)
    assert row.our_value == 5
    assert ledger.parse("", results) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "done"}, "status one of"),
        ({"paper": "other"}, "paper must be one of"),
        ({"our_value": 4}, "our_value is 4, the result says 5.0"),
        ({"our_value": True, "key": "summary.list.0"}, "the result says 1"),
        ({"result": "lecture/b.json"}, "does not exist"),
        ({"command": ""}, "needs our_value, command"),
        ({"date": "2021-01-01"}, "date is"),
        ({"hardware": "GPU"}, "hardware is"),
        ({"status": "not-run"}, "not run has no our_value"),
        ({"pairs": 4}, "of 4 pairs, our_value counts 5.0"),
        ({"colour": "red"}, "unknown fields"),
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
    for key in ("a.2.b", "a.x", "c", "a.0.b.d"):
        with pytest.raises(KeyError, match="leads nowhere"):
            ledger.value_at(result, key)
