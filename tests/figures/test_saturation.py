"""The figures on saturation and Adam: 5, 9 to 13 of the sample-weighting paper."""

from types import ModuleType
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gankit as gk
from figures.mm_nsat import (
    fig05_early_gradients,
    fig09_norm_and_cosine,
    fig11_beta2,
    fig12_saturating_run,
    gradients,
    runs,
)
from figures.mm_nsat.runs import Variant
from figures.provenance import load
from tests.figures.stored import assert_drawn, assert_shaped_alike
from toy import adam

matplotlib.use("Agg")
torch.set_num_threads(1)

RECIPE = runs.SETTINGS["digits-saturating"]
ADAM = RECIPE.g_optimizer
MM = {"mm": Variant("mm", "MM")}

SMALL: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "mm_nsat/fig05_early_gradients": (fig05_early_gradients, {"steps": 6}),
    "mm_nsat/fig09_norm_and_cosine": (fig09_norm_and_cosine, {"steps": 60}),
    "mm_nsat/fig11_beta2": (fig11_beta2, {"steps": 6}),
    "mm_nsat/fig12_saturating_run": (fig12_saturating_run, {"steps": 120}),
}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return {name: module.compute(n_seeds=2, **arguments) for name, (module, arguments) in SMALL.items()}


def in_tests(name: str, source: str, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return results[name] if source == "fresh" else load(name)


@pytest.mark.parametrize("name", SMALL)
def test_results_are_json_and_shaped_like_the_committed_ones(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    fresh, committed = results[name], load(name)
    assert_shaped_alike(fresh, committed)
    assert len(committed["provenance"]["seeds"]) >= 10
    assert fresh["provenance"]["seeds"] == [0, 1]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("source", ["fresh", "committed"])
def test_figures_are_drawn_with_labelled_axes(
    name: str, source: str, results: dict[str, dict[str, Any]]
) -> None:
    figure = SMALL[name][0].draw(in_tests(name, source, results))
    assert any(ax.get_ylabel() for ax in figure.axes)
    assert_drawn(figure)


def test_curves_have_one_column_per_seed(results: dict[str, dict[str, Any]]) -> None:
    early = results["mm_nsat/fig05_early_gradients"]
    for name in early["names"]:
        assert np.shape(early[name]["g_grad"]) == np.shape(early[name]["d_grad"]) == (6, 2)
    assert early["log_steps"] == [1, 2, 3, 4, 5, 6]
    angles = results["mm_nsat/fig09_norm_and_cosine"]
    for name in fig09_norm_and_cosine.DRIVERS:
        assert np.shape(angles[name]["cos_ns"]) == (60, 2)
        assert np.shape(angles[name]["distance"]) == (12, 2)
    run = results["mm_nsat/fig12_saturating_run"]
    assert np.shape(run["curves"]["g_update"]) == (120, 2)
    assert run["curves"]["g_update"][0] == [None, None]
    assert np.shape(run["snapshots"]["moved"]) == (4, 2)
    assert len(results["mm_nsat/fig11_beta2"]["summary"]) == 3 * 4 + len(fig11_beta2.RESETS)


# --- readings, against plain networks and PyTorch's Adam -----------------------------------------------------------


def g_step_by_hand(run: gk.Trainer, replica: int) -> tuple[torch.nn.Module, torch.nn.Module, float]:
    """The generator of one replica before its next step, after it, and the norm of its gradient, without the Trainer.

    The discriminator must have made its step. Uses minimax and the recipe's Adam.
    """
    kept = run.streams.state_dict()
    z, _ = run.draw_latents()
    run.streams.load_state_dict(kept)
    before, after, D = run.G.replica(replica), run.G.replica(replica), run.D.replica(replica)
    optimizer = torch.optim.Adam(after.parameters(), ADAM.lr, (ADAM.beta1, ADAM.beta2))
    torch.log(1 - torch.sigmoid(D(after(z[replica])))).mean().backward()
    norm = float(torch.cat([p.grad.flatten() for p in after.parameters()]).norm())
    optimizer.step()
    return before, after, norm


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return float(torch.cat([(p - q).detach().double().flatten() for p, q in pairs]).norm())


def test_gradients_and_updates_are_those_of_a_plain_network() -> None:
    run = runs.build(RECIPE, list(MM.values()), [3, 4])
    watch = gradients.UpdateSizes(run)
    run.d_step()
    expected = [g_step_by_hand(run, replica) for replica in (0, 1)]
    run.g_step()
    sizes = watch(run)["g_update"]
    read = gradients.record(RECIPE, MM, [3, 4], 1)["mm"]
    for replica, (before, after, norm) in enumerate(expected):
        assert read["g_grad"][0, replica] == pytest.approx(norm, rel=1e-4)
        assert float(sizes[replica]) == pytest.approx(distance(before, after), rel=1e-3)
    assert set(read) == set(gradients.QUANTITIES)


def test_seeds_train_alike_alone_and_beside_others() -> None:
    together = gradients.record(RECIPE, MM | {"ns": Variant("ns", "NS")}, [0, 1], 3)
    alone = gradients.record(RECIPE, MM, [1], 3)["mm"]
    for key, values in alone.items():
        np.testing.assert_allclose(values[:, 0], together["mm"][key][:, 1], rtol=1e-3, atol=1e-5)
    # Paired: before G's first update the two costs' discriminators have seen the same.
    np.testing.assert_allclose(together["mm"]["real_logit"][0], together["ns"]["real_logit"][0], rtol=1e-5)


def test_a_reset_makes_the_next_update_a_first_one() -> None:
    def sizes_after(every: int) -> np.ndarray:
        watch, reset = gradients.UpdateSizes(), gradients.reset_generator(RECIPE, every)
        callback = lambda run: watch(run) | (reset(run) or {})  # noqa: E731
        return gradients.record(RECIPE, MM, [0, 1], 8, callback)["mm"]["g_update"]

    n = sum(p.numel() for p in RECIPE.networks((1, 8, 8), 0)[0].parameters())
    first = ADAM.lr * np.sqrt(n)  # Adam's first update is lr for every parameter with a gradient
    kept, renewed = sizes_after(100), sizes_after(5)
    np.testing.assert_allclose(kept[1:5], renewed[1:5], rtol=1e-6)
    assert (renewed[5] > 0.85 * first).all()
    assert (renewed[5] <= first * (1 + 1e-5)).all()
    assert (kept[5] < renewed[5]).all()


def test_comparison_is_that_of_plain_autograd() -> None:
    run = runs.build(RECIPE, list(fig09_norm_and_cosine.DRIVERS.values()), [0, 1])
    run.fit(3)
    found = fig09_norm_and_cosine.comparison(2)(run)
    z = torch.randn(
        2, fig09_norm_and_cosine.BATCH, RECIPE.networks.z_dim, generator=torch.Generator().manual_seed(0)
    )
    for replica in range(6):
        G, D = run.G.replica(replica).double(), run.D.replica(replica).double()
        s = torch.sigmoid(D(G(z[replica % 2].double())))
        m = s.mean().detach()
        costs = {
            "ns": -s.log().mean(),
            "mm": (1 - s).log().mean(),
            "ours": (1 - m) / m * (1 - s).log().mean(),
        }
        flat = {
            name: torch.cat(
                [p.flatten() for p in torch.autograd.grad(cost, list(G.parameters()), retain_graph=True)]
            )
            for name, cost in costs.items()
        }
        for ref in ("ns", "mm"):
            cosine = flat[ref] @ flat["ours"] / flat[ref].norm() / flat["ours"].norm()
            assert float(found[f"cos_{ref}"][replica]) == pytest.approx(float(cosine), abs=1e-4)
            ratio = flat["ours"].norm() / flat[ref].norm()
            assert float(found[f"norm_{ref}"][replica]) == pytest.approx(float(ratio), rel=1e-3)


def test_the_stand_in_is_adam_on_equal_parameters() -> None:
    sizes = np.abs(np.random.default_rng(0).normal(size=(40, 3))) * np.exp(-0.2 * np.arange(40))[:, None]
    found = fig12_saturating_run.stand_in(sizes, n_params=16, lr=0.01, beta1=0.9, beta2=0.99)
    for column in range(3):
        p = torch.zeros(16, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([p], 0.01, (0.9, 0.99), eps=0)
        for t in range(40):
            before = p.detach().clone()
            p.grad = torch.full((16,), sizes[t, column] / 4, dtype=torch.float64)
            optimizer.step()
            moved = float((p.detach() - before).norm())
            assert found[t, column] == pytest.approx(moved, rel=1e-6)


# --- the numbers made of readings --------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [-0.3, -0.02, -0.0001])
def test_the_linear_model_finds_slope_case_and_rate(a: float) -> None:
    steps, optimizer = 900, gk.Adam(lr=1.0, beta1=0.9, beta2=0.999)
    t = np.arange(1, steps + 1)
    found = fig12_saturating_run.linear_model(
        a * t, np.exp(a * t), adam.simulate(steps, a, 0.9, 0.999), optimizer, window=steps // 2
    )
    assert found["logit"] == pytest.approx(a, rel=1e-3)
    assert found["gradient"] == pytest.approx(a, rel=1e-3)
    assert found["case"] == adam.case(a, 0.9, 0.999)
    assert found["predicted"] == pytest.approx(float(adam.exponent(a, 0.9, 0.999)), rel=1e-3, abs=1e-6)
    if a < -0.0005:
        assert found["predicted"] == found["predicted_from_gradient"]


def test_the_linear_model_takes_the_steepest_window_that_has_a_slope() -> None:
    logit = np.concatenate([np.zeros(30), -0.5 * np.arange(20), np.full(50, -10.0)])
    rest = np.exp(logit)
    optimizer = gk.Adam(beta1=0.9)
    found = fig12_saturating_run.linear_model(logit, rest, rest, optimizer, window=10)
    assert found["logit"] == pytest.approx(-0.5)
    assert 30 <= found["start"] <= 41
    frozen = rest.copy()
    frozen[30:45] = 0.0  # updates that float32 lost have no rate
    found = fig12_saturating_run.linear_model(logit, rest, frozen, optimizer, window=4)
    assert found["start"] >= 46
    with pytest.raises(ValueError, match="window must be"):
        fig12_saturating_run.linear_model(logit, rest, rest, optimizer, window=100)


def test_curves_are_compared_on_a_logarithmic_scale() -> None:
    x = 10.0 ** -np.arange(6)
    same = fig12_saturating_run.compare(x, 3 * x)
    assert same == {"correlation": 1, "ratio": 3, "decades": 5}
    assert fig12_saturating_run.compare(np.append(x, 0), np.append(3 * x, 1)) == same
    assert fig12_saturating_run.compare(x, x[::-1])["correlation"] == -1


def test_vanished_counts_dips_and_ends() -> None:
    silent = np.r_[np.ones(5), np.full(60, 1e-4)]
    dip = np.r_[np.ones(5), 1e-5, np.ones(59)]
    found = gradients.vanished(np.stack([silent, dip, np.ones(65)], 1))
    assert found == {"ever": 2, "at_end": 1, "first_step": 6, "lowest": 1e-4, "runs": 3}
    assert gradients.vanished(np.ones((60, 2)))["first_step"] is None
    spaced = gradients.vanished(silent[:, None], np.arange(65) * 50, last=5)
    assert spaced["first_step"] == 250


@given(st.integers(1, 60), st.integers(1, 30), st.floats(-0.5, 0.5))
def test_thinned_curves_keep_lines_and_exponentials(steps: int, readings: int, slope: float) -> None:
    t = np.array(gradients.thin_steps(steps, readings))
    assert t[0] >= 1
    assert t[-1] <= steps
    x = np.arange(1.0, steps + 1)[:, None] * [1, 2]
    np.testing.assert_allclose(gradients.thin(slope * x, readings), slope * t[:, None] * [1, 2], atol=1e-9)
    np.testing.assert_allclose(
        gradients.thin(np.exp(slope * x), readings, geometric=True), np.exp(slope * t[:, None] * [1, 2])
    )


def test_thinning_leaves_missing_values_out_and_knows_zero() -> None:
    values = np.array([[np.nan], [4.0], [0.0], [1.0]])
    np.testing.assert_array_equal(gradients.thin(values, 2), [[4], [0.5]])
    np.testing.assert_allclose(gradients.thin(values, 2, geometric=True), [[4], [0]])


def test_gradients_of_figure_8_make_figure_5() -> None:
    rng = np.random.default_rng(0)
    shapes = {
        name: {key: rng.random((8, 3)) for key in ("g_grad", "d_grad")}
        for name in fig05_early_gradients.VARIANTS
    }
    shapes["mm"]["g_grad"][3:, 1] = 1e-5
    coverage = {name: {key: v.tolist() for key, v in one.items()} for name, one in shapes.items()} | {
        "setting": "mnist-fc4",
        "steps": [938],
        "epochs": 2.0,
        "log_steps": [100 * (i + 1) for i in range(8)],
        "provenance": {},
    }
    result = fig05_early_gradients.from_coverage(coverage)
    assert result["steps_per_epoch"] == 469
    assert result["summary"]["mm"] | {"lowest": 0} == {
        "ever": 1, "at_end": 1, "first_step": 400, "lowest": 0, "runs": 3,
    }  # fmt: skip
    assert len(fig05_early_gradients.from_coverage(coverage, epochs=1)["log_steps"]) == 4
    plt.close(fig05_early_gradients.draw(result))


def test_pictures_of_a_fixed_z_survive_their_coding() -> None:
    run = runs.build(RECIPE, list(MM.values()), [0, 1])
    pictures = fig12_saturating_run.Snapshots(RECIPE.networks.z_dim, steps=5)
    run.fit(5, log_every=1, callback=pictures)
    found = pictures.result(lowest=1)
    assert found["steps"] == [1, 2, 3, 4, 5]
    assert found["shape"] == [1, 8, 8]
    with torch.no_grad():
        last = run.G.replica(1)(pictures.z)
    decoded = torch.tensor([list(bytes.fromhex(image)) for image in found["pixels"][-1]]) / 127.5 - 1
    assert (decoded.reshape(last.shape) - last).abs().max() < 1 / 127
    figure = fig12_saturating_run.draw_samples(
        {"snapshots": found, "setting": "digits-saturating", "steps_per_epoch": 56}
    )
    assert len(figure.axes) == fig12_saturating_run.SNAPSHOTS
    plt.close(figure)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradients.record(RECIPE, MM, [0], 0), "steps must be at least 1"),
        (lambda: gradients.reset_generator(RECIPE, 0), "every must be at least 1"),
        (lambda: fig09_norm_and_cosine.compute(steps=10), "steps must be at least 60"),
        (lambda: fig12_saturating_run.compute(steps=20), "at least two epochs"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- what the committed results say ---------------------------------------------------------------------------------


def test_what_the_chapter_tells_of_beta2() -> None:
    summary = load("mm_nsat/fig11_beta2")["summary"]
    pair = lambda cost, g, d: summary[fig11_beta2.pair_name(cost, g, d)]  # noqa: E731
    assert pair("mm", 0.999, 0.999)["at_end"] >= 8
    assert pair("mm", 0.999, 0.99)["at_end"] >= 8
    assert pair("mm", 0.99, 0.999)["at_end"] <= 1
    assert pair("mm", 0.999, 0.99)["lowest"] < pair("mm", 0.999, 0.999)["lowest"]
    for cost in ("ns", "mm-nsat"):
        assert all(pair(cost, *betas)["ever"] == 0 for betas in fig11_beta2.PAIRS)
    at_end = [summary[fig11_beta2.reset_name(every)]["at_end"] for every in fig11_beta2.RESETS]
    assert max(at_end[:-1]) == 0
    assert at_end[-1] <= 2  # with the longest interval a run may be in a dip when it stops
    text = fig11_beta2.table(load("mm_nsat/fig11_beta2"))
    assert len(text.splitlines()) == 1 + len(summary)


def test_what_the_chapter_tells_of_beta1() -> None:
    calm = load("mm_nsat/fig05_early_gradients_beta1_05")
    assert runs.SETTINGS[calm["setting"]] == RECIPE.changed({"beta1": 0.5})
    assert all(row["ever"] == 0 for row in calm["summary"].values())
    assert load("mm_nsat/fig05_early_gradients")["summary"]["mm"]["at_end"] >= 8


def test_every_seed_falls_faster_than_the_threshold_and_the_stand_in_follows() -> None:
    result = load("mm_nsat/fig12_saturating_run")
    summary = result["summary"]
    assert summary["threshold"] == pytest.approx(np.log(0.999) / 2, rel=1e-3)
    assert summary["below_threshold"] == len(result["provenance"]["seeds"])
    assert min(row["correlation"] for row in result["stand_in"]) > 0.9
    for row in result["linear_model"]:
        assert row["predicted"] == pytest.approx(float(adam.exponent(row["logit"], 0.9, 0.999)), rel=1e-3)
