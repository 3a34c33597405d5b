"""The book's runs on digits: settings and pairs are what the texts say, and draw understands compute."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from figures.book import digits_costs, digits_teacher
from figures.provenance import load
from gankit.recipes import recipes

matplotlib.use("Agg")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_short_run_of_the_costs_has_the_shapes_of_the_stored_one():
    short, stored = digits_costs.compute(n_seeds=2, steps=100), load("book/digits_costs")
    for setting in digits_costs.SETTINGS:
        assert short[setting].keys() == stored[setting].keys()
        for result, seeds in ((short, 2), (stored, 10)):
            for cost in digits_costs.COSTS:
                curves = {key: np.array(values) for key, values in result[setting][cost].items()}
                assert curves["divergence"].shape == (len(result[setting]["steps"]), seeds)
                assert curves["distance"].shape == curves["divergence"].shape
                assert curves["gradient"].shape == (len(result[setting]["gradient_steps"]), seeds)
        assert stored[setting]["steps"][-1] == recipes["ns" + digits_costs.SETTINGS[setting]].steps
        # The stored summary is that of the stored curves; gradients were counted before they were thinned.
        again = digits_costs.summarise(stored[setting])
        for cost, row in again.items():
            assert stored["summary"][setting][cost] | {"dead": 0} == row | {"dead": 0}
            assert stored["summary"][setting][cost]["dead"] >= row["dead"]
    json.dumps(short, allow_nan=False)
    plt.close(digits_costs.draw(short))


def test_teachers_and_baseline_are_the_same_run_until_leaking_begins(monkeypatch):
    monkeypatch.setattr(
        digits_teacher,
        "RUNS",
        {
            name: recipe.changed({"leak_start": 40}) if recipe.leak else recipe
            for name, recipe in digits_teacher.RUNS.items()
        },
    )
    result = digits_teacher.compute(n_seeds=2, steps=100)
    json.dumps(result, allow_nan=False)
    gaps = {name: np.array(result[name]["gap"]) for name in digits_teacher.RUNS}
    assert all(gap.shape == (len(result["log_steps"]), 2) for gap in gaps.values())
    assert not np.array_equal(gaps["teacher"], gaps["baseline"])
    assert not np.array_equal(gaps["teacher"], gaps["generator"])
    wins = result["summary"]["wins"]["teacher < baseline"]
    final = {name: np.array(result[name]["distance"])[-1] for name in digits_teacher.RUNS}
    assert wins["distance"] == (final["teacher"] < final["baseline"]).sum()
    plt.close(digits_teacher.draw(result))


def test_the_stored_runs_are_equal_until_step_500():
    stored = load("book/digits_teacher")
    start = stored["log_steps"].index(500)
    gaps = {name: np.array(stored[name]["gap"]) for name in digits_teacher.RUNS}
    for name in ("teacher", "generator"):
        # The reading at step 500 is of the 500th step, the last before the clock shows 500.
        np.testing.assert_array_equal(gaps[name][: start + 1], gaps["baseline"][: start + 1])
        assert (gaps[name][start + 1] != gaps["baseline"][start + 1]).any()
