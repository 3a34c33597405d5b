"""StyleGAN2: normalisation by expectation in the place of AdaIN, and skip or residual networks in that of growing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as Table

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.models.blocks import positive, seeded
from gankit.models.style_blocks import (
    EPS,
    ROOT2,
    Filter,
    Mapping,
    MinibatchDeviation,
    ScaledConv2d,
    ScaledLinear,
    StyleGenerator,
    filters_at,
    leaky,
    sides_of,
)
from gankit.models.stylegan import each_layer, noise_maps

HALF = math.sqrt(0.5)


def stylegan2(
    shape: tuple[int, int, int],
    z_dim: int = 512,
    width: int = 32,
    *,
    w_dim: int | None = None,
    mapping: int = 8,
    max_width: int = 512,
    group: int = 4,
    mixing: float = 0.9,
    g_architecture: str = "skip",
    d_architecture: str = "residual",
    n_classes: int = 0,
    seed: int = 0,
) -> tuple[StyleGenerator, Discriminator2]:
    """StyleGAN2, configuration F.

    Args:
        shape: (C, S, S), C = 1 or 3; S = 4 2^k or 7 2^k, 8 to 1,024.
        z_dim: length of a latent vector.
        width: filters next to the picture; they double with every halving of the side, up to `max_width`. At S = 1,024
            configuration F has 32 and configuration E 16.
        w_dim: length of w; None takes z_dim.
        mapping: layers of the mapping network.
        group: samples whose deviation D sees (`MinibatchDeviation`).
        mixing: share of the samples in training whose layers have the w's of two z.
        g_architecture, d_architecture: a name of `SYNTHESES` and of `DISCRIMINATORS`: "orig", "skip" or "residual".
        n_classes: 0, or the number of classes: the label is read by the mapping, and D compares its features with a
            mapping of the label (a projection).
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps z `[N, z_dim]` (with labels, and noise `[N, G.noise_dim]`) to `[N, C, S, S]`, D maps that to
        logits `[N]`.

    Raises:
        ValueError: if a size is not positive, or the shape or an architecture not supported.

    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", sections 2 and 4, figure 7 and
    appendix B; with classes, Karras et al. 2020, "Training generative adversarial networks with limited data".
    """
    positive(z_dim=z_dim, width=width, max_width=max_width)
    for name, value, known in (
        ("g_architecture", g_architecture, SYNTHESES), ("d_architecture", d_architecture, DISCRIMINATORS)
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    w_dim = z_dim if w_dim is None else w_dim
    sides = sides_of(shape)
    filters = filters_at(sides, width, max_width)
    with seeded(seed):
        G = StyleGenerator(
            Mapping(z_dim, w_dim, mapping, n_classes=n_classes, bias_gain=ROOT2),
            SYNTHESES[g_architecture](shape[0], sides, filters, w_dim),
            z_dim=z_dim, shape=shape, n_classes=n_classes, mixing=mixing, decay=0.995,
        )  # fmt: skip
        D = DISCRIMINATORS[d_architecture](shape[0], sides, filters, group, n_classes)
    return G, D


def stylegan2_cifar(
    shape: tuple[int, int, int],
    z_dim: int = 512,
    width: int = 512,
    *,
    w_dim: int | None = None,
    max_width: int = 512,
    n_classes: int = 0,
    seed: int = 0,
) -> tuple[StyleGenerator, Discriminator2]:
    """StyleGAN2 as it is tuned for CIFAR-10: a short mapping, no style mixing, D without shortcuts, groups of 32.

    Arguments, return values and errors are those of `stylegan2`.

    Source: Karras et al. 2020, "Training generative adversarial networks with limited data", appendix D.
    """
    return stylegan2(
        shape, z_dim, width, w_dim=w_dim, mapping=2, max_width=max_width, group=32, mixing=0.0, d_architecture="orig",
        n_classes=n_classes, seed=seed,
    )  # fmt: skip


# --- The generator ---------------------------------------------------------------------------------------------------


class ModulatedConv2d(nn.Module):
    """A convolution whose kernel a style scales for each sample, `[N, c_in, H, W]` -> `[N, c_out, H, W]`.

    The style scales the kernel's input filters, and demodulation divides it by the norm of what each output filter then
    has, so that white input of variance 1 becomes output of variance 1 in expectation. Both are products of feature
    maps, before and behind an ordinary convolution; kernels for every sample in one grouped convolution would be the
    same numbers, and slower.

    Args:
        c_in, c_out: filters.
        kernel: side of the kernel.
        w_dim: length of w, of which the style is an affine function.
        gain: of the result.
        demodulate: False leaves the kernel as the style makes it, times 1 / sqrt(c_in kernel^2).
        up: whether the side doubles.

    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", equations 1 to 3.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, w_dim: int, *, gain: float = 1.0, demodulate: bool = True,
        up: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.affine = ScaledLinear(w_dim, c_in, bias=1.0)
        self.gain, self.padding, self.demodulate = gain, kernel // 2, demodulate
        self.plain_gain = gain / math.sqrt(c_in * kernel**2)
        self.filter = Filter() if up else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w).to(x.dtype)
        if self.demodulate:
            size = style.square() @ self.weight.square().sum((-2, -1)).t()  # [N, c_out], of the kernels
            scale = self.gain * torch.rsqrt(size + EPS)
            return self._conv(x * style[:, :, None, None]) * scale[:, :, None, None].to(x.dtype)
        return self._conv(x * (self.plain_gain * style)[:, :, None, None])

    def _conv(self, x: Tensor) -> Tensor:
        if self.filter is None:
            return F.conv2d(x, self.weight, padding=self.padding)
        # Zeros between the pixels, the kernel, then the filter, which enlarges by 4.
        return 4 * self.filter(F.conv_transpose2d(x, self.weight.flip(-2, -1).transpose(0, 1), stride=2), 1)


