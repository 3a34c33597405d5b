"""ProGAN, StyleGAN and StyleGAN2 against the equations of their papers, written out here, and closed forms."""

import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gankit as gk
from gankit import models
from gankit.game.path_length import MeanPathLength, PathLength, path_lengths
from gankit.models.ensemble import call, mixes_samples
from gankit.models.growing import Phases, as_grown
from gankit.models.style_blocks import (
    CUBIC,
    LINEAR,
    Filter,
    Mapping,
    MinibatchDeviation,
    ScaledConv2d,
    ScaledLinear,
    averaged_conv,
    copied,
    pixel_norm,
    pooled,
    sides_of,
)
from gankit.models.stylegan import AdaIN, Synthesis
from gankit.models.stylegan2 import ModulatedConv2d, StyledConv, Synthesis2
from gankit.training.trainer import fill_buffers


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- Sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "shape", "sizes", "in_G", "in_D"),
    [
        (models.stylegan2, (1, 8, 8), {"z_dim": 32, "width": 32, "max_width": 32, "mapping": 2}, 35_717, 45_569),
        (models.stylegan2, (1, 32, 32), {"z_dim": 32, "width": 16, "max_width": 32, "mapping": 2}, 66_491, 72_529),
        (models.stylegan2, (3, 32, 32), {"z_dim": 64, "width": 32, "max_width": 64, "mapping": 2}, 263_987, 288_993),
        (models.stylegan2_cifar, (3, 32, 32), {}, 19_947_539, 20_720_641),
        (models.stylegan2_cifar, (3, 32, 32), {"n_classes": 10}, 20_215_315, 23_089_664),
        (models.stylegan2, (3, 64, 64), {"width": 256, "mapping": 2}, 22_243_608, 23_407_361),
        (models.stylegan2, (3, 64, 64), {"width": 512}, 27_032_600, 26_488_833),
        (models.stylegan2, (3, 256, 256), {"width": 64}, 24_767_458, 24_001_089),
        (models.stylegan2, (3, 1024, 1024), {"width": 32}, 30_370_060, 29_012_513),
        (models.stylegan2, (3, 1024, 1024), {"width": 16}, 24_900_764, 24_038_161),
        (models.progan, (3, 1024, 1024), {}, 23_079_115, 23_087_249),
        (models.progan, (3, 32, 32), {"width": 512}, 20_719_628, 20_726_785),
        (models.stylegan, (3, 1024, 1024), {}, 26_219_627, 23_087_249),
    ],
)  # fmt: skip
def test_parameters_are_as_many_as_in_public_implementations(build, shape, sizes, in_G, in_D):
    with torch.device("meta"):
        G, D = build(shape, **sizes)
    assert (count(G), count(D)) == (in_G, in_D)


@pytest.mark.parametrize(
    ("g_architecture", "d_architecture", "in_G", "in_D"),
    [
        ("orig", "orig", 63_224, 69_969),
        ("residual", "skip", 65_784, 70_161),
        ("skip", "residual", 66_491, 72_529),
    ],
)
def test_parameters_of_the_three_architectures(g_architecture, d_architecture, in_G, in_D):
    sizes = {"z_dim": 32, "width": 16, "max_width": 32, "mapping": 2}
    G, D = models.stylegan2(
        (1, 32, 32), **sizes, g_architecture=g_architecture, d_architecture=d_architecture
    )
    assert (count(G), count(D)) == (in_G, in_D)
    assert D(G(normal(4, 32).float())).shape == (4,)


def test_the_mapping_has_two_million():
    assert count(Mapping(512, 512)) == 2_101_248


@pytest.mark.parametrize("build", [models.progan, models.stylegan, models.stylegan2])
@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (1, 56, 56), (3, 64, 64), (3, 1024, 1024)]
)
@pytest.mark.parametrize("n_classes", [0, 5])
def test_shapes_at_every_size(build, shape, n_classes):
    with torch.device("meta"):
        G, D = build(shape, z_dim=8, width=1, max_width=4, n_classes=n_classes)
    for net in (G, D):
        if (growth := getattr(net, "growth", None)) is not None:
            fill_buffers(net, growth(growth.images))
    z = torch.zeros(4, 8, device="meta")
    labels = [torch.zeros(4, dtype=torch.int64, device="meta")] if n_classes else []
    noise = [torch.zeros(4, G.noise_dim, device="meta")] if hasattr(G, "noise_dim") else []
    x = G(z, *labels, *noise)
    assert x.shape == (4, *shape)
    assert (G.shape, G.n_classes, D.n_classes) == (shape, n_classes, n_classes)
    said = D(x, *labels)
    logits = said[0] if build is models.progan and n_classes else said
    assert logits.shape == (4,)
    assert mixes_samples(D)


