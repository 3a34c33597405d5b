"""Ways to condition, inside the classes: short runs are shaped as the stored ones, and numbers are what they say."""

import json

import matplotlib
import numpy as np
import pytest
import torch

import gankit as gk
from figures.lecture import conditioning
from gankit.metrics.frechet import frechet_distance
from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")
STORED = ["digits", "mnist"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Three ways, two seeds, ten steps; started twice, the second time from what the first kept."""
    torch.set_num_threads(1)
    kept = tmp_path_factory.mktemp("kept")
    short = ("projection-digits", {"width": 16}, ("projection", "hidden concat", "AC-GAN, weight 25"), 10, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(conditioning.WORLDS, "digits", short)
        first = conditioning.compute(kept=str(kept))
        patch.setattr(conditioning, "train", None)
        again = conditioning.compute(kept=str(kept))
    assert json.dumps(first["ways"]) == json.dumps(again["ways"])
    return first


@pytest.mark.parametrize("world", STORED)
def test_a_short_run_is_shaped_like_the_stored_one(fresh, world):
    stored = conditioning.stored(world)
    assert_shaped_alike(fresh | {"summary": {}}, stored | {"summary": {}})
    assert ("similarity" in stored["real"]) == (world == "mnist"), "digits are too small for five scales"
    _, _, names, steps, n = conditioning.WORLDS[world]
    assert set(stored["ways"]) == set(names) == set(stored["summary"])
    for name, one in stored["ways"].items():
        assert one.keys() == fresh["ways"]["projection"].keys()
        assert one["steps"][-1] == steps
        assert {key: np.shape(values) for key, values in one["classes"].items()} == dict.fromkeys(
            one["end"], (n, 10)
        )
        for key, values in one["classes"].items():  # stored classes are rounded
            assert np.mean(values, -1) == pytest.approx(np.array(one["end"][key]), rel=5e-3, abs=5e-4), name
    assert stored["summary"] == conditioning.summarise(stored["ways"], stored["real"])
    projection = stored["ways"]["projection"]
    for name, one in stored["ways"].items():
        assert stored["inside"][name] == conditioning.inside_classes(one, projection, stored["real"])


@pytest.mark.parametrize("world", STORED)
def test_stored_results_are_drawn(world):
    stored = conditioning.stored(world)
    assert_drawn(conditioning.draw(stored))
    assert_drawn(conditioning.draw_classes(stored))
    lines = conditioning.table(stored).splitlines()
    assert len(lines) == 1 + len(stored["ways"])
    assert len(conditioning.pairs(stored).splitlines()) == len(stored["ways"])
    one = stored["summary"]["AC-GAN"]["recall_against_projection"]
    assert f"{one['below']}:{one['above']}, p = {one['p']:.2g}" in conditioning.pairs(stored)


def test_pairs_share_the_generators_first_weights():
    """Ways differ in D alone: G's weights, z and data are those of the seed."""
    data = gk.data.load("digits", n=100)
    recipe, changes, *_ = conditioning.WORLDS["digits"]
    weights = []
    for way in ("projection", "concat", "AC-GAN"):
        named = gk.recipes.recipes[recipe].changed({**changes, **conditioning.WAYS[way], "width": 8})
        run = named.build((0, 1), data=data, device="cpu")
        play = run.play(run.D)
        weights.append([*run.G.parameters(), play.z, play.real])
    assert all(torch.equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other, strict=True))


def test_distances_are_those_of_each_class():
    data = gk.data.load("digits")
    inside = conditioning.Inside(data, conditioning.classifier_of(data))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(10 * conditioning.PER_CLASS, 64, generator=generator)
    found = inside.distances(features)
    rows = slice(3 * conditioning.PER_CLASS, 4 * conditioning.PER_CLASS)
    assert bool((inside.labels[rows] == 3).all())
    assert found[3].item() == pytest.approx(frechet_distance(features[rows], inside.real[3]).item())
    own = torch.cat([real[torch.arange(conditioning.PER_CLASS) % len(real)] for real in inside.real])
    assert float(inside.distances(own).max()) < 0.1 * float(found.min())
    assert float(inside.accuracy(own).min()) > 0.9
    assert float(inside.neighbours(own)["recall"].min()) > 0.95


def test_a_class_is_lost_below_half_of_the_recall_that_is_possible():
    one = {"classes": {"recall": [[0.2, 0.5], [0.1, 0.3]], "distance": [[3.0, 1.0], [3.0, 5.0]]}}
    projection = {"classes": {"distance": [[2.0, 2.0], [2.0, 2.0]]}}
    found = conditioning.inside_classes(one, projection, {"recall": [0.5, 0.8]})
    assert found == {"lost": [1, 2], "behind": [0.5, 1.0]}


def test_an_unknown_world_is_refused():
    with pytest.raises(ValueError, match="world must be one of digits, mnist, got 'cifar'"):
        conditioning.compute("cifar")
