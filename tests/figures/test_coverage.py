"""The figures of the sample-weighting paper that count classes: 6, 8, 15 to 18 and 20, tables 1 and 2."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

import gankit as gk
from figures import ledger
from figures.mm_nsat import (
    coverage,
    fig06_samples,
    fig08_class_coverage,
    fig15_linear_combinations,
    fig16_scaling_factors,
    fig17_other_costs,
    fig18_gradient_penalty,
    fig20_stacked,
    runs,
    table02_costs,
)
from figures.provenance import RESULTS, load
from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")

CURVES: dict[str, ModuleType] = {
    "mm_nsat/fig08_class_coverage": fig08_class_coverage,
    "mm_nsat/fig15_linear_combinations": fig15_linear_combinations,
    "mm_nsat/fig16_scaling_factors": fig16_scaling_factors,
    "mm_nsat/fig17_other_costs": fig17_other_costs,
}
OTHERS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "mm_nsat/fig06_samples": (fig06_samples, {"n_seeds": 2, "steps": 3, "samples": 70}),
    "mm_nsat/fig18_gradient_penalty": (fig18_gradient_penalty, {"n_seeds": 2, "steps": 4}),
    "mm_nsat/fig20_stacked": (fig20_stacked, {"n_seeds": 2, "steps": 4, "samples": 200}),
    "mm_nsat/table02_costs": (table02_costs, {"points": 5}),
}
TINY = {"n_seeds": 2, "steps": 4, "evaluations": 2}


@pytest.fixture(scope="module", autouse=True)
def small() -> None:
    """Fewer real and generated images and one thread: this file is about the bookkeeping, not about digits."""
    load_data = gk.data.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "SAMPLES", {"digits": 100})
        patch.setattr(gk.data, "load", lambda name, **k: load_data(name, **_few(name), **k))
        torch.set_num_threads(1)
        yield


def _few(name: str) -> dict[str, int]:
    return {"n": 500} if name == "stacked-digits" else {}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    curves = {name: module.compute(**TINY) for name, module in CURVES.items()}
    return curves | {name: module.compute(**arguments) for name, (module, arguments) in OTHERS.items()}


MODULES = CURVES | {name: module for name, (module, _) in OTHERS.items()}


@pytest.mark.parametrize("name", MODULES)
def test_results_are_json_and_shaped_like_the_committed_ones(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    fresh, committed = results[name], load(name)
    assert_shaped_alike(fresh, committed)
    if "summary" in fresh:
        assert len(committed["provenance"]["seeds"]) >= 10


@pytest.mark.parametrize("source", ["fresh", "committed"])
@pytest.mark.parametrize("name", MODULES)
def test_figures_are_drawn_with_labelled_axes(
    name: str, source: str, results: dict[str, dict[str, Any]]
) -> None:
    assert_drawn(MODULES[name].draw(results[name] if source == "fresh" else load(name)))


@pytest.mark.parametrize("name", CURVES)
def test_every_variant_has_a_cost_and_a_row_in_the_table(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    variants, result = CURVES[name].VARIANTS, results[name]
    assert result["names"] == list(variants)
    for variant in variants.values():
        assert gk.losses[variant.loss].name == variant.loss
    assert result["steps"] == [2, 4]
    rows = coverage.table(result, variants).splitlines()[2:]
    assert all(row.startswith(v.label) for row, v in zip(rows, variants.values(), strict=True))
    for one in (result[name] for name in variants):
        assert np.array(one["divergence"]).shape == np.array(one["distance"]).shape == (2, 2)
        assert np.array(one["g_grad"]).shape == (len(result["log_steps"]), 2)
        np.testing.assert_allclose(np.sum(one["frequencies"], 1), 1, atol=1e-3)
    # Variants of one seed begin alike, so that they are compared pair by pair.
    first = np.array([result[name]["real_logit"][0] for name in variants if name not in ("hinge", "ls")])
    assert np.ptp(first, 0).max() < 0.2 * abs(first[0, 0] - first[0, 1])


def test_divergence_is_scipys_between_a_runs_classes_and_the_data(
    results: dict[str, dict[str, Any]],
) -> None:
    expected = gk.data.load("digits").class_frequencies().numpy()
    for one in (results["mm_nsat/fig08_class_coverage"][name] for name in fig08_class_coverage.VARIANTS):
        for share, divergence in zip(one["frequencies"], one["divergence"][-1], strict=True):
            assert jensenshannon(share, expected, base=2) ** 2 == pytest.approx(divergence, rel=0.01)


def test_a_run_goes_on_from_its_folder_and_figure_6_reads_it(tmp_path: Path) -> None:
    short = {"setting": "digits", "n_seeds": 2, "evaluations": 2}
    whole = fig08_class_coverage.compute(steps=4, **short)
    fig08_class_coverage.compute(steps=2, folder=str(tmp_path), **short)
    resumed = fig08_class_coverage.compute(steps=4, folder=str(tmp_path), **short)
    for name in resumed["names"]:
        assert resumed[name]["divergence"][-1] == whole[name]["divergence"][-1]
    seen = fig06_samples.compute("digits", samples=100, seed=1, folder=str(tmp_path))
    assert seen["steps"] == 4
    assert seen["provenance"]["seeds"] == [0, 1]
    for cost in fig06_samples.COSTS:
        # The same z as in the run's own evaluation: the first hundred of the same stream.
        np.testing.assert_allclose(seen[cost]["frequencies"], whole[cost]["frequencies"], atol=1e-3)
    with pytest.raises(ValueError, match="seed must be one"):
        fig06_samples.compute("digits", folder=str(tmp_path), seed=2)
    with pytest.raises(gk.checkpoints.CheckpointError, match="holds no checkpoint"):
        fig06_samples.compute("digits", folder=str(tmp_path / "none"))


def test_the_path_of_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    """On random pictures, judged by a network that has learnt nothing."""
    pixels = torch.randint(0, 256, (200, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    stand_in = gk.data.Dataset("cifar10", pixels.to(torch.uint8), torch.arange(200) % 10, tuple("0123456789"))
    monkeypatch.setattr(gk.data, "load", lambda name: stand_in)
    untrained = gk.classifier.Classifier((3, 32, 32), 10).eval()
    monkeypatch.setattr(gk.classifier, "load", lambda name, train: untrained)
    monkeypatch.setattr(coverage, "SAMPLES", {"cifar10-conv4": 70})
    result = fig08_class_coverage.compute(
        setting="cifar10-conv4", costs="mm-nsat", n_seeds=1, steps=1, evaluations=1
    )
    assert np.array(result["mm-nsat"]["divergence"]).shape == (1, 1)
    assert coverage.space_of(result["setting"]) == "CIFAR10 classifier"


def test_a_picture_comes_back_as_it_was() -> None:
    images = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8)
    there_and_back = fig06_samples.pixels(fig06_samples.picture(images))
    np.testing.assert_array_equal(there_and_back, gk.plotting.tile(images))


def test_thinning_keeps_the_last_reading_and_every_judgement() -> None:
    result = {
        "log_steps": [5, 10, 15, 20, 25],
        "a": {"g_grad": [[i] for i in range(5)], "divergence": [[1.0]]},
    }
    few = coverage.thinned(result, ["a"], 2)
    assert few["log_steps"] == [10, 25]
    assert few["a"] == {"g_grad": [[1.0], [4.0]], "divergence": [[1.0]]}
    assert coverage.thinned(result, ["a"], 5)["log_steps"] == result["log_steps"]


@pytest.mark.parametrize(("classes", "samples"), [(10, 1_000), (10, 10_000), (3, 300)])
def test_a_perfect_generator_scores_what_the_formula_says(classes: int, samples: int) -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(classes, 50.0))
    drawn = np.random.default_rng(1).multinomial(samples, shares, size=2_000) / samples
    mean = np.mean([jensenshannon(one, shares, base=2) ** 2 for one in drawn])
    assert coverage.perfect(samples, classes) == pytest.approx(mean, rel=0.1)


def test_with_few_samples_per_class_only_simulation_tells() -> None:
    assert fig20_stacked.perfect(100_000, repeats=5) == pytest.approx(
        coverage.perfect(100_000, 1_000), rel=0.02
    )
    assert fig20_stacked.perfect(2_000, repeats=5) > 1.2 * coverage.perfect(2_000, 1_000)


def test_the_penalty_of_a_replica_is_lambda_times_the_mean_squared_gradient() -> None:
    variants = fig18_gradient_penalty.variants_of((0.0, 0.3))
    run = runs.build(runs.SETTINGS["digits"], list(variants.values()), [0, 1])
    (penalty,) = run.game.d_terms
    play = run.play(run.D)
    real, ours = play.real, penalty(play)
    for i, variant in enumerate([v for v in variants.values() for _ in range(2)]):
        x = real[i].clone().requires_grad_()
        (slope,) = torch.autograd.grad(run.D.replica(i)(x).sum(), x)
        expected = variant.r1 * slope.square().flatten(1).sum(1).mean()
        assert ours[i].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)


def test_weights_of_equal_scores_are_parallel() -> None:
    class Flat:
        G = gk.models.mlp((1, 8, 8), z_dim=4)[0]
        D = staticmethod(lambda x: torch.full(x.shape[:1], -3.0))

    assert fig18_gradient_penalty.compare_weights(Flat)["weight_cosine"].item() == pytest.approx(1)


def test_summaries_of_the_penalty_and_of_the_stack_count_pairs() -> None:
    def ends(*values: float) -> dict[str, Any]:
        rows = [[9.0] * len(values), list(values)]
        return {"divergence": rows, "distance": rows, "weight_cosine": rows, "covered": rows, "g_grad": rows}

    one = {"ns 0": ends(2, 4), "mm-nsat 0": ends(1, 5), "ns 1": ends(1, 1), "mm-nsat 1": ends(0, 0.5)}
    table = fig18_gradient_penalty.summarise(one, (0.0, 1.0))
    assert table["below"] == {"0": 1, "1": 2}
    assert table["ratio"] == {"0": 1.0, "1": 4.0}
    assert table["best"]["ns"] == {"distance": 1.0, "D_JS": 1.0}
    stack = {f"{a:g}": ends(1 - a / 2, 2 - a / 2) for a in fig20_stacked.SHARES}
    table = fig20_stacked.summarise(stack)
    assert table["order"] == pytest.approx(-1)
    assert table["seeds_below"] == 2
    assert table["ratio"] == pytest.approx(1.5)


def test_table_2_is_what_the_costs_do() -> None:
    costs = table02_costs.compute()["costs"]
    for name, (d_cost, emphasis, _) in table02_costs.PAPER.items():
        assert costs[name]["d_cost"] == d_cost.lower()
        if emphasis != "?":
            assert costs[name]["emphasis"] == emphasis.lower()
    assert costs["ls"]["emphasis"] == "low-scoring"
    assert [costs[n]["magnitude"] for n in ("mm", "mm-nsat", "mm-unit")] == [
        "saturating",
        "non-saturating",
        "unit",
    ]
    assert table02_costs.discriminator_cost(gk.losses["wgan"]) == "another"


def test_committed_results_say_what_the_chapter_says() -> None:
    digits = load("mm_nsat/fig08_class_coverage")["summary"]
    for name in ("mm", "mm-beta2", "mm-unit", "mm-nsat"):
        assert digits[name]["seeds_below"] == 10
        assert digits[name]["ratio"] > 3
    assert all(row["dead"] == 0 for row in digits.values())


def test_the_ledger_has_the_rows_of_these_figures() -> None:
    rows = [row for row in ledger.read() if row.paper == "mm_nsat"]
    for n in (6, 15, 16, 17, 18, 20):
        assert any(row.item.startswith(f"figure {n}:") and row.status != "not-run" for row in rows), n
    assert sum(row.item.startswith("table 2") for row in rows) == 21  # three cells of 24 claim nothing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fig08_class_coverage.compute(setting="spiral"), "setting must be one of digits"),
        (lambda: fig08_class_coverage.compute(costs="ns,wgan"), "costs must be among"),
        (lambda: fig18_gradient_penalty.compute(setting="ring"), "setting must be one of"),
        (lambda: fig20_stacked.compute(setting="digits"), "setting must be one of"),
        (lambda: table02_costs.compute(1), "points must be"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_committed_pictures_are_small() -> None:
    for path in (RESULTS / "mm_nsat").glob("fig06*.json"):
        for cost in fig06_samples.COSTS:
            assert len(json.loads(path.read_text())[cost]["picture"]) < 60_000
