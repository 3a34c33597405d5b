"""Normalisation of a discriminator as an argument, L2 of its weights, R3GAN's networks, against plain references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gankit as gk
from gankit import models
from gankit.game.penalties import L2
from gankit.models.normalisation import NORMALISATIONS, layer_norm
from gankit.models.r3gan import BilinearDown, BilinearUp, ResidualBlock
from gankit.models.spectral import SNConv2d, SNLinear

SHAPE = (1, 8, 8)
FAMILIES = {
    "mlp": lambda **more: models.mlp(SHAPE, z_dim=4, depth=3, width=10, **more),
    "conv": lambda **more: models.conv(SHAPE, z_dim=4, depth=3, width=6, **more),
    "sngan": lambda **more: models.sngan(SHAPE, z_dim=4, width=8, d_width=6, **more),
}
HIDDEN = {"mlp": 10 + 10, "conv": 6 + 12, "sngan": 6 + 3 * (6 + 6)}
"""Units or channels that are normalised: none of the picture's, and none behind the last block."""


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_variants_have_a_gain_and_a_bias_for_each_normalised_channel_and_else_equal_parameters(family):
    plain = count(FAMILIES[family](normalisation="none")[1])
    found = {name: count(FAMILIES[family](normalisation=name)[1]) - plain for name in NORMALISATIONS}
    extra = 2 * HIDDEN[family]
    assert found == {"none": 0, "spectral": 0, "layer": extra, "batch": extra}


@pytest.mark.parametrize("family", ["mlp", "conv"])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_variants_begin_with_equal_weights(family, name):
    for ours, plain in zip(FAMILIES[family](normalisation=name), FAMILIES[family](), strict=True):
        a, b = ([p for p in net.parameters() if p.ndim > 1] for net in (ours, plain))
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_variants_work_alone_and_as_replicas(family, name):
    build = lambda seed: FAMILIES[family](normalisation=name, seed=seed)[1]  # noqa: E731
    together, x = gk.Ensemble(build, (3, 4)), torch.rand(2, 5, *SHAPE)
    said = together(x)
    for i, seed in enumerate((3, 4)):
        torch.testing.assert_close(said[i], build(seed)(x[i]), rtol=1e-4, atol=1e-5)
    assert gk.models.ensemble.mixes_samples(together) == (name == "batch")


@given(st.integers(2, 6), st.integers(1, 4), st.booleans(), st.floats(0.5, 3), st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_layer_norm_is_its_two_equations(channels, n, maps, gain, bias):
    """Ba et al. 2016, equation 3: mean and deviation over all values of a sample, then g h + b for each channel."""
    layer = layer_norm(channels)
    nn.init.constant_(layer.weight, gain), nn.init.constant_(layer.bias, bias)
    x = torch.randn(n, channels, *((3, 4) if maps else ()), generator=torch.Generator().manual_seed(0))
    values = x.flatten(1)
    each = (slice(None), *[None] * (x.ndim - 1))
    mean, variance = values.mean(1)[each], values.var(1, correction=0)[each]
    torch.testing.assert_close(
        layer(x), gain * (x - mean) / (variance + 1e-5).sqrt() + bias, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_spectral_layers_have_a_norm_within_one_percent_of_the_svd(family):
    D = FAMILIES[family](normalisation="spectral", seed=1)[1]
    for _ in range(100):
        D(torch.zeros(2, *SHAPE))
    layers = [layer for layer in D.modules() if isinstance(layer, SNConv2d | SNLinear)]
    assert len(layers) == sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in D.modules())
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight.detach().flatten(1)).max()
        assert layer.sigma().item() == pytest.approx(largest.item(), rel=0.01)
        assert torch.linalg.svdvals(layer.normalised().detach().flatten(1)).max().item() == pytest.approx(
            1, rel=0.01
        )


@given(st.integers(1, 8), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_a_spectrally_normalised_perceptron_is_lipschitz(n, seed):
    D = models.mlp(SHAPE, depth=3, width=12, normalisation="spectral", seed=seed)[1].eval()
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, *SHAPE, generator=g)
    assert ((D(x) - D(y)).abs() <= 1.003**3 * (x - y).flatten(1).norm(dim=1) + 1e-6).all()


def test_an_unknown_normalisation_is_refused():
    for build in FAMILIES.values():
        with pytest.raises(ValueError, match="must be one of none, spectral, layer, batch, got 'instance'"):
            build(normalisation="instance")
    with pytest.raises(ValueError, match="model 'dcgan' has no normalisation, got layer"):
        gk.recipes.Networks("dcgan", normalisation="layer")


