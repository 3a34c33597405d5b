"""The figures of the LeakyEMA paper's theory and of the lecture's divergences."""

from types import ModuleType
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from figures.leakyema import (
    fig03_choices,
    fig03_disjoint_supports,
    fig10_dirac_trajectories,
    fig11_real_parts,
)
from figures.lecture import earth_mover, parallel_lines, single_gaussian
from figures.provenance import load
from tests.figures.stored import assert_drawn, assert_shaped_alike
from toy.dirac import GAMES, max_real_part
from toy.gaussians import Choices, Run

matplotlib.use("Agg")

SMALL: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "leakyema/fig03_disjoint_supports": (fig03_disjoint_supports, {"seeds": 3, "steps": 210}),
    "leakyema/fig03_choices": (
        fig03_choices,
        {"seeds": 2, "steps": 200, "readings": [Choices(), Choices(teacher_start=0.0)]},
    ),
    "leakyema/fig10_dirac_trajectories": (fig10_dirac_trajectories, {"time_units": 20, "points": 101}),
    "leakyema/fig11_real_parts": (fig11_real_parts, {"points": 12}),
    "lecture/single_gaussian": (single_gaussian, {"separations": 2}),
    "lecture/parallel_lines": (parallel_lines, {"samples": 30}),
    "lecture/earth_mover": (earth_mover, {}),
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


def test_deterministic_results_are_reproduced() -> None:
    assert earth_mover.compute()["plan"] == load("lecture/earth_mover")["plan"]
    assert parallel_lines.compute()["sampled"] == load("lecture/parallel_lines")["sampled"]
    fresh, committed = fig10_dirac_trajectories.compute(), load("leakyema/fig10_dirac_trajectories")
    np.testing.assert_allclose(fresh["ns-leakyema"]["psi"], committed["ns-leakyema"]["psi"], atol=1e-4)
    assert (
        fresh["summary"]["ns-leakyema"]["linear_rate"] == committed["summary"]["ns-leakyema"]["linear_rate"]
    )


def test_committed_figure_11_is_that_of_the_polynomial() -> None:
    result = load("leakyema/fig11_real_parts")
    for name, surface in result["surfaces"].items():
        i, j = 7, 31
        want = max_real_part(
            GAMES[name], alpha=np.arange(1, 201)[4 * i] / 201, beta=np.arange(1, 201)[4 * j] / 201
        )
        assert surface[i][j] == pytest.approx(want, rel=1e-4)
        assert result["summary"][name]["negative_everywhere"]
        assert max(map(max, surface)) < 0


def test_figure_10_shows_the_rate_of_the_linear_analysis() -> None:
    summary = load("leakyema/fig10_dirac_trajectories")["summary"]
    assert summary["ns-leakyema"]["measured_rate"] == pytest.approx(
        summary["ns-leakyema"]["linear_rate"], rel=0.05
    )
    assert summary["ns"]["linear_rate"] == 0
    assert summary["ns"]["time_times_squared_distance"] == pytest.approx(8, rel=0.05)


def test_figure_3_summaries_are_those_of_the_curves() -> None:
    norms = np.array([[4.0, 4.0], [3.0, 4.0], [1.5, 3.9], [0.5, 3.8]])
    assert fig03_disjoint_supports.steps_below(norms, 2.0).tolist() == [2, np.inf]
    half = np.full((2, 4), 0.5)
    run = Run(norms, norms, half, half)
    summary = fig03_disjoint_supports.summarise(run)
    assert summary["steps_to_half"] == {"min": 2, "q25": None, "median": None, "q75": None, "max": None}
    assert summary["final_norm"]["median"] == pytest.approx((0.5 + 3.8) / 2)
    assert summary["output_rejected"]["max"] == 0
    sure = Run(norms + 1, norms, half, np.full((2, 4), 0.01))
    compared = fig03_disjoint_supports.compare({"default": sure, "leakyema": run})
    assert compared["order"]["mean_norm"] == ["leakyema", "default"]
    assert compared["leakyema_first"]["mean_norm"]
    assert compared["slower_than_leakyema"] == {"default": 1.0}
    assert compared["more_confident"] == {"default": 1.0}


def test_what_figure_3_says_and_for_which_readings() -> None:
    """The facts that the chapter tells, in the committed results of 20 seeds."""
    result = load("leakyema/fig03_disjoint_supports")
    summary = result["summary"]
    assert len(result["provenance"]["seeds"]) >= 20
    assert summary["default"]["final_norm"]["min"] > 5
    assert summary["instance-noise-1024"]["final_norm"]["max"] < summary["leakyema"]["final_norm"]["min"]
    assert set(result["comparison"]["more_confident"].values()) == {1.0}
    readings = load("leakyema/fig03_choices")["readings"]
    assert len(readings) == 32
    for reading in readings:
        choices = reading["choices"]
        first = reading["comparison"]["leakyema_first"]
        assert first["steps_to_half"] == (choices["loss"] == "mm" and choices["teacher_start"] == 0)
        assert not first["mean_norm"]


def test_readings_cover_all_choices() -> None:
    assert len({tuple(vars(c).values()) for c in fig03_choices.all_readings()}) == 32
    assert len(fig03_choices.one_at_a_time()) == 6
    assert fig03_choices.describe(Choices()) == "default"
    assert fig03_choices.describe(Choices(variance=0.01, loss="ns")) == "std 0.1, NS"


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (fig10_dirac_trajectories, {"points": 3}, "points >= 50"),
        (fig11_real_parts, {"points": 1}, "points must be"),
        (single_gaussian, {"separations": 1}, "separations must be"),
        (parallel_lines, {"samples": 1}, "samples must be"),
    ],
)
def test_bad_arguments_are_refused(module: ModuleType, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module.compute(**arguments)


def test_every_reading_lies_inside_the_picture_of_choices() -> None:
    stored = load("leakyema/fig03_choices")
    for rows in (stored["readings"][:1], stored["readings"][:6], stored["readings"]):
        axes = fig03_choices.draw({"readings": rows}).axes[0]
        bottom, top = axes.get_ylim()
        heights = [y for line in axes.lines for y in line.get_ydata()]
        assert bottom + 0.05 < min(heights)
        assert max(heights) < top - 0.05
        plt.close(axes.figure)
