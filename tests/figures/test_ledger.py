import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from figures import ledger
from figures.provenance import RESULTS

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
    result = {"summary": {"work": 5.0, "list": [1, 2]}, "provenance": stamp}
    (tmp_path / "lecture" / "a.json").write_text(json.dumps(result))
    return tmp_path


def test_every_row_agrees_with_its_result() -> None:
    # `read` compares value, date and hardware of each row with its file.
    assert sum(row.status != "not-run" for row in ROWS) >= 30
    assert {row.paper for row in ROWS} >= {"leakyema", "lecture"}
    assert len({(row.paper, row.item, row.setting) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("command", sorted({row.command for row in ROWS if row.command}))
def test_commands_can_be_run(command: str) -> None:
    words = [word for word in shlex.split(command) if not word.partition("=")[0].isupper()]
    if words[0] == "gankit":
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


def test_the_tables_of_the_leakyema_paper_are_all_there() -> None:
    counts = {f"table {n}": 0 for n in range(1, 7)}
    for row in ROWS:
        if row.paper == "leakyema" and row.item.startswith("table"):
            counts[row.item[:7]] += 1
    assert counts == {"table 1": 16, "table 2": 4, "table 3": 11, "table 4": 6, "table 5": 11, "table 6": 24}


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
