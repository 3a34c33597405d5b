"""BEGAN: an autoencoder as the discriminator."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from gankit.models.blocks import Generator, glorot_uniform, positive, seeded
from gankit.models.mlp import mlp


class Autoencoder(nn.Module):
    """A discriminator that rebuilds samples: its logit is minus the mean absolute error of that, at most 0.

    Real samples have the higher logits, as with any other discriminator.

    Args:
        encoder: samples `[..., N, *shape]` -> codes.
        decoder: codes -> samples.
        ndim: dimensions of one sample, 3 for images and 1 for points.
    """

    n_classes = 0

    def __init__(self, encoder: nn.Module, decoder: nn.Module, ndim: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.ndim = encoder, decoder, ndim

    def reconstruct(self, x: Tensor) -> Tensor:
        """`[..., N, *shape]` -> the same shape."""
        return self.decoder(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        # The error is a small difference, so it is taken in float32 also where the layers are in bfloat16.
        exact = torch.promote_types(x.dtype, torch.float32)
        return -(x.to(exact) - self.reconstruct(x).to(exact)).abs().flatten(-self.ndim).mean(-1)


class Uniform(nn.Module):
    """Normal numbers made uniform in [-1, 1]: 2 Phi(z) - 1."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.erf(z / math.sqrt(2))


def began(
    shape: tuple[int, int, int], z_dim: int = 64, width: int = 128, *, seed: int = 0
) -> tuple[Generator, Autoencoder]:
    """The convolutional networks of BEGAN: the generator is built like the autoencoder's decoder.

    Two 3x3 convolutions with ELU at every scale; between scales nearest upsampling, or a convolution of stride 2. The
    decoder has `width` filters throughout, the encoder one `width` more at each scale. Codes and latents have the same
    length, the output is linear, and latents are uniform in [-1, 1] (made of normal ones). Weights are Glorot-uniform
    and biases zero.

    Args:
        shape: (C, S, S). Sides are halved while they are even and above 8 (32 -> 16 -> 8, 28 -> 14 -> 7).
        z_dim: length of a latent vector and of a code.
        width: filters, n of the paper.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, S, S]`, D maps that to logits `[N]`.

    Raises:
        ValueError: if a size is not positive or `shape` is not that of a square image.

    Source: Berthelot, Schumm and Metz 2017, section 3.5 and figure 1.
    """
    positive(z_dim=z_dim, width=width)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"shape must be (C, S, S), got {tuple(shape)}; `began_mlp` takes any samples")
    channels, side, halvings = shape[0], shape[1], 0
    while side % 2 == 0 and side > 8:
        side, halvings = side // 2, halvings + 1

    def decoder() -> list[nn.Module]:
        layers: list[nn.Module] = [
            nn.Linear(z_dim, width * side * side),
            nn.Unflatten(-1, (width, side, side)),
        ]
        for scale in range(halvings + 1):
            layers += [nn.Upsample(scale_factor=2)] if scale else []
            layers += [*_conv(width, width), *_conv(width, width)]
        return [*layers, nn.Conv2d(width, channels, 3, padding=1)]

    def encoder() -> list[nn.Module]:
        layers: list[nn.Module] = _conv(channels, width)
        for scale in range(1, halvings + 1):
            n = scale * width
            layers += [*_conv(n, n), *_conv(n, n), *_conv(n, n + width, stride=2)]
        n = (halvings + 1) * width
        return [*layers, *_conv(n, n), *_conv(n, n), nn.Flatten(-3, -1), nn.Linear(n * side * side, z_dim)]

    with seeded(seed):
        G = Generator(Uniform(), *decoder(), z_dim=z_dim, shape=tuple(shape))
        D = Autoencoder(nn.Sequential(*encoder()), nn.Sequential(*decoder()), ndim=3)
        glorot_uniform(G)
        glorot_uniform(D)
    return G, D


def began_mlp(
    shape: tuple[int, ...], z_dim: int = 64, depth: int = 4, width: int = 64, *, seed: int = 0
) -> tuple[Generator, Autoencoder]:
    """`mlp`'s generator, with its initial weights, against a fully connected autoencoder of its width.

    Encoder and decoder have `depth - 1` hidden layers each and a code of `z_dim` numbers between them. The decoder ends
    as the generator does: through tanh for images, linear for points.

    Args:
        shape: (C, H, W) for images, (d,) for points.
        z_dim: length of a latent vector and of a code.
        depth: weight layers of the generator, of the encoder and of the decoder.
        width: units in each hidden layer.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[..., N, z_dim]` to `[..., N, *shape]`, D maps that to logits `[..., N]`.

    Raises:
        ValueError: if a size is not a positive whole number.
    """
    G, _ = mlp(shape, z_dim, depth, width, seed=seed)
    n_values, hidden = math.prod(shape), [width] * (depth - 1)
    images = len(shape) > 1
    with seeded(seed):
        encoder = [nn.Flatten(-len(shape))] * images + _linear([n_values, *hidden, z_dim])
        decoder = _linear([z_dim, *hidden, n_values]) + [nn.Tanh(), nn.Unflatten(-1, tuple(shape))] * images
        D = Autoencoder(nn.Sequential(*encoder), nn.Sequential(*decoder), ndim=len(shape))
        glorot_uniform(D)
    return G, D


def _conv(c_in: int, c_out: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1), nn.ELU()]


def _linear(sizes: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers[:-1]
