"""Fully connected networks: the FC-n of the sample-weighting paper (section 3.3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import nn

from gankit.models.blocks import Discriminator, Generator, Squeeze, glorot_uniform, positive, seeded


def mlp(
    shape: tuple[int, ...],
    z_dim: int = 64,
    depth: int = 4,
    width: int = 64,
    *,
    d_depth: int | None = None,
    d_width: int | None = None,
    seed: int = 0,
) -> tuple[Generator, Discriminator]:
    """A fully connected generator and discriminator with ReLU between the layers.

    Images leave the generator through tanh, in [-1, 1]; points (a `shape` of one number) leave it as they
    are, since they have no bounds. Weights are Glorot-uniform and biases zero.

    Args:
        shape: shape of one sample: (C, H, W) for images, (d,) for points.
        z_dim: length of a latent vector.
        depth: number of weight layers, the n of FC-n: `depth - 1` hidden layers and the output.
        width: units in each hidden layer.
        d_depth: the discriminator's depth, where it differs from `depth`.
        d_width: the discriminator's width, where it differs from `width`.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[..., N, z_dim]` to `[..., N, *shape]`, D maps that to logits `[..., N]`.

    Raises:
        ValueError: if a size is not a positive whole number.

    Source: "Sample weighting as an explanation for mode collapse in GANs", section 3.3. The paper does not
    print the width of its hidden layers or its initial weights.
    """
    d_depth = depth if d_depth is None else d_depth
    d_width = width if d_width is None else d_width
    positive(z_dim=z_dim, depth=depth, width=width, d_depth=d_depth, d_width=d_width)
    n_values = math.prod(shape)
    output = [nn.Tanh(), nn.Unflatten(-1, tuple(shape))] if len(shape) > 1 else []
    flatten = [nn.Flatten(-len(shape), -1)] if len(shape) > 1 else []
    with seeded(seed):
        G = Generator(
            *_layers([z_dim, *[width] * (depth - 1), n_values]), *output, z_dim=z_dim, shape=tuple(shape)
        )
        D = Discriminator(*flatten, *_layers([n_values, *[d_width] * (d_depth - 1), 1]), Squeeze())
        glorot_uniform(G)
        glorot_uniform(D)
    return G, D


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Linear layers between neighbouring sizes, with ReLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers[:-1]