def test_layers_that_read_a_w():
    for side in (8, 32, 1024):
        with torch.device("meta"):
            G, _ = models.stylegan2((3, side, side), z_dim=4, width=1, max_width=4)
        assert G.synthesis.layers == 2 * math.log2(side) - 2


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 12, 12), (2, 8, 8), (1, 8, 16), (64,), (1, 7, 7)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape must be \(C, S, S\)"):
        sides_of(shape)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="g_architecture must be one of orig, skip, residual, got 'dense'"):
        models.stylegan2((1, 8, 8), g_architecture="dense")
    with pytest.raises(ValueError, match="mixing must lie in"):
        models.stylegan((1, 8, 8), 4, 4, mixing=1.5)
    with pytest.raises(ValueError, match="phase must be a whole number of at least 1, got 0"):
        models.progan((1, 8, 8), phase=0)
    with pytest.raises(ValueError, match="cutoff must be at least 0 layers"):
        models.Truncated(models.stylegan2((1, 8, 8), 4, 4)[0], cutoff=-1)


# --- Scaled layers, normalisation, resampling ------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_adam_moves_every_effective_weight_by_the_rate_times_the_constant(rate):
    layer = ScaledLinear(50, 20, gain=2.0, rate=rate)
    c = 2.0 * rate / math.sqrt(50)
    assert float(layer(torch.eye(50)).std()) == pytest.approx(c / rate, rel=0.1)
    before = (layer.weight * layer.gain).detach().clone()
    adam = torch.optim.Adam(layer.parameters(), 1e-3, eps=0.0)
    layer(normal(8, 50, dtype=torch.float32)).square().sum().backward()
    adam.step()
    moved = (layer.weight * layer.gain - before).abs()
    rounding = 2**-23 * float(before.abs().max())  # of float32, where weights are 1 / rate times as large
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-3 * c), rtol=0.02, atol=rounding)


def test_pixel_norm_makes_unit_length():
    x = normal(3, 5, 2, 2)
    torch.testing.assert_close(pixel_norm(7 * x).square().mean(1), torch.ones(3, 2, 2, dtype=x.dtype))
    torch.testing.assert_close(
        pixel_norm(normal(4, 6)), normal(4, 6) / normal(4, 6).square().mean(1, keepdim=True).sqrt()
    )


def test_minibatch_deviation_of_hand_made_groups():
    x = torch.tensor([0.0, 0, 0, 0, 1, 2, 3, 4, 100, 200, 300, 400])[:, None, None, None]
    said = MinibatchDeviation(4)(x)[:, 1, 0, 0]
    torch.testing.assert_close(said, torch.tensor([86.178, 129.191, 163.556] * 4), rtol=1e-5, atol=1e-3)
    same = MinibatchDeviation(4)(torch.ones(8, 3, 2, 2))[:, -1]
    torch.testing.assert_close(same, torch.full((8, 2, 2), 1e-4))
    with pytest.raises(ValueError, match="a multiple of its group of 4 samples, got 6"):
        MinibatchDeviation(4)(torch.ones(6, 1, 2, 2))
    assert MinibatchDeviation(4)(torch.ones(2, 1, 2, 2)).shape == (2, 2, 2, 2)


@given(processes=st.sampled_from([1, 2, 3]), groups=st.integers(1, 3), group=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_groups_of_one_process_are_groups_of_all(processes, groups, group):
    x = normal(processes * groups * group, 2, 3, 3)
    whole, layer = MinibatchDeviation(group)(x), MinibatchDeviation(group)
    for rank in range(processes):
        torch.testing.assert_close(layer(x[rank::processes]), whole[rank::processes])


@pytest.mark.parametrize("taps", [LINEAR, CUBIC])
def test_a_filter_is_the_convolution_with_the_outer_product(taps):
    x, row = normal(2, 3, 8, 8), torch.tensor(taps, dtype=torch.float64)
    kernel = torch.outer(row, row) / row.sum() ** 2
    expected = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None], padding=1).unflatten(0, (2, 3))[:, :, 0]
    torch.testing.assert_close(Filter(taps).to(x.dtype)(x, 1), expected)


def test_enlarging_is_bilinear_but_for_the_border():
    x, inner = normal(2, 3, 6, 6), (..., slice(2, -2), slice(2, -2))
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Filter(CUBIC).to(x.dtype).doubled(x)[inner], bilinear[inner])
    copied_and_blurred = Filter(LINEAR)(copied(x, 2), 1)
    torch.testing.assert_close(copied_and_blurred[inner], bilinear[inner])


