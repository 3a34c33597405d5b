import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gankit import models
from gankit.models.blocks import SelfAttention
from gankit.models.spectral import SNConv2d, SNLinear


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_mlp_has_depth_weight_layers_glorot_weights_and_zero_biases():
    G, D = models.mlp((1, 8, 8), z_dim=16, depth=3, width=200, d_depth=4, d_width=100, seed=1)
    g, d = ([layer for layer in net if isinstance(layer, nn.Linear)] for net in (G, D))
    assert [(layer.in_features, layer.out_features) for layer in g] == [(16, 200), (200, 200), (200, 64)]
    assert [(layer.in_features, layer.out_features) for layer in d] == [
        (64, 100),
        (100, 100),
        (100, 100),
        (100, 1),
    ]
    for layer in [*g, *d]:
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert layer.weight.abs().max() <= limit
        assert layer.weight.abs().max() > 0.8 * limit
        assert layer.bias.abs().max() == 0


def test_points_leave_the_generator_without_bounds_and_images_within():
    z = 100 * torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    assert models.mlp((2,))[0](z).abs().max() > 1
    for build in (models.mlp, models.conv):
        images = build((1, 8, 8))[0](z)
        assert images.shape == (50, 1, 8, 8)
        assert images.abs().max() <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(5, 40), st.integers(5, 40), st.integers(2, 4))
def test_conv_fits_pictures_of_any_size(channels, height, width, depth):
    if min(height, width) <= 2 ** (depth - 2):
        return
    G, D = models.conv((channels, height, width), z_dim=3, depth=depth, width=2)
    fake = G(torch.zeros(2, 3))
    assert fake.shape == (2, channels, height, width)
    assert D(fake).shape == (2,)


def test_conv_4_on_mnist_reads_like_the_paper():
    G, D = models.conv((1, 28, 28), z_dim=64, depth=4, width=32)
    filters = [layer for layer in D if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in filters] == [32, 64, 128]
    assert {layer.kernel_size for layer in filters} == {(3, 3)}
    assert {layer.stride for layer in filters} == {(2, 2)}
    # Weights and biases, counted by hand: 3 x 3 kernels between 1, 32, 64 and 128 filters, 4 x 4 at the top.
    kernels = 9 * (1 * 32 + 32 * 64 + 64 * 128)
    assert count(D) == kernels + (32 + 64 + 128) + 128 * 16 + 1
    assert count(G) == (64 * 128 * 16 + 128 * 16) + kernels + (64 + 32 + 1)


def test_dcgan_64_has_the_papers_filters():
    G, D = models.dcgan((3, 64, 64), z_dim=100, width=128)
    ups = [layer for layer in G if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in ups] == [1024, 512, 256, 128, 3]
    assert G(torch.zeros(2, 100)).shape == (2, 3, 64, 64)
    assert D(torch.zeros(2, 3, 64, 64)).shape == (2,)
    weights = torch.cat([layer.weight.flatten() for layer in ups[:3]])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    gains = torch.cat([layer.weight for layer in G if isinstance(layer, nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(1, abs=0.005)


def test_conv_sn_normalises_every_layer_of_d_but_the_last():
    """Appendix M lists the last layer among the differences to the networks of Miyato et al."""
    plain, sn = (build((3, 32, 32), width=4)[1] for build in (models.conv, models.conv_sn))
    kinds = [type(layer) for layer in sn if hasattr(layer, "weight")]
    assert kinds == [SNConv2d, SNConv2d, SNConv2d, nn.Linear]
    assert [p.shape for p in plain.parameters()] == [p.shape for p in sn.parameters()]
    x = torch.randn(2, 3, 32, 32)
    h = x
    for layer in sn.eval():  # each convolution divided by its matrix' norm, as NumPy finds it
        if isinstance(layer, SNConv2d):
            norm = np.linalg.norm(layer.weight.detach().flatten(1).double().numpy(), 2)
            h = F.conv2d(h, layer.weight / float(norm), layer.bias, stride=2, padding=1)
        else:
            h = layer(h)
    torch.testing.assert_close(sn(x), h, rtol=1e-3, atol=1e-5)


def test_dcgan_with_spectral_norm_has_the_dcgans_layers():
    shape = (3, 64, 64)
    (G, D), (G2, D2) = models.dcgan(shape, width=4), models.dcgan_bn_sn(shape, width=4)
    assert [p.shape for net in (G, D) for p in net.parameters()] == [
        p.shape for net in (G2, D2) for p in net.parameters()
    ]
    assert sum(isinstance(layer, SNConv2d) for layer in D2) == 5
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in D2) == 3


@pytest.mark.parametrize(("side", "attends"), [(8, 4), (16, 8), (64, 32), (128, 32)])
def test_dcgan_attention_attends_where_it_says(side, attends):
    G, D = models.dcgan_attention((3, side, side), z_dim=5, width=2)
    seen = []
    for net in (G, D):
        (attention,) = (layer for layer in net if isinstance(layer, SelfAttention))
        attention.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in D)
    assert all(isinstance(layer, SNConv2d) for layer in D.modules() if isinstance(layer, nn.Conv2d))
    assert D(G(torch.randn(3, 5))).shape == (3,)
    assert seen == [attends, attends]


def test_sndcgan_is_table_3_of_its_paper():
    G, D = models.sndcgan((3, 32, 32))
    dense = 128 * 8192 + 8192
    ups = sum(a * b * 16 + b for a, b in ((512, 256), (256, 128), (128, 64))) + 64 * 3 * 9 + 3
    assert count(G) == dense + ups + 2 * (512 + 256 + 128 + 64)
    kernels = [
        (3, 64, 3),
        (64, 64, 4),
        (64, 128, 3),
        (128, 128, 4),
        (128, 256, 3),
        (256, 256, 4),
        (256, 512, 3),
    ]
    assert count(D) == sum(a * b * k * k + b for a, b, k in kernels) + 512 * 16 + 1
    assert all(isinstance(layer, SNConv2d | SNLinear) for layer in D if hasattr(layer, "weight"))
    assert D(G(torch.randn(2, 128))).shape == (2,)
    assert models.sndcgan((1, 48, 48), z_dim=3, width=2)[0](torch.zeros(2, 3)).shape == (2, 1, 48, 48)


FAMILIES = [
    models.mlp, models.conv, models.conv_sn, models.dcgan, models.dcgan_bn_sn, models.dcgan_attention, models.sndcgan,
]  # fmt: skip


@pytest.mark.parametrize("build", FAMILIES)
def test_the_seed_decides_the_weights_and_nothing_else(build):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (build((1, 8, 8), width=4, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)  # the caller's random state is untouched
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: models.mlp((2,), width=0), "width must be a whole number of at least 1, got 0"),
        (lambda: models.mlp((2,), z_dim=2.5), "z_dim must be a whole number of at least 1, got 2.5"),
        (lambda: models.conv((2,)), "shape must be"),
        (lambda: models.conv((1, 8, 8), depth=1), "depth must be at least 2"),
        (lambda: models.conv((1, 4, 4), depth=5), "4 halvings of a 4 x 4 picture"),
        (lambda: models.dcgan((1, 28, 28)), r"power of two of at least 8, got \(1, 28, 28\)"),
        (lambda: models.dcgan((1, 16, 32)), "power of two"),
        (lambda: models.dcgan_attention((1, 28, 28)), "power of two"),
        (lambda: models.dcgan((1, 32, 32), attention=64), "one of 16, 8, 4, or 0, got 64"),
        (lambda: models.sndcgan((1, 28, 28)), r"multiple of 8, got \(1, 28, 28\)"),
    ],
)
def test_impossible_sizes_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
