"""Pieces that several networks share: the generator's and discriminator's outer form, and their initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gankit import processes

HALVES = (torch.float16, torch.bfloat16)


class Generator(nn.Sequential):
    """Layers that map latents z to samples.

    Attributes:
        z_dim: length of a latent vector.
        shape: shape of one sample, such as (1, 28, 28) or (2,).
        n_classes: 0 for an unconditional generator, which is called as `G(z)`; a conditional one is called
            as `G(z, labels)`.
    """

    n_classes = 0

    def __init__(self, *layers: nn.Module, z_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__(*layers)
        self.z_dim = z_dim
        self.shape = tuple(shape)


class Discriminator(nn.Sequential):
    """Layers that map samples `[..., N, *shape]` to logits `[..., N]`.

    Attributes:
        n_classes: 0 for an unconditional discriminator, `D(x)`; a conditional one is called as `D(x, labels)`.
    """

    n_classes = 0


class Conditioned(nn.Module):
    """A layer that can read a condition beside its input: `layer(x)` or `layer(x, condition)`."""


class ConditionalGenerator(Generator):
    """A generator called as `G(z, labels)`, labels `[N]` int64: its `Conditioned` layers read the labels."""

    def __init__(self, *layers: nn.Module, z_dim: int, shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__(*layers, z_dim=z_dim, shape=shape)
        self.n_classes = n_classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return _through(self, z, labels)


class ConditionalDiscriminator(Discriminator):
    """A discriminator called as `D(x, labels)`, labels `[N]` int64: its `Conditioned` layers read the labels."""

    def __init__(self, *layers: nn.Module, n_classes: int) -> None:
        super().__init__(*layers)
        self.n_classes = n_classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return _through(self, x, labels)


class HierarchicalGenerator(nn.Module):
    """A generator whose blocks read z as well: z in equal chunks, the first for the first layer, one for each block.

    A block is conditioned on [embedding of the class, its chunk of z] (skip-z). Called as `G(z, labels)`.

    Args:
        embedding: of the classes, shared by all blocks.
        layers: the rest of the network; each `Conditioned` layer among them, a block or a normalisation, reads a chunk.
        z_dim, shape: as for `Generator`.

    Source: Brock et al. 2019, appendix B and figure 15 (a).
    """

    def __init__(
        self, embedding: nn.Embedding, *layers: nn.Module, z_dim: int, shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.Sequential(*layers)
        self.z_dim = z_dim
        self.shape = tuple(shape)
        self.n_classes = embedding.num_embeddings
        self.places = 1 + sum(isinstance(layer, Conditioned) for layer in layers)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h, *chunks = z.chunk(self.places, -1)
        y = self.embedding(labels)
        conditions = iter([torch.cat([y, chunk], -1) for chunk in chunks])
        for layer in self.layers:
            h = layer(h, next(conditions)) if isinstance(layer, Conditioned) else layer(h)
        return h


def equal_chunk(z_dim: int, places: int) -> int:
    """Numbers of z for each place of a `HierarchicalGenerator` that reads some.

    Raises:
        ValueError: if `z_dim` does not split evenly.
    """
    if z_dim % places:
        raise ValueError(
            f"z_dim must be a multiple of {places}, one equal chunk for the first layer and for each of the "
            f"{places - 1} blocks, got {z_dim}"
        )
    return z_dim // places


def _through(layers: Iterable[nn.Module], h: Tensor, condition: Tensor) -> Tensor:
    for layer in layers:
        h = layer(h, condition) if isinstance(layer, Conditioned) else layer(h)
    return h


class Squeeze(nn.Module):
    """Drop the last dimension, `[..., N, 1]` -> `[..., N]`: one logit per sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(-1)