def test_halving_and_averaging():
    x, conv = normal(2, 3, 8, 8).float(), ScaledConv2d(3, 5, 3, bias=0.5)
    torch.testing.assert_close(averaged_conv(x, conv), F.avg_pool2d(conv(x), 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled(copied(x, 4), 4), x)
    torch.testing.assert_close(copied(x, 2), F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(Filter(CUBIC).halved(x), Filter(CUBIC)(x, 1)[..., ::2, ::2])


# --- Modulation and demodulation -------------------------------------------------------------------------------------


def by_sample(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True) -> Tensor:
    """Equations 1 and 3 of StyleGAN2, sample by sample."""
    made = []
    for one, s in zip(x, style, strict=True):
        w = s[None, :, None, None] * weight
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        made.append(F.conv2d(one[None], w, padding=weight.shape[-1] // 2))
    return torch.cat(made)


@given(
    c_in=st.integers(1, 5), c_out=st.integers(1, 5), kernel=st.sampled_from([1, 3]), seed=st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_a_modulated_convolution_is_one_for_each_sample(c_in, c_out, kernel, seed):
    torch.manual_seed(seed)
    layer = ModulatedConv2d(c_in, c_out, kernel, 4).double()
    x, w = normal(3, c_in, 5, 5, seed=seed), normal(3, 4, seed=seed + 1)
    torch.testing.assert_close(layer(x, w), by_sample(x, layer.weight, layer.affine(w)))
    plain = ModulatedConv2d(c_in, c_out, kernel, 4, demodulate=False).double()
    expected = by_sample(x, plain.weight / math.sqrt(c_in * kernel**2), plain.affine(w), demodulate=False)
    torch.testing.assert_close(plain(x, w), expected)


def test_a_convolution_that_enlarges_is_interpolation_and_a_convolution_inside():
    layer = ModulatedConv2d(3, 4, 3, 2, up=True).double()
    x, w = normal(2, 3, 8, 8), normal(2, 2)
    larger = F.interpolate(x, scale_factor=2, mode="bilinear")
    expected = by_sample(larger, layer.weight, layer.affine(w))
    inner = (..., slice(3, -3), slice(3, -3))
    assert layer(x, w).shape == expected.shape
    torch.testing.assert_close(layer(x, w)[inner], expected[inner])


@pytest.mark.parametrize("factor", [1e-2, 1e3])
def test_demodulation_forgets_the_scale_of_style_and_of_kernel(factor):
    layer, x, w = ModulatedConv2d(3, 4, 3, 2).double(), normal(2, 3, 6, 6), normal(2, 2)
    before = layer(x, w).detach()
    with torch.no_grad():
        layer.affine.weight.mul_(factor), layer.affine.bias.mul_(factor)
    torch.testing.assert_close(layer(x, w), before, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        layer.affine.weight.div_(factor), layer.affine.bias.div_(factor), layer.weight.mul_(factor)
    torch.testing.assert_close(layer(x, w), before, rtol=1e-3, atol=1e-3)


def test_demodulated_white_noise_keeps_its_variance():
    torch.manual_seed(0)
    layer = ModulatedConv2d(32, 32, 3, 8)
    x, w = torch.randn(64, 32, 16, 16), 3 * torch.randn(64, 8)
    inside = layer(x, w)[..., 1:-1, 1:-1]
    assert float(inside.var()) == pytest.approx(1.0, rel=0.02)


def test_adain_has_the_mean_and_deviation_of_its_style_and_is_blind_to_those_of_its_input():
    layer, x, w = AdaIN(3, 4).double(), normal(2, 3, 6, 6), normal(2, 4)
    gain, bias = layer.affine(w).chunk(2, 1)
    y = layer(x, w)
    torch.testing.assert_close(y.mean((-2, -1)), bias)
    torch.testing.assert_close(y.std((-2, -1), correction=0), (1 + gain).abs(), rtol=1e-5, atol=1e-6)
    scale, shift = 2 + normal(1, 3, 1, 1, seed=1).abs(), normal(1, 3, 1, 1, seed=2)
    torch.testing.assert_close(layer(scale * x + shift, w), y, rtol=1e-5, atol=1e-6)


def test_the_order_in_a_styled_layer():
    """Demodulation, noise, bias, then the leaky ReLU times sqrt(2)."""
    layer = StyledConv(3, 4, 2).double()
    with torch.no_grad():
        layer.strength.fill_(0.3), layer.bias.copy_(normal(4, seed=5))
    x, w, noise = normal(2, 3, 6, 6), normal(2, 2), normal(2, 1, 6, 6, seed=3)
    h = by_sample(x, layer.conv.weight, layer.conv.affine(w)) + 0.3 * noise + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x, w, noise), math.sqrt(2) * F.leaky_relu(h, 0.2))


# --- Whole networks against the papers -------------------------------------------------------------------------------


def lrelu2(x: Tensor) -> Tensor:
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


def linear(layer: ScaledLinear, x: Tensor, gain: float = 1.0, bias_gain: float = 1.0) -> Tensor:
    return gain * x @ layer.weight.T / math.sqrt(layer.weight.shape[1]) + bias_gain * layer.bias


def doubled(x: Tensor) -> Tensor:
    """Zeros between the pixels, then the filter [1, 3, 3, 1], enlarged by 4."""
    spread = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    spread[..., ::2, ::2] = x
    row = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype) / 8
    kernel = 4 * torch.outer(row, row).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=x.shape[1])


def test_stylegan2_is_what_the_paper_writes():
    G, D = models.stylegan2((3, 8, 8), 6, 4, max_width=5, mapping=2, seed=1)
    G, D = G.double().eval(), D.double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in [*G.parameters(), *D.parameters()]:
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    z, noise = normal(4, 6), normal(4, G.noise_dim, seed=2)
    w = z / z.square().mean(1, keepdim=True).sqrt()
    for layer in G.mapping.layers:
        w = lrelu2(0.01 * (w @ layer.weight.T / math.sqrt(6) + layer.bias))
    torch.testing.assert_close(G.mapping(z), w)
    s, maps = G.synthesis, noise[:, 8:].split([16, 64, 64], 1)

    def styled(x: Tensor, layer: StyledConv, eps: Tensor, up: bool = False) -> Tensor:
        style = linear(layer.conv.affine, w)
        if (
            up
        ):  # a convolution with zeros beyond the border of the enlarged picture, which the filter sees last
            kernels = style[:, None, :, None, None] * layer.conv.weight
            kernels = kernels / (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
            spread = torch.zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1, dtype=x.dtype)
            spread[..., ::2, ::2] = x
            h = torch.cat([F.conv2d(a[None], k, padding=2) for a, k in zip(spread, kernels, strict=True)])
            row = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype) / 8
            h = F.conv2d(
                h, 4 * torch.outer(row, row).expand(h.shape[1], 1, 4, 4), padding=1, groups=h.shape[1]
            )
        else:
            h = by_sample(x, layer.conv.weight, style)
        side = h.shape[-1]
        return lrelu2(h + layer.strength * eps.reshape(-1, 1, side, side) + layer.bias[:, None, None])

    def rgb(x: Tensor, layer: nn.Module) -> Tensor:
        style = linear(layer.conv.affine, w) / math.sqrt(x.shape[1])
        return by_sample(x, layer.conv.weight, style, demodulate=False) + layer.bias[:, None, None]

    h = styled(s.constant.expand(4, -1, -1, -1), s.conv, maps[0])
    picture = rgb(h, s.to_rgb[0])
    h = styled(h, s.blocks[0].conv0, maps[1], up=True)
    h = styled(h, s.blocks[0].conv1, maps[2])
    picture = doubled(picture) + rgb(h, s.to_rgb[1])
    torch.testing.assert_close(G(z, noise), picture)

    def conv(x: Tensor, layer: ScaledConv2d, **settings) -> Tensor:
        weight = layer.weight / math.sqrt(layer.weight[0].numel())
        return F.conv2d(x, weight, layer.bias, **settings)

    row = torch.tensor([1.0, 3, 3, 1], dtype=z.dtype) / 8
    blurred = lambda x, p: F.conv2d(  # noqa: E731
        x, torch.outer(row, row).expand(x.shape[1], 1, 4, 4), padding=p, groups=x.shape[1]
    )
    h = lrelu2(conv(picture, D.from_rgb[0]))
    block = D.blocks[0]
    straight = lrelu2(conv(h, block.conv0, padding=1))
    straight = lrelu2(conv(blurred(straight, 2), block.conv1, stride=2))
    h = (straight + conv(blurred(h, 1)[..., ::2, ::2], block.shortcut)) / math.sqrt(2)
    deviation = (h.var(0, correction=0) + 1e-8).sqrt().mean().expand(4, 1, 4, 4)
    h = lrelu2(conv(torch.cat([h, deviation], 1), D.conv, padding=1)).flatten(1)
    h = lrelu2(linear(D.hidden, h))
    torch.testing.assert_close(D(picture), linear(D.last, h)[:, 0])


def test_stylegan_is_what_the_paper_writes():
    G, _ = models.stylegan((1, 8, 8), 6, 4, mapping=2, seed=1)
    G = G.double().eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in G.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    z, noise = normal(3, 6), normal(3, G.noise_dim, seed=2)
    w = z / z.square().mean(1, keepdim=True).sqrt()
    for layer in G.mapping.layers:
        w = F.leaky_relu(0.01 * (math.sqrt(2) * w @ layer.weight.T / math.sqrt(6) + layer.bias), 0.2)
    s, maps = G.synthesis, noise[:, 8:].split([16, 16, 64, 64], 1)

    def epilogue(x: Tensor, layer: nn.Module, eps: Tensor) -> Tensor:
        x = x + layer.strength[:, None, None] * eps.reshape(-1, 1, *x.shape[-2:]) + layer.bias[:, None, None]
        x = F.leaky_relu(x, 0.2)
        x = F.instance_norm(x, eps=1e-8)
        gain, bias = linear(layer.style.affine, w).chunk(2, 1)
        return x * (gain + 1)[:, :, None, None] + bias[:, :, None, None]

    def conv(x: Tensor, layer: ScaledConv2d) -> Tensor:
        return F.conv2d(x, layer.weight * math.sqrt(2 / layer.weight[0].numel()), padding=1)

    row = torch.tensor([1.0, 2, 1], dtype=z.dtype) / 4
    h = epilogue(s.constant.expand(3, -1, -1, -1), s.epilogue0, maps[0])
    h = epilogue(conv(h, s.conv1), s.epilogue1, maps[1])
    block = s.blocks[0]
    h = conv(F.interpolate(h, scale_factor=2, mode="nearest"), block.conv0)
    h = F.conv2d(h, torch.outer(row, row).expand(h.shape[1], 1, 3, 3), padding=1, groups=h.shape[1])
    h = epilogue(h, block.epilogue0, maps[2])
    h = epilogue(conv(h, block.conv1), block.epilogue1, maps[3])
    last = s.to_rgb[1]
    picture = F.conv2d(h, last.weight / math.sqrt(last.weight[0].numel()), last.bias)
    torch.testing.assert_close(G(z, noise), picture, rtol=1e-5, atol=1e-6)


def test_progan_is_what_the_paper_writes():
    G, D = models.progan((1, 8, 8), 6, 4, max_width=5, seed=1)
    for net in (G, D):
        net.double()
        fill_buffers(net, {"stage": 1, "alpha": 0.25})
    norm = lambda x: x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()  # noqa: E731
    conv = lambda x, layer, gain, p: F.conv2d(  # noqa: E731
        x, layer.weight * gain / math.sqrt(layer.weight[0].numel()), layer.bias, padding=p
    )
    he, act = math.sqrt(2), lambda x: F.leaky_relu(x, 0.2)
    z = normal(8, 6)
    h = (norm(z) @ G.first.weight.T * he / 4 / math.sqrt(6)).reshape(8, 5, 4, 4) + G.first_bias[:, None, None]
    h = norm(act(conv(norm(act(h)), G.conv, he, 1)))
    before = F.interpolate(conv(h, G.to_rgb[0], 1, 0), scale_factor=2)
    h = F.interpolate(h, scale_factor=2)
    h = norm(act(conv(h, G.blocks[0].conv0, he, 1)))
    h = norm(act(conv(h, G.blocks[0].conv1, he, 1)))
    picture = 0.75 * before + 0.25 * conv(h, G.to_rgb[1], 1, 0)
    torch.testing.assert_close(G(z), picture)
    h = act(conv(picture, D.from_rgb[1], he, 0))
    h = F.avg_pool2d(act(conv(act(conv(h, D.blocks[0].conv0, he, 1)), D.blocks[0].conv1, he, 1)), 2)
    h = 0.75 * act(conv(F.avg_pool2d(picture, 2), D.from_rgb[0], he, 0)) + 0.25 * h
    groups = h.reshape(4, 2, *h.shape[1:])
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)[:, None, None, None]
    h = act(conv(torch.cat([h, deviation.expand(-1, 1, 4, 4)], 1), D.conv, he, 1)).flatten(1)
    h = act(h @ D.hidden.weight.T * he / math.sqrt(h.shape[1]) + D.hidden.bias)
    torch.testing.assert_close(D(picture), linear(D.last, h)[:, 0])


