"""The book's figures on metrics: what damages do, what the bias is, and that draw understands compute."""

import json
from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import linalg, ndimage

import gankit as gk
from figures.book import measuring_bias, measuring_damage, measuring_truncation

matplotlib.use("Agg")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = gk.data.load("digits")
    return data.normalise(data.images), data.labels


# --- Damages ------------------------------------------------------------------------------------------------------


def test_blur_is_the_separable_filter_of_scipy(digits):
    images = digits[0][:20].double()
    line = np.array([0.2, 0.6, 0.2])
    expected = images.numpy()
    for axis in (2, 3):
        expected = ndimage.correlate1d(expected, line, axis=axis, mode="nearest")
    np.testing.assert_allclose(measuring_damage.blur(images.float()).numpy(), expected, atol=1e-6)


def test_shift_and_shrink(digits):
    images, labels = digits
    moved = measuring_damage.shift(images)
    assert torch.equal(moved[..., 1:], images[..., :-1])
    assert (moved[..., 0] == -1).all()
    halfway = measuring_damage.shrink(images, labels)
    for label in range(10):
        before, after = (x[labels == label] for x in (images, halfway))
        torch.testing.assert_close(after.mean(0), before.mean(0))
        torch.testing.assert_close(after.var(0), before.var(0) / 4)
    assert measuring_damage.zoom(images[:2]).shape == (2, 1, 32, 32)


def test_damages_are_what_their_names_say(digits):
    images, labels = digits
    fresh, reference = (images[::2], labels[::2]), (images[1::2], labels[1::2])
    fresh = tuple(x[: len(reference[0])] for x in fresh)
    made = measuring_damage.damages(fresh, reference, torch.Generator().manual_seed(0))
    assert next(iter(made)) == measuring_damage.HONEST
    for x, y in made.values():
        assert x.shape == fresh[0].shape
        assert y.shape == fresh[1].shape
        assert x.abs().max() <= 1 + 1e-6
    few = made["90 copies, ten times each"][0].flatten(1)
    assert len(few.unique(dim=0)) <= 90
    assert (torch.cdist(few, reference[0].flatten(1)).amin(1) < 1e-3).all()
    assert made["without 7, 8 and 9"][1].max() == 6
    single, asked = made["one picture for each class"]
    assert all(len(single[asked == label].unique(dim=0)) == 1 for label in range(10))
    before, after = fresh[1], made["3 and 8 exchange labels"][1]
    assert torch.equal(before == 3, after == 8)
    assert torch.equal(before != after, (before == 3) | (before == 8))


@pytest.mark.parametrize(
    ("values", "metric", "expected"),
    [
        ([3.0, 5.0, 4.0], "FD[pixels]", 1.0),  # larger distances are worse: by 2, 2 and 2 of a range of 2
        ([3.0, 5.0, 4.0], "IS", -1.0),
        ([0.0, 4.0, 1.0], "FD[pixels]", 0.0),  # not in one direction
        ([1.0, 3.0, 2.0], "IS", 0.0),
    ],
)
def test_score(values, metric, expected):
    assert measuring_damage.score(values, [1.0, 3.0, 2.0], metric) == pytest.approx(expected)


