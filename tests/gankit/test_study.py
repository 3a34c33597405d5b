"""Studies: what shares a run, what is paired, what goes on after a kill, and that no field of a recipe is dropped."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

import gankit as gk
from gankit import study
from gankit.game.penalties import WganGP
from gankit.models.sampling import sample

matplotlib.use("Agg")

RECIPE = gk.recipes.recipes["ns-ring"].changed({"width": 8, "batch_size": 16})
SEEDS = (3, 5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def spread_of(run: gk.Trainer) -> dict[str, torch.Tensor]:
    return {"spread": sample(run.G, 50).std(-2).mean(-1)}


def short(variants: dict[str, dict[str, Any]], steps: int = 6, **settings: Any) -> dict[str, Any]:
    settings = {"measures": [spread_of], "evaluations": 3, "log_every": 2, "progress": False} | settings
    return study.run(RECIPE, variants, SEEDS, steps, **settings)


def build(variants: dict[str, dict[str, Any]], recipe: Any = RECIPE) -> gk.Trainer:
    (group,) = study.groups(recipe, variants)
    return study.build(group, SEEDS)


# --- What shares a run, and what is paired ------------------------------------------------------------------------


def test_variants_share_a_run_where_replicas_may_differ_and_have_runs_of_their_own_where_not() -> None:
    variants = {
        "NS": {},
        "large": {"batch_size": 32},
        "MM": {"loss": "mm", "beta2": 0.99, "d_lr": 1e-4, "r1": 0.1},
        "leaky": {"leak_beta": 0.5, "leak_start": 2},
        "other z": {"leak_beta": 0.5, "leak_source": "async-noise"},
    }
    assert [list(group.variants) for group in study.groups(RECIPE, variants)] == [
        ["NS", "MM", "leaky"],
        ["large"],
        ["other z"],
    ]
    # Other penalties are shared where all have them, each with a strength of its own.
    terms = {"a": {"wgan_gp": 1.0}, "b": {"wgan_gp": 2.0, "l2": 1.0}, "c": {"wgan_gp": 5.0}}
    shared = study.groups(RECIPE, terms)
    assert [list(group.variants) for group in shared] == [["a", "c"], ["b"]]
    assert study.build(shared[0], SEEDS).game.d_terms[0] == WganGP((1.0, 1.0, 5.0, 5.0))
    # A plain optimiser has one rate for all replicas.
    rates = {"a": {"optimizer": "sgd", "lr": 0.1}, "b": {"optimizer": "sgd", "lr": 0.2}}
    assert len(study.groups(RECIPE, rates)) == 2


def test_replicas_of_one_seed_share_weights_z_and_data() -> None:
    run = build({"NS": {}, "MM": {"loss": "mm"}})
    assert run.seeds == (*SEEDS, *SEEDS)
    for drawn in (*run.g_params, *run.d_params, run.draw_latents()[0], run.draw_data()[0]):
        assert torch.equal(drawn[:2], drawn[2:])
        assert drawn.ndim == 2 or not torch.equal(drawn[0], drawn[1])


def test_a_variant_trains_as_it_would_alone() -> None:
    variants = {
        "NS": {},
        "MM": {"loss": "mm", "beta2": 0.9, "d_beta2": 0.99, "lr": 2e-3, "d_lr": 1e-3, "r1": 0.5},
        "leaky": {"loss": "mm-nsat", "beta1": 0.8, "leak_beta": 0.5, "leak_start": 2},
    }
    together = short(variants, steps=4)
    for name, changes in variants.items():
        alone = short({name: changes}, steps=4)
        for key in ("spread", "d_loss", "g_grad"):
            ours, theirs = (study.curve(result, name, key)[1] for result in (together, alone))
            np.testing.assert_allclose(ours, theirs, rtol=2e-3)


def test_equal_variants_have_equal_curves_and_no_pair_counts() -> None:
    result = short({"a": {}, "b": {}})
    assert result["curves"]["a"] == result["curves"]["b"]
    row = study.summary(result)["b"]["spread"]
    assert (row["below"], row["above"], row["p"], row["ratio"]) == (0, 0, 1, 1)


# Value of every short name that differs from the recipe's; each must reach the run that is built.
CHANGES: dict[str, Any] = {
    "loss": "mm", "lr": 5e-4, "d_lr": 2e-4, "beta1": 0.3, "beta2": 0.9, "d_beta2": 0.8, "ema_decay": 0.5,
    "ema_start": 1, "leak_beta": 0.5, "leak_start": 3, "leak_source": "generator", "r1": 0.3, "wgan_gp": 2.0,
    "dragan": 3.0, "l2": 0.4, "normalisation": "layer", "orthogonal": 0.1, "clip": 0.02, "batch_size": 8,
    "n_dis": 2, "accumulate": 3,
    "precision": "bfloat16", "optimizer": "rmsprop", "z_dim": 5, "depth": 2, "d_depth": 4, "width": 4, "data": "spiral",
}  # fmt: skip
OTHERS = {"leak_start": {"leak_beta": 0.5}, "leak_source": {"leak_beta": 0.5}}
"""What a field needs to matter."""


def facts(run: gk.Trainer) -> dict[str, Any]:
    """What a run is made of, and the weights after a few steps."""
    run.step(), run.step(), run.step(), run.step()
    state = [p.detach().clone() for net in (run.G, run.D, run.teacher) for p in net.parameters()]
    return {"state": state, "n": (run.batch_size, run.n_dis, run.accumulate, run.precision, run.data.name)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_of_a_recipe_reaches_the_run(name: str) -> None:
    """A study's run is that of the recipe itself, and not that of the recipe without the change."""
    changes = {name: CHANGES[name]} | OTHERS.get(name, {})
    recipe = RECIPE.changed(changes)
    ours, own, without = (
        facts(run)
        for run in (
            build({"x": changes}),
            recipe.build(SEEDS, device="cpu"),
            RECIPE.changed(OTHERS.get(name, {})).build(SEEDS, device="cpu"),
        )
    )
    assert ours["n"] == own["n"]
    assert all(torch.equal(a, b) for a, b in zip(ours["state"], own["state"], strict=True))
    same = [
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(ours["state"], without["state"], strict=False)
    ]
    assert not all(same) or ours["n"] != without["n"]