# --- Growing ---------------------------------------------------------------------------------------------------------


def test_phases():
    phases = Phases(600, 0, 2)
    at = {i: phases(i) for i in (0, 599, 600, 900, 1200, 1799, 1800, 2100, 2400, 10**9)}
    assert [now["stage"] for now in at.values()] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert [now["alpha"] for now in at.values()] == [1, 1, 0, 0.5, 1, 1, 0, 0.5, 1, 1]
    assert phases.images == 2400
    assert Phases(5, 2, 2)(10**6) == {"stage": 2, "alpha": 1.0}
    with pytest.raises(ValueError, match=r"first must lie in 0\.\.1"):
        Phases(5, 2, 1)


@pytest.mark.parametrize("build", [models.progan, models.stylegan])
def test_fading_in_is_continuous(build):
    """A new layer begins, bit for bit, as the copied pixels of the old picture, and ends without them."""
    G, D = build((1, 32, 32), 6, 4)
    G.eval()
    z, x = normal(4, 6).float(), normal(4, 1, 32, 32).float()
    for stage in (2, 3):
        ends = []
        for now in ((stage - 1, 1.0), (stage, 0.0), (stage, 0.5), (stage, 1.0)):
            for net in (G, D):
                fill_buffers(net, dict(zip(("stage", "alpha"), now, strict=True)))
            ends.append((G(z), as_grown(G, x), D(x)))
        assert torch.equal(ends[0][0], ends[1][0])
        torch.testing.assert_close(ends[0][1], ends[1][1])  # the mean of means, up to rounding
        for i in range(2):
            torch.testing.assert_close(ends[2][i], (ends[1][i] + ends[3][i]) / 2, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ends[0][2], ends[1][2])
        factor = 2 ** (3 - stage)
        assert torch.equal(ends[3][0], copied(pooled(ends[3][0], factor), factor))
    assert torch.equal(as_grown(G, x), x)
    assert as_grown(models.mlp((1, 8, 8))[0], x) is x


