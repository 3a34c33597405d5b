"""The training figures of the LeakyEMA paper: tables 1, 2, 3 and 5, figures 4, 6 and 7, and what goes with them."""

from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

import gankit as gk
from figures.leakyema import (
    fig04_learning_curves,
    fig06_fixed_z,
    fig07_consecutive_steps,
    runs,
    start_and_memory,
    table01_beta_and_start,
    table02_variants,
    table03_combinations,
    table05_lookahead,
)
from figures.leakyema.lookahead import Lookahead, step_back
from figures.leakyema.runs import Variant
from figures.provenance import load
from gankit import study
from gankit.models.sampling import sample
from gankit.models.spectral import SNConv2d, SNLinear, leading_vectors
from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")

TINY = {"n_seeds": 2, "steps": 4, "samples": 20}
MODULES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "table01_beta_and_start": (
        table01_beta_and_start,
        {"evaluations": 2, "betas": "0.5,1", "starts": "0,0.5"},
    ),
    "table02_variants": (table02_variants, {"evaluations": 2}),
    "table03_combinations": (table03_combinations, {"evaluations": 2}),
    "table05_lookahead": (table05_lookahead, {"evaluations": 2}),
    "fig04_learning_curves": (fig04_learning_curves, {"steps": 8, "evaluations": 8}),
    "fig06_fixed_z": (fig06_fixed_z, {"evaluations": 2}),
    "fig07_consecutive_steps": (fig07_consecutive_steps, {"evaluations": 2, "every": 1}),
    "start_and_memory": (start_and_memory, {}),
}


@pytest.fixture(scope="module", autouse=True)
def small() -> None:
    """Few real images, few starts, one thread: this file is about the bookkeeping, not about digits."""
    load_data = gk.data.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gk.data, "load", lambda name, **k: load_data(name, **{"n": 300} | k))
        patch.setattr(start_and_memory, "STARTS", (0, 2_000))
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return {name: module.compute(**TINY | settings) for name, (module, settings) in MODULES.items()}


@pytest.mark.parametrize("name", MODULES)
def test_results_are_shaped_like_the_committed_ones(name: str, results: dict[str, dict[str, Any]]) -> None:
    committed = load(f"leakyema/{name}")
    assert_shaped_alike(
        *(without_variants(r) if name.startswith("table01") else r for r in (results[name], committed))
    )
    assert len(committed["provenance"]["seeds"]) >= 6


def without_variants(result: dict[str, Any]) -> dict[str, Any]:
    """A grid's result but for its cells; the summary is that of the first, which all grids have."""
    rest = {key: value for key, value in result.items() if key not in result["names"]}
    return rest | {"summary": result["summary"]["conventional"]}


def test_the_mnist_grid_is_shaped_like_the_one_on_digits() -> None:
    digits, mnist = (load(f"leakyema/{name}") for name in ("table01_beta_and_start", "table01_mnist_conv4"))
    assert_shaped_alike(without_variants(digits), without_variants(mnist))
    for result in (digits, mnist):
        assert set(result["names"]) <= set(result)
    assert mnist["names"] == list(table01_beta_and_start.variants("0.25,0.5,0.75", "0,0.25"))
    assert len(mnist["provenance"]["seeds"]) == 5
    assert_drawn(table01_beta_and_start.draw(mnist))


@pytest.mark.parametrize("source", ["fresh", "committed"])
@pytest.mark.parametrize("name", MODULES)
def test_figures_are_drawn_with_labelled_axes(
    name: str, source: str, results: dict[str, dict[str, Any]]
) -> None:
    module, _ = MODULES[name]
    assert_drawn(module.draw(results[name] if source == "fresh" else load(f"leakyema/{name}")))


# --- The runs ---------------------------------------------------------------------------------------------------


def test_variants_of_one_source_are_the_same_run_until_leaking_begins() -> None:
    """Two of four judgements come before the first leaky step, which is the one after N are done."""
    both = fig04_learning_curves.variants("0.5")
    result = runs.experiment(both, "digits", n_seeds=2, steps=40, samples=50, evaluations=4)
    plain, leaky = (np.array(result[name]["distance"]) for name in ("conventional", "leakyema"))
    assert result["starts"] == {"conventional": 0, "leakyema": 20}
    np.testing.assert_allclose(plain[:2], leaky[:2], rtol=1e-3)
    assert (plain[3] != leaky[3]).any()


def test_the_fixed_model_is_the_finished_average_of_the_conventional_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[gk.Trainer] = []
    build = study.build

    def record(*args: Any, **settings: Any) -> gk.Trainer:
        built.append(build(*args, **settings))
        return built[-1]

    monkeypatch.setattr(study, "build", record)
    variants = {
        "conventional": Variant(""),
        "sync": Variant("", 0.5),
        "async-model": Variant("", 0.5, 0.0, "async-model"),
    }
    runs.experiment(variants, "digits", n_seeds=2, steps=3, samples=20, evaluations=1)
    first, second = built
    assert first.game.leak.model is None
    assert second.game.leak.source == "async-model"
    assert second.game.leak.model.replicas == 2
    torch.testing.assert_close(sample(second.game.leak.model, 5), first.teacher.sample(5)[:2])
    with pytest.raises(ValueError, match="async-model needs a variant with beta = 0"):
        runs.experiment({"async-model": variants["async-model"]}, "digits", n_seeds=1, steps=1)


