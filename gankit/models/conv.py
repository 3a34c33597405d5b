"""Strided convolutional networks: the Conv-n of the sample-weighting paper, and DCGAN."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from torch import nn

from gankit.models.blocks import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Discriminator,
    Generator,
    Norm,
    Squeeze,
    dcgan_normal,
    glorot_conditional,
    positive,
    seeded,
)
from gankit.models.conditioning import Condition, Join, discriminator, generator, players


def conv(
    shape: tuple[int, int, int],
    z_dim: int = 64,
    depth: int = 4,
    width: int = 32,
    *,
    condition: Condition | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Discriminator]:
    """Conv-n: strided convolutions with kernel 3, filters doubled where the picture is halved.

    The discriminator has `depth - 1` convolutions of stride 2 with `width`, `2 width`, ... filters and one
    linear layer to the logit. The generator is its mirror: a linear layer, then `depth - 1` transposed
    convolutions of stride 2. ReLU between layers, tanh at the generator's output, no normalisation.
    Weights are Glorot-uniform and biases zero.

    Args:
        shape: (C, H, W) of one image. Any size; odd sizes halve upwards (28 -> 14 -> 7 -> 4).
        z_dim: length of a latent vector.
        depth: number of weight layers, the n of Conv-n, at least 2.
        width: filters of the discriminator's first convolution.
        condition: how both read labels; None for networks without. "concat-hidden" joins the label to what the
            discriminator's last convolution reads.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, H, W]` in [-1, 1], D maps that to logits `[N]`; with a condition both
        take labels `[N]` as well.

    Raises:
        ValueError: if a size is not positive, `shape` is not that of an image, the picture cannot be
            halved `depth - 1` times, or a size does not fit the condition.

    Source: "Sample weighting as an explanation for mode collapse in GANs", section 3.3. The paper does not
    print the number of filters or the initial weights.
    """
    positive(z_dim=z_dim, depth=depth, width=width)
    heights, widths = _halvings(shape, depth - 1)
    channels = [shape[0], *(width * 2**i for i in range(depth - 1))]
    top = (channels[-1], heights[-1], widths[-1])

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
            layers += [*join, nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.ReLU()]
        return [*layers, nn.Flatten(-3, -1)]

    with seeded(seed):  # building a layer draws numbers too
        return players(
            condition,
            lambda: generator(condition, up, z_dim, tuple(shape), places=depth, norm=ConditionalBatchNorm2d),
            lambda: discriminator(condition, down, math.prod(top), hidden=depth - 2),
            glorot_conditional,
        )


def dcgan(
    shape: tuple[int, int, int], z_dim: int = 100, width: int = 64, *, seed: int = 0
) -> tuple[Generator, Discriminator]:
    """DCGAN: kernels of 4 with stride 2, batch normalisation, leaky ReLU in the discriminator.

    From a 4 x 4 start the generator doubles the side until it reaches the picture's; at 64 x 64 and width 64
    this is figure 1 of the paper (filters 1024, 512, 256, 128 for its width of 128). Weights from
    N(0, 0.02^2), batch-norm gains from N(1, 0.02^2), zero biases.

    Args:
        shape: (C, S, S) with S a power of two, at least 8.
        z_dim: length of a latent vector (100 in the paper).
        width: filters next to the picture, doubled at each halving of the side.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, S, S]` in [-1, 1], D maps that to logits `[N]`.

    Raises:
        ValueError: if the picture is not square with a side of a power of two of at least 8.

    Source: Radford, Metz and Chintala 2016, section 3 and figure 1.
    """
    positive(z_dim=z_dim, width=width)
    side = shape[-1] if len(shape) == 3 else 0
    if len(shape) != 3 or shape[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"shape must be (C, S, S) with S a power of two of at least 8, got {tuple(shape)}; "
            "`conv` takes any size"
        )
    channels = [width * 2**i for i in range(int(math.log2(side)) - 2)]

    with seeded(seed):
        up: list[nn.Module] = [nn.Unflatten(-1, (z_dim, 1, 1))]
        up += [
            nn.ConvTranspose2d(z_dim, channels[-1], 4, bias=False),
            BatchNorm2d(channels[-1]),
            nn.ReLU(),
        ]
        for c_in, c_out in zip(channels[:0:-1], channels[-2::-1], strict=True):
            up += [
                nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
                BatchNorm2d(c_out),
                nn.ReLU(),
            ]
        up += [nn.ConvTranspose2d(channels[0], shape[0], 4, stride=2, padding=1), nn.Tanh()]

        down: list[nn.Module] = [nn.Conv2d(shape[0], channels[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for c_in, c_out in itertools.pairwise(channels):
            down += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
                BatchNorm2d(c_out),
                nn.LeakyReLU(0.2),
            ]
        down += [nn.Conv2d(channels[-1], 1, 4), nn.Flatten(-3, -1), Squeeze()]

        G = Generator(*up, z_dim=z_dim, shape=tuple(shape))
        D = Discriminator(*down)
        dcgan_normal(G)
        dcgan_normal(D)
    return G, D


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