def test_a_penalty_at_full_size_has_the_slope_over_the_factor():
    """What the note at the head of `gankit.models.growing` says."""
    _, D = models.progan((1, 16, 16), 6, 4)
    x = normal(4, 1, 16, 16).float().requires_grad_()
    (slope,) = torch.autograd.grad(D(x).sum(), x)
    small = pooled(x.detach(), 4).requires_grad_()
    fill_buffers(D, {"stage": 0, "alpha": 1.0})
    (at_4,) = torch.autograd.grad(D(copied(small, 4)).sum(), small)
    torch.testing.assert_close(slope.flatten(1).norm(dim=1), at_4.flatten(1).norm(dim=1) / 4)


def grown_run(**settings) -> gk.Trainer:
    digits = gk.data.load("digits", n=200)
    large = F.interpolate(digits.images.float(), scale_factor=2)
    data = gk.data.Dataset("large digits", large.to(digits.images.dtype), digits.labels, digits.classes)
    G, D = models.stylegan((1, 16, 16), 6, 4, mapping=2, phase=16)
    return gk.Trainer(G, D, data, batch_size=8, device="cpu", **settings)


def test_a_run_resumes_bit_for_bit_in_the_middle_of_a_fade(tmp_path: Path):
    whole = grown_run().fit(6, progress=False)
    grown_run().fit(3, out=tmp_path, progress=False)
    resumed = grown_run().load(tmp_path / "checkpoint-00000003.pt")
    assert resumed.G.synthesis.now() == resumed.D.now() == (2, 0.0)
    resumed.fit(3, progress=False)
    assert resumed.G.synthesis.now() == resumed.teacher.net.synthesis.now() == (2, 1.0)
    for name in ("G", "D", "teacher"):
        a, b = (getattr(run, name).state_dict() for run in (resumed, whole))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_new_stage_resets_the_optimisers():
    run = grown_run().fit(2, progress=False)
    steps = lambda: {int(s["step"]) for s in run.d_opt.state.values()}  # noqa: E731
    assert steps() == {2}
    run.fit(2, progress=False)
    assert steps() == {2}