def test_a_study_survives_settings_that_diverge() -> None:
    variants = {"sound": {}, "wild": {"loss": "ls", "lr": 1e12}}
    with pytest.raises(gk.Diverged):
        short(variants)
    result = short(variants, survive=True)
    assert np.isfinite(np.array(result["curves"]["sound"]["spread"], float)).all()
    alone = short({"sound": {}})
    assert result["curves"]["sound"]["spread"] == alone["curves"]["sound"]["spread"]
    assert result["curves"]["wild"]["d_loss"][-1] == [None, None]
    with pytest.raises(gk.Diverged):
        short({"wild": variants["wild"]}, survive=True)


# --- The result ---------------------------------------------------------------------------------------------------


def test_a_result_is_json_with_one_number_for_each_seed() -> None:
    result = short({"NS": {}, "twice": {"accumulate": 2}}, callback=lambda run: {"at": [run.steps] * 2})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["steps"], result["judged"], result["seeds"]) == ([2, 4, 6], ["spread"], list(SEEDS))
    for name in ("NS", "twice"):
        assert study.curve(result, name, "spread")[1].shape == (3, 2)
        steps, at = study.curve(result, name, "at")
        np.testing.assert_array_equal(at, np.stack([steps, steps], 1))
    with pytest.raises(KeyError, match=r"'fd' is not among .*spread"):
        study.curve(result, "NS", "fd")


def test_missing_numbers_are_none() -> None:
    result = short({"NS": {}}, measures=[lambda run: {"x": torch.tensor([torch.nan, 1.0])}])
    assert result["curves"]["NS"]["x"][-1] == [None, 1.0]
    assert np.isnan(study.curve(result, "NS", "x")[1][-1, 0])


def test_metrics_are_given_by_name_and_default_to_those_of_the_data() -> None:
    named = short({"NS": {}}, measures=["high_quality"], samples=60, evaluations=1)
    assert named["judged"] == ["high_quality"]
    default = short({"NS": {}}, measures=None, samples=60, evaluations=1, network="teacher")
    assert set(default["judged"]) == {"modes_covered", "high_quality", "D_JS[modes]", "FD[points]"}
    assert short({"NS": {}}, measures=())["judged"] == []


