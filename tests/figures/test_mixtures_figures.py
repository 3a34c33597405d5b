"""Figures 4 and 19 of the sample-weighting paper: mixtures of Gaussians, and what is read from a run on them."""

import json
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import linregress

import gankit as gk
from figures.mm_nsat import fig04_ring, fig19_spiral, mixtures, runs
from figures.provenance import load
from toy.mixtures import ring, voices

matplotlib.use("Agg")

TINY = {"n_seeds": 2, "steps": 60, "every": 4}


@pytest.fixture(scope="module")
def small_ring() -> dict[str, Any]:
    return fig04_ring.compute("ring", costs="ns,ns+mm(0.5),mm,mm-nsat", **TINY)


@pytest.fixture(scope="module")
def small_spiral() -> dict[str, Any]:
    return fig19_spiral.compute(**TINY)


# ------------------------------------------------------------------------------------------- what readings say


def shares_of(*holders: int | None) -> np.ndarray:
    """Readings ``[T, 1, 3]`` in which one mode holds 80 % of the points, or none more than half."""
    rows = {None: [0.4, 0.3, 0.3], 0: [0.8, 0.1, 0.1], 1: [0.1, 0.8, 0.1], 2: [0.1, 0.1, 0.8]}
    return np.array([rows[holder] for holder in holders])[:, None]


@pytest.mark.parametrize(
    ("holders", "expected"),
    [((0, 0, 0), 0), ((0, 1, 2, 0), 3), ((0, None, 1), 0), ((None, 1, 1, 0), 1), ((None, None), 0)],
)
def test_a_hop_is_a_change_of_the_mode_that_holds_most_points(
    holders: tuple[int | None, ...], expected: int
) -> None:
    assert mixtures.hops(shares_of(*holders)).tolist() == [expected]


SHARES = arrays(np.float64, (9, 2, 4), elements=st.floats(0.001, 1)).map(
    lambda x: x / x.sum(-1, keepdims=True)
)


@settings(deadline=None, max_examples=50)
@given(SHARES, st.permutations(range(4)))
def test_the_names_of_modes_do_not_matter(shares: np.ndarray, order: list[int]) -> None:
    due = np.array([0.1, 0.2, 0.3, 0.4])
    assert (mixtures.hops(shares) == mixtures.hops(shares[..., order])).all()
    assert mixtures.fates(shares, due, 2) == mixtures.fates(shares[..., order], due[order], 2)


@settings(deadline=None, max_examples=50)
@given(SHARES, st.integers(1, 8))
def test_fates_are_parts_of_what_they_are_fates_of(shares: np.ndarray, ahead: int) -> None:
    fate = mixtures.fates(shares, np.full(4, 0.25), ahead)
    assert fate["dropped"] + fate["recovered"] <= fate["small"]
    assert fate["found"] <= fate["missing"]
    assert fate["small"] + fate["missing"] <= (9 - ahead) * 2 * 4


def test_fates_of_modes_by_hand() -> None:
    due = np.array([0.5, 0.5])
    # Of mode 0: small, small, gone, back. Of mode 1: never small.
    shares = np.array([[[0.2, 0.8]], [[0.06, 0.94]], [[0.01, 0.99]], [[0.5, 0.5]]])
    one = {"small": 2, "dropped": 1, "recovered": 0, "missing": 1, "found": 1}
    assert mixtures.fates(shares, due, 1) == one
    assert mixtures.fates(shares, due, 2) == one | {"recovered": 1, "missing": 0, "found": 0}
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        mixtures.fates(shares, due, 4)