class StyledConv(nn.Module):
    """A modulated convolution, then noise (one strength for the layer), bias and leaky ReLU.

    Source: Karras et al. 2020, figure 2 (d).
    """

    def __init__(self, c_in: int, c_out: int, w_dim: int, *, gain: float = ROOT2, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(c_in, c_out, 3, w_dim, gain=gain, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.gain = gain

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        shift = self.gain * (noise * self.strength + self.bias[:, None, None])
        return leaky(self.conv(x, w) + shift.to(x.dtype))


class ToRGB(nn.Module):
    """Feature maps as colours: a modulated 1x1 convolution without demodulation, and a bias."""

    def __init__(self, c_in: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(c_in, channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias[:, None, None]


class StyleBlock(nn.Module):
    """Two styled convolutions, the first of which doubles the side."""

    def __init__(self, c_in: int, c_out: int, w_dim: int, *, gain: float = ROOT2) -> None:
        super().__init__()
        self.conv0 = StyledConv(c_in, c_out, w_dim, up=True)
        self.conv1 = StyledConv(c_out, c_out, w_dim, gain=gain)

    def forward(self, x: Tensor, ws: Tensor, noise: list[Tensor]) -> Tensor:
        return self.conv1(self.conv0(x, ws[:, 0], noise[0]), ws[:, 1], noise[1])


class ResidualStyleBlock(StyleBlock):
    """A `StyleBlock` beside a shortcut, their sum divided by sqrt(2) (figure 7 (c))."""

    def __init__(self, c_in: int, c_out: int, w_dim: int) -> None:
        super().__init__(c_in, c_out, w_dim, gain=ROOT2 * HALF)
        self.shortcut = ScaledConv2d(c_in, c_out, 1, gain=HALF, bias=None)
        self.filter = Filter()

    def forward(self, x: Tensor, ws: Tensor, noise: list[Tensor]) -> Tensor:
        return super().forward(x, ws, noise) + self.filter.doubled(self.shortcut(x))


class Synthesis2(nn.Module):
    """w's -> pictures, from a learned constant; the colours come from the last feature map (figure 7 (a)).

    Args:
        channels: C of the pictures.
        sides, filters: of the feature maps, from the smallest.
        w_dim: length of w.

    Attributes:
        layers: places that read a w. A toRGB reads the one of the convolution behind it.
        noise_dim: normal numbers for one sample: one for each pixel of each convolution.
        noise_sizes: sides of the convolutions' noise.
    """

    block: type[StyleBlock] = StyleBlock

    def __init__(self, channels: int, sides: list[int], filters: list[int], w_dim: int) -> None:
        super().__init__()
        self.w_dim, self.layers = w_dim, 2 * len(sides)
        self.constant = nn.Parameter(torch.randn(filters[0], sides[0], sides[0]))
        self.conv = StyledConv(filters[0], filters[0], w_dim)
        self.blocks = nn.ModuleList(self.block(a, b, w_dim) for a, b in itertools.pairwise(filters))
        self.to_rgb = self.colours(channels, filters, w_dim)
        self.noise_sizes = [sides[0], *(side for side in sides[1:] for _ in range(2))]
        self.noise_dim = sum(side**2 for side in self.noise_sizes)
        self.register_buffer("fixed_noise", torch.randn(self.noise_dim))

    def colours(self, channels: int, filters: list[int], w_dim: int) -> nn.ModuleList:
        """The layers that make colours."""
        return nn.ModuleList([ToRGB(filters[-1], channels, w_dim)])

    def maps(self, ws: Tensor, noise: Tensor | None) -> list[Tensor]:
        """The feature maps, from the smallest."""
        noises = noise_maps(self.fixed_noise[None] if noise is None else noise, self.noise_sizes)
        h = [self.conv(self.constant.repeat(ws.shape[0], 1, 1, 1), ws[:, 0], noises[0])]
        for i, block in enumerate(self.blocks):
            at = slice(2 * i + 1, 2 * i + 3)
            h.append(block(h[-1], ws[:, at], noises[at]))
        return h

    def forward(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        ws = each_layer(w, self.layers)
        return self.to_rgb[-1](self.maps(ws, noise)[-1], ws[:, -1])


class ResidualSynthesis(Synthesis2):
    """A `Synthesis2` of residual blocks (figure 7 (c))."""

    block = ResidualStyleBlock


class SkipSynthesis(Synthesis2):
    """A `Synthesis2` that adds up the colours of all feature maps, enlarged to the next one's side (figure 7 (b))."""

    def __init__(self, channels: int, sides: list[int], filters: list[int], w_dim: int) -> None:
        super().__init__(channels, sides, filters, w_dim)
        self.filter = Filter()

    def colours(self, channels: int, filters: list[int], w_dim: int) -> nn.ModuleList:
        return nn.ModuleList(ToRGB(c, channels, w_dim) for c in filters)

    def forward(self, w: Tensor, noise: Tensor | None = None) -> Tensor:
        ws = each_layer(w, self.layers)
        maps = self.maps(ws, noise)
        rgb = self.to_rgb[0](maps[0], ws[:, 1])
        for i, (to_rgb, h) in enumerate(zip(self.to_rgb[1:], maps[1:], strict=True), 1):
            rgb = self.filter.doubled(rgb) + to_rgb(h, ws[:, 2 * i + 1])
        return rgb


SYNTHESES: Table[str, type[Synthesis2]] = {
    "orig": Synthesis2,
    "skip": SkipSynthesis,
    "residual": ResidualSynthesis,
}


# --- The discriminator -----------------------------------------------------------------------------------------------


def _conv(c_in: int, c_out: int, kernel: int = 3) -> ScaledConv2d:
    return ScaledConv2d(c_in, c_out, kernel, gain=ROOT2, bias_gain=ROOT2)


class DownBlock(nn.Module):
    """Two convolutions with leaky ReLUs; the second blurs and halves the side."""

    def __init__(self, c_in: int, c_out: int, gain: float = ROOT2) -> None:
        super().__init__()
        self.conv0 = _conv(c_in, c_in)
        self.conv1 = ScaledConv2d(c_in, c_out, 3, gain=gain, bias_gain=gain)
        self.filter = Filter()

    def forward(self, x: Tensor) -> Tensor:
        h = self.filter(leaky(self.conv0(x)), 2)
        return leaky(F.conv2d(h, self.conv1.normalised(), self.conv1.scaled_bias(), stride=2))


class ResidualDownBlock(DownBlock):
    """A `DownBlock` beside a shortcut, their sum divided by sqrt(2) (figure 7 (c))."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, ROOT2 * HALF)
        self.shortcut = ScaledConv2d(c_in, c_out, 1, gain=HALF, bias=None)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shortcut(self.filter.halved(x))


class Discriminator2(nn.Module):
    """Pictures -> logits `[N]`, from the picture's own side down (figure 7 (a)).

    Args:
        channels: C of the pictures.
        sides, filters: of the feature maps, from the smallest.
        group: of `MinibatchDeviation`.
        n_classes: 0; else the logit is the product of features and of a mapping of the label.
    """

    block: type[DownBlock] = DownBlock

    def __init__(
        self, channels: int, sides: list[int], filters: list[int], group: int, n_classes: int
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.from_rgb = self.colours(channels, filters)
        self.blocks = nn.ModuleList(self.block(a, b) for a, b in itertools.pairwise(reversed(filters)))
        self.deviation = MinibatchDeviation(group)
        last = filters[0]
        self.conv = _conv(last + 1, last)
        self.hidden = ScaledLinear(last * sides[0] ** 2, last, gain=ROOT2, bias_gain=ROOT2)
        self.last = ScaledLinear(last, last if n_classes else 1)
        self.mapping = Mapping(0, last, n_classes=n_classes, bias_gain=ROOT2) if n_classes else None

    def colours(self, channels: int, filters: list[int]) -> nn.ModuleList:
        """The layers that read colours, from the largest side down."""
        return nn.ModuleList([_conv(channels, filters[-1], 1)])

    def maps(self, x: Tensor) -> Tensor:
        """The smallest feature map of pictures."""
        h = leaky(self.from_rgb[0](x))
        for block in self.blocks:
            h = block(h)
        return h

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = leaky(self.conv(self.deviation(self.maps(x))))
        y = self.last(leaky(self.hidden(h.flatten(1))))
        if self.mapping is None:
            return y[:, 0]
        return (y * self.mapping(None, labels)).sum(1) / math.sqrt(y.shape[1])


class ResidualDiscriminator(Discriminator2):
    """A `Discriminator2` of residual blocks (figure 7 (c))."""

    block = ResidualDownBlock


class SkipDiscriminator(Discriminator2):
    """A `Discriminator2` that reads the picture again at every side (figure 7 (b))."""

    def __init__(
        self, channels: int, sides: list[int], filters: list[int], group: int, n_classes: int
    ) -> None:
        super().__init__(channels, sides, filters, group, n_classes)
        self.filter = Filter()

    def colours(self, channels: int, filters: list[int]) -> nn.ModuleList:
        return nn.ModuleList(_conv(channels, c, 1) for c in reversed(filters))

    def maps(self, x: Tensor) -> Tensor:
        h = leaky(self.from_rgb[0](x))
        for from_rgb, block in zip(self.from_rgb[1:], self.blocks, strict=True):
            x = self.filter.halved(x)
            h = block(h) + leaky(from_rgb(x))
        return h


DISCRIMINATORS: Table[str, type[Discriminator2]] = {
    "orig": Discriminator2,
    "skip": SkipDiscriminator,
    "residual": ResidualDiscriminator,
}
