"""ProGAN: a generator and a discriminator that grow together, without normalisation that mixes samples in G."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.models.blocks import positive, seeded, upsampled_conv
from gankit.models.growing import Growing, Phases, faded
from gankit.models.style_blocks import (
    ROOT2,
    MinibatchDeviation,
    ScaledConv2d,
    ScaledLinear,
    copied,
    filters_at,
    leaky,
    pixel_norm,
    pooled,
    sides_of,
)


def progan(
    shape: tuple[int, int, int],
    z_dim: int = 512,
    width: int = 16,
    *,
    max_width: int = 512,
    phase: int = 600_000,
    group: int = 4,
    n_classes: int = 0,
    seed: int = 0,
) -> tuple[ProGenerator, ProDiscriminator]:
    """ProGAN.

    Args:
        shape: (C, S, S), C = 1 or 3; S = 4 2^k or 7 2^k, 8 to 1,024.
        z_dim: length of a latent vector.
        width: filters next to the picture; they double with every halving of the side, up to `max_width`. The paper
            has 16 at S = 1,024 (table 2).
        phase: real images in which a layer is faded in, and then in which it is trained before the next one comes.
        group: samples whose deviation D sees (`MinibatchDeviation`).
        n_classes: 0, or the number of classes: G reads z beside the label and D returns (logits, class logits), as
            AC-GAN does (appendix A of the paper).
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps z `[N, z_dim]` to `[N, C, S, S]`, of any size, D maps that to logits `[N]`.

    Raises:
        ValueError: if a size is not positive, or the shape not supported.

    Source: Karras, Aila, Laine and Lehtinen 2018, "Progressive growing of GANs for improved quality, stability, and
    variation", sections 2 to 4, appendix A and table 2.
    """
    positive(z_dim=z_dim, width=width, max_width=max_width)
    sides = sides_of(shape)
    filters = filters_at(sides, width, max_width)
    phases = Phases(phase, 0, len(sides) - 1)
    with seeded(seed):
        G = ProGenerator(shape, z_dim, filters, sides[0], phases, n_classes)
        D = ProDiscriminator(shape[0], filters, sides[0], phases, group, n_classes)
    return G, D


def _conv(c_in: int, c_out: int) -> ScaledConv2d:
    return ScaledConv2d(c_in, c_out, 3, gain=ROOT2)


class ProBlock(nn.Module):
    """Two convolutions at twice the side, each followed by a leaky ReLU and pixel norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = _conv(c_in, c_out), _conv(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(leaky(upsampled_conv(x, self.conv0)))
        return pixel_norm(leaky(self.conv1(x)))


class ProGenerator(Growing):
    """The generator of table 2.

    Args:
        shape: of one sample.
        z_dim: length of a latent vector.
        filters: at each side, from the smallest.
        start: the smallest side.
        phases: when it grows.
        n_classes: 0 for an unconditional generator.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        z_dim: int,
        filters: list[int],
        start: int,
        phases: Phases,
        n_classes: int,
    ) -> None:
        super().__init__(phases)
        self.z_dim, self.shape, self.n_classes, self.start = z_dim, tuple(shape), n_classes, start
        # One bias for each filter, not for each value: it is added after the reshape.
        self.first = ScaledLinear(z_dim + n_classes, filters[0] * start**2, gain=ROOT2 / 4, bias=None)
        self.first_bias = nn.Parameter(torch.zeros(filters[0]))
        self.conv = _conv(filters[0], filters[0])
        self.blocks = nn.ModuleList(ProBlock(a, b) for a, b in itertools.pairwise(filters))
        self.to_rgb = nn.ModuleList(ScaledConv2d(c, shape[0], 1) for c in filters)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            z = torch.cat([z, one_hot(labels, self.n_classes).to(z)], 1)
        h = self.first(pixel_norm(z)).unflatten(1, (-1, self.start, self.start))
        h = pixel_norm(leaky(h + self.first_bias[:, None, None]))
        h = pixel_norm(leaky(self.conv(h)))
        stage, alpha = self.now()
        before = h
        for block in self.blocks[:stage]:
            before, h = h, block(h)
        rgb = faded(lambda: copied(self.to_rgb[stage - 1](before), 2), self.to_rgb[stage](h), alpha)
        return copied(rgb, 2 ** (self.growth.last - stage))


class ProDownBlock(nn.Module):
    """Two convolutions with leaky ReLUs, and the mean of 2x2 pixels."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = _conv(c_in, c_in), _conv(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(leaky(self.conv1(leaky(self.conv0(x)))), 2)


class ProDiscriminator(Growing):
    """The discriminator of table 2; also StyleGAN's, with other blocks.

    Args:
        channels: C of the pictures.
        filters: at each side, from the smallest.
        start: the smallest side.
        phases: when it grows.
        group: of `MinibatchDeviation`.
        n_classes: 0; else the result is (logits, class logits).
        block: (c_in, c_out) -> the layers that halve the side.
    """

    def __init__(
        self, channels: int, filters: list[int], start: int, phases: Phases, group: int, n_classes: int,
        block: type[nn.Module] = ProDownBlock,
    ) -> None:  # fmt: skip
        super().__init__(phases)
        self.n_classes = n_classes
        self.from_rgb = nn.ModuleList(ScaledConv2d(channels, c, 1, gain=ROOT2) for c in filters)
        self.blocks = nn.ModuleList(block(b, a) for a, b in itertools.pairwise(filters))
        self.deviation = MinibatchDeviation(group)
        self.conv = _conv(filters[0] + 1, filters[0])
        self.hidden = ScaledLinear(filters[0] * start**2, filters[0], gain=ROOT2)
        self.last = ScaledLinear(filters[0], 1 + n_classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of pictures, `[N, filters]`."""
        stage, alpha = self.now()
        x = pooled(x, 2 ** (self.growth.last - stage))
        h = leaky(self.from_rgb[stage](x))
        for level in range(stage, 0, -1):
            h = self.blocks[level - 1](h)
            if level == stage:
                h = faded(lambda: leaky(self.from_rgb[stage - 1](pooled(x, 2))), h, alpha)
        h = leaky(self.conv(self.deviation(h)))
        return leaky(self.hidden(h.flatten(1)))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        y = self.last(self.features(x))
        return (y[:, 0], y[:, 1:]) if self.n_classes else y[:, 0]


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """`[N]` -> bool `[N, n_classes]`; shares of the classes `[N, n_classes]` stay."""
    if labels.is_floating_point():
        return labels
    return labels[:, None] == torch.arange(n_classes, device=labels.device)