# --- L2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_l2_is_the_mean_over_layers_of_half_the_squared_norm(family):
    data = gk.data.load("digits", n=50)
    nets = lambda seed: FAMILIES[family](normalisation="layer", seed=seed)  # noqa: E731
    run = gk.Trainer(*nets(2), data, batch_size=4, device="cpu")
    kernels = [m.weight for m in run.D.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    expected = 3 * sum((w.detach() ** 2).sum() / 2 for w in kernels) / len(kernels)
    value = L2(3.0)(run.play(run.D))
    torch.testing.assert_close(value, expected)
    slope = torch.autograd.grad(value, kernels[0])[0]
    torch.testing.assert_close(slope, 3 * kernels[0].detach() / len(kernels))
    pair = gk.Trainer(*gk.pair(nets, (1, 2)), data, batch_size=4, device="cpu")
    torch.testing.assert_close(L2((0.0, 3.0))(pair.play(pair.D)), torch.stack([torch.zeros(()), expected]))


def test_strengths_are_checked():
    for wrong in (-1.0, (1.0, float("inf"))):
        with pytest.raises(
            ValueError, match="weight is the penalty's strength and must be at least 0 and finite"
        ):
            L2(wrong)


# --- R3GAN -------------------------------------------------------------------------------------------------------


def test_the_block_is_the_papers():
    """x + W3 lrelu(W2 * lrelu(W1 x)), W2 in groups; at the start the identity."""
    block = ResidualBlock(4, 8, 2, depth=6)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    h = torch.einsum("oi,nihw->nohw", block.widen.weight[..., 0, 0], x) + block.widen.bias[:, None, None]
    h = F.leaky_relu(h, 0.2)
    parts = [
        F.conv2d(h[:, 2 * i : 2 * i + 2], block.mix.weight[2 * i : 2 * i + 2], padding=1) for i in range(4)
    ]
    h = F.leaky_relu(torch.cat(parts, 1) + block.mix.bias[:, None, None], 0.2)
    h = torch.einsum("oi,nihw->nohw", block.narrow.weight[..., 0, 0], h) + block.narrow.bias[:, None, None]
    torch.testing.assert_close(block(x), x + h)
    for net in models.r3gan(SHAPE, 4, 8):
        for layer in (m for m in net.modules() if isinstance(m, ResidualBlock)):
            assert torch.equal(layer(x.repeat(1, 2, 1, 1)), x.repeat(1, 2, 1, 1))


def test_initial_weights_are_scaled_after_fixup():
    _, D = models.r3gan((1, 32, 32), 4, 64)
    blocks = [m for m in D.modules() if isinstance(m, ResidualBlock)]
    assert len(blocks) == 8
    gain = (2 / (1 + 0.2**2)) ** 0.5
    for layer in (blocks[3].widen, blocks[3].mix):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(gain * fan_in**-0.5 * 8**-0.25, rel=0.05)


@pytest.mark.parametrize("side", [8, 16, 64])
def test_any_power_of_two(side):
    G, D = models.r3gan((3, side, side), 4, 8)
    x = G(torch.randn(2, 4))
    assert x.shape == (2, 3, side, side)
    assert D(x).shape == (2,)
    for wrong in ((1, 28, 28), (1, 4, 4), (1, 8, 16), (2,)):
        with pytest.raises(
            ValueError, match=r"shape must be \(C, S, S\) with S a power of two of at least 8"
        ):
            models.r3gan(wrong)


def test_bilinear_resampling():
    """Up is PyTorch's; down is its transpose inside the picture, and both keep a constant."""
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    up, down = BilinearUp(), BilinearDown()
    ones = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(up(ones), torch.ones(1, 2, 16, 16, dtype=torch.float64))
    torch.testing.assert_close(down(ones), torch.ones(1, 2, 4, 4, dtype=torch.float64))
    y = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    y[..., 1:3, 1:3] = torch.randn(
        1, 2, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    inner: Tensor = (up(y) * x).sum()
    torch.testing.assert_close(inner, 4 * (y * down(x)).sum())


def test_r1_and_r2_are_zero_at_a_flat_discriminator_and_reach_every_weight_elsewhere():
    G, D = models.r3gan(SHAPE, 4, 8)
    data = gk.data.load("digits", n=50)
    terms = [gk.penalties.R1(1.0), gk.penalties.R2(1.0)]
    run = gk.Trainer(G, D, data, loss="rpgan", d_terms=terms, batch_size=8, device="cpu").fit(
        3, progress=False
    )
    assert all(p.isfinite().all() for p in run.d_params)
    play = run.play(run.D)
    assert all(term(play) > 0 for term in terms)
    with torch.no_grad():
        for p in run.d_params:
            p.zero_()
    play = run.play(run.D)
    assert [float(term(play).detach()) for term in terms] == [0.0, 0.0]
