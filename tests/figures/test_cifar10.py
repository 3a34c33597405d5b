"""Chapter 20's runs: their commands, how curves are put together and read, and the stored result's own claims."""

import dataclasses
import json
import math

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm

from figures.book import cifar10
from figures.provenance import load
from gankit import commands
from gankit.recipes import recipes
from gankit.recipes.records import differences
from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.mark.parametrize("name", cifar10.RUNS)
def test_a_command_says_what_differs_from_the_recipe(name):
    run = cifar10.RUNS[name]
    known = cifar10.facts(run, run.seeds)
    arguments = commands._parser().parse_args(known["command"].removeprefix("gankit ").split())
    assert arguments.recipe == run.recipe
    assert arguments.data == "CIFAR10"
    # One kept checkpoint in ten or eight, so that the last one is among them.
    assert arguments.steps % arguments.keep_every == 0
    # Narrower by some factor, shorter by another: a small part of the recipe's operations. A card's are shorter.
    part = 100 if "full" in name else 300
    assert known["operations"] < known["operations_of_the_recipe"] / part
    assert recipes[run.recipe].data == "cifar10"


def test_compared_runs_differ_in_one_thing_only():
    for name, other in cifar10.PAIRS.items():
        a, b = (cifar10.RUNS[key] for key in (name, other))
        assert (a.seeds, a.together, a.network, a.metrics) == (b.seeds, b.together, b.network, b.metrics)
        changed = [recipes[one.recipe].changed(cifar10.flags.read(one.flags)) for one in (a, b)]
        differing = set(differences(*changed)) - {"name", "about", "paper"}
        assert differing in ({"loss"}, {"leak"})
        assert list(a.flags)[: len(b.flags)] == list(b.flags)
        own = {word for word in a.flags if word.startswith("--")} - set(b.flags)
        assert own <= {"--leak-beta", "--leak-start"}


def part(seeds, steps=(10, 20), offset=0.0):
    """What `measured` returns for a folder, with scores that name their step and seed."""
    values = np.array([[100 * step + seed + offset for seed in seeds] for step in steps])
    return {
        "seeds": list(seeds),
        "steps": list(steps),
        "images": [64 * step for step in steps],
        "titles": {"fd": "FD[x]"},
        "scores": {"fd": values},
        "again": {"fd": values + 1},
        "log_steps": [5, 10],
        "logged": {"g_grad": values},
        "least_gradient": values.min(0),
        "wall_time_s": 2.0,
    }


def test_a_longer_run_has_all_its_numbers_of_steps_longer():
    run = cifar10.stretched(cifar10.RUNS["leakyema"], 10)
    own = recipes[run.recipe].changed(cifar10.flags.read(run.flags))
    assert (own.steps, own.leak.start) == (12_000, 6_000)
    short = cifar10.stretched(cifar10.RUNS["leakyema"], 0.001)
    assert recipes[run.recipe].changed(cifar10.flags.read(short.flags)).steps == 1
    assert cifar10.stretched(cifar10.RUNS["ns"], 1.0) == cifar10.RUNS["ns"]


def test_seeds_of_several_folders_stand_side_by_side():
    together, apart = cifar10.collect([part([3, 4, 5])]), cifar10.collect([part([3]), part([4]), part([5])])
    assert apart | {"wall_time_s": 2.0} == together
    assert apart["wall_time_s"] == 6.0
    assert apart["scores"]["fd"] == [[1003.0, 1004.0, 1005.0], [2003.0, 2004.0, 2005.0]]
    assert apart["least_gradient"] == [1003.0, 1004.0, 1005.0]
    with pytest.raises(ValueError, match=r"measured at different steps: \[\[10, 20\], \[10, 30\]\]"):
        cifar10.collect([part([0]), part([1], steps=(10, 30))])


