import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import gankit as gk
from gankit import models
from gankit.game.penalties import WganGP
from gankit.models import blocks
from gankit.models.blocks import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    FirstBlock,
    Projection,
    ResBlock,
    UpBlock,
    orthogonal,
    residual_glorot,
)
from gankit.models.ensemble import pair
from gankit.models.resnet import SNGAN, class_norm
from gankit.models.spectral import SNConv2d, SNEmbedding, SNLinear
from gankit.streams import Streams


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def meta(build, *args, **settings) -> tuple[nn.Module, nn.Module]:
    """Networks of full size without the memory for their weights."""
    with torch.device("meta"):
        return build(*args, **settings)


# --- Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "args", "in_G", "in_D"),
    [
        (models.sngan, ((3, 32, 32),), 4_276_739, 1_053_825),
        (models.sngan, ((3, 128, 128),), 32_150_787, 29_017_857),
        (models.wgan_gp, ((3, 128, 128),), 32_150_787, 29_017_857),
        (models.projection_gan, ((3, 32, 32), 10), 4_304_387, 1_055_105),
    ],
    ids=["SNGAN-32", "SNGAN-128", "WGAN-GP-128", "projection GAN-32"],
)
def test_parameters_are_as_many_as_in_public_implementations(build, args, in_G, in_D):
    G, D = meta(build, *args)
    assert (count(G), count(D)) == (in_G, in_D)


@pytest.mark.parametrize(
    ("side", "dense", "up", "down"),
    [
        (32, (256, 4, 4), [256, 256, 256], ["128/2", "128/2", "128", "128"]),
        (48, (512, 6, 6), [256, 128, 64], ["64/2", "128/2", "256/2", "512/2", "1024"]),
        (
            128,
            (1024, 4, 4),
            [1024, 512, 256, 128, 64],
            ["64/2", "128/2", "256/2", "512/2", "1024/2", "1024"],
        ),
    ],
    ids=["table 4", "table 5", "table 6"],
)
def test_filters_read_like_the_tables(side, dense, up, down):
    G, D = meta(models.sngan, (3, side, side))
    kinds = [type(layer) for layer in G]
    assert kinds == [
        nn.Linear, nn.Unflatten, *[UpBlock] * len(up), BatchNorm2d, nn.ReLU, nn.Conv2d, nn.Tanh,
    ]  # fmt: skip
    assert G[0].in_features == 128
    assert G[1].unflattened_size == dense
    assert [block.conv2.out_channels for block in G if isinstance(block, UpBlock)] == up
    blocks = [block for block in D if isinstance(block, ResBlock)]
    read = [f"{b.conv2.out_channels}{'/2' if isinstance(b.pool, nn.AvgPool2d) else ''}" for b in blocks]
    assert read == down
    assert isinstance(blocks[0], FirstBlock)
    assert not any(isinstance(block, FirstBlock) for block in blocks[1:])


def test_each_layer_of_d_is_normalised_and_none_of_g():
    for build, args in ((models.sngan, ()), (models.projection_gan, (10,))):
        G, D = meta(build, (3, 32, 32), *args)
        weighted = nn.Conv2d | nn.Linear | nn.Embedding
        sn = SNConv2d | SNLinear | SNEmbedding
        assert all(isinstance(m, sn) for m in D.modules() if isinstance(m, weighted))
        assert not any(isinstance(m, sn) for m in G.modules())
    _, D = meta(models.wgan_gp, (3, 32, 32))
    assert not list(D.buffers())


@pytest.mark.parametrize("side", SNGAN)
def test_shapes_at_every_size(side):
    channels = 1 if side < 32 else 3
    G, D = meta(models.sngan, (channels, side, side), z_dim=5, width=2)
    fake = G(torch.zeros(2, 5, device="meta"))
    assert (G.shape, G.z_dim, G.n_classes, D.n_classes) == ((channels, side, side), 5, 0, 0)
    assert fake.shape == (2, channels, side, side)
    assert D(fake).shape == (2,)
    G, D = meta(models.projection_gan, (channels, side, side), 7, z_dim=5, width=2)
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    assert (G.n_classes, D.n_classes) == (7, 7)
    assert D(G(torch.zeros(2, 5, device="meta"), labels), labels).shape == (2,)