class SumPool(nn.Module):
    """Sum over a feature map, `[N, C, H, W]` -> `[N, C]`: the "global sum pooling" of residual discriminators."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((-2, -1))


# --- Residual blocks ---------------------------------------------------------------------------------------------
#
# `conv` and `norm` make layers: `conv(c_in, c_out, kernel, padding=...)`, `norm(channels)`. Each network passes plain
# ones, or spectrally normalised ones (`gankit.models.spectral`), or conditional ones.

Conv = Callable[..., nn.Module]
Norm = Callable[[int], nn.Module]


class UpBlock(Conditioned):
    """A generator's residual block, `[N, c_in, H, W]` -> `[N, c_out, 2H, 2W]`.

    Norm, ReLU, upsampling, 3x3 convolution, norm, ReLU, 3x3 convolution; on the shortcut upsampling and a 1x1
    convolution. Upsampling copies each pixel into four, as the authors' code does.

    Source: "ResBlock up", Miyato et al. 2018, figure 8; Brock et al. 2019, figure 15 (b).
    """

    def __init__(self, c_in: int, c_out: int, conv: Conv, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(c_in)
        self.conv1 = conv(c_in, c_out, 3, padding=1)
        self.norm2 = norm(c_out)
        self.conv2 = conv(c_out, c_out, 3, padding=1)
        self.shortcut = conv(c_in, c_out, 1)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        h = F.relu(_normed(self.norm1, x, *condition))
        h = upsampled_conv(h, self.conv1)
        h = F.relu(_normed(self.norm2, h, *condition), inplace=True)
        h = self.conv2(h)
        # A 1x1 convolution commutes with copying pixels, and before it costs a quarter.
        return h + _upsample(self.shortcut(x))


class ResBlock(nn.Module):
    """A discriminator's residual block: `[N, c_in, H, W]` -> `[N, c_out, H/2, W/2]` with `down`, else `[.., H, W]`.

    ReLU, 3x3 convolution to `hidden` filters, ReLU, 3x3 convolution, average pooling; on the shortcut a 1x1
    convolution and average pooling. A block that changes neither side nor filters has the identity as its shortcut.
    `norm`, if given, makes what stands before each ReLU.

    Source: "ResBlock down" and "ResBlock", Miyato et al. 2018, figure 8 (without batch norm); Brock et al. 2019,
    figure 15 (c).
    """

    def __init__(
        self, c_in: int, c_out: int, hidden: int, conv: Conv, *, down: bool, norm: Norm | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.Identity() if norm is None else norm(c_in)
        self.norm2 = nn.Identity() if norm is None else norm(hidden)
        self.conv1 = conv(c_in, hidden, 3, padding=1)
        self.conv2 = conv(hidden, c_out, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()
        self.shortcut = conv(c_in, c_out, 1) if down or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return self.after_first(x, h)

    def after_first(self, x: Tensor, h: Tensor) -> Tensor:
        """The rest of the block on input x, from the first convolution's result h on."""
        h = self.conv2(F.relu(self.norm2(h), inplace=True))
        # A 1x1 convolution commutes with averaging pixels, and after it costs a quarter.
        return self.pool(h) + self.shortcut(self.pool(x))


class FirstBlock(ResBlock):
    """A discriminator's first block, which sees the picture: no norm and no ReLU before its first convolution.

    Source: Gulrajani et al. 2017 (the optimised first block of their code), kept by Miyato et al. 2018.
    """

    def __init__(self, c_in: int, c_out: int, conv: Conv, norm: Norm | None = None) -> None:
        super().__init__(c_in, c_out, c_out, conv, down=True, norm=norm)
        self.norm1 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after_first(x, self.conv1(x))