@given(t=st.integers(1, 12), s=st.integers(1, 4), seed=st.integers(0, 999))
def test_a_second_reading_is_of_the_same_checkpoint(t, s, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(100, 5, (2, t, s)).round(2)
    found = cifar10.reread(first, second)
    for column, step in enumerate(found["step"]):
        assert found["lowest"][column] == first[:, column].min() == first[step, column]
        assert found["again"][column] == second[step, column]
    assert cifar10.reread(first, first)["noise"] == 0
    assert cifar10.reread(first, first)["too_low"] == 0


def test_the_lowest_of_equal_checkpoints_is_too_low_by_the_expected_maximum():
    rng = np.random.default_rng(0)
    t, sd = 10, 3.0
    found = cifar10.reread(*rng.normal(100, sd, (2, t, 20_000)))
    x = np.linspace(-8, 8, 4001)
    expected = np.trapezoid(x * t * norm.pdf(x) * norm.cdf(x) ** (t - 1), x)
    assert found["too_low"] == pytest.approx(sd * expected, rel=0.02)
    assert found["noise"] == pytest.approx(sd, rel=0.02)


def test_pairs_are_counted_where_the_seeds_are_the_same():
    runs = {name: cifar10.collect([part([0, 1], offset=o)]) for name, o in (("ns", 0.0), ("mm-nsat", -1.0))}
    table = cifar10.summarise(runs)
    assert table["mm-nsat"]["below"] == {"fd": 2}
    assert table["mm-nsat"]["above"] == {"fd": 0}
    assert "below" not in table["ns"]
    assert (table["ns"]["fd"], table["ns"]["fd_min"], table["ns"]["fd_max"]) == (2000.5, 2000.0, 2001.0)
    assert "below" not in cifar10.summarise(runs | {"ns": cifar10.collect([part([0, 2])])})["mm-nsat"]


def test_an_unknown_run_and_a_failed_command_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"runs must be among ns, .* got ls"):
        cifar10.compute(runs="ns,ls", folder=str(tmp_path))
    with pytest.raises(RuntimeError, match=r"`gankit evaluate .*none` ended with status 2"):
        cifar10.gankit("evaluate", tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "runs"), [("costs", {"ns", "mm-nsat", "mm"}), ("biggan", {"biggan", "leakyema"})]
)
def test_a_stored_result_is_what_it_says(name, runs):
    result = load(f"book/cifar10_{name}")
    assert set(result["runs"]) == runs
    again = cifar10.summarise(result["runs"])
    assert json.loads(json.dumps(again)) == result["summary"]
    for key, run in result["runs"].items():
        settings = cifar10.RUNS[key]
        assert run["seeds"] == list(settings.seeds)
        flags = list(settings.flags)
        assert run["steps"][-1] == int(flags[flags.index("--steps") + 1])
        assert run["command"] == cifar10.facts(settings, run["seeds"])["command"]
        for part in ("scores", "again"):
            assert list(run[part]) == list(settings.metrics)
            for values in run[part].values():
                assert np.array(values).shape == (len(run["steps"]), len(run["seeds"]))
        # Two sets of latents agree where nothing is chosen: their differences have no sign of their own.
        a, b = (np.array(run[part]["fd"], float) for part in ("scores", "again"))
        z = (a - b).mean() / ((a - b).std() / math.sqrt(a.size))
        assert abs(z) < 4
    assert 0.75 < result["classifier_accuracy"] < 0.95
    figures = (cifar10.draw_costs, cifar10.draw_pairs) if name == "costs" else (cifar10.draw_biggans,)
    for draw in figures:
        assert_drawn(draw(result))


@pytest.mark.full
def test_a_short_run_has_the_shape_of_the_stored_result(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        for i in range(45):
            noise = rng.integers(0, 60, (32, 32, 3)) + 15 * label
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "pictures" / str(label) / f"{i}.png")
    short = ["--width", "4", "--steps", "4", "--keep-every", "2", "--log-every", "1", "--batch-size", "8"]
    monkeypatch.setattr(
        cifar10,
        "RUNS",
        {
            name: dataclasses.replace(
                run, flags=[*short, *(["--leak-start", "2"] if name == "leakyema" else [])], seeds=range(2)
            )
            for name, run in cifar10.RUNS.items()
        },
    )
    monkeypatch.setattr(cifar10, "REAL", 200)
    settings = {"data": str(tmp_path / "pictures"), "folder": str(tmp_path / "runs"), "samples": 60}
    fresh = cifar10.compute(**settings)
    for name in ("costs", "biggan"):
        committed = load(f"book/cifar10_{name}")
        summary = {run: fresh["summary"][run] for run in committed["runs"]}
        assert_shaped_alike(fresh | {"summary": summary}, committed)
    # Nothing is trained or measured twice.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = cifar10.compute(**settings)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again["runs"] == fresh["runs"]
    # What both BigGANs are until the leak begins.
    first = {name: fresh["runs"][name]["scores"]["fd"][0] for name in ("biggan", "leakyema")}
    assert first["biggan"] == first["leakyema"]
