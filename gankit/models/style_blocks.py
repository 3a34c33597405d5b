"""What ProGAN, StyleGAN and StyleGAN2 share: scaled layers, pixel norm, minibatch deviation, resampling, the mapping.

A layer with an *equalised learning rate* draws its weights from N(0, 1) and multiplies them by He's constant in every
forward pass. Adam moves every weight by about its learning rate, so all layers change at one relative speed, which
constants put into the initial weights would not give.

Everything is differentiable twice, works under `vmap`, and takes no numbers from PyTorch's random streams.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit import processes
from gankit.models.blocks import positive

ROOT2 = math.sqrt(2)
SLOPE = 0.2
"""Of the leaky ReLU on its negative side, in all three networks."""
EPS = 1e-8


def leaky(x: Tensor) -> Tensor:
    """The leaky ReLU of these networks. It is positively homogeneous: StyleGAN2's sqrt(2) behind it stands before it
    here, in the gains of weights and biases, where it costs nothing."""
    return F.leaky_relu(x, SLOPE)


# --- Scaled layers --------------------------------------------------------------------------------------------------


class ScaledLinear(nn.Module):
    """x -> gain rate / sqrt(n_in) W x + bias_gain rate b, `[..., n_in]` -> `[..., n_out]`.

    Args:
        n_in, n_out: lengths of the vectors.
        gain: of the weights; sqrt(2) in front of a (leaky) ReLU.
        bias: initial b, or None for no bias.
        bias_gain: of the bias.
        rate: relative learning rate. W starts at N(0, 1) / rate, so the layer is the same and learns `rate` as fast.

    Source: Karras et al. 2018 (ProGAN), section 4.1; Karras et al. 2019 (StyleGAN), appendix C.
    """

    def __init__(
        self, n_in: int, n_out: int, *, gain: float = 1.0, bias: float | None = 0.0, bias_gain: float = 1.0,
        rate: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((n_out,), float(bias)))
        self.gain, self.bias_gain = gain * rate / math.sqrt(n_in), bias_gain * rate

    def scaled_bias(self) -> Tensor | None:
        """The bias that is added."""
        return self.bias if self.bias is None or self.bias_gain == 1 else self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.scaled_bias())

    def of_labels(self, labels: Tensor) -> Tensor:
        """The layer on one-hot vectors: labels `[...]`, or shares of the classes `[..., n_in]` -> `[..., n_out]`."""
        if labels.is_floating_point():
            return self(labels)
        y = F.embedding(labels, (self.weight * self.gain).t())
        return y if self.bias is None else y + self.scaled_bias()


class ScaledConv2d(nn.Module):
    """A convolution of `[N, c_in, H, W]` with an equalised learning rate; arguments as for `ScaledLinear`.

    It keeps the side: its kernel's side is odd and the border is filled with zeros.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, gain: float = 1.0, bias: float | None = 0.0,
        bias_gain: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = None if bias is None else nn.Parameter(torch.full((c_out,), float(bias)))
        self.gain, self.bias_gain = gain / math.sqrt(c_in * kernel**2), bias_gain
        self.padding = kernel // 2

    def normalised(self) -> Tensor:
        """The kernel that is multiplied by."""
        return self.weight * self.gain

    def scaled_bias(self) -> Tensor | None:
        """The bias that is added."""
        return self.bias if self.bias is None or self.bias_gain == 1 else self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised(), self.scaled_bias(), padding=self.padding)


def averaged_conv(x: Tensor, conv: ScaledConv2d) -> Tensor:
    """`F.avg_pool2d(conv(x), 2)` for a 3x3 convolution, in 4/9 of the products: stride 2 with the mean kernel."""
    kernel = F.pad(conv.normalised(), (1, 1, 1, 1))
    rows = kernel[..., 1:, :] + kernel[..., :-1, :]
    return F.conv2d(x, (rows[..., 1:] + rows[..., :-1]) / 4, conv.scaled_bias(), stride=2, padding=1)