def test_the_stage_stays_on_the_host_and_the_same_in_an_ensemble():
    G, _ = models.stylegan((1, 16, 16), 6, 4, phase=16)
    assert G.to("meta").synthesis.stage.device.type == "cpu"
    pair = gk.pair(lambda seed: models.progan((1, 16, 16), 6, 4, phase=16, seed=seed), (0, 1))
    fill_buffers(pair[0], {"stage": 1, "alpha": 0.5})
    z = normal(2, 3, 6).float()
    both = pair[0](z)
    assert pair[0].replica(1).now() == (1, 0.5)
    torch.testing.assert_close(both[1], pair[0].replica(1)(z[1]))
    torch.testing.assert_close(as_grown(pair[0], both)[1], as_grown(pair[0].replica(1), both[1]))


# --- w, mixing, truncation, noise ------------------------------------------------------------------------------------


def generator(mixing: float = 0.9, n_classes: int = 0) -> nn.Module:
    return models.stylegan2((1, 8, 8), 6, 4, mapping=2, mixing=mixing, n_classes=n_classes)[0]


def test_style_mixing_changes_the_later_layers_of_a_share():
    G = generator(0.75)
    z, noise = normal(4000, 6).float(), normal(4000, G.noise_dim, seed=1).float()
    ws, layers = G.styles(z, None, noise), G.synthesis.layers
    first, second = G.mapping(z), G.mapping(noise[:, :6])
    is_first = (ws - first[:, None]).abs().amax(2) < 1e-6
    is_second = (ws - second[:, None]).abs().amax(2) < 1e-6
    assert bool((is_first ^ is_second).all())
    kept = is_first.sum(1)
    assert bool((is_first == (torch.arange(layers) < kept[:, None])).all())
    shares = torch.bincount(kept, minlength=layers + 1).float() / 4000
    expected = torch.tensor([0.0, *[0.75 / (layers - 1)] * (layers - 1), 0.25])
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)
    for net in (G.eval(), generator(0.0)):
        again = net.styles(z, None, noise[:, -net.noise_dim :])
        assert torch.equal(again, again[:, :1].expand_as(again))


