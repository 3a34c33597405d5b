"""R3GAN: plain residual networks for a cost that needs no tricks, without normalisation or styles.

A stage is a change of resolution and residual blocks behind it (in D, before it). A block widens its features, mixes
neighbours within groups of channels, and narrows them again: 1x1, grouped 3x3 and 1x1 convolutions with leaky ReLU
between them. What normalisation would do is left to the initial weights, after Fix-up: a block begins as the identity,
its last convolution being zero, and the others are small enough for updates not to grow with depth.

From the paper's text: the block and its order, widening before grouping, bilinear resampling, leaky ReLU of slope 0.2,
weights after Fix-up, two blocks a stage, G and D alike. From the authors' settings for CIFAR-10: 768 channels at every
resolution, groups of 16, widening by 2, z of 64. Ours: biases, a dense layer at the 4 x 4 end of each network, tanh at
G's end as in the other networks here, and the kernel that halves a side.

Source: Huang, Gokaslan, Kuleshov and Tompkin 2024, "The GAN is dead; long live the GAN! A modern GAN baseline", section
4; Zhang, Dauphin and Ma 2019, "Fixup initialization".
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from gankit.device import constant
from gankit.models.blocks import Discriminator, Generator, Squeeze, positive, seeded

START = 4
"""Side of G's first feature map and of D's last."""
SLOPE = 0.2
"""Of the leaky ReLU below zero."""
LAYERS = 3
"""Convolutions of a block."""


def r3gan(
    shape: tuple[int, int, int],
    z_dim: int = 64,
    width: int = 768,
    *,
    blocks: int = 2,
    group_width: int = 16,
    widening: int = 2,
    seed: int = 0,
) -> tuple[Generator, Discriminator]:
    """The modern baseline's networks for square pictures of any power of two.

    Args:
        shape: (C, S, S) with S a power of two, at least 8.
        z_dim: length of a latent vector.
        width: channels at every resolution.
        blocks: residual blocks of a stage.
        group_width: channels of a group of the 3x3 convolutions; fewer where they do not divide the block's.
        widening: channels within a block, in multiples of the width.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, S, S]` in [-1, 1], D maps that to logits `[N]`.

    Raises:
        ValueError: if a size is not a positive whole number, or the picture is not square with a side of a power of two
            of at least 8.
    """
    positive(z_dim=z_dim, width=width, blocks=blocks, group_width=group_width, widening=widening)
    side = shape[-1] if len(shape) == 3 else 0
    if len(shape) != 3 or shape[1] != side or side < 2 * START or side & (side - 1):
        raise ValueError(f"shape must be (C, S, S) with S a power of two of at least 8, got {tuple(shape)}")
    doublings = int(math.log2(side // START))
    depth = blocks * (doublings + 1)

    def stage() -> list[nn.Module]:
        return [ResidualBlock(width, widening * width, group_width, depth) for _ in range(blocks)]

    ends = width * START * START
    with seeded(seed):
        up: list[nn.Module] = [nn.Linear(z_dim, ends), nn.Unflatten(-1, (width, START, START)), *stage()]
        for _ in range(doublings):
            up += [BilinearUp(), *stage()]
        down: list[nn.Module] = [nn.Conv2d(shape[0], width, 1)]
        for _ in range(doublings):
            down += [*stage(), BilinearDown()]
        down += [*stage(), nn.Flatten(-3, -1), nn.Linear(ends, 1), Squeeze()]
        G = Generator(*up, nn.Conv2d(width, shape[0], 1), nn.Tanh(), z_dim=z_dim, shape=tuple(shape))
        D = Discriminator(*down)
        for net in (G, D):
            fixup(net)
    return G, D


class ResidualBlock(nn.Module):
    """x plus 1x1, grouped 3x3 and 1x1 convolutions of it, `[N, width, H, W]` -> the same shape.

    Args:
        width: channels outside.
        hidden: channels of the two inner convolutions.
        group_width: channels of each group, at most; the largest divisor of `hidden` up to it.
        depth: residual blocks of the whole network, which its initial weights must know.
    """

    def __init__(self, width: int, hidden: int, group_width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        own = next(size for size in range(min(group_width, hidden), 0, -1) if hidden % size == 0)
        self.widen = nn.Conv2d(width, hidden, 1)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden // own)
        self.narrow = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.widen(x), SLOPE)
        h = F.leaky_relu(self.mix(h), SLOPE)
        return x + self.narrow(h)


class BilinearUp(nn.Module):
    """Twice the side by bilinear interpolation, `[N, C, H, W]` -> `[N, C, 2H, 2W]`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class BilinearDown(nn.Module):
    """Half the side by bilinear interpolation, `[N, C, H, W]` -> `[N, C, H/2, W/2]`: the transpose of `BilinearUp`.

    A pixel is a mean of 4 x 4 with weights 1, 3, 3, 1 along each side, so that it sees what its halves would alias.
    """

    def forward(self, x: Tensor) -> Tensor:
        row = constant((1, 3, 3, 1), x.device, x.dtype) / 8
        kernel = (row[:, None] * row).expand(x.shape[-3], 1, 4, 4)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, kernel, stride=2, groups=x.shape[-3])


def fixup(net: nn.Module) -> None:
    """Initial weights, in place: normal, keeping variance from layer to layer, with Fix-up's factors in blocks.

    Of a block of m layers in a network of L blocks the last weight is zero and the others are multiplied by
    L^(-1 / (2m - 2)) (Zhang et al. 2019, section 3, rule 2). Biases are zero.
    """
    gain = nn.init.calculate_gain("leaky_relu", SLOPE)
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
    for block in (module for module in net.modules() if isinstance(module, ResidualBlock)):
        scale = gain * block.depth ** (-1 / (2 * LAYERS - 2))
        for layer in (block.widen, block.mix):
            layer.weight.data.mul_(scale)
        nn.init.zeros_(block.narrow.weight)
