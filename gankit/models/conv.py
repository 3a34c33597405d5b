"""Strided convolutional networks: the Conv-n of the sample-weighting paper, DCGAN, and what it makes of that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from torch import nn

from gankit.models.blocks import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Conv,
    Discriminator,
    Generator,
    Norm,
    SelfAttention,
    Squeeze,
    dcgan_normal,
    glorot_conditional,
    positive,
    seeded,
)
from gankit.models.conditioning import Condition, Join, discriminator, generator, players
from gankit.models.normalisation import Normalisation, normalisation_of, paired
from gankit.models.spectral import SNConv2d, SNLinear


def conv(
    shape: tuple[int, int, int],
    z_dim: int = 64,
    depth: int = 4,
    width: int = 32,
    *,
    normalisation: str | Normalisation = "none",
    condition: Condition | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Discriminator]:
    """Conv-n: strided convolutions with kernel 3, filters doubled where the picture is halved.

    The discriminator has `depth - 1` convolutions of stride 2 with `width`, `2 width`, ... filters and one
    linear layer to the logit. The generator is its mirror: a linear layer, then `depth - 1` transposed
    convolutions of stride 2. ReLU between layers, tanh at the generator's output, no normalisation
    unless one is named. Weights are Glorot-uniform and biases zero.

    Args:
        shape: (C, H, W) of one image. Any size; odd sizes halve upwards (28 -> 14 -> 7 -> 4).
        z_dim: length of a latent vector.
        depth: number of weight layers, the n of Conv-n, at least 2.
        width: filters of the discriminator's first convolution.
        normalisation: of the discriminator (`gankit.models.normalisation`). Networks that differ in nothing else have
            equal weights at the start.
        condition: how both read labels; None for networks without. "concat-hidden" joins the label to what the
            discriminator's last convolution reads.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, H, W]` in [-1, 1], D maps that to logits `[N]`; with a condition both
        take labels `[N]` as well.

    Raises:
        ValueError: if a size is not positive, `shape` is not that of an image, the picture cannot be
            halved `depth - 1` times, a size does not fit the condition, or the normalisation is unknown.

    Source: "Sample weighting as an explanation for mode collapse in GANs", section 3.3. The paper does not
    print the number of filters or the initial weights.
    """
    positive(z_dim=z_dim, depth=depth, width=width)
    heights, widths = _halvings(shape, depth - 1)
    channels = [shape[0], *(width * 2**i for i in range(depth - 1))]
    top = (channels[-1], heights[-1], widths[-1])
    normalised = normalisation_of(normalisation)
    conv2d = paired(nn.Conv2d, normalised.conv)

    def up(n_in: int, norm: Norm | None) -> list[nn.Module]:
        normed = lambda c: [] if norm is None else [norm(c)]  # noqa: E731
        layers = [nn.Linear(n_in, math.prod(top)), nn.Unflatten(-1, top), *normed(top[0]), nn.ReLU()]
        for i in reversed(range(depth - 1)):
            # A stride of 2 doubles a side to 2n - 1; one more row is needed where the side was even.
            extra = (int(heights[i] % 2 == 0), int(widths[i] % 2 == 0))
            bias = norm is None or i == 0  # normalisation would subtract it
            layers.append(
                nn.ConvTranspose2d(
                    channels[i + 1],
                    channels[i],
                    3,
                    stride=2,
                    padding=1,
                    output_padding=extra,
                    bias=bias,
                )
            )
            layers += [*normed(channels[i]), nn.ReLU()] if i else [nn.Tanh()]
        return layers

    def down(joined: Mapping[int, Join]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(itertools.pairwise(channels)):
            join = [joined[i]] if i in joined else []
            c_in += sum(one.size for one in join)
            norm = [] if normalised.of_maps is None else [normalised.of_maps(c_out)]
            layers += [*join, conv2d(c_in, c_out, 3, stride=2, padding=1), *norm, nn.ReLU()]
        return [*layers, nn.Flatten(-3, -1)]

    heads = {
        "linear": paired(nn.Linear, normalised.linear),
        "embedding": paired(nn.Embedding, normalised.embedding),
    }
    with seeded(seed):  # building a layer draws numbers too
        return players(
            condition,
            lambda: generator(condition, up, z_dim, tuple(shape), places=depth, norm=ConditionalBatchNorm2d),
            lambda: discriminator(condition, down, math.prod(top), hidden=depth - 2, **heads),
            glorot_conditional,
        )


def conv_sn(
    shape: tuple[int, int, int], z_dim: int = 64, depth: int = 4, width: int = 32, *, seed: int = 0
) -> tuple[nn.Module, Discriminator]:
    """Conv-n-sn: `conv` with spectral normalisation of D's convolutions, and not of its last, linear layer.

    Source: "Sample weighting as an explanation for mode collapse in GANs", figures 8 and 22d; its appendix M says
    that the last layer is left out.
    """
    return conv(shape, z_dim, depth, width, normalisation=Normalisation(SNConv2d), seed=seed)


def dcgan(
    shape: tuple[int, int, int],
    z_dim: int = 100,
    width: int = 64,
    *,
    d_conv: Conv = nn.Conv2d,
    d_batch_norm: bool = True,
    attention: int = 0,
    seed: int = 0,
) -> tuple[Generator, Discriminator]:
    """DCGAN: kernels of 4 with stride 2, batch normalisation, leaky ReLU in the discriminator.

    From a 4 x 4 start the generator doubles the side until it reaches the picture's; at 64 x 64 and width 64
    this is figure 1 of the paper (filters 1024, 512, 256, 128 for its width of 128). Weights from
    N(0, 0.02^2), batch-norm gains from N(1, 0.02^2), zero biases.

    Args:
        shape: (C, S, S) with S a power of two, at least 8.
        z_dim: length of a latent vector (100 in the paper).
        width: filters next to the picture, doubled at each halving of the side.
        d_conv: makes the discriminator's convolutions, `SNConv2d` for spectrally normalised ones.
        d_batch_norm: whether the discriminator's inner layers are batch-normalised.
        attention: side of the feature map that attends to itself, in G and in D; 0 for none, as in the paper.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, S, S]` in [-1, 1], D maps that to logits `[N]`.

    Raises:
        ValueError: if the picture is not square with a side of a power of two of at least 8, or no feature map has the
            side `attention`.

    Source: Radford, Metz and Chintala 2016, section 3 and figure 1.
    """
    positive(z_dim=z_dim, width=width)
    side = _power_of_two(shape)
    sides = [
        side // 2**i for i in range(1, int(math.log2(side)) - 1)
    ]  # of feature maps, the picture's neighbour first
    channels = [width * 2**i for i in range(len(sides))]
    if attention not in (0, *sides):
        raise ValueError(
            f"attention must be the side of a feature map, one of {', '.join(map(str, sides))}, or 0, got {attention}"
        )

    with seeded(seed):
        up: list[nn.Module] = [nn.Unflatten(-1, (z_dim, 1, 1))]
        up += [nn.ConvTranspose2d(z_dim, channels[-1], 4, bias=False), BatchNorm2d(channels[-1]), nn.ReLU()]
        for i in reversed(range(1, len(channels))):
            up += [SelfAttention(channels[i], nn.Conv2d)] if attention == sides[i] else []
            up += [
                nn.ConvTranspose2d(channels[i], channels[i - 1], 4, stride=2, padding=1, bias=False),
                BatchNorm2d(channels[i - 1]),
                nn.ReLU(),
            ]
        up += [SelfAttention(channels[0], nn.Conv2d)] if attention == sides[0] else []
        up += [nn.ConvTranspose2d(channels[0], shape[0], 4, stride=2, padding=1), nn.Tanh()]

        down: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(itertools.pairwise([shape[0], *channels])):
            norm = [BatchNorm2d(c_out)] if d_batch_norm and i else []  # not where the picture comes in
            down += [d_conv(c_in, c_out, 4, stride=2, padding=1, bias=not norm), *norm, nn.LeakyReLU(0.2)]
            down += [SelfAttention(c_out, d_conv)] if attention == sides[i] else []
        down += [d_conv(channels[-1], 1, 4), nn.Flatten(-3, -1), Squeeze()]

        G = Generator(*up, z_dim=z_dim, shape=tuple(shape))
        D = Discriminator(*down)
        dcgan_normal(G)
        dcgan_normal(D)
    return G, D


def dcgan_bn_sn(
    shape: tuple[int, int, int], z_dim: int = 100, width: int = 64, *, seed: int = 0
) -> tuple[Generator, Discriminator]:
    """`dcgan` with spectral normalisation in D as well as batch normalisation.

    Source: "Sample weighting as an explanation for mode collapse in GANs", figures 21 (right) and 22e.
    """
    return dcgan(shape, z_dim, width, d_conv=SNConv2d, seed=seed)


def dcgan_attention(
    shape: tuple[int, int, int], z_dim: int = 100, width: int = 64, *, seed: int = 0
) -> tuple[Generator, Discriminator]:
    """`dcgan` with spectral instead of batch normalisation in D, and self-attention in both networks.

    The feature map of half the picture's side attends to itself, of 32 pixels from 64 on, where SAGAN found it best.

    Source: "Sample weighting as an explanation for mode collapse in GANs", figures 7, 22a and 22b. The paper does
    not print where the attention is.
    """
    side = min(_power_of_two(shape) // 2, 32)
    return dcgan(shape, z_dim, width, d_conv=SNConv2d, d_batch_norm=False, attention=side, seed=seed)


def sndcgan(
    shape: tuple[int, int, int], z_dim: int = 128, width: int = 64, *, seed: int = 0
) -> tuple[Generator, Discriminator]:
    """The convolutional networks with which spectral normalisation was introduced.

    The generator goes from S/8 to S pixels in three transposed convolutions (kernels of 4, stride 2) with batch
    normalisation. The discriminator has seven convolutions, kernels of 3 with stride 1 and of 4 with stride 2 in turn,
    with leaky ReLU of slope 0.1, and every layer, the last linear one too, is spectrally normalised. Weights and
    biases start as in `dcgan`.

    Args:
        shape: (C, S, S) with S a multiple of 8.
        z_dim: length of a latent vector (128 in the paper).
        width: filters next to the picture (64 in the paper), doubled at each halving of the side.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, S, S]` in [-1, 1], D maps that to logits `[N]`.

    Raises:
        ValueError: if a size is not positive or `shape` is not (C, S, S) with S a multiple of 8.

    Source: Miyato, Kataoka, Koyama and Yoshida 2018, table 3. It shows nothing between the generator's first, dense
    layer and the next; here, as after the other layers, batch normalisation and ReLU. It prints no initial weights.
    """
    positive(z_dim=z_dim, width=width)
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] % 8 or shape[1] < 8:
        raise ValueError(f"shape must be (C, S, S) with S a multiple of 8, got {tuple(shape)}")
    first = shape[1] // 8
    filters = [width, 2 * width, 4 * width, 8 * width]
    with seeded(seed):
        up: list[nn.Module] = [
            nn.Linear(z_dim, filters[-1] * first**2),
            nn.Unflatten(-1, (filters[-1], first, first)),
        ]
        up += [BatchNorm2d(filters[-1]), nn.ReLU()]
        for c_in, c_out in itertools.pairwise(filters[::-1]):
            up += [nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1), BatchNorm2d(c_out), nn.ReLU()]
        up += [nn.Conv2d(filters[0], shape[0], 3, padding=1), nn.Tanh()]

        down: list[nn.Module] = [SNConv2d(shape[0], filters[0], 3, padding=1), nn.LeakyReLU(0.1)]
        for c_in, c_out in itertools.pairwise(filters):
            down += [SNConv2d(c_in, c_in, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
            down += [SNConv2d(c_in, c_out, 3, padding=1), nn.LeakyReLU(0.1)]
        down += [nn.Flatten(-3, -1), SNLinear(filters[-1] * first**2, 1), Squeeze()]

        G = Generator(*up, z_dim=z_dim, shape=tuple(shape))
        D = Discriminator(*down)
        dcgan_normal(G)
        dcgan_normal(D)
    return G, D


def _power_of_two(shape: tuple[int, ...]) -> int:
    """The side of a square picture, which must be a power of two of at least 8."""
    side = shape[-1] if len(shape) == 3 else 0
    if len(shape) != 3 or shape[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"shape must be (C, S, S) with S a power of two of at least 8, got {tuple(shape)}; "
            "`conv` takes any size"
        )
    return side


def _halvings(shape: tuple[int, ...], times: int) -> tuple[list[int], list[int]]:
    """Heights and widths of the picture before and after each halving."""
    if len(shape) != 3:
        raise ValueError(
            f"shape must be (C, H, W) of an image, got {tuple(shape)}; `mlp` takes points as well"
        )
    if times < 1:
        raise ValueError(f"depth must be at least 2, one convolution and one linear layer, got {times + 1}")
    heights, widths = [shape[1]], [shape[2]]
    for _ in range(times):
        if heights[-1] < 2 or widths[-1] < 2:
            raise ValueError(f"depth must allow {times} halvings of a {shape[1]} x {shape[2]} picture")
        heights.append((heights[-1] + 1) // 2)
        widths.append((widths[-1] + 1) // 2)
    return heights, widths