# --- Normalisation -----------------------------------------------------------------------------------------------


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + 1e-8), `[N, C, ...]`, also of vectors `[N, C]`.

    Source: Karras et al. 2018, section 4.2.
    """
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)


class MinibatchDeviation(nn.Module):
    """Adds a feature map that says how much the samples of a group differ: `[N, C, H, W]` -> `[N, C + 1, H, W]`.

    The N samples form N / G groups, sample i in group i mod N / G; a group's number is the standard deviation over its
    samples, averaged over channels and pixels.

    Groups are those of one minibatch of one replica. Of P processes each has every P-th sample of the minibatch, so its
    groups are groups of the whole minibatch, and P processes say what one would as long as each has G samples.

    Args:
        group: G; a minibatch with fewer samples is one group.

    Raises:
        ValueError: in `forward`, if N is no multiple of G.

    Source: Karras et al. 2018, section 3, whose group is the minibatch; their code has groups of 4.
    """

    mixes_samples = True

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        positive(group=group)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        n, group = x.shape[0], min(self.group, x.shape[0])
        if n % group:
            raise ValueError(
                f"minibatch deviation needs a multiple of its group of {group} samples, got {n}; "
                "batch_size (per process) or the group must change"
            )
        h = x.reshape(group, n // group, *x.shape[1:])
        deviation = (h.var(0, correction=0) + EPS).sqrt().mean((-3, -2, -1))  # [N / G]
        deviation = deviation.repeat(group)[:, None, None, None].expand(n, 1, *x.shape[2:])
        return torch.cat([x, deviation.to(x.dtype)], 1)

    def extra_repr(self) -> str:
        return f"group={self.group}"


# --- Resampling ------------------------------------------------------------------------------------------------------

LINEAR = (1.0, 2.0, 1.0)
"""StyleGAN's filter: copying pixels and then this is bilinear interpolation."""
CUBIC = (1.0, 3.0, 3.0, 1.0)
"""StyleGAN2's filter."""


class Filter(nn.Module):
    """A low-pass filter of each channel, separable, with zeros beyond the border.

    Args:
        taps: of one direction, in any unit; the filter's sum is 1.
    """

    static_buffers = ("kernel",)

    def __init__(self, taps: tuple[float, ...] = CUBIC) -> None:
        super().__init__()
        row = torch.tensor(taps) / sum(taps)
        self.register_buffer("kernel", torch.outer(row, row), persistent=False)

    def each(self, x: Tensor) -> Tensor:
        """The kernel for every channel of x, `[C, 1, K, K]`."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)

    def forward(self, x: Tensor, padding: int, stride: int = 1) -> Tensor:
        return F.conv2d(x, self.each(x), stride=stride, padding=padding, groups=x.shape[1])

    def halved(self, x: Tensor) -> Tensor:
        """`[N, C, 2H, 2W]` -> `[N, C, H, W]` (four taps)."""
        return self(x, 1, stride=2)

    def doubled(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` -> `[N, C, 2H, 2W]` (four taps): bilinear interpolation, but for the border."""
        return F.conv_transpose2d(x, 4 * self.each(x), stride=2, padding=1, groups=x.shape[1])


def pooled(x: Tensor, factor: int) -> Tensor:
    """Pictures at 1 / factor of their side, the mean of the pixels: `[..., C, H, W]`."""
    if factor == 1:
        return x
    return F.avg_pool2d(x.flatten(0, -4), factor).reshape(
        *x.shape[:-2], x.shape[-2] // factor, x.shape[-1] // factor
    )


def copied(x: Tensor, factor: int) -> Tensor:
    """Pictures at `factor` times their side, each pixel copied: `[..., C, H, W]`."""
    if factor == 1:
        return x
    h, w = x.shape[-2:]
    x = x[..., :, None, :, None].expand(*x.shape[:-2], h, factor, w, factor)
    return x.reshape(*x.shape[:-4], h * factor, w * factor)


# --- Shapes ----------------------------------------------------------------------------------------------------------


