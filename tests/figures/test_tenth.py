"""A tenth of MNIST and of CIFAR-10: what a run draws, its summary on numbers one can check by hand, and short runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import gankit as gk
from figures.lecture import tenth
from tests.figures.stored import assert_drawn

TINY = dataclasses.replace(
    tenth.WORLDS["mnist"],
    data="digits", n=40, held_out=20, real=200, samples=20,
    recipe=tenth.WORLDS["mnist"].recipe.changed({"data": "digits", "width": 8, "steps": 4}),
)  # fmt: skip
"""The world of MNIST with digits, which need no file."""


@pytest.mark.parametrize("name", tenth.WORLDS)
def test_methods_differ_from_none_in_what_they_name_alone(name: str) -> None:
    world = tenth.WORLDS[name]
    assert tenth.METHODS[0] == "none"
    assert tenth.recipe(world, "none") == world.recipe
    for method in tenth.METHODS[1:]:
        changed = tenth.recipe(world, method)
        fields = {
            f.name
            for f in dataclasses.fields(changed)
            if getattr(changed, f.name) != getattr(world.recipe, f.name)
        }
        assert fields == {"DiffAugment": {"augment"}, "ADA": {"augment", "rules"}}[method]


def test_no_seed_trains_on_what_is_held_out() -> None:
    data = gk.data.load("digits")
    own, held_out = tenth.split(TINY, data, [0, 1])
    assert own.rows.shape == (2, TINY.n)
    assert own.rows[0].tolist() != own.rows[1].tolist()
    every = torch.cat([own.images[own.rows.flatten()], held_out.images]).flatten(1)
    trained, kept = {tuple(row.tolist()) for row in every[: 2 * TINY.n]}, every[2 * TINY.n :]
    assert len(kept) == TINY.held_out
    assert not trained & {tuple(row.tolist()) for row in kept}


def test_cells_of_a_flat_picture_are_its_colour() -> None:
    features = tenth.of_cells(gk.data.load("digits"))
    flat = torch.full((1, 2, 3, 32, 32), 0.25)
    assert torch.equal(features(flat), torch.full((1, 2, 192), 0.25))


def test_the_summary_counts_pairs() -> None:
    none = {
        "distance": [[9.0] * 6, [4.0] * 6],
        "d_train": [[0.0] * 6, [3.0] * 6],
        "d_validation": [[0.0] * 6] * 2,
    }
    ada = none | {"distance": [[9.0] * 6, [5.0] * 6], "augment_p": [[0.0] * 6, [0.5] * 6]}
    found = tenth.summarise({"mnist": {"none": none, "ADA": ada}})["mnist"]
    assert found["none"]["end"]["median"] == 4.0
    assert found["none"]["gap"] == 3.0
    assert (found["ADA"]["pairs"]["below"], found["ADA"]["pairs"]["above"]) == (0, 6)
    assert found["ADA"]["pairs"]["p"] == pytest.approx(2 / 64)
    assert found["ADA"]["p"]["median"] == 0.5


def test_a_short_run_goes_on_and_is_drawn(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tenth, "WORLDS", {"tiny": TINY})
    monkeypatch.setattr(tenth, "READINGS", 2)
    result = tenth.compute(n_seeds=2, folder=str(tmp_path))
    assert set(result["runs"]["tiny"]) == set(tenth.METHODS)
    for one in result["runs"]["tiny"].values():
        assert one["steps"] == [2, 4]
        assert all(np.isfinite(one[curve]).all() for curve in tenth.CURVES)
    monkeypatch.setattr(tenth, "train", lambda *_: pytest.fail("it is there"))
    assert tenth.compute(n_seeds=2, folder=str(tmp_path)) == result
    assert_drawn(tenth.draw(result))
    with pytest.raises(ValueError, match="worlds must be among tiny, got moon"):
        tenth.compute("moon")