def test_widths_of_small_networks():
    G, D = meta(models.sngan, (1, 16, 16), width=12)
    assert (G[2].conv1.out_channels, D[0].conv1.out_channels) == (12, 6)
    G, D = meta(models.sngan, (1, 64, 64), width=12)
    assert (G[-2].in_channels, D[0].conv1.out_channels) == (12, 12)
    _, D = meta(models.sngan, (1, 16, 16), width=12, d_width=5)
    assert D[0].conv1.out_channels == 5


# --- Blocks, against the equations of the papers ------------------------------------------------------------------


def random_weights(module: nn.Module) -> nn.Module:
    """Float64, and every parameter random: no bias of 0 or gain of 1 hides behind its initial value."""
    module = module.double()
    for p in module.parameters():
        nn.init.normal_(p, 0.2, 0.5)
    return module


def batch_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) / std over samples and pixels; gain and bias `[C]` or, one for each sample, `[N, C]`."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    gain, bias = (v.reshape(-1, x.shape[1], 1, 1) for v in (gain, bias))
    return gain * (x - mean) / (variance + 1e-5).sqrt() + bias


def unpool(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def mean_pool(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The layer's convolution with its weight divided by the true spectral norm if it is a normalised one."""
    weight = layer.weight
    if isinstance(layer, SNConv2d):
        weight = weight / torch.linalg.svdvals(weight.flatten(1)).max()
    return F.conv2d(x, weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def test_up_block():
    """Figure 8 of Miyato et al. 2018: BN, ReLU, upsampling, conv, BN, ReLU, conv; beside it upsampling, 1x1 conv."""
    torch.manual_seed(0)
    block = random_weights(UpBlock(4, 6, nn.Conv2d, nn.BatchNorm2d))
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    h = batch_norm(x, block.norm1.weight, block.norm1.bias).clamp(min=0)
    h = conv(unpool(h), block.conv1)
    h = conv(batch_norm(h, block.norm2.weight, block.norm2.bias).clamp(min=0), block.conv2)
    torch.testing.assert_close(block(x), h + conv(unpool(x), block.shortcut))


@pytest.mark.parametrize("make", [nn.Conv2d, SNConv2d])
def test_down_block(make):
    """Figure 8 without batch normalisation; the first convolution keeps the number of filters."""
    torch.manual_seed(0)
    block = random_weights(ResBlock(4, 6, 4, make, down=True)).eval()
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    h = conv(conv(x.clamp(min=0), block.conv1).clamp(min=0), block.conv2)
    torch.testing.assert_close(block(x), mean_pool(h) + mean_pool(conv(x, block.shortcut)))


def test_first_block():
    """The picture is not rectified, and its shortcut is pooled first."""
    torch.manual_seed(0)
    block = random_weights(FirstBlock(3, 6, SNConv2d)).eval()
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    h = conv(conv(x, block.conv1).clamp(min=0), block.conv2)
    torch.testing.assert_close(block(x), mean_pool(h) + conv(mean_pool(x), block.shortcut))


@pytest.mark.parametrize("c_out", [4, 6])
def test_block_that_keeps_the_side(c_out):
    torch.manual_seed(0)
    block = random_weights(ResBlock(4, c_out, 4, nn.Conv2d, down=False))
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    h = conv(conv(x.clamp(min=0), block.conv1).clamp(min=0), block.conv2)
    torch.testing.assert_close(block(x), h + (x if c_out == 4 else conv(x, block.shortcut)))
    assert isinstance(block.shortcut, nn.Identity) == (c_out == 4)


def test_conditional_batch_norm():
    """One mean and one deviation for all samples, a gain and a bias for each class."""
    torch.manual_seed(0)
    layer = random_weights(class_norm(4, n_classes=3))
    x, labels = torch.randn(5, 4, 2, 2, dtype=torch.float64), torch.tensor([0, 2, 1, 2, 0])
    gains, biases = 1 + layer.gain.weight, layer.bias.weight
    expected = batch_norm(
        x, torch.stack([gains[y] for y in labels]), torch.stack([biases[y] for y in labels])
    )
    torch.testing.assert_close(layer(x, labels), expected)
    # In evaluation the running statistics take the place of the minibatch's.
    one = layer.eval()(x[:1], labels[:1])
    mean, variance = (v[:, None, None] for v in (layer.norm.running_mean, layer.norm.running_var))
    expected = gains[0][:, None, None] * (x[0] - mean) / (variance + 1e-5).sqrt() + biases[0][:, None, None]
    torch.testing.assert_close(one[0], expected)


def test_projection():
    """Equation 3 of Miyato and Koyama 2018: psi(phi) + y^T V phi, with one-hot y."""
    torch.manual_seed(0)
    head = random_weights(Projection(SNLinear(6, 1), SNEmbedding(4, 6))).eval()
    phi, labels = torch.randn(5, 6, dtype=torch.float64), torch.tensor([3, 0, 0, 2, 1])
    w = head.psi.weight / head.psi.weight.norm()
    V = head.V.weight / torch.linalg.svdvals(head.V.weight).max()
    expected = phi @ w[0] + head.psi.bias + torch.einsum("nk,kc,nc->n", F.one_hot(labels).double(), V, phi)
    torch.testing.assert_close(head(phi, labels), expected)


def test_the_discriminator_sums_rectified_features_over_the_map():
    _, D = models.wgan_gp((1, 16, 16), width=4, seed=1)
    x = torch.randn(3, 1, 16, 16)
    h = x
    for block in D[:4]:
        h = block(h)
    assert h.shape == (3, 2, 4, 4)
    expected = h.clamp(min=0).sum((2, 3)) @ D[-2].weight[0] + D[-2].bias
    torch.testing.assert_close(D(x), expected)


# --- Initial weights ----------------------------------------------------------------------------------------------


def test_initial_weights_of_the_family():
    G, D = models.projection_gan((3, 16, 16), 10, width=32, d_width=32, seed=3)
    for net in (G, D):
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan = sum(nn.init._calculate_fan_in_and_fan_out(module.weight))
                gain = 2**0.5 if name.endswith(("conv1", "conv2")) else 1
                limit = gain * (6 / fan) ** 0.5
                assert 0.8 * limit < module.weight.abs().max() <= limit, name
                assert module.bias is None or not module.bias.any()
    norms = [module for module in G.modules() if isinstance(module, ConditionalBatchNorm2d)]
    assert len(norms) == 4
    x, labels = torch.randn(8, 32, 4, 4), torch.arange(8)
    torch.testing.assert_close(norms[0](x, labels), nn.BatchNorm2d(32)(x))  # every class starts alike


def test_orthogonal_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(4, 9), nn.Embedding(10, 6))
    orthogonal(net)
    for layer in net:
        w = layer.weight.flatten(1)
        w = w.mT if w.shape[0] > w.shape[1] else w
        torch.testing.assert_close(w @ w.mT, torch.eye(len(w)), atol=1e-5, rtol=0)


def test_the_seed_decides_the_weights_and_nothing_else():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    builds = [models.sngan((1, 8, 8), width=4, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    for net in (0, 1):
        a, b, c = (nets[net].state_dict() for nets in builds)
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert not torch.equal(a["0.weight" if net == 0 else "0.conv1.weight"], c[next(iter(c))])
    assert not torch.equal(builds[0][1][0].conv1.u, builds[2][1][0].conv1.u)


# --- In use -----------------------------------------------------------------------------------------------------

BUILDS = {
    "sngan": lambda shape, seed=0: models.sngan(shape, z_dim=6, width=8, seed=seed),
    "wgan_gp": lambda shape, seed=0: models.wgan_gp(shape, z_dim=6, width=8, seed=seed),
    "projection_gan": lambda shape, seed=0: models.projection_gan(shape, 10, z_dim=6, width=8, seed=seed),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_run_moves_every_weight_and_stays_finite(name):
    data = gk.data.load("digits")
    G, D = BUILDS[name](data.shape)
    before = copy.deepcopy((G, D))
    penalties = [WganGP()] if name == "wgan_gp" else []
    leak = gk.Leak(0.5, start=1)
    loss = "wgan" if name == "wgan_gp" else "hinge"
    run = gk.Trainer(G, D, data, loss=loss, batch_size=8, leak=leak, d_terms=penalties, n_dis=2, device="cpu")
    for _ in range(2):
        stats = run.step()
    for old, new in zip(before, (G, D), strict=True):
        for (key, a), b in zip(old.named_parameters(), new.parameters(), strict=True):
            assert b.isfinite().all(), key
            assert a.ndim == 1 or not torch.equal(a, b), key
    assert all(g.isfinite().all() for g in (*stats["g_grad"], *stats["d_grad"]))
    images = run.teacher.sample(5)
    assert images.shape == (5, *data.shape)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("name", BUILDS)
def test_replicas_are_the_single_networks_side_by_side(name):
    seeds = (4, 9)
    G, D = pair(lambda seed: BUILDS[name]((2, 16, 16), seed), seeds)
    streams = Streams(seeds, (2,), "cpu")
    z, labels = streams.normal(3, 6), streams.integers(10, 3)
    args = (labels,) if G.n_classes else ()
    with torch.no_grad():
        fake = G(z, *args)
        logits = D(fake, *args)
        for i, seed in enumerate(seeds):
            g, d = BUILDS[name]((2, 16, 16), seed)
            mine = [a[i] for a in args]
            torch.testing.assert_close(g(z[i], *mine), fake[i], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(d(fake[i], *mine), logits[i], atol=1e-4, rtol=1e-4)
            for net, single in ((G, g), (D, d)):  # running statistics and u as well
                for a, b in zip(net.replica(i).buffers(), single.buffers(), strict=True):
                    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BUILDS)
def test_lower_precision_and_memory_order(name):
    G, D = BUILDS[name]((3, 16, 16))
    z, labels = torch.randn(4, 6), torch.arange(4)
    args = (labels,) if G.n_classes else ()
    G.eval(), D.eval()
    with torch.no_grad():
        fake, logits = G(z, *args), D(G(z, *args), *args)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = G(z, *args)
            assert low.dtype == torch.bfloat16
            assert (low - fake).abs().max() < 0.05
            assert (D(low, *args) - logits).abs().max() < 0.05 * logits.abs().max() + 0.05
        G.to(memory_format=torch.channels_last), D.to(memory_format=torch.channels_last)
        torch.testing.assert_close(G(z, *args), fake)
        torch.testing.assert_close(D(fake.to(memory_format=torch.channels_last), *args), logits)


@pytest.mark.parametrize("name", BUILDS)
def test_a_network_in_bfloat16_stays_in_bfloat16(name):
    """Nothing inside asks for float32."""
    G, D = (net.to(torch.bfloat16) for net in BUILDS[name]((1, 8, 8)))
    args = (torch.arange(2),) if G.n_classes else ()
    fake = G(torch.randn(2, 6, dtype=torch.bfloat16), *args)
    assert fake.dtype == D(fake, *args).dtype == torch.bfloat16


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: models.sngan((3, 30, 30)),
            r"shape must be \(C, S, S\) with S one of 8, 16, 28, 32, 48, 64, 128, got \(3, 30, 30\)",
        ),
        (lambda: models.wgan_gp((3, 32, 16)), "shape must be"),
        (lambda: models.projection_gan((2,), 10), r"shape must be .* got \(2,\)"),
        (lambda: models.sngan((3, 32, 32), width=0), "width must be a whole number of at least 1, got 0"),
        (lambda: models.sngan((3, 32, 32), d_width=-1), "d_width must be a whole number of at least 1, got -1"),
        (lambda: models.sngan((3, 32, 32), z_dim=0), "z_dim must be a whole number of at least 1, got 0"),
        (lambda: models.projection_gan((3, 32, 32), 0), "n_classes must be a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_gains_of_initial_weights_are_set_where_a_block_is():
    torch.manual_seed(0)
    block = UpBlock(16, 16, nn.Conv2d, nn.BatchNorm2d)
    residual_glorot(block)
    ratio = block.conv1.weight.std() / block.shortcut.weight.std()
    assert ratio.item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)


# --- Upsampling and convolution in one --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [nn.Conv2d, SNConv2d])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_upsampled_convolution_is_upsampling_and_a_convolution(make, layout):
    torch.manual_seed(0)
    conv = make(3, 5, 3, padding=1).double().eval()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    y = blocks.upsampled_conv(x, conv)
    expected = conv(nn.Upsample(scale_factor=2)(x))
    torch.testing.assert_close(y, expected)
    direction = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    ours, theirs = (torch.autograd.grad(out, inputs, direction) for out in (y, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_an_upsampled_convolution_takes_four_ninths_of_the_products():
    conv, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 16, 16)

    def products(work) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    whole = products(lambda: conv(nn.Upsample(scale_factor=2)(x)))
    assert products(lambda: blocks.upsampled_conv(x, conv)) * 9 == whole * 4
