"""StyleGAN: the picture is drawn from a learned constant, and z speaks through the styles of the layers alone."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from gankit.models.blocks import positive, seeded, upsampled_conv
from gankit.models.growing import Growing, Phases, faded
from gankit.models.progan import ProDiscriminator
from gankit.models.style_blocks import (
    EPS,
    LINEAR,
    ROOT2,
    Filter,
    Mapping,
    ScaledConv2d,
    ScaledLinear,
    StyleGenerator,
    averaged_conv,
    copied,
    filters_at,
    leaky,
    sides_of,
)


def stylegan(
    shape: tuple[int, int, int],
    z_dim: int = 512,
    width: int = 16,
    *,
    w_dim: int | None = None,
    mapping: int = 8,
    max_width: int = 512,
    phase: int = 600_000,
    group: int = 4,
    mixing: float = 0.9,
    n_classes: int = 0,
    seed: int = 0,
) -> tuple[GrowingStyleGenerator, StyleDiscriminator]:
    """StyleGAN, configuration F: it grows from 8 x 8 (14 x 14) on.

    Args:
        shape: (C, S, S), C = 1 or 3; S = 4 2^k or 7 2^k, 8 to 1,024.
        z_dim: length of a latent vector.
        width: filters next to the picture; they double with every halving of the side, up to `max_width`. The paper
            has 16 at S = 1,024.
        w_dim: length of w; None takes z_dim.
        mapping: layers of the mapping network.
        phase: real images in which a layer is faded in, and then in which it is trained before the next one comes.
        group: samples whose deviation D sees (`MinibatchDeviation`).
        mixing: share of the samples in training whose layers have the w's of two z.
        n_classes: 0, or the number of classes: the label is read by the mapping, and D has a logit for each class, of
            which the label's counts.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps z `[N, z_dim]` (with labels, and noise `[N, G.noise_dim]`) to `[N, C, S, S]`, D maps that to
        logits `[N]`.

    Raises:
        ValueError: if a size is not positive, or the shape not supported.

    Source: Karras, Laine and Aila 2019, "A style-based generator architecture for generative adversarial networks",
    sections 2 and 3, table 1 and appendices B and C.
    """
    positive(z_dim=z_dim, width=width, max_width=max_width)
    w_dim = z_dim if w_dim is None else w_dim
    sides = sides_of(shape)
    filters = filters_at(sides, width, max_width)
    phases = Phases(phase, 1, len(sides) - 1)
    with seeded(seed):
        G = GrowingStyleGenerator(
            Mapping(z_dim, w_dim, mapping, n_classes=n_classes), Synthesis(shape[0], sides, filters, w_dim, phases),
            z_dim=z_dim, shape=shape, n_classes=n_classes, mixing=mixing, decay=0.995,
        )  # fmt: skip
        D = StyleDiscriminator(shape[0], filters, sides[0], phases, group, n_classes)
    return G, D


class AdaIN(nn.Module):
    """Each feature map at the mean and the deviation that its style says: (1 + s) (x - mean) / deviation + b.

    Args:
        channels: C of the input `[N, C, H, W]`.
        w_dim: length of w, of which (s, b) is an affine function.

    Source: Huang and Belongie 2017; Karras et al. 2019, equation 1.
    """

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = ScaledLinear(w_dim, 2 * channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain, bias = self.affine(w)[:, :, None, None].chunk(2, 1)
        return instance_norm(x) * (1 + gain) + bias


def instance_norm(x: Tensor) -> Tensor:
    """Each feature map of each sample at mean 0 and deviation 1, `[N, C, H, W]`."""
    h = x - x.mean((-2, -1), keepdim=True)
    return h * torch.rsqrt(h.square().mean((-2, -1), keepdim=True) + EPS)


class Epilogue(nn.Module):
    """What follows a convolution: noise (a strength for each filter), bias, leaky ReLU, AdaIN."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.style = AdaIN(channels, w_dim)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = x + noise * self.strength[:, None, None] + self.bias[:, None, None]
        return self.style(leaky(x), w)


class AdaBlock(nn.Module):
    """Two layers at twice the side; the first blurs what it has enlarged."""

    def __init__(self, c_in: int, c_out: int, w_dim: int) -> None:
        super().__init__()
        self.conv0 = ScaledConv2d(c_in, c_out, 3, gain=ROOT2, bias=None)
        self.blur = Filter(LINEAR)
        self.epilogue0 = Epilogue(c_out, w_dim)
        self.conv1 = ScaledConv2d(c_out, c_out, 3, gain=ROOT2, bias=None)
        self.epilogue1 = Epilogue(c_out, w_dim)

    def forward(self, x: Tensor, ws: Tensor, noise: tuple[Tensor, Tensor]) -> Tensor:
        x = self.blur(upsampled_conv(x, self.conv0), 1)
        x = self.epilogue0(x, ws[:, 0], noise[0])
        return self.epilogue1(self.conv1(x), ws[:, 1], noise[1])