def test_summary_against_numbers_by_hand() -> None:
    def one(*rows: list[float]) -> dict[str, Any]:
        return {"fd": [list(row) for row in rows]}

    result = {"curves": {"a": one([9, 9, 9], [3, 4, 8]), "b": one([1, 9, 1], [2, 5, 4])}, "judged": ["fd"]}
    result |= {
        "steps": [1, 2],
        "log_steps": [1, 2],
        "clocks": {},
        "seeds": [0, 1, 2],
        "changes": {"a": {}, "b": {}},
    }
    row = study.summary(result, "a")["b"]["fd"]
    assert (row["median"], row["min"], row["max"], row["lowest"]) == (4, 2, 5, 1)
    assert (row["below"], row["above"], row["p"], row["ratio"]) == (2, 1, 1, 1)
    assert "p" not in study.summary(result, "a")["a"]["fd"]
    assert "2 / 1" in study.table(result)


@given(below=st.integers(0, 40), above=st.integers(0, 40))
def test_the_sign_test_is_scipys(below: int, above: int) -> None:
    expected = binomtest(below, below + above).pvalue if below + above else 1.0
    assert study.sign_test(below, above) == pytest.approx(expected, rel=1e-9)


def test_both_pictures_show_every_variant() -> None:
    result = short({"NS": {}, "MM": {"loss": "mm"}})
    colors = []
    for figure in (study.draw_curves(result), study.draw_curves(result, ["g_grad"], single=True)):
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["NS", "MM"]
        colors.append(figure.axes[0].get_lines()[-1].get_color())
        plt.close(figure)
    assert set(colors) == {gk.plotting.COLORS["mm"]}
    ends = study.draw_ends(result)
    assert [text.get_text() for text in ends.axes[0].get_xticklabels()] == ["NS", "MM"]
    plt.close(ends)


# --- Folders ------------------------------------------------------------------------------------------------------

PROGRAM = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("test_study", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
def kill(run):
    if run.n_dis == 2 and run.steps == 6:
        os.kill(os.getpid(), signal.SIGKILL)
here.short(here.TWO, folder=sys.argv[2], measures=[here.spread_of, kill])
"""
TWO = {"NS": {}, "MM": {"loss": "mm"}, "two": {"n_dis": 2}}


def test_a_killed_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The kill comes in the second of two runs, two steps after its last checkpoint."""
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, __file__, tmp_path], cwd=root, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    begun: list[tuple[int, list[str]]] = []
    resumed = short(TWO, folder=tmp_path, prepare=lambda run, names: begun.append((run.steps, list(names))))
    assert begun == [(6, ["NS", "MM"]), (4, ["two"])]
    assert resumed["curves"] == short(TWO)["curves"]


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    short({"NS": {}}, steps=2, folder=tmp_path)
    assert short({"NS": {}}, steps=4, folder=tmp_path)["log_steps"][-1] == 4
    for other in ({"NS": {"lr": 0.1}}, {"ns": {}}, {"NS": {}, "MM": {"loss": "mm"}}):
        with pytest.raises(ValueError, match="holds a study with other seeds, variants or recipe"):
            short(other, folder=tmp_path)


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: short({}), "variants is empty"),
        (lambda: short({"x": {"steps": 3}}), "variant 'x' changes steps"),
        (lambda: short({"x": {"betta2": 0.9}}), "variant 'x': .*beta2"),
        (lambda: short({"x": {"beta2": 1.5}}), "variant 'x': beta2 must lie in"),
        (lambda: study.run(RECIPE, {"x": {}}, [1, 1]), "seeds must .* differ"),
        (lambda: study.run(RECIPE, {"x": {}}, []), "seeds must be at least one"),
        (lambda: short({"x": {}}, evaluations=0), "evaluations must be at least 1, got 0"),
        (lambda: study.draw_ends(short({"x": {}}, measures=())), "nothing was judged"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_recipes_are_frozen() -> None:
    before = dataclasses.asdict(RECIPE)
    short({"MM": {"loss": "mm", "lr": 0.1}}, steps=1)
    assert dataclasses.asdict(RECIPE) == before
