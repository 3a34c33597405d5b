"""The comparison of nine costs: what it measures, and what it makes of its scores."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from figures import provenance
from figures.book import loss_zoo

STORED = provenance.load("book/loss_zoo")


def test_the_distance_is_that_of_the_linear_programme() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 7, 2, generator=generator)
    cost = torch.cdist(a.double(), b.double()).numpy()
    marginals = np.vstack([np.kron(np.eye(7), np.ones(7)), np.kron(np.ones(7), np.eye(7))])
    plan = linprog(cost.ravel(), A_eq=marginals, b_eq=np.full(14, 1 / 7))
    assert loss_zoo.wasserstein(a, b) == pytest.approx(plan.fun)


def test_no_seed_chooses_the_setting_that_it_judges() -> None:
    """A setting that is best by one lucky seed is chosen for all seeds but that one."""
    rows = {"1": {"a": [0.0, 0.0, 9.0, 9.0, 9.0], "b": [5.0] * 5}, "4": {"c": None}}
    assert loss_zoo.best(rows) == ("1", "b")
    # Without a bad seed of a's its median is 4.5, below b's; without a good one it is 9.
    assert loss_zoo.held_out(rows).tolist() == [5.0, 5.0, 9.0, 9.0, 9.0]


def test_the_stored_summary_is_that_of_the_stored_scores() -> None:
    assert loss_zoo.summarise(STORED["tuning"]) == STORED["summary"]
    for world, cost in itertools.product(loss_zoo.WORLDS, loss_zoo.ZOO):
        rows = STORED["tuning"][world][cost]
        assert {(float(lr), int(n)) for n, row in rows.items() for lr in row} == set(loss_zoo.GRID)
        assert all(len(scores) == len(loss_zoo.TUNING) for row in rows.values() for scores in row.values())


def test_operations_are_counted() -> None:
    """Penalties cost a second derivative; clipping, LS and the hinge cost nothing."""
    counts = loss_zoo.operations("ring")
    assert counts == STORED["operations"]["ring"]
    assert {counts[cost] for cost in ("MM", "NS", "WGAN", "LS", "hinge")} == {1.0}
    assert counts["WGAN-GP"] == counts["DRAGAN"] > 1.3
    assert counts["RpGAN+R1+R2"] > counts["WGAN-GP"]


@pytest.mark.parametrize("cost", ["WGAN", "BEGAN", "RpGAN+R1+R2"])
def test_a_cost_is_tuned_and_its_row_kept(cost: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loss_zoo, "RATES", (1e-3, 3e-3))
    data = loss_zoo.gk.data.load("ring")
    variants = {f"{lr:g}": loss_zoo.changes(cost, lr, 4) for lr in loss_zoo.RATES}
    result = loss_zoo.train("ring", variants, range(2), 1, budget=20)
    assert result["steps"] == [4]
    assert np.shape(result["curves"]["0.001"]["W1"]) == (1, 2)
    assert data.centers is not None
    made = loss_zoo._kept(tmp_path, "row", lambda: {"0.001": [1.0]})
    assert made["scores"] == {"0.001": [1.0]}
    again = loss_zoo._kept(tmp_path, "row", lambda: pytest.fail("it is there"))
    assert json.dumps(again) == json.dumps(made)


def test_both_pictures_draw_all_costs() -> None:
    for figure in (loss_zoo.draw(STORED), loss_zoo.draw_tuning(STORED)):
        for ax in figure.axes:
            assert [label.get_text() for label in ax.get_xticklabels()] == list(loss_zoo.ZOO)
        loss_zoo.plt.close(figure)
