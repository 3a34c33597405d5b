"""Figures of the lecture's pages on SAGAN and BigGAN: parameters, attention maps, truncation of a small BigGAN."""

import json
import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gankit as gk
from figures.lecture import attention_maps, biggan_parameters, biggan_truncation
from figures.provenance import load
from gankit.game.penalties import row_products
from gankit.models.blocks import ConditionalBatchNorm2d

matplotlib.use("Agg")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- Parameters ---------------------------------------------------------------------------------------------------


def test_the_printed_numbers_of_parameters():
    result = biggan_parameters.compute()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["summary"].values()) == [81.5, 173.5, 160.6, 158.3, 71.3]
    for row in result["rows"]:
        assert sum(row["parts"].values()) == row["total"]
        assert set(row["parts"]) == set(biggan_parameters.PARTS)
    biggan_parameters.draw(result)
    plt.close("all")


def test_gains_and_biases_are_counted_where_they_are():
    with torch.device("meta"):
        G = biggan_parameters.generator("not shared", 4)
    norms = [m for m in G.modules() if isinstance(m, ConditionalBatchNorm2d)]
    of = biggan_parameters.parts("not shared", 4)
    assert of["gains and biases"] == sum(2 * 1000 * norm.gain.embedding_dim for norm in norms)
    assert of["first layer"] == 129 * 4 * 4 * 64


# --- Attention ----------------------------------------------------------------------------------------------------


def test_photographs_and_their_parts():
    pictures = attention_maps.photographs()
    assert list(pictures) == ["china", "flower"]
    for picture in pictures.values():
        assert picture.shape == (3, 213, 320)
        assert picture.min() >= -1
        assert picture.max() <= 1
    # A crop of the right part occurs in the photograph at a column that no training crop reaches.
    crop = attention_maps.crops(2, "right", torch.Generator().manual_seed(0))[1]
    windows = pictures["flower"].unfold(1, 32, 1).unfold(2, 32, 1)
    place = (windows == crop[:, None, None]).all(-1).all(-1).all(0).nonzero()
    assert len(place) >= 1
    assert place[0, 1] >= 192
    left = attention_maps.crops(40, "left", torch.Generator().manual_seed(0))
    assert left.shape == (40, 3, 32, 32)


def test_weights_are_those_of_the_layer():
    net = attention_maps.network(0)
    nn.init.constant_(net[2].gamma, 0.5)
    x = torch.randn(2, 3, 16, 16)
    beta = attention_maps.attention_map(net, x)
    assert beta.shape == (2, 16, 64)
    torch.testing.assert_close(beta.sum(1), torch.ones(2, 64))
    layer, h = net[2], net[:2](x)
    values = nn.functional.max_pool2d(layer.h(h), 2).flatten(-2)
    mixed = h + 0.5 * layer.v((values @ beta).unflatten(-1, (8, 8)))
    torch.testing.assert_close(mixed, layer(h))


@given(st.integers(0, 10_000), st.floats(0.3, 0.99))
def test_a_layer_can_be_made_as_sharp_as_another(seed, target):
    logits = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(seed))
    beta = attention_maps.as_sharp_as(logits, target)
    assert attention_maps.entropy(beta) == pytest.approx(target, abs=1e-3)
    assert torch.equal(beta.argmax(1), logits.argmax(1))


def test_preferences_of_weights_that_we_choose():
    clean = attention_maps.crops(6, "right", torch.Generator().manual_seed(0))
    found = attention_maps.distances(clean)
    uniform = torch.full((6, 64, 256), 1 / 64)
    assert attention_maps.entropy(uniform) == pytest.approx(1)
    assert attention_maps.ratios(uniform, clean) == pytest.approx({"colour": 1, "place": 1}, rel=1e-5)
    for name, other in (("colour", "place"), ("place", "colour")):
        nearest = nn.functional.one_hot(found[name].expand(6, -1, -1).argmin(1), 64).mT.float()
        ratios = attention_maps.ratios(nearest, clean)
        assert ratios[name] < 0.4
        assert ratios[name] < ratios[other]
    # The pixel in the first corner is half a key from its own key's centre in both directions.
    assert found["place"][0, 0] == pytest.approx(math.sqrt(2))