def test_a_run_goes_on_from_its_folder(tmp_path: Path) -> None:
    settings = {"setting": "digits", "n_seeds": 2, "k": 2, "start": "0", "samples": 20, "evaluations": 2}
    whole = table05_lookahead.compute(steps=8, **settings)
    table05_lookahead.compute(steps=4, folder=str(tmp_path), **settings)
    resumed = table05_lookahead.compute(steps=8, folder=str(tmp_path), **settings)
    for name in whole["names"]:
        assert resumed[name]["distance"][-1] == whole[name]["distance"][-1]


def test_judging_the_data_by_themselves() -> None:
    data = gk.data.load("digits")
    measure = runs.judge(data)
    scores = {k: v.item() for k, v in measure(data.normalise(data.images)[None]).items()}
    assert set(scores) == set(runs.KEYS)
    assert scores["distance"] == pytest.approx(0, abs=1e-3)
    assert scores["divergence"] < 1e-3
    assert scores["covered"] == 10
    # A classifier is not perfect, but every picture of the reference is in its own ball.
    assert scores["recall"] == scores["coverage"] == 1
    assert scores["precision"] > 0.9


def test_a_setting_or_number_of_seeds_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match=r"setting must be one of digits, .* got 'lsun'"):
        table02_variants.compute(setting="lsun")
    with pytest.raises(ValueError, match="n_seeds must be at least 1, got 0"):
        table02_variants.compute(n_seeds=0)
    with pytest.raises(ValueError, match="divisor of the 4 steps from one judgement to the next, got 3"):
        fig07_consecutive_steps.compute(n_seeds=1, steps=8, evaluations=2, every=3)
    with pytest.raises(ValueError, match="three come after N, and 1 did"):
        fig04_learning_curves.compute(n_seeds=1, steps=4, samples=20, evaluations=2)


@pytest.mark.parametrize("setting", runs.SETTINGS)
def test_every_setting_builds_a_run(setting: str) -> None:
    recipe = runs.SETTINGS[setting]
    data = gk.data.load("digits")
    if recipe.data != "digits":  # pictures of that size, and of classes that its networks could ask for
        shape = (3, 32, 32) if recipe.data.startswith("cifar") else (1, 28, 28)
        classes, labels = tuple("0123456789"), torch.arange(20) % 10
        data = gk.data.Dataset(recipe.data, torch.zeros(20, *shape, dtype=torch.uint8), labels, classes)
    assert recipe.changed({"width": 4}).build([0], data=data, device="cpu").step()["d_loss"].isfinite()


@pytest.mark.parametrize("model", ["conv", "mlp"])
def test_normalised_recipes_differ_in_the_discriminators_norms_alone(model: str) -> None:
    normal = runs.Normalised(model, z_dim=4, depth=3, width=8)
    plain = gk.recipes.Networks(model, z_dim=4, depth=3, width=8)
    (G, D), (G0, D0) = (networks((1, 8, 8), 3) for networks in (normal, plain))
    torch.testing.assert_close(G(torch.ones(2, 4)), G0(torch.ones(2, 4)))
    weights, weights0 = ([p for n, p in net.named_parameters() if "weight" in n] for net in (D, D0))
    for w, w0 in zip(weights, weights0, strict=True):
        torch.testing.assert_close(w, w0)
    normalised = [layer for layer in D if isinstance(layer, SNConv2d | SNLinear)]
    assert len(normalised) == len(weights0) == 3
    for layer in normalised:
        u, v = leading_vectors(layer.eval().normalised().flatten(1))
        assert (u @ layer.normalised().flatten(1) @ v).item() == pytest.approx(1, rel=2e-3)
    other = next(layer for layer in normal((1, 8, 8), 4)[1] if hasattr(layer, "u"))
    assert not torch.equal(normalised[0].u, other.u)


def test_summary_against_numbers_by_hand() -> None:
    curve = {key: [[3.0, 4.0, 8.0], [1.0, 2.0, 6.0]] for key in (*runs.KEYS, *runs.OWN)}
    other = curve | {"distance": [[9.0, 1.0, 9.0], [4.0, 1.5, 4.0]]}
    row = runs.summarise({"a": curve, "b": other}, ["a", "b"])["b"]
    assert (row["distance"], row["distance_min"], row["distance_max"]) == (4, 1.5, 4)
    assert row["mean"] == pytest.approx(9.5 / 3, rel=1e-4)
    assert row["std"] == pytest.approx(np.std([4, 1.5, 4], ddof=1), rel=1e-4)
    assert row["best"] == 4  # of 4, 1 and 4
    assert (row["seeds_below"], row["ratio"]) == (2, 0.5)


