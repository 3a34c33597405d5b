"""The figure of few digits: what is stored, and that a short run has its shape."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import gankit as gk
from figures.lecture import few_data
from figures.provenance import load


def test_the_stored_summary_is_that_of_the_stored_curves() -> None:
    stored = load("lecture/few_data")
    assert few_data.summarise(stored["runs"]) == stored["summary"]
    for n, methods in stored["runs"].items():
        assert {(int(n), m) for m in few_data.METHODS} == {(int(n), m) for m in methods}
        for one in methods.values():
            assert np.array(one["distance"]).shape == (len(stored["steps"]), 10)


def test_replicas_draw_from_their_own_rows() -> None:
    data = few_data.own_rows(gk.data.load("digits"), 20, [0, 1])
    indices = torch.stack([torch.arange(20), torch.arange(20)])
    x, _ = data.batch(indices)
    assert torch.equal(x[1], data.images_of(1))
    assert not torch.equal(x[0], x[1])
    smaller = few_data.own_rows(gk.data.load("digits"), 10, [0, 1])
    assert torch.equal(smaller.rows, data.rows[:, :10])


@pytest.mark.parametrize("method", few_data.METHODS)
def test_seeds_are_pairs_in_all_methods(method: str) -> None:
    data = few_data.own_rows(gk.data.load("digits"), 20, [0, 1])
    run, base = (few_data.trainer(data, name, [0, 1]) for name in (method, "none"))
    assert all(torch.equal(a, b) for a, b in zip(run.G.parameters(), base.G.parameters(), strict=True))
    assert torch.equal(run.play(run.D).z, base.play(base.D).z)
    run.step()


def test_a_short_run_is_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_data, "METHODS", {name: few_data.METHODS[name] for name in ("none", "ADA")})
    monkeypatch.setattr(few_data, "WIDTH", 8)
    result = few_data.compute(2, 16, str(tmp_path))
    assert len(list(tmp_path.glob("*.json"))) == 2 * len(few_data.SIZES)
    again = few_data.compute(2, 16, str(tmp_path))
    assert again["runs"] == result["runs"]
    figure = few_data.draw(result)
    assert all(ax.get_ylabel() for ax in figure.axes[::2][:1])
    plt.close(figure)
