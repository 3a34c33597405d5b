"""The figures of the sample-weighting paper that need no training."""

from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest

from figures import ledger
from figures.mm_nsat import fig02_scaling_factors, fig03_adam_update
from figures.provenance import load
from tests.figures.stored import assert_drawn, assert_shaped_alike
from toy import adam

matplotlib.use("Agg")

SMALL: dict[str, tuple[ModuleType, dict[str, int]]] = {
    "mm_nsat/fig02_scaling_factors": (fig02_scaling_factors, {"points": 5}),
    "mm_nsat/fig03_adam_update": (fig03_adam_update, {"steps": 200}),
}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return {name: module.compute(**arguments) for name, (module, arguments) in SMALL.items()}


@pytest.mark.parametrize("name", SMALL)
def test_results_are_json_and_shaped_like_the_committed_ones(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    assert_shaped_alike(results[name], load(name))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("source", ["fresh", "committed"])
def test_figures_are_drawn_with_labelled_axes(
    name: str, source: str, results: dict[str, dict[str, Any]]
) -> None:
    assert_drawn(SMALL[name][0].draw(results[name] if source == "fresh" else load(name)))


def test_scaling_factors_are_those_of_equation_4() -> None:
    fresh, committed = fig02_scaling_factors.compute(), load("mm_nsat/fig02_scaling_factors")
    for name, values in committed["factors"].items():
        np.testing.assert_allclose(fresh["factors"][name], values, rtol=1e-4)
    summary = committed["summary"]
    assert summary["distance_from_equation_4"] < 1e-12
    assert summary["at_probability_1e-3"] == {"mm": 0.001, "ns": 0.999}


def test_updates_vanish_at_the_papers_rate() -> None:
    paper = load("mm_nsat/fig03_adam_update")["paper"]
    assert paper["measured"] == pytest.approx(-0.001 - np.log(0.999) / 2, rel=0.02)
    assert paper["ratio"] == pytest.approx(1, abs=0.02)
    t = np.array(paper["t"])
    np.testing.assert_allclose(paper["simulated"], adam.exact(t, **fig03_adam_update.PAPER), rtol=1e-4)


def test_each_case_is_the_one_it_is_called_and_holds() -> None:
    for number, (setting, _) in fig03_adam_update.SETTINGS.items():
        assert adam.case(**setting) == number
        assert load("mm_nsat/fig03_adam_update")["cases"][str(number)]["holds"] is True


@pytest.mark.parametrize("module", [fig02_scaling_factors, fig03_adam_update])
def test_too_few_points_are_refused(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="must be >="):
        module.compute(2)


def test_the_ledger_names_every_figure_and_table_of_the_paper() -> None:
    items = [row.item for row in ledger.read() if row.paper == "mm_nsat"]
    named = {word for item in items for word in [item.split(":")[0].split(",")[0]]}
    assert {f"figure {n}" for n in range(1, 26)} <= named
    assert {"table 1", "table 3", "table 4"} <= named
    assert sum(item.startswith("table 4") for item in items) == 9