def test_attention_figure():
    result = attention_maps.compute(seeds=2, steps=3)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(len(values) == 2 for values in result["values"].values())
    assert set(result["values"]) == set(load("lecture/attention_maps")["values"])
    attention_maps.draw(result)
    attention_maps.draw_maps(attention_maps.network(0))
    plt.close("all")


def test_training_reduces_the_error():
    net, plain = attention_maps.train(0, steps=30), attention_maps.network(0, attention=False)
    found = attention_maps.measure(net, plain)
    assert found["error, attention"] < found["error, none"]
    assert found["gamma"] != 0


# --- Truncation ---------------------------------------------------------------------------------------------------


def test_penalty_with_diagonal_is_the_printed_formula():
    """Equation 2 of BigGAN: beta |W^T W - I|_F^2, here with filters as rows; embeddings are left alone."""
    G = gk.Ensemble(lambda seed: biggan_truncation.networks(seed, "Glorot")[0], (0, 1))

    def printed(net: nn.Module) -> torch.Tensor:
        weights = [m.weight.flatten(1) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return sum((w @ w.T - torch.eye(len(w))).square().sum() for w in weights) / 100

    expected = torch.stack([printed(G.replica(i)) for i in range(2)])
    torch.testing.assert_close(biggan_truncation.identity_distance(G), expected)
    assert (biggan_truncation.identity_distance(G) > 1e-2 * row_products(G)).all()


def test_variants_differ_in_their_weights_alone():
    of = {variant: biggan_truncation.networks(3, variant) for variant in biggan_truncation.VARIANTS}
    first = {name: net[0].state_dict() for name, net in of.items()}
    for name, state in first.items():
        equal = all(torch.equal(state[key], first["none"][key]) for key in state)
        assert equal == (name != "Glorot")
    conv = of["none"][0].layers[2].conv1.weight.detach().flatten(1)
    torch.testing.assert_close(conv @ conv.T, torch.eye(16), atol=1e-5, rtol=0)


def test_evenness_of_known_spectra():
    values = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [2.0, 2.0, 0.0]])
    torch.testing.assert_close(biggan_truncation.evenness(values), torch.tensor([1, 1 / 3, 2 / 3]))
    G = gk.Ensemble(lambda seed: biggan_truncation.networks(seed)[0], (0, 1))
    for layer, found in biggan_truncation.spectra(G).items():
        assert found.shape[0] == 2
        assert (found[:, 0] == 1).all(), layer
        if "conv" in layer:
            torch.testing.assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)


def test_truncation_figure(monkeypatch):
    monkeypatch.setattr(biggan_truncation, "SAMPLES", 80)
    monkeypatch.setattr(biggan_truncation, "LIMITS", (None, 0.5))
    result = biggan_truncation.compute(seeds=2, steps=2, variants=("none", "1e-2"))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for variant in result["variants"].values():
        for player in ("average", "generator", "standing"):
            assert all(np.shape(variant[player][name]) == (2, 2) for name in biggan_truncation.NAMES)
    assert result["summary"]["none"]["against none"] == {"FD": 0, "recall": 0, "precision": 0, "IS": 0}
    assert result["summary"]["1e-2"]["trades"].endswith("of 2 seeds")
    stored = load("lecture/biggan_truncation")
    assert set(result["variants"]["none"]) == set(stored["variants"]["none"])
    biggan_truncation.draw(result)
    biggan_truncation.draw_spectra(result)
    plt.close("all")


def test_stored_result_agrees_with_its_summary():
    stored = load("lecture/biggan_truncation")
    for name, variant in stored["variants"].items():
        found = variant["average"]
        assert np.median(found["recall"][0]) == pytest.approx(stored["summary"][name]["recall"], rel=1e-3)
        strong = stored["limits"].index(0.5)
        rises = np.array(found["precision"][strong]) > np.array(found["precision"][0])
        falls = np.array(found["recall"][strong]) < np.array(found["recall"][0])
        assert stored["summary"][name]["trades"].startswith(f"{(rises & falls).sum()} of")
