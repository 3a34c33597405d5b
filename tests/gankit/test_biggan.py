import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gankit as gk
from gankit import models
from gankit.game.penalties import WganGP
from gankit.models.biggan import BIGGAN, SMALL, HierarchicalGenerator
from gankit.models.blocks import ResBlock, SelfAttention, UpBlock
from gankit.models.ensemble import pair
from gankit.models.resnet import SNGAN
from gankit.models.spectral import SNConv2d, SNEmbedding, SNLinear
from gankit.streams import Streams

SN = SNConv2d | SNLinear | SNEmbedding


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def meta(build, *args, **settings) -> tuple[nn.Module, nn.Module]:
    """Networks of full size without the memory for their weights."""
    with torch.device("meta"):
        return build(*args, **settings)


def attending(net: nn.Module, x: Tensor, *args: Tensor) -> list[int]:
    """Sides of the feature maps that attend to themselves, in the order of the forward pass."""
    sides: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, inputs, output: sides.append(output.shape[-1]))
        for module in net.modules()
        if isinstance(module, SelfAttention)
    ]
    net(x, *args)
    for hook in hooks:
        hook.remove()
    return sides


# --- Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "side", "n_classes", "settings", "in_G", "in_D"),
    [
        (models.sagan, 32, 10, {}, 4_386_308, 1_075_586),
        (models.biggan_cifar, 32, 10, {"width": 64}, 4_304_387, 4_207_361),
        (models.biggan, 128, 1000, {"width": 96}, 70_433_988, 87_982_370),
        (models.biggan, 128, 1000, {"width": 64}, 31_978_628, 39_448_258),
    ],
    ids=["SAGAN-32", "BigGAN CIFAR", "BigGAN-128 ch 96", "BigGAN-128 ch 64"],
)
def test_parameters_are_as_many_as_in_public_implementations(build, side, n_classes, settings, in_G, in_D):
    G, D = meta(build, (3, side, side), n_classes, **settings)
    assert (count(G), count(D)) == (in_G, in_D)