class Synthesis(Growing):
    """w's -> pictures, from a learned constant of ones.

    Args:
        channels: C of the pictures.
        sides, filters: of the feature maps, from the smallest.
        w_dim: length of w.
        phases: when it grows.

    Attributes:
        noise_dim: normal numbers for one sample: one for each pixel of each layer.
        noise_sizes: sides of the layers' noise.
    """

    def __init__(
        self, channels: int, sides: list[int], filters: list[int], w_dim: int, phases: Phases
    ) -> None:
        super().__init__(phases)
        self.w_dim = w_dim
        self.constant = nn.Parameter(torch.ones(filters[0], sides[0], sides[0]))
        self.epilogue0 = Epilogue(filters[0], w_dim)
        self.conv1 = ScaledConv2d(filters[0], filters[0], 3, gain=ROOT2, bias=None)
        self.epilogue1 = Epilogue(filters[0], w_dim)
        self.blocks = nn.ModuleList(AdaBlock(a, b, w_dim) for a, b in itertools.pairwise(filters))
        self.to_rgb = nn.ModuleList(ScaledConv2d(c, channels, 1) for c in filters)
        self.noise_sizes = [side for side in sides for _ in range(2)]
        self.noise_dim = sum(side**2 for side in self.noise_sizes)
        self.register_buffer("fixed_noise", torch.randn(self.noise_dim))

    @property
    def layers(self) -> int:
        """Layers in use, each with a w of its own."""
        return 2 * (self.now()[0] + 1)

    def forward(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        ws = each_layer(w, self.layers)
        maps = noise_maps(self.fixed_noise[None] if noise is None else noise, self.noise_sizes)
        h = self.epilogue0(self.constant.repeat(ws.shape[0], 1, 1, 1), ws[:, 0], maps[0])
        h = self.epilogue1(self.conv1(h), ws[:, 1], maps[1])
        stage, alpha = self.now()
        before = h
        for i, block in enumerate(self.blocks[:stage], 1):
            before, h = h, block(h, ws[:, 2 * i : 2 * i + 2], maps[2 * i : 2 * i + 2])
        rgb = faded(lambda: copied(self.to_rgb[stage - 1](before), 2), self.to_rgb[stage](h), alpha)
        return copied(rgb, 2 ** (self.growth.last - stage))


def each_layer(w: Tensor, layers: int) -> Tensor:
    """w `[N, w_dim]` for all layers, or ws `[N, layers or more, w_dim]` as they are.

    Raises:
        ValueError: if there are fewer than `layers`.
    """
    if w.ndim == 2:
        return w[:, None].expand(-1, layers, -1)
    if w.shape[1] < layers:
        raise ValueError(f"w must be [N, w_dim] or [N, {layers}, w_dim], got {list(w.shape)}")
    return w


def noise_maps(noise: Tensor, sizes: list[int]) -> list[Tensor]:
    """Noise `[N, sum of squares]` as maps `[N, 1, S, S]` of these sides."""
    parts = noise.split([side**2 for side in sizes], 1)
    return [part.unflatten(1, (1, side, side)) for part, side in zip(parts, sizes, strict=True)]


class GrowingStyleGenerator(StyleGenerator):
    """A `StyleGenerator` whose synthesis grows."""

    @property
    def growth(self) -> Phases:
        """When it grows."""
        return self.synthesis.growth


class BlurredDownBlock(nn.Module):
    """ProGAN's block with a blur in front of the convolution that halves the side, and the mean behind that one."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv0 = ScaledConv2d(c_in, c_in, 3, gain=ROOT2)
        self.blur = Filter(LINEAR)
        self.conv1 = ScaledConv2d(c_in, c_out, 3, gain=ROOT2)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(averaged_conv(self.blur(leaky(self.conv0(x)), 1), self.conv1))


class StyleDiscriminator(ProDiscriminator):
    """ProGAN's discriminator with blurred resampling. With classes it has a logit for each, and the label's counts."""

    def __init__(
        self, channels: int, filters: list[int], start: int, phases: Phases, group: int, n_classes: int
    ) -> None:
        # ProGAN's last layer has one logit and those of the classes: here there are as many as classes.
        super().__init__(channels, filters, start, phases, group, max(n_classes - 1, 0), BlurredDownBlock)
        self.n_classes = n_classes

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        y = self.last(self.features(x))
        return y[:, 0] if labels is None else y.gather(1, labels[:, None])[:, 0]