def sides_of(shape: tuple[int, ...]) -> list[int]:
    """Sides of the feature maps of a picture (C, S, S), from the smallest, 4 or 7, to S.

    Raises:
        ValueError: if the picture is not square with 1 or 3 channels and S = 4 2^k or 7 2^k for a k of at least 1.
    """
    if len(shape) == 3 and shape[0] in (1, 3) and shape[1] == shape[2]:
        for start in (4, 7):
            levels = int(shape[1]).bit_length() - start.bit_length()
            if levels >= 1 and shape[1] == start << levels:
                return [start << i for i in range(levels + 1)]
    raise ValueError(
        "shape must be (C, S, S) with C = 1 or 3 and S = 8, 16, 32, ..., 1024 or 14, 28, 56, ..., got "
        f"{tuple(shape)}; pad or resize the pictures"
    )


def filters_at(sides: list[int], width: int, max_width: int) -> list[int]:
    """Filters at each side: `width` at the picture's, doubled with every halving, at most `max_width`."""
    return [min(width * sides[-1] // side, max_width) for side in sides]


# --- The mapping network ----------------------------------------------------------------------------------------------


class Mapping(nn.Module):
    """z and, where there are classes, labels -> w, `[N, w_dim]`: layers with leaky ReLUs, which learn slowly.

    z is brought to unit length per component first, and so is the classes' embedding that is joined to it.

    Args:
        z_dim: length of z; 0 for labels alone, called as `mapping(None, labels)`.
        w_dim: length of w and of the layers between.
        layers: how many.
        n_classes: 0 for none.
        bias_gain: of the biases.
        rate: relative learning rate of the layers.

    Source: Karras et al. 2019, section 2 and appendix C; with classes, Karras et al. 2020 ("Training generative
    adversarial networks with limited data"), appendix F.
    """

    def __init__(
        self, z_dim: int, w_dim: int, layers: int = 8, *, n_classes: int = 0, bias_gain: float = 1.0,
        rate: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__()
        positive(w_dim=w_dim, layers=layers)
        self.embedding = ScaledLinear(n_classes, w_dim) if n_classes else None
        lengths = [z_dim + (w_dim if n_classes else 0), *[w_dim] * layers]
        self.layers = nn.ModuleList(
            ScaledLinear(n_in, n_out, gain=ROOT2, bias_gain=bias_gain, rate=rate)
            for n_in, n_out in itertools.pairwise(lengths)
        )

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [pixel_norm(z)]
        if self.embedding is not None:
            parts.append(pixel_norm(self.embedding.of_labels(labels)))
        h = torch.cat(parts, 1)
        for layer in self.layers:
            h = leaky(layer(h))
        return h


class StyleGenerator(nn.Module):
    """A mapping from z to w and a synthesis of pictures from one w for each layer: `G(z, [labels,] noise)`.

    Without noise the picture has fixed noise, which is right for pictures to look at; in training, `Play` draws it.

    In training mode with noise, w of a share `mixing` of the samples changes to that of a second z at a random layer
    (style mixing), and `w_avg` follows the mean of w. Each sample has its own crossover; in the authors' code a
    minibatch shares one.

    Args:
        mapping: z -> w.
        synthesis: `synthesis(w, noise)` for w `[N, w_dim]` or `[N, layers, w_dim]`; it has `layers`, the number of
            places that read a w (those that are in use), `noise_dim` and `w_dim`.
        z_dim, shape, n_classes: as for `gankit.models.blocks.Generator`.
        mixing: share of the samples, in [0, 1].
        decay: of `w_avg` at each forward pass in training.

    Attributes:
        noise_dim: normal numbers for one sample: a second z and two numbers for mixing, then the layers' noise.
        w_avg: running mean of w, `[w_dim]`, the centre of truncation (`Truncated`).

    Raises:
        ValueError: if `mixing` is not in [0, 1].

    Source: Karras et al. 2019, section 2 and appendices B and C.
    """

    def __init__(
        self, mapping: Mapping, synthesis: nn.Module, *, z_dim: int, shape: tuple[int, ...], n_classes: int,
        mixing: float, decay: float,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= mixing <= 1:
            raise ValueError(f"mixing must lie in [0, 1], got {mixing}")
        self.mapping, self.synthesis = mapping, synthesis
        self.z_dim, self.shape, self.n_classes = z_dim, tuple(shape), n_classes
        self.mixing, self.decay = mixing, decay
        self.mixing_dim = z_dim + 2 if mixing else 0
        self.noise_dim = self.mixing_dim + synthesis.noise_dim
        self.register_buffer("w_avg", torch.zeros(synthesis.w_dim))

    def forward(self, z: Tensor, *given: Tensor | None) -> Tensor:
        labels, noise = given_to(self, *given)
        return self.pictures(self.styles(z, labels, noise), noise)

    def styles(self, z: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """w of each layer, `[N, layers, w_dim]`."""
        w = self.mapping(z, labels)
        if self.training:
            with torch.no_grad():
                mean = processes.mean(w.detach().to(self.w_avg.dtype).mean(0))
                self.w_avg.copy_(mean.lerp(self.w_avg, self.decay))
        layers = self.synthesis.layers
        ws = w[:, None].expand(-1, layers, -1)
        if noise is None or not (self.training and self.mixing):
            return ws
        other, mixed, where = noise[:, : self.mixing_dim].split([self.z_dim, 1, 1], 1)
        chance, share = torch.special.ndtr(mixed), torch.special.ndtr(where)  # uniform in [0, 1]
        crossover = 1 + (share * (layers - 1)).floor()  # 1 .. layers - 1
        crossover = torch.where(chance < self.mixing, crossover, layers)
        later = torch.arange(layers, device=w.device) >= crossover  # [N, layers]
        return torch.where(later[:, :, None], self.mapping(other, labels)[:, None], ws)

    def pictures(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Samples `[N, *shape]` of w's, with the part of `noise` that belongs to the layers."""
        return self.synthesis(ws, None if noise is None else noise[:, self.mixing_dim :])


def given_to(G: nn.Module, *given: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What came behind z, as (labels, noise)."""
    labels, given = (given[0], given[1:]) if G.n_classes else (None, given)
    return labels, given[0] if given else None


class Truncated(nn.Module):
    """A `StyleGenerator` whose w is drawn towards the mean: w_avg + psi (w - w_avg) in the first layers.

    It is called as G is, and evaluated like it; its networks are G's own, not copies.

    Args:
        G: the generator.
        psi: 1 leaves w as it is, 0 makes all samples of equal noise alike.
        cutoff: how many of the layers, from the coarsest, are truncated; None for all. StyleGAN's figures have
            psi 0.7 in the first 8.

    Raises:
        ValueError: if `psi` is not finite or `cutoff` negative.

    Source: Karras et al. 2019, appendix B.
    """

    def __init__(self, G: StyleGenerator, psi: float = 0.7, cutoff: int | None = None) -> None:
        super().__init__()
        if not math.isfinite(psi):
            raise ValueError(f"psi must be finite, got {psi}")
        if cutoff is not None and cutoff < 0:
            raise ValueError(f"cutoff must be at least 0 layers, got {cutoff}")
        self.G, self.psi, self.cutoff = G, psi, cutoff
        self.z_dim, self.shape, self.n_classes, self.noise_dim = G.z_dim, G.shape, G.n_classes, G.noise_dim
        self.synthesis = G.synthesis

    def mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Truncated w of each layer, `[N, layers, w_dim]`."""
        ws = self.G.styles(z, labels)
        n = ws.shape[1] if self.cutoff is None else min(self.cutoff, ws.shape[1])
        near = self.G.w_avg.lerp(ws[:, :n], self.psi)
        return torch.cat([near, ws[:, n:]], 1)

    def forward(self, z: Tensor, *given: Tensor | None) -> Tensor:
        labels, noise = given_to(self, *given)
        return self.G.pictures(self.mapping(z, labels), noise)