# --- What the figures measure -----------------------------------------------------------------------------------


def test_a_steady_trend_does_not_fluctuate_and_an_alternating_one_does() -> None:
    t = np.arange(6)
    falling, alternating = np.exp(-0.3 * t), np.exp(0.1 * (-1.0) ** t)
    both = fig04_learning_curves.fluctuation(np.stack([falling, alternating], 1))
    assert both[0] == pytest.approx(0, abs=1e-12)
    assert both[1] == pytest.approx(np.std([-0.2, 0.2, -0.2, 0.2, -0.2], ddof=1))


def test_frames_and_movement_come_from_the_run(results: dict[str, dict[str, Any]]) -> None:
    result = results["fig06_fixed_z"]
    for name in ("conventional", "leakyema"):
        frames = np.array(result["frames"][name])
        assert frames.shape == (2, fig06_fixed_z.SHOWN, 64)
        assert frames.min() >= 0
        assert frames.max() <= 255
        assert np.array(result["moved"][name]).shape == (1, 2)


def test_ratios_of_movements() -> None:
    result = {
        "starts": {"leakyema": 10},
        "steps": [10, 20],
        "heard_steps": [10, 20, 30],
        "conventional": {runs.HEARD: [[9.0], [4.0], [6.0]]},
        "leakyema": {runs.HEARD: [[9.0], [1.0], [3.0]]},
    }
    spread = {"conventional": [[1.0], [10.0]], "leakyema": [[1.0], [5.0]]}
    assert fig07_consecutive_steps.ratios(result, spread) == {"plain": [0.4], "relative": [0.8]}


def test_what_the_average_remembers(results: dict[str, dict[str, Any]]) -> None:
    """alpha^N, against an average of which all later weights are 0."""
    kept = 1.0
    for _ in range(125):
        kept = 0.99 * kept
    committed = load("leakyema/start_and_memory")
    at = committed["alphas"].index(0.99), committed["starts"].index(125)
    assert committed["remembered"][at[0]][at[1]] == pytest.approx(kept, rel=1e-3)
    assert results["start_and_memory"]["starts"] == [0, 2]  # 0 and a half of four steps


# --- Lookahead --------------------------------------------------------------------------------------------------


def run_of(setting: str = "digits") -> gk.Trainer:
    (group,) = study.groups(runs.SETTINGS[setting], {"conventional": {}})
    return study.build(group, [0, 1])


def test_lookahead_steps_back_half_of_the_way_that_plain_training_went() -> None:
    plain, run = run_of(), run_of()
    begin = [p.detach().clone() for p in (*plain.g_params, *plain.d_params)]
    lookahead = Lookahead(run, k=2, alpha=0.5)
    plain.fit(1, progress=False), run.fit(1, progress=False)
    for ours, theirs in zip(run.g_params + run.d_params, plain.g_params + plain.d_params, strict=True):
        assert torch.equal(ours, theirs)  # k = 2: nothing has happened yet
    average = [p.detach().clone() for p in run.teacher.parameters()]
    plain.fit(1, progress=False), run.fit(1, progress=False)
    there = plain.g_params + plain.d_params
    for ours, theirs, start in zip(run.g_params + run.d_params, there, begin, strict=True):
        torch.testing.assert_close(ours, (start + theirs) / 2, rtol=1e-5, atol=1e-7)
    for mine, before, g in zip(run.teacher.parameters(), average, run.g_params, strict=True):
        torch.testing.assert_close(mine, 0.99 * before + 0.01 * g)
    lookahead.remove()
    before = run.g_params[0].detach().clone()
    run.fit(2, progress=False)  # further than half of a step: it no longer looks back
    assert not torch.equal(run.g_params[0], before)
    assert torch.equal(lookahead.slow[0], before)


def test_lookahead_turns_a_game_that_spirals_out_into_one_that_spirals_in() -> None:
    """min_x max_y xy with simultaneous steps h: (1 + ih)^k is outside the unit circle, its mixture with 1 inside."""
    h, k, alpha = 0.1, 5, 0.5
    factor = abs(1 - alpha + alpha * (1 + 1j * h) ** k)
    assert factor < 1 < abs(1 + 1j * h)
    x, y = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    slow = [x.clone(), y.clone()]
    for _ in range(40):
        for _ in range(k):
            x_now = x.clone()
            x -= h * y
            y += h * x_now
        step_back(slow, [x, y], alpha)
    assert torch.hypot(x, y).item() == pytest.approx(factor**40, rel=1e-9)


def test_a_share_of_one_is_plain_training_and_wrong_numbers_are_refused() -> None:
    plain, run = run_of(), run_of()
    Lookahead(run, k=1, alpha=1.0)
    plain.fit(2, progress=False), run.fit(2, progress=False)
    for ours, theirs in zip(run.g_params, plain.g_params, strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="k must be at least 1 generator step, got 0"):
        Lookahead(run, k=0)
    with pytest.raises(ValueError, match=r"alpha .* must lie in \(0, 1\], got 0"):
        Lookahead(run, alpha=0)