def _normed(norm: nn.Module, x: Tensor, *condition: Tensor) -> Tensor:
    return norm(x, *condition) if isinstance(norm, Conditioned) else norm(x)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def upsampled_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv(_upsample(x))` for a 3x3 convolution with padding 1, in 4/9 of the products.

    The nine pixels under the kernel are copies of four, so kernel entries that meet the same pixel are added first:
    the two are one transposed convolution of stride 2, with the flipped kernel spread over 2x2 pixels.
    """
    # A layer that rescales its weight, spectrally normalised or not, multiplies by `normalised()`.
    weight = conv.normalised() if hasattr(conv, "normalised") else conv.weight
    padded = F.pad(weight.flip(-2, -1), (1, 1, 1, 1))
    rows = padded[..., 1:, :] + padded[..., :-1, :]
    kernel = (rows[..., 1:] + rows[..., :-1]).transpose(0, 1)  # [in, out, 4, 4]
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


# --- Conditioning and attention ----------------------------------------------------------------------------------


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch, in training, is that of all processes that train together.

    PyTorch's own `SyncBatchNorm` runs on GPUs only, and this on any device. One process alone runs PyTorch's kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes.world_size() == 1:
            return super().forward(x)
        wide = x.float() if x.dtype in HALVES else x
        h, mean, variance = _JointNorm.apply(wide, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            n = processes.world_size() * h.numel() / h.shape[1]
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.running_var.lerp_((variance * (n / (n - 1))).to(self.running_var), self.momentum)
        return h.to(x.dtype)


class _JointNorm(torch.autograd.Function):
    """weight (x - mean) / std + bias of x `[N, C, H, W]` over the samples and pixels of all processes; also both
    moments, `[C]`. It can be differentiated once.

    PyTorch's kernels know one process. Here each takes the sums of its own share with them, and goes on with those of
    all: in evaluation mode a kernel normalises by any moments that it is given.

    Source: Ioffe and Szegedy 2015, section 3.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.stack(torch.batch_norm_update_stats(x, None, None, 0.0))  # mean and variance
        means, variances = processes.stack(own).unbind(1)  # [P, C] each
        mean = means.mean(0)
        # The mean square distance from the joint mean, without the cancellation of E[x^2] - E[x]^2.
        variance = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, variance = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=_layout(x))
        # Of this process's samples alone, for its own cost: sums of gradient h and of gradient, h = (x - mean) / std.
        _, slope, shift = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        n = x.numel() // x.shape[1]
        joint_slope, joint_shift = processes.stack(torch.stack([slope, shift]) / n).mean(0)
        factor = torch.rsqrt(variance + ctx.eps)
        if weight is not None:
            factor = factor * weight
        # factor (gradient - shift - slope h): two maps of the kernel, the first of which does not shift or scale.
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        out = F.batch_norm(gradient, zero, one, factor, -factor * joint_shift, eps=0)
        out += F.batch_norm(x, mean, variance, -factor * joint_slope, eps=ctx.eps)
        return out, slope if weight is not None else None, shift if weight is not None else None, None


def _layout(x: Tensor) -> torch.memory_format:
    """How a map's channels lie in memory: outermost or innermost."""
    inner = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if inner else torch.contiguous_format


class ClassTable(nn.Embedding):
    """A row of numbers for each class. Labels are int64 `[...]`, or shares of the classes `[..., K]`, floating point:
    then their weighted mean of rows, which is what lies *between* classes."""

    def forward(self, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            return labels.to(self.weight) @ self.weight
        return super().forward(labels)


class ConditionalBatchNorm2d(Conditioned):
    """Batch normalisation with a gain and a bias for each sample: (1 + gain(c)) (x - mean) / std + bias(c).

    Args:
        channels: C of the input `[N, C, H, W]`.
        make: channels -> layer that maps a condition to `[N, channels]`; called for the gain and for the bias.

    Source: Dumoulin et al. 2017, equation 5; Miyato and Koyama 2018, section 4, with a table of gains and biases by
    class; Brock et al. 2019, appendix B, with linear maps of a vector.
    """

    def __init__(self, channels: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels, affine=False)
        self.gain = make(channels)
        self.bias = make(channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.norm(x)
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return h * gain[..., None, None].to(h) + bias[..., None, None].to(h)


class ConditionalBatchNorm1d(ConditionalBatchNorm2d):
    """The same for features `[N, C]`, as maps of one pixel."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return super().forward(x[..., None, None], condition)[..., 0, 0]


class SelfAttention(nn.Module):
    """Each pixel gathers what it needs from the whole feature map, `[N, C, H, W]` -> `[N, C, H, W]`.

    s_ij = f(x_i)^T g(x_j), beta_ji = softmax over i of s_ij, o_j = v(sum_i beta_ji h(x_i)), y_j = gamma o_j + x_j.
    f, g, h, v are 1x1 convolutions; gamma starts at 0, so that training starts without attention.

    As in the authors' code, and unlike their text, h has C/2 channels (f and g have C/8), and f(x) and h(x) are
    max-pooled, so that a pixel looks at a quarter of the others.

    Source: Zhang et al. 2018 (SAGAN), equations 1 to 3; the non-local block of Brock et al. 2019.
    """

    def __init__(self, channels: int, conv: Conv) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.f = conv(channels, narrow, 1, bias=False)
        self.g = conv(channels, narrow, 1, bias=False)
        self.h = conv(channels, half, 1, bias=False)
        self.v = conv(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        f = F.max_pool2d(self.f(x), 2).flatten(-2)  # [N, C/8, HW/4], columns i
        g = self.g(x).flatten(-2)  # [N, C/8, HW], columns j
        h = F.max_pool2d(self.h(x), 2).flatten(-2)  # [N, C/2, HW/4]
        beta = torch.softmax(f.mT @ g, -2)  # [N, HW/4, HW]
        # Autocast reaches the products but, inside `vmap` on a CPU, not the convolutions.
        o = self.v((h @ beta).to(x.dtype).unflatten(-1, x.shape[-2:]))
        return self.gamma * o + x


class Projection(Conditioned):
    """Logit of features phi `[N, C]` and labels y `[N]`: psi(phi) + <V_y, phi>, `[N]`.

    Args:
        psi: linear layer from C features to one number.
        V: embedding of the classes in C numbers.

    Source: Miyato and Koyama 2018, equation 3 and figure 1 (d).
    """

    def __init__(self, psi: nn.Module, V: nn.Module) -> None:
        super().__init__()
        self.psi = psi
        self.V = V

    def forward(self, phi: Tensor, labels: Tensor) -> Tensor:
        return self.psi(phi).squeeze(-1) + (self.V(labels) * phi).sum(-1)


# --- Initial weights ---------------------------------------------------------------------------------------------


def glorot_uniform(net: nn.Module) -> None:
    """Weights uniform in +-sqrt(6 / (fan_in + fan_out)), zero biases (Glorot and Bengio 2010), in place."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def dcgan_normal(net: nn.Module) -> None:
    """Weights from N(0, 0.02^2), batch-norm gains from N(1, 0.02^2), zero biases (Radford et al. 2016), in place."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def residual_glorot(net: nn.Module) -> None:
    """Initial weights of the SNGAN family, in place.

    Glorot-uniform, times sqrt(2) for the 3x3 convolutions of residual blocks, which come after a ReLU; zero biases.
    Conditional batch norm starts with gain 1 and bias 0 for every class. From the authors' code; Miyato et al.
    2018 do not print it.
    """
    glorot_uniform(net)
    for module in net.modules():
        if isinstance(module, UpBlock | ResBlock):
            nn.init.xavier_uniform_(module.conv1.weight, 2**0.5)
            nn.init.xavier_uniform_(module.conv2.weight, 2**0.5)
    neutral_conditions(net)


def glorot_conditional(net: nn.Module) -> None:
    """`glorot_uniform`, and for what reads labels `neutral_conditions`, in place."""
    glorot_uniform(net)
    neutral_conditions(net)


def neutral_conditions(net: nn.Module) -> None:
    """Conditional batch norm with gain 1 and bias 0 for every class; Glorot-uniform tables of projections; in place."""
    for module in net.modules():
        if isinstance(module, ConditionalBatchNorm2d):
            nn.init.zeros_(module.gain.weight)
            nn.init.zeros_(module.bias.weight)
        elif isinstance(module, Projection):
            nn.init.xavier_uniform_(module.V.weight)


def orthogonal(net: nn.Module) -> None:
    """Random orthogonal matrices, kernels as `[out, in kh kw]`; zero biases (Saxe et al. 2014), in place."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.orthogonal_(layer.weight)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed` and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def positive(**sizes: int) -> None:
    """Refuse a size that is not a positive whole number, by its name.

    Raises:
        ValueError: naming the argument and what came.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