@pytest.mark.parametrize(
    ("side", "z_dim", "up", "down", "attention"),
    [
        (128, 120, [16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16], (64, 64)),
        (256, 140, [16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16], (128, 64)),
    ],
    ids=["table 4", "table 5"],
)
def test_biggan_reads_like_the_tables(side, z_dim, up, down, attention):
    ch = 4
    G, D = meta(models.biggan, (3, side, side), 10, width=ch)
    assert (G.z_dim, G.embedding.embedding_dim) == (z_dim, 128)
    assert [b.conv2.out_channels for b in G.layers if isinstance(b, UpBlock)] == [ch * m for m in up]
    blocks = [b for b in D if isinstance(b, ResBlock)]
    assert [b.conv2.out_channels for b in blocks] == [ch * m for m in down]
    # "The number of filters in the first layer of each block of D equals the number of output filters."
    assert all(b.conv1.out_channels == b.conv2.out_channels for b in blocks)
    assert [isinstance(b.pool, nn.AvgPool2d) for b in blocks] == [True] * (len(down) - 1) + [False]
    z, labels = torch.zeros(2, z_dim, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    assert attending(G, z, labels) == [attention[0]]
    assert attending(D, torch.zeros(2, 3, side, side, device="meta"), labels) == [attention[1]]


@pytest.mark.parametrize(
    ("build", "sides"),
    [(models.sagan, SNGAN), (models.biggan_cifar, SMALL), (models.biggan, BIGGAN)],
    ids=["sagan", "biggan_cifar", "biggan"],
)
def test_shapes_at_every_size(build, sides):
    for side in sides:
        channels = 1 if side < 32 else 3
        G, D = meta(build, (channels, side, side), 7, width=2)
        z, labels = torch.zeros(2, G.z_dim, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
        assert (G.shape, G.n_classes, D.n_classes) == ((channels, side, side), 7, 7)
        fake = G(z, labels)
        assert fake.shape == (2, channels, side, side)
        assert D(fake, labels).shape == (2,)


@pytest.mark.parametrize(("side", "expected"), [(8, 4), (32, 16), (128, 32)])
def test_sagan_attends_in_the_middle(side, expected):
    G, D = meta(models.sagan, (1, side, side), 3, width=2)
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    fake = G(torch.zeros(2, 128, device="meta"), labels)
    assert attending(G, torch.zeros(2, 128, device="meta"), labels) == [expected]
    assert attending(D, fake, labels) == [expected]


def test_attention_goes_where_it_is_asked_for():
    for build, side in ((models.sagan, 8), (models.biggan, 16), (models.biggan_cifar, 8), (models.sagan, 0)):
        G, D = meta(build, (1, 32, 32), 3, width=2, attention=side)
        labels = torch.zeros(2, dtype=torch.long, device="meta")
        expected = [side] if side else []
        assert attending(G, torch.zeros(2, G.z_dim, device="meta"), labels) == expected
        assert attending(D, torch.zeros(2, 1, 32, 32, device="meta"), labels) == expected


def test_both_networks_are_normalised_but_for_the_embeddings_of_g():
    weighted = nn.Conv2d | nn.Linear | nn.Embedding
    for build in (models.sagan, models.biggan, models.biggan_cifar):
        G, D = meta(build, (3, 32, 32), 10, width=8)
        assert all(isinstance(m, SN) for m in D.modules() if isinstance(m, weighted))
        plain = [m for m in G.modules() if isinstance(m, weighted) and not isinstance(m, SN)]
        assert all(isinstance(m, nn.Embedding) for m in plain)
        # BigGAN shares one embedding; the others have a gain and a bias in two norms of three blocks.
        assert len(plain) == (1 if build is models.biggan else 12)


# --- Blocks, against the equations of the papers ------------------------------------------------------------------


def random_weights(net: nn.Module) -> nn.Module:
    """Float64, and every parameter random: no bias of 0 or gain of 1 hides behind its initial value."""
    net = net.double()
    for p in net.parameters():
        nn.init.normal_(p, 0.1, 0.5)
    return net


def normalised(layer: nn.Module) -> Tensor:
    """The layer's weight over its true largest singular value."""
    return layer.weight / torch.linalg.svdvals(layer.weight.flatten(1)).max()


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    return F.conv2d(x, normalised(layer), layer.bias, padding=layer.weight.shape[-1] // 2)


def unpool(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def standardised(x: Tensor) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def max_pool(x: Tensor) -> Tensor:
    return torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)


def test_self_attention():
    """Equations 1 to 3 of Zhang et al. 2018, pixel by pixel."""
    torch.manual_seed(0)
    layer = random_weights(SelfAttention(16, SNConv2d)).eval()
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    f, g, h, v = (normalised(c).flatten(1) for c in (layer.f, layer.g, layer.h, layer.v))
    assert (f.shape, g.shape, h.shape, v.shape) == ((2, 16), (2, 16), (8, 16), (16, 8))
    expected = torch.empty_like(x)
    for n in range(2):
        keys = max_pool(torch.einsum("ck,kab->cab", f, x[n])).flatten(1)  # columns i
        values = max_pool(torch.einsum("ck,kab->cab", h, x[n])).flatten(1)
        for a in range(4):
            for b in range(6):
                s = torch.stack([keys[:, i] @ (g @ x[n, :, a, b]) for i in range(keys.shape[1])])
                beta = s.exp() / s.exp().sum()
                o = v @ sum(beta[i] * values[:, i] for i in range(keys.shape[1]))
                expected[n, :, a, b] = layer.gamma * o + x[n, :, a, b]
    torch.testing.assert_close(layer(x), expected)


def test_attention_begins_as_the_identity():
    layer = SelfAttention(16, SNConv2d)
    x = torch.randn(2, 16, 6, 6)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gamma.grad != 0  # and is not stuck there


def test_attention_of_narrow_maps():
    """Fewer than 8 channels leave one for f and g."""
    layer = SelfAttention(4, nn.Conv2d)
    assert (layer.f.out_channels, layer.h.out_channels) == (1, 2)
    assert layer(torch.randn(2, 4, 7, 7)).shape == (2, 4, 7, 7)


def test_biggan_block_and_hierarchical_latents():
    """Figure 15: z in chunks; each block's gains and biases are linear in [class embedding, its chunk]."""
    torch.manual_seed(0)
    G, _ = models.biggan((2, 16, 16), 5, z_dim=9, width=2, y_dim=4)
    G = random_weights(G)
    G.train()
    sn = [m for m in G.modules() if isinstance(m, SN)]
    for layer in sn:
        layer.eval()  # sigma to the last digit; batch norm keeps the minibatch's statistics
    z, labels = torch.randn(6, 9, dtype=torch.float64), torch.tensor([0, 4, 4, 1, 2, 3])
    y = G.embedding.weight[labels]
    dense, block1, block2 = G.layers[0], G.layers[2], G.layers[3]
    h = (z[:, :3] @ normalised(dense).mT + dense.bias).reshape(6, 8, 4, 4)
    for block, chunk in ((block1, z[:, 3:6]), (block2, z[:, 6:])):
        c = torch.cat([y, chunk], 1)

        def norm(x: Tensor, layer: nn.Module, c: Tensor = c) -> Tensor:
            gain, bias = 1 + c @ normalised(layer.gain).mT, c @ normalised(layer.bias).mT
            return gain[:, :, None, None] * standardised(x) + bias[:, :, None, None]

        new = conv(unpool(norm(h, block.norm1).clamp(min=0)), block.conv1)
        new = conv(norm(new, block.norm2).clamp(min=0), block.conv2)
        h = new + conv(unpool(h), block.shortcut)
    bn, to_picture = G.layers[4], G.layers[6]
    h = standardised(h) * bn.weight[:, None, None] + bn.bias[:, None, None]
    expected = conv(h.clamp(min=0), to_picture).tanh()
    torch.testing.assert_close(G(z, labels), expected)


def test_biggan_block_of_the_discriminator():
    """Figure 15 (c), with the number of filters raised by the first convolution."""
    torch.manual_seed(0)
    _, D = models.biggan((3, 64, 64), 5, width=4, attention=0)
    block = random_weights(D[1]).eval()
    assert [block.conv1.out_channels, block.conv2.out_channels] == [8, 8]
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    h = conv(conv(x.clamp(min=0), block.conv1).clamp(min=0), block.conv2)
    expected = F.interpolate(h + conv(x, block.shortcut), scale_factor=0.5, mode="area")  # mean of 2 x 2
    torch.testing.assert_close(block(x), expected)


def test_a_block_reads_its_own_chunk_and_nothing_else():
    """Moving the last chunk of z changes the picture, but nothing before the last block."""
    G, _ = models.biggan((1, 16, 16), 5, z_dim=9, width=2)
    assert isinstance(G, HierarchicalGenerator)
    seen: list[Tensor] = []
    G.layers[2].register_forward_hook(lambda *hooked: seen.append(hooked[-1]))
    z, labels = torch.randn(4, 9), torch.arange(4)
    moved = z.clone()
    moved[:, 6:] += 1
    G.eval()
    first, second = G(z, labels), G(moved, labels)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(first, second)


# --- Initial weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [models.biggan, models.biggan_cifar])
def test_biggan_begins_with_orthogonal_matrices(build):
    for net in build((3, 16, 16), 10, width=4):
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                values = torch.linalg.svdvals(module.weight.flatten(1))
                torch.testing.assert_close(values, torch.ones_like(values), atol=1e-4, rtol=0)
                assert not getattr(module, "bias", None) is not None or not module.bias.any()


BUILDS = {
    "sagan": lambda shape, seed=0: models.sagan(shape, 10, z_dim=6, width=8, seed=seed),
    "biggan": lambda shape, seed=0: models.biggan(shape, 10, z_dim=6, width=4, y_dim=5, attention=4, seed=seed),
    "biggan_cifar": lambda shape, seed=0: models.biggan_cifar(shape, 10, z_dim=6, width=4, seed=seed),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDS)
def test_the_seed_decides_the_weights_and_nothing_else(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    builds = [BUILDS[name]((1, 8, 8), seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    for net in (0, 1):
        a, b, c = (nets[net].state_dict() for nets in builds)
        assert all(torch.equal(a[key], b[key]) for key in a)
        for key in (key for key in a if key.endswith((".u", "conv1.weight"))):
            assert not torch.equal(a[key], c[key]) or a[key].numel() == 1, key


# --- In use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDS)
def test_a_run_moves_every_weight_and_stays_finite(name):
    data = gk.data.load("digits")
    G, D = BUILDS[name](data.shape)
    before = copy.deepcopy((G, D))
    run = gk.Trainer(
        G, D, data, loss="hinge", batch_size=16, leak=gk.Leak(0.5, start=1), n_dis=2, device="cpu"
    )
    for _ in range(2):
        stats = run.step()
    for old, new in zip(before, (G, D), strict=True):
        for (key, a), b in zip(old.named_parameters(), new.named_parameters(), strict=True):
            assert b[1].isfinite().all(), key
            # What gamma = 0 keeps out of the picture gets a gradient once gamma has moved, in the second step.
            assert a.ndim == 1 or not torch.equal(a, b[1]), key
    assert all(g.isfinite().all() for g in (*stats["g_grad"], *stats["d_grad"]))
    images = run.teacher.sample(5, labels=torch.arange(5))
    assert images.shape == (5, *data.shape)
    assert images.abs().max() <= 1
    for layer in (m for m in run.teacher.net.modules() if isinstance(m, SN)):
        true = torch.linalg.svdvals(layer.weight.flatten(1).double()).max().item()
        assert layer.sigma().item() == pytest.approx(true, rel=2e-3)


@pytest.mark.parametrize("name", BUILDS)
def test_replicas_are_the_single_networks_side_by_side(name):
    seeds = (4, 9)
    G, D = pair(lambda seed: BUILDS[name]((2, 8, 8), seed), seeds)
    assert (G.n_classes, G.z_dim) == (10, 6)
    for ensemble in (G, D):  # let attention take part
        for key, p in ensemble.named_parameters():
            if key.endswith("gamma"):
                nn.init.ones_(p)
    streams = Streams(seeds, (2,), "cpu")
    z, labels = streams.normal(3, 6), streams.integers(10, 3)
    alone = [(G.replica(i), D.replica(i)) for i in range(2)]
    with torch.no_grad():
        fake = G(z, labels)
        logits = D(fake, labels)
        for i, (g, d) in enumerate(alone):
            torch.testing.assert_close(g(z[i], labels[i]), fake[i], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(d(fake[i], labels[i]), logits[i], atol=1e-4, rtol=1e-4)
            for net, single in ((G, g), (D, d)):  # running statistics and u as well
                for a, b in zip(net.replica(i).buffers(), single.buffers(), strict=True):
                    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_run_in_bfloat16_with_a_gradient_penalty(name, seeds):
    data = gk.data.load("digits")
    nets = BUILDS[name](data.shape) if len(seeds) == 1 else pair(lambda s: BUILDS[name](data.shape, s), seeds)
    run = gk.Trainer(
        *nets, data, loss="hinge", batch_size=4, precision="bfloat16", d_terms=[WganGP()], device="cpu"
    )
    stats = run.step()
    assert all(g.isfinite().all() for g in (*stats["g_grad"], *stats["d_grad"]))


@pytest.mark.parametrize("name", BUILDS)
def test_a_checkpoint_continues_bit_for_bit(name, tmp_path):
    """u and the running statistics are part of it."""
    data = gk.data.load("digits")

    def start() -> gk.Trainer:
        return gk.Trainer(*BUILDS[name](data.shape), data, loss="hinge", batch_size=4, device="cpu")

    first = start()
    first.step()
    first.save(tmp_path / "checkpoint.pt")
    second = start().load(tmp_path / "checkpoint.pt")
    first.step(), second.step()
    for net in ("G", "D", "teacher"):
        mine, theirs = getattr(first, net).state_dict(), getattr(second, net).state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", BUILDS)
def test_lower_precision_and_memory_order(name):
    G, D = BUILDS[name]((3, 16, 16))
    z, labels = torch.randn(4, 6), torch.arange(4)
    G.eval(), D.eval()
    for net in (G, D):
        for module in net.modules():
            if isinstance(module, SelfAttention):
                nn.init.ones_(module.gamma)
    with torch.no_grad():
        fake = G(z, labels)
        logits = D(fake, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = G(z, labels)
            assert low.dtype == torch.bfloat16
            assert (low - fake).abs().max() < 0.05
            assert (D(low, labels) - logits).abs().max() < 0.05 * logits.abs().max() + 0.05
        G.to(memory_format=torch.channels_last), D.to(memory_format=torch.channels_last)
        torch.testing.assert_close(G(z, labels), fake, atol=1e-5, rtol=1e-4)
        channels_last = fake.to(memory_format=torch.channels_last)
        torch.testing.assert_close(D(channels_last, labels), logits, atol=1e-4, rtol=1e-4)
        G, D = G.to(torch.bfloat16), D.to(torch.bfloat16)
        fake = G(z.bfloat16(), labels)
        assert fake.dtype == D(fake, labels).dtype == torch.bfloat16  # nothing inside asks for float32


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: models.sagan((3, 256, 256), 10), r"shape must be .* S one of 8, 16, 28, 32, 48, 64, 128, got"),
        (lambda: models.biggan((3, 48, 48), 10), r"shape must be .* S one of 8, 16, 28, 32, 64, 128, 256, got"),
        (lambda: models.biggan_cifar((3, 64, 64), 10), r"shape must be .* S one of 8, 16, 28, 32, got"),
        (lambda: models.biggan((3, 128, 128), 10, z_dim=128), "z_dim must be a multiple of 6, .* got 128"),
        (lambda: models.biggan((3, 32, 32), 10, z_dim=0), "z_dim must be a whole number of at least 1, got 0"),
        (lambda: models.biggan((3, 32, 32), 10, y_dim=0), "y_dim must be a whole number of at least 1, got 0"),
        (lambda: models.biggan((3, 32, 32), 0), "n_classes must be a whole number of at least 1, got 0"),
        (lambda: models.biggan_cifar((3, 32, 32), 10, width=0), "width must be a whole number"),
        (lambda: models.sagan((3, 32, 32), 10, attention=4), "attention must be .* one of 8, 16, or 0, got 4"),
        (lambda: models.biggan((3, 128, 128), 10, attention=128), "one of 4, 8, 16, 32, 64, or 0, got 128"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