def test_w_avg_follows_the_mean_in_training_alone():
    G = generator(0.0)
    G.eval()(normal(64, 6).float())
    assert not bool(G.w_avg.any())
    G.train()(normal(64, 6).float())
    torch.testing.assert_close(G.w_avg, 0.005 * G.mapping(normal(64, 6).float()).mean(0))
    for _ in range(2000):
        G.styles(normal(64, 6).float())
    torch.testing.assert_close(G.w_avg, G.mapping(normal(64, 6).float()).mean(0), rtol=1e-3, atol=1e-5)


def test_truncation_in_w():
    G = generator(n_classes=3).train()
    labels = torch.tensor([0, 1, 2, 0])
    G(normal(4, 6).float(), labels)
    G.eval()
    z = normal(4, 6, seed=3).float()
    assert torch.equal(models.Truncated(G, 1.0)(z, labels), G(z, labels))
    none = models.Truncated(G, 0.0)(z, labels)
    torch.testing.assert_close(none, none[:1].expand_as(none))
    ws = models.Truncated(G, 0.5, cutoff=2).mapping(z, labels)
    w = G.mapping(z, labels)
    torch.testing.assert_close(ws[:, :2], (G.w_avg + 0.5 * (w - G.w_avg))[:, None].expand(-1, 2, -1))
    assert torch.equal(ws[:, 2:], w[:, None].expand(-1, 2, -1))
    assert gk.models.Truncated(G).noise_dim == G.noise_dim
    mean = G.w_avg.expand(4, -1)
    torch.testing.assert_close(models.Truncated(G, 0.0)(z, labels), G.synthesis(mean))


def test_noise_is_drawn_for_samples_and_fixed_for_pictures():
    G = generator().eval()
    with torch.no_grad():
        G.synthesis.conv.strength.fill_(1.0)
    z = normal(1, 6).float().expand(3, -1)
    assert torch.equal(G(z), G(z)[:1].expand(3, -1, -1, -1))
    drawn = gk.models.sampling.sample(G, 6, seed=1)
    torch.testing.assert_close(gk.models.sampling.sample(G, 6, seed=1, batch_size=2), drawn)
    assert not torch.equal(gk.models.sampling.sample(G, 6, seed=2), drawn)


def test_labels_reach_both_networks():
    for build in (models.progan, models.stylegan, models.stylegan2):
        G, D = build((1, 8, 8), 6, 4, n_classes=3)
        z, x = normal(4, 6).float(), normal(4, 1, 8, 8).float()
        a, b = torch.zeros(4, dtype=torch.int64), torch.full((4,), 2)
        assert not torch.equal(G(z, a), G(z, b))
        assert build is models.progan or not torch.equal(D(x, a), D(x, b))
    D = models.stylegan2((1, 8, 8), 6, 4, n_classes=3)[1]
    with torch.no_grad():
        D.mapping.layers[-1].weight.zero_()
    assert not bool(D(x, a).any())  # the logit is a product with the label's mapping
    layer = ScaledLinear(3, 5)
    torch.testing.assert_close(layer.of_labels(b), layer(F.one_hot(b, 3).float()))
    shares = F.one_hot(b, 3).float()
    for build in (models.progan, models.stylegan, models.stylegan2):
        G, _ = build((1, 8, 8), 6, 4, n_classes=3)
        torch.testing.assert_close(G.eval()(z, shares), G(z, b))


# --- Path length -----------------------------------------------------------------------------------------------------


