"""Figures of "Boosting generative networks for incremental learning": short runs are shaped as the stored ones."""

import dataclasses
import json

import matplotlib
import numpy as np
import pytest
import torch
from scipy.stats import binom

from figures import ledger, provenance
from figures.incremental import (
    fig01_embedding,
    mixing,
    ranking,
    runs,
    table01_single_gan,
    table02_diversity,
    table03_several_gans,
)
from gankit.classifiers.synthetic import Protocol
from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")


@pytest.fixture(scope="module", autouse=True)
def short():
    """A world of a few steps."""
    torch.set_num_threads(1)
    tiny = dataclasses.replace(
        runs.WORLDS["digits"], steps=20, protocol=Protocol(2, 5, 32, learning_rate=0.05)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "WORLDS", {"digits": tiny})
        for module in (
            table01_single_gan,
            table02_diversity,
            table03_several_gans,
            fig01_embedding,
            ranking,
            mixing,
        ):
            patch.setattr(module, "WORLDS", {"digits": tiny})
        yield


def test_sign_test_is_binomial():
    found = runs.compare([1.0, 2, 3, 4, 5, 6], [0.5, 1, 2, 3, 4, 7])
    assert (found["wins"], found["losses"]) == (5, 1)
    assert found["p"] == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert found["difference"] == pytest.approx((0.5 + 4 - 1) / 6)
    assert runs.compare([1.0, 1], [1.0, 1])["p"] == 1.0


def test_table_1_as_stored():
    stored = provenance.load("incremental/table01_single_gan")
    assert set(stored["last"]) == set(stored["best"]) == set(table01_single_gan.PAPER) | {"real plain"}
    assert_drawn(table01_single_gan.draw(stored))
    # What is stored as an ordering follows from what is stored for each seed.
    again = table01_single_gan.orderings(stored["last"])
    for what, c in stored["orderings"].items():
        assert again[what]["wins"] == c["wins"]
        assert again[what]["p"] == pytest.approx(c["p"])
    assert all((np.array(stored["best"][k]) >= np.array(stored["last"][k])).all() for k in stored["last"])


def test_each_accuracy_that_was_run_is_compared_in_the_ledger():
    rows = [row for row in ledger.read() if row.paper == "incremental" and row.result]
    single = {f"last.{name}" for name in table01_single_gan.PAPER}
    several = {f"accuracy.{name}" for name in table03_several_gans.PAPER}
    stored = provenance.load("incremental/table03_several_gans")["accuracy"]
    assert several <= {f"accuracy.{name}" for name in stored}
    for result, cells in {"table01_single_gan": single, "table03_several_gans": several}.items():
        checks = [row.check for row in rows if row.result == f"incremental/{result}.json"]
        assert cells <= {check[side] for check in checks for side in ("first", "than")}
    # What generated images are compared with in table 2 is what the result says of real ones.
    stored = provenance.load("incremental/table02_diversity")
    constants = {row.check["than"] for row in rows if not isinstance(row.check["than"], str)}
    assert constants == set(stored["real"].values())


def test_diversity_ranking_mixing_and_maps():
    result = table02_diversity.compute(2)
    json.dumps(result, allow_nan=False)
    assert np.array(result["accuracy"]).shape == (len(table02_diversity.LIMITS), 2)
    assert_drawn(table02_diversity.draw(result))
    ranks = ranking.compute(2)
    json.dumps(ranks, allow_nan=False)
    sizes = {name: c["n"] for name, c in ranks["correlation"].items() if name.startswith("FD")}
    assert list(sizes.values()) == [12, 10, 8, 2]  # all; without young averages; old; old averages
    assert_drawn(ranking.draw(ranks))
    mixed = mixing.compute(2)
    json.dumps(mixed, allow_nan=False)
    assert_drawn(mixing.draw(mixed))
    mapped = fig01_embedding.compute(8)
    json.dumps(mapped, allow_nan=False)
    assert_drawn(fig01_embedding.draw(mapped))
    assert_drawn(fig01_embedding.draw_weights(mapped))
    w = np.array(list(mapped["weights"].values()))
    assert w.min() >= 0
    assert w.max() <= 1


def test_no_test_image_is_learnt_from():
    train, test = runs.WORLDS["digits"].load()
    known = {image.numpy().tobytes() for image in train.images}
    assert len(train) + len(test) == 1_797
    assert not known & {image.numpy().tobytes() for image in test.images}


def test_few_images_are_balanced():
    train, _ = runs.WORLDS["digits"].load()
    assert mixing.first_of_each_class(train, 100).labels.bincount().tolist() == [10] * 10


def test_table_3_short(monkeypatch):
    # The filter would wait for digits that twenty steps do not make.
    monkeypatch.setattr(
        table03_several_gans, "Generated", lambda G, judge=None, **more: runs_generated(G, **more)
    )
    result = table03_several_gans.compute(2, most=3, baseline=4)
    stored = provenance.load("incremental/table03_several_gans")
    assert_shaped_alike(result, stored)
    assert {"4 none", "3 A_mu", "2* D", "1 none"} <= set(result["accuracy"])
    assert np.allclose(result["ess"]["2 none"], 1)
    shuffled, plain = (np.array(result["ess"][f"2 {m}"]) for m in ("shuffled", "A_mu"))
    np.testing.assert_allclose(shuffled, plain, rtol=1e-3)  # as uneven, on other images
    assert_drawn(table03_several_gans.draw(result))


def runs_generated(G, **more):
    from gankit.classifiers.synthetic import Generated

    return Generated(G, **more)