def test_damage_figure(monkeypatch):
    data = gk.data.load("digits", n=900)
    monkeypatch.setattr(gk.data, "load", lambda name: data)
    monkeypatch.setattr(measuring_damage, "PAIRS", 12)
    result = measuring_damage.compute(n_splits=2)
    values, seen = result["values"], result["seen"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(list(row) == list(measuring_damage.METRICS) for row in values.values())
    copies = values["copies of the reference"]
    assert copies["FD[classifier]"] == pytest.approx([0, 0], abs=1e-6)
    assert copies["precision"] == copies["recall"] == copies["coverage"] == [1, 1]
    assert copies["nearest"] == pytest.approx([0, 0], abs=1e-3)
    assert seen["copies of the reference"]["nearest"] > 30
    swapped = {name for name, score in seen["3 and 8 exchange labels"].items() if abs(score) > 1}
    assert swapped - {"MS-SSIM"} == {"intra-FD"}
    assert values["without 7, 8 and 9"]["intra-FD"] == [None, None]
    measuring_damage.draw(result)
    plt.close("all")


# --- Bias ---------------------------------------------------------------------------------------------------------


def test_slope_of_a_standard_normal_is_d_times_d_plus_five_over_four():
    x = torch.randn(200_000, 6, generator=torch.Generator().manual_seed(0))
    assert measuring_bias.slope(x) == pytest.approx(6 * 11 / 4, rel=0.02)


def test_slope_predicts_the_bias_of_heavy_tails():
    """Of a distribution with large fourth moments, whose covariance is estimated badly."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> torch.Tensor:
        x = torch.randn(n, 3, generator=generator).double() * torch.tensor([1.0, 2.0, 4.0])
        return x * torch.where(torch.rand(n, 1, generator=generator) < 0.1, 3.0, 0.5)

    many, n = draw(200_000), 500
    exact = gk.metrics.FrechetStats.from_features(many)
    distances = [
        float(gk.metrics.frechet_from_stats(gk.metrics.FrechetStats.from_features(draw(n)), exact))
        for _ in range(400)
    ]
    error = np.std(distances) / len(distances) ** 0.5
    assert abs(np.mean(distances) - measuring_bias.slope(many) / n) < 4 * error + 0.05 * np.mean(distances)


@pytest.mark.parametrize("unequal", [False, True])
def test_closed_form_is_that_of_matrices(unequal):
    m_1, s_1, m_2, s_2 = (x.numpy() for x in measuring_bias.gaussians(unequal))
    a, b = np.diag(s_1**2), np.diag(s_2**2)
    expected = ((m_1 - m_2) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert measuring_bias.closed_form(*measuring_bias.gaussians(unequal)) == pytest.approx(expected, abs=1e-9)


def test_line_finds_a_line():
    x = 1 / np.array(measuring_bias.SIZES)
    noise = np.random.default_rng(0).normal(size=(40, len(x))) * 0.01
    fit = measuring_bias.line(3 + 200 * x + noise)
    assert fit["FD"] == pytest.approx(3, abs=5 * fit["error"])
    assert fit["b"] == pytest.approx(200, rel=0.02)


def test_bias_figure():
    result = measuring_bias.compute(repeats=3)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for case in measuring_bias.CASES:
        assert np.shape(result[case]["FD"]) == np.shape(result[case]["KD"]) == (3, len(measuring_bias.SIZES))
    assert result["exact"]["equal Gaussians"] == 0
    measuring_bias.draw(result)
    plt.close("all")


# --- Truncation ---------------------------------------------------------------------------------------------------


def test_truncation_figure(monkeypatch):
    monkeypatch.setattr(measuring_truncation, "SAMPLES", 560)
    run = measuring_truncation.train(n_seeds=2, steps=30)
    result = measuring_truncation.compute(run)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for player in measuring_truncation.PLAYERS:
        for name in measuring_truncation.NAMES:
            assert np.shape(result[player][name]) == (len(measuring_truncation.LIMITS), 2)
        # Less of the latent space, more alike.
        alike = np.array(result[player]["MS-SSIM"])
        assert all((after > before).all() for before, after in pairwise(alike))
    measuring_truncation.draw(result)
    plt.close("all")


def test_the_label_reaches_both_networks():
    run = measuring_truncation.train(n_seeds=2, steps=1)
    z, labels = torch.randn(2, 10, run.G.z_dim), torch.arange(10).expand(2, -1)
    made = run.G(z, labels)
    assert made.shape == (2, 10, 1, 8, 8)
    assert not torch.allclose(made, run.G(z, labels.flip(1)))
    assert not torch.allclose(run.D(made, labels), run.D(made, labels.flip(1)))
