"""A module's first lines. Here: where results come from and go, and the command line of a figure."""

import functools
import importlib
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from figures import provenance
from figures.provenance import RESULTS


def test_rounding_makes_plain_json() -> None:
    nested = provenance.rounded(np.array([[1.23456789, np.inf], [np.nan, -1234567.0]]), 3)
    assert nested == [[1.23, None], [None, -1230000.0]]
    assert json.loads(json.dumps(nested)) == nested
    assert provenance.rounded(0.000123456, 2) == 0.00012


def test_spread_over_seeds() -> None:
    assert provenance.spread(np.arange(5.0)) == {"min": 0, "q25": 1, "median": 2, "q75": 3, "max": 4}
    # Three of five seeds never get there: neither does the median.
    late = provenance.spread(np.array([3.0, 5.0, np.inf, np.inf, np.inf]))
    assert late == {"min": 3, "q25": 5, "median": None, "q75": None, "max": None}


def test_stamp_names_versions_and_seeds() -> None:
    stamp = provenance.stamp(1.23456, range(3), ("numpy",))
    assert stamp["seeds"] == [0, 1, 2]
    assert stamp["versions"]["numpy"] == np.__version__
    assert stamp["wall_time_s"] == 1.235
    assert stamp["device"].startswith("CPU")


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    provenance.save({"x": 1.5}, path)
    with pytest.raises(ValueError, match="rounded"):
        provenance.save({"x": float("nan")}, path)
    assert json.loads(path.read_text()) == {"x": 1.5}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_missing_result_names_those_there_are() -> None:
    assert provenance.load("lecture/earth_mover")["summary"]["work"] == 5
    with pytest.raises(FileNotFoundError, match="lecture/earth_mover"):
        provenance.load("lecture/unknown")


def compute(points: int = 4, word: str = "", seeds: int | None = None, **others: Any) -> dict[str, Any]:
    """Squares.

    Args:
        points: how many, in 100 %
            of the cases.
        word: as for `more`.
        seeds, others: as for `more`.
    """
    return {"squares": [k * k for k in range(points)], "provenance": provenance.stamp(0.0)}


def draw(result: dict[str, Any]) -> Figure:
    figure, ax = plt.subplots()
    ax.plot(result["squares"])
    return figure


def test_command_line_writes_numbers_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--points", "3", "--out", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")]
    path = provenance.command_line(compute, draw, arguments=arguments)
    assert json.loads(path.read_text())["squares"] == [0, 1, 4]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.png"]
    with pytest.raises(SystemExit):
        provenance.command_line(compute, draw, arguments=["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "A module's first lines." in shown
    assert "how many, in 100 % of the cases (default: 4)" in shown
    assert "runs/figures/figures/test_provenance.json" in shown


def more(word: str = "x", factor: float = 0.5, seeds: int = 3, data: Any = None) -> None:
    """Others.

    Args:
        word, factor: said once for both.
        seeds: how many.
        data: what no shell can say.
    """


def test_options_come_from_the_signature_and_what_they_mean_from_the_docstring() -> None:
    assert provenance.options_of(compute, more) == {
        "points": (int, 4, "how many, in 100 % of the cases"),
        "word": (str, "", "said once for both"),
        "seeds": (int, None, "how many"),
        "factor": (float, 0.5, "said once for both"),
    }


LINE = re.compile(r"command_line\(compute, draw(?:, (?!threads)([\w.]+))?")


@pytest.mark.parametrize(
    "path",
    sorted(p for p in RESULTS.parent.glob("*/*.py") if LINE.search(p.read_text())),
    ids=lambda p: p.stem,
)
def test_every_option_of_every_figure_is_explained(path: Path) -> None:
    module = importlib.import_module(".".join(path.with_suffix("").parts[-3:]))
    handed = LINE.search(path.read_text())[1]
    other = functools.reduce(getattr, handed.split("."), module) if handed else None
    options = provenance.options_of(module.compute, other)
    assert module.__doc__
    assert all(text for _, _, text in options.values()), options


def test_command_line_sets_the_threads_it_is_given(tmp_path: Path) -> None:
    def counted() -> dict[str, Any]:
        tiny = torch.tensor(1e-39) * 0.5  # below the smallest normal number
        return {
            "threads": torch.get_num_threads(),
            "tiny": float(tiny),
            "provenance": provenance.stamp(0.0),
        }

    before = torch.get_num_threads()
    shared = {"arguments": ["--out", str(tmp_path / "a.json")]}
    try:
        torch.set_num_threads(2)
        plain = json.loads(provenance.command_line(counted, draw, **shared).read_text())
        alone = json.loads(provenance.command_line(counted, draw, threads=1, **shared).read_text())
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
    assert (plain["threads"], alone["threads"]) == (2, 1)
    assert plain["tiny"] > alone["tiny"] == 0