class Flat(nn.Module):
    """A linear generator: pictures are A w, and w is z."""

    noise_dim = 0

    def __init__(self, A: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.A, self.shape, self.z_dim = nn.Parameter(A), shape, A.shape[1]

    def styles(self, z: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return (z * 1)[:, None].requires_grad_() if not z.requires_grad else z[:, None]

    def pictures(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        return (ws[:, 0] @ self.A.T).unflatten(1, self.shape)


@given(n=st.integers(1, 6), c=st.floats(0.1, 5.0))
@settings(max_examples=10, deadline=None)
def test_lengths_of_a_linear_generator_are_those_of_the_closed_form(n, c):
    """A = c Q: E length = c sqrt(2) Gamma((n + 1) / 2) / Gamma(n / 2) / side, E length^2 = |A|_F^2 / side^2."""
    Q, _ = torch.linalg.qr(normal(16, n))
    G = Flat(c * Q, (1, 4, 4))
    lengths = path_lengths(G, normal(20_000, n), normal(20_000, 1, 4, 4, seed=1))
    mean = c * math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / 4
    assert float(lengths.mean()) == pytest.approx(mean, rel=0.03)
    assert float(lengths.square().mean()) == pytest.approx(c**2 * n / 16, rel=0.05)


def test_the_term_moves_the_mean_first_and_sees_it_move():
    G, D = models.stylegan2((1, 8, 8), 6, 4, mapping=2)
    rule, term = MeanPathLength(0.75), PathLength(3.0, 0.75)
    run = gk.Trainer(
        G, D, gk.data.load("digits", n=50), batch_size=8, device="cpu", rules=[rule], g_terms=[term]
    )
    state = run.streams.state_dict()
    play = run.play(run.G)
    play.states = {"mean_path_length": torch.tensor(0.2)}
    value = term(play)
    run.streams.load_state_dict(state)
    again = run.play(run.G)
    z, noise = again.streams.normal(4, 6), again.streams.normal(4, G.noise_dim)
    lengths = path_lengths(G, z, again.streams.normal(4, 1, 8, 8), None, noise)
    a = 0.75 * 0.2 + 0.25 * lengths.mean()
    expected = 3.0 * (lengths - a).square().mean()
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(x, G.synthesis.constant)[0] for x in (value, expected))
    torch.testing.assert_close(ours, theirs)
    new = rule.update({"mean_path_length": torch.tensor(0.2)}, {"path_length": lengths.mean()})
    torch.testing.assert_close(new["mean_path_length"], a)
    assert rule.update({"mean_path_length": a}, {}) == {}
    play.states = {}
    with pytest.raises(ValueError, match="add the rule MeanPathLength"):
        term(play)


def test_methods_of_an_ensemble():
    nets = gk.models.ensemble.Ensemble(
        lambda seed: models.stylegan2((1, 8, 8), 6, 4, mapping=2, seed=seed)[0], (0, 1)
    )
    z = normal(2, 3, 6).float()
    ws = call(nets, "styles", z, None, None)
    assert ws.shape == (2, 3, 4, 6)
    torch.testing.assert_close(ws[1], nets.replica(1).styles(z[1]))
    torch.testing.assert_close(call(nets, "pictures", ws, None), nets(z, None))
    flat = gk.models.ensemble.Ensemble(lambda seed: models.mlp((1, 8, 8), seed=seed)[0], (0, 1))
    with pytest.raises(ValueError, match="has no styles"):
        call(flat, "styles", z)


@pytest.mark.parametrize(("field", "value"), [("weight", -1.0), ("decay", 1.0), ("part", 0.0)])
def test_settings_of_the_term_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        PathLength(**{field: value})


def test_gradients_of_gradients():
    """R1 and the path length need second derivatives of every layer."""
    for build in (models.progan, models.stylegan, models.stylegan2):
        _, D = build((1, 8, 8), 4, 2, max_width=3, group=2)
        D = D.double()
        with torch.no_grad():
            for p in D.parameters():
                p += 0.1
        x = normal(2, 1, 8, 8).requires_grad_()
        assert torch.autograd.gradgradcheck(lambda x, D=D: D(x).sum(), x)
    for synthesis in (Synthesis(1, [4, 8], [2, 2], 3, Phases(1, 1, 1)), Synthesis2(1, [4, 8], [2, 2], 3)):
        net, w = synthesis.double(), normal(2, 3).requires_grad_()
        with torch.no_grad():
            for p in net.parameters():
                p += 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1))
        assert torch.autograd.gradgradcheck(lambda w, net=net: net(w).square().sum(), w, atol=1e-3)


def test_every_combination_of_architectures_runs():
    kinds = ("orig", "skip", "residual")
    for g, d in itertools.product(kinds, kinds):
        G, D = models.stylegan2((3, 16, 16), 4, 2, g_architecture=g, d_architecture=d, group=2)
        assert D(G(normal(2, 4).float())).isfinite().all()