def optimal(share: np.ndarray, due: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities of the best discriminator for modes without overlap."""
    return np.log(due / share), due / (due + share)


def test_small_modes_are_heard_as_the_exact_world_says() -> None:
    due, share = np.full(4, 0.25), np.array([0.1, 0.2, 0.3, 0.4])
    _, score = optimal(share, due)
    heard = mixtures.hearing(share[None, None], score[None, None], (share @ score)[None, None], due)
    for name in ("ns", "mm"):
        voice = voices(torch.tensor(due), torch.tensor(share), gk.losses[name].g_weight)
        assert heard[name] == pytest.approx(float(voice[0]) / share[0])
    nothing = mixtures.hearing(due[None, None], score[None, None], np.ones((1, 1)) / 2, due)
    assert np.isnan(nothing["ns"])
    assert np.isnan(nothing["mm"])


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_the_best_discriminator_has_slope_minus_one(offset: float) -> None:
    rng, due = np.random.default_rng(0), np.array([0.1, 0.2, 0.3, 0.4])
    shares = rng.dirichlet(10 * due, size=(5, 3))
    logits, _ = optimal(shares, due)
    # A constant that differs from reading to reading, and is nothing but D's mood, must not count.
    logits = logits + offset * rng.standard_normal((5, 3, 1))
    assert mixtures.score_slope(shares, logits, due) == pytest.approx(-1)


def test_the_slope_is_least_squares_and_passes_over_missing_modes() -> None:
    rng, due = np.random.default_rng(1), np.full(5, 0.2)
    shares, logits = np.array([[[0.3, 0.2, 0.25, 0.25, 0.0]]]), rng.standard_normal((1, 1, 5))
    logits[..., 4] = np.nan
    expected = linregress(np.log(shares[0, 0, :4] / 0.2), logits[0, 0, :4]).slope
    assert mixtures.score_slope(shares, logits, due) == pytest.approx(expected)
    assert np.isnan(mixtures.score_slope(np.array([[[0.0, 1.0]]]), np.zeros((1, 1, 2)), np.full(2, 0.5)))


def test_means_by_mode() -> None:
    rng = np.random.default_rng(2)
    values, label = rng.standard_normal((2, 50)), rng.integers(-1, 3, (2, 50))
    ours = mixtures.mean_by_mode(torch.tensor(values), torch.tensor(label), 4).numpy()
    for s in range(2):
        for k in range(3):
            assert ours[s, k] == pytest.approx(values[s, label[s] == k].mean())
    assert np.isnan(ours[:, 3]).all()


def test_a_watch_reads_every_replica_with_the_same_noise() -> None:
    recipe = mixtures.SETTINGS["ring"].changed({"width": 8})
    run = runs.build(recipe, [runs.PAPER_COSTS["ns"]] * 2, [0, 1])
    watch = mixtures.Watch(run.data, recipe.networks.z_dim, kept=40)
    run.fit(3, callback=watch, log_every=3)
    assert torch.equal(watch.points[0][0], watch.points[0][2])  # one seed under one cost, twice
    G, D = run.G.replica(1), run.D.replica(1)
    points = G(watch.z).detach()
    torch.testing.assert_close(watch.points[0][1], points[:40])
    probability = D(points).detach().double().sigmoid()
    assert watch.score[0][1] == pytest.approx(float(probability.mean()), rel=1e-4)
    label = ring().assign(points)
    k = int(label[label >= 0].mode().values)
    assert watch.shares[0][1, k] == pytest.approx(float((label == k).double().mean()))
    assert watch.scores[0][1, k] == pytest.approx(float(probability[label == k].mean()), rel=1e-4)
    assert float(watch.nearest[0].sum()) == pytest.approx(4)


# ---------------------------------------------------------------------------------------------------- training


def test_costs_are_paired_and_do_not_depend_on_their_company(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = {"ns": runs.PAPER_COSTS["ns"], "again": runs.PAPER_COSTS["ns"], "mm": runs.PAPER_COSTS["mm"]}
    together = mixtures.compute(twice, "ring-hopping", **TINY)
    assert together["ns"] == together["again"]
    assert together["ns"]["divergence"] != together["mm"]["divergence"]
    monkeypatch.setattr(mixtures, "TOGETHER", 1)
    apart = mixtures.compute(twice, "ring-hopping", **TINY)
    for name in twice:
        for key in ("divergence", "least_gradient"):
            np.testing.assert_allclose(together[name][key], apart[name][key], rtol=0.02)


def test_the_hopping_ring_has_a_slower_discriminator() -> None:
    run = runs.build(mixtures.SETTINGS["ring-hopping"], [runs.PAPER_COSTS["ns"]], [0])
    assert run.g_opt.param_groups[0]["lr"] == 1e-3
    assert run.d_opt.param_groups[0]["lr"] == 3e-4
    assert run.batch_size == 128


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"setting": "square"}, "setting must be one of ring"),
        ({"costs": "ns,nz"}, "costs must be among"),
        ({"every": 5}, r"every must lie in \[1, 4\]"),
        ({"every": 0}, r"every must lie in \[1, 4\]"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fig04_ring.compute(**({"setting": "ring", "costs": "ns"} | TINY | changed))


def test_results_hold_what_they_promise(small_ring: dict[str, Any]) -> None:
    json.dumps(small_ring, allow_nan=False)
    assert small_ring["names"] == ["ns", "ns+mm(0.5)", "mm-nsat", "mm"]
    assert small_ring["steps"][-1] == 60
    assert len(small_ring["steps"]) == 4
    for name in small_ring["names"]:
        curves = small_ring[name]
        for key in ("covered", "divergence", "outside"):
            assert np.shape(curves[key]) == (4, 2)
        assert np.shape(curves["frequencies"]) == (2, 8)
        assert min(curves["least_gradient"]) > 0
        row = small_ring["summary"][name]
        assert row["hopping"] == sum(h > 0 for h in curves["late_hops"])
        assert row["dead"] == sum(g < runs.DEAD for g in curves["least_gradient"])
        assert row["D_JS"] == pytest.approx(np.median(curves["divergence"][-1]), rel=0.01)
    shown = small_ring["shown"]
    assert set(shown) == {"seed", "steps", "share_steps", "ns", "mm", "mm-nsat"}
    assert np.shape(shown["ns"]["points"]) == (5, 200, 2)
    assert np.shape(shown["mm"]["shares"]) == (15, 8)


@pytest.mark.parametrize("name", ["fig04_ring", "fig04_ring_hopping"])
def test_committed_rings_look_like_fresh_ones(name: str, small_ring: dict[str, Any]) -> None:
    committed = load(f"mm_nsat/{name}")
    assert set(committed) >= set(small_ring)
    assert committed["names"] == list(fig04_ring.VARIANTS)
    assert committed["summary"]["mm"].keys() == small_ring["summary"]["mm"].keys()
    assert committed["ns"].keys() == small_ring["ns"].keys()
    assert len(committed["provenance"]["seeds"]) >= 10


@pytest.mark.parametrize("name", ["fig19_spiral", "fig19_spiral_quick"])
def test_committed_spirals_look_like_fresh_ones(name: str, small_spiral: dict[str, Any]) -> None:
    committed = load(f"mm_nsat/{name}")
    assert set(committed) == set(small_spiral)
    assert committed["summary"]["mm"].keys() == small_spiral["summary"]["mm"].keys()
    assert committed["table3"] == {cost: fig19_spiral.table3(committed[cost]) for cost in committed["names"]}


# ------------------------------------------------------------------------------------------- tables and figures


def test_slopes_of_weights() -> None:
    exact = {"ns-exp-2": -1, "ns": -0.5, "ns-exp-0.5": -0.25, "ns+mm(0.5)": 0, "mm": 0.5, "mm-nsat-exp-2": 1}
    for name, slope in exact.items():
        assert fig04_ring.slope_of_weight(name) == pytest.approx(slope, abs=1e-9)
    for name in fig04_ring.VARIANTS:
        h = 1e-4
        w = gk.losses[name].g_weight(torch.tensor([-h, h], dtype=torch.float64))
        assert fig04_ring.slope_of_weight(name) == pytest.approx(
            float((w[1] / w[0]).log()) / (2 * h), abs=1e-6
        )
    slopes = [fig04_ring.slope_of_weight(name) for name in fig04_ring.VARIANTS]
    assert slopes == sorted(slopes)


def test_rows_of_table_3_add_up(small_spiral: dict[str, Any]) -> None:
    for name in fig19_spiral.VARIANTS:
        row = small_spiral["table3"][name]
        assert sum(row["mean"]) == pytest.approx(100, abs=0.2)
        assert all(a <= b <= c for a, b, c in zip(row["min"], row["mean"], row["max"], strict=True))
        outside = np.mean(small_spiral[name]["outside"][-1])
        assert row["mean"][0] == pytest.approx(100 * outside, abs=0.1)
    three = {"divergence": [[0, 0, 0], [0.3, 0.1, 0.2]], "frequencies": np.eye(3, 12) / [[1], [2], [4]]}
    row = fig19_spiral.table3(three)
    assert row["typical"] == [75, 0, 0, 25] + [0] * 9
    assert row["max"] == [75, 100, 50, 25] + [0] * 9
    for row in fig19_spiral.PAPER.values():
        assert len(row) == 13
        assert sum(row) == pytest.approx(100, abs=1)
    assert small_spiral["data"] == pytest.approx(fig19_spiral.PAPER_DATA, abs=0.5)


def test_tables_have_a_line_for_every_cost(small_ring: dict[str, Any], small_spiral: dict[str, Any]) -> None:
    lines = fig04_ring.table(small_ring).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["NS", "uniform", "MM-nsat", "MM"]
    assert len(fig04_ring.table(small_ring, ["ns"]).splitlines()) == 3
    spiral = fig19_spiral.table(small_spiral).splitlines()
    labels = [line.split(",")[0] for line in spiral[1:]]
    assert labels == ["data"] * 2 + ["NS"] * 3 + ["MM"] * 3 + ["MM-nsat"] * 2


def test_figures_are_drawn_with_labelled_axes(
    small_ring: dict[str, Any], small_spiral: dict[str, Any]
) -> None:
    for figure in (
        fig04_ring.draw(small_ring),
        fig04_ring.draw_weights({"one": small_ring, "two": load("mm_nsat/fig04_ring")}),
        fig19_spiral.draw(small_spiral),
        fig19_spiral.draw(load("mm_nsat/fig19_spiral")),
    ):
        assert figure.axes
        assert any(ax.get_xlabel() for ax in figure.axes)
        assert any(ax.get_ylabel() for ax in figure.axes)
        figure.canvas.draw()
        plt.close(figure)
