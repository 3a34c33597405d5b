"""The study of regularisers: its settings, its numbers on results that one can check by hand, and a short run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from figures import provenance
from figures.lecture import regularisers as study
from tests.figures.stored import assert_drawn, assert_shaped_alike


def test_settings_are_drawn_from_the_lectures_ranges() -> None:
    tried = study.settings(400)
    assert study.settings(400) == tried
    lr = np.log10([one["lr"] for one in tried])
    assert -5 <= lr.min() < -4.9 and -2.1 < lr.max() <= -2  # noqa: PT018
    assert lr.mean() == pytest.approx(-3.5, abs=0.15)
    for name in ("beta1", "beta2", "quantile"):
        assert np.mean([one[name] for one in tried]) == pytest.approx(0.5, abs=0.05)
    assert {one["n_dis"] for one in tried} == {1, 5}
    ends = [study.changes("L2", "ls", {"quantile": q}) for q in (0.0, 1.0)]
    assert [one["l2"] for one in ends] == pytest.approx([1e-4, 10])
    assert [study.changes("GP", "ls", {"quantile": q})["wgan_gp"] for q in (0.0, 1.0)] == pytest.approx(
        [0.1, 100]
    )


def test_every_cell_is_a_recipe() -> None:
    for regulariser, cost in study.CELLS:
        changed = study.BASE.changed(study.changes(regulariser, cost, study.settings(1)[0]))
        assert changed.loss == cost
        assert changed != study.BASE


def table(name: str) -> np.ndarray:
    return np.arange(40.0).reshape(20, 2) + {"a": 0, "b": 100}[name]


def test_the_best_are_chosen_by_one_seed_and_looked_at_again_by_the_other() -> None:
    values = table("a")
    values[19] = (-1.0, np.inf)
    found, again = study.best(values)
    assert found.tolist() == [-1.0, 1.0]
    assert again.tolist() == [np.inf, 0.0]


def test_the_order_of_cells_that_keep_it_has_tau_one() -> None:
    tables = {f"{k}{i}": table("a") + 50 * i for i, k in enumerate("abcd")}
    found = study._stability(tables)
    assert found["seeds"]["tau"] == 1.0
    assert found["settings"]["from"] == 1.0


def test_a_short_run_goes_on_and_is_shaped_like_the_stored_one(tmp_path, monkeypatch) -> None:
    torch.set_num_threads(1)
    stored, all_cells = provenance.load("lecture/regularisers"), study.CELLS
    cells = [("SN", "ns"), ("none", "ns")]
    monkeypatch.setattr(study, "CELLS", cells)
    monkeypatch.setattr(study, "_pairs", lambda tables: {})
    settings = {"n_settings": 4, "steps": 2, "folder": str(tmp_path)}
    with pytest.raises(study.Unfinished, match="0 of 2 cells are done"):
        study.compute(**settings, minutes=-1.0)
    first = study.compute(**settings)
    again = study.compute(**settings, minutes=-1.0)  # all cells are there
    assert again["distance"] == first["distance"]
    assert np.array(first["distance"]["SN ns"]).shape == (4, 2)
    assert set(stored["distance"]) == {f"{regulariser} {cost}" for regulariser, cost in all_cells}
    first["settings"], stored["settings"] = first["settings"][0], stored["settings"][0]
    assert_shaped_alike(first, stored)


@pytest.mark.parametrize(
    ("name", "least"), [("lecture/regularisers", 60), ("lecture/regularisers_mnist", 16)]
)
def test_the_stored_summary_is_what_its_runs_say(name: str, least: int) -> None:
    stored = provenance.load(name)
    assert study.summarise(stored) == stored["summary"]
    assert len(stored["settings"]) >= least
    assert set(stored["distance"]) == {f"{regulariser} {cost}" for regulariser, cost in study.CELLS}
    assert {k: study.of_settings(v) for k, v in stored["distance"].items()} == stored["of_settings"]
    assert_drawn(study.draw(stored))
