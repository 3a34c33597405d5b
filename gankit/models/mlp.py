"""Fully connected networks: the FC-n of the sample-weighting paper (section 3.3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from gankit.models.blocks import (
    ConditionalBatchNorm1d,
    Discriminator,
    Norm,
    glorot_conditional,
    positive,
    seeded,
)
from gankit.models.conditioning import Condition, Join, discriminator, generator, players
from gankit.models.normalisation import Make, normalisation_of, paired


def mlp(
    shape: tuple[int, ...],
    z_dim: int = 64,
    depth: int = 4,
    width: int = 64,
    *,
    d_depth: int | None = None,
    d_width: int | None = None,
    normalisation: str = "none",
    condition: Condition | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Discriminator]:
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
        normalisation: of the discriminator (`gankit.models.normalisation`). Networks that differ in nothing else have
            equal weights at the start.
        condition: how both read labels; None for networks without. "concat-hidden" joins the label to what the
            discriminator's last hidden layer reads.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[..., N, z_dim]` to `[..., N, *shape]`, D maps that to logits `[..., N]`. With a condition they
        take `[N, ...]` and labels `[N]`.

    Raises:
        ValueError: if a size is not a positive whole number, or does not fit the condition; or the normalisation is
            unknown.

    Source: "Sample weighting as an explanation for mode collapse in GANs", section 3.3. The paper does not
    print the width of its hidden layers or its initial weights.
    """
    d_depth = depth if d_depth is None else d_depth
    d_width = width if d_width is None else d_width
    positive(z_dim=z_dim, depth=depth, width=width, d_depth=d_depth, d_width=d_width)
    normalised = normalisation_of(normalisation)
    linear = paired(nn.Linear, normalised.linear)
    n_values = math.prod(shape)
    output = [nn.Tanh(), nn.Unflatten(-1, tuple(shape))] if len(shape) > 1 else []
    flatten = [nn.Flatten(-len(shape), -1)] if len(shape) > 1 else []
    sizes = [n_values, *[d_width] * (d_depth - 1)]

    def up(n_in: int, norm: Norm | None) -> list[nn.Module]:
        sizes = [n_in, *[width] * (depth - 1)]
        # Normalisation subtracts the mean, and a bias before it with it.
        hidden = _hidden(sizes, norm, linear=partial(nn.Linear, bias=norm is None))
        return [*hidden, nn.Linear(sizes[-1], n_values), *output]

    def down(joined: Mapping[int, Join]) -> list[nn.Module]:
        return [*flatten, *_hidden(sizes, normalised.of_features, joined, linear)]

    heads = {"linear": linear, "embedding": paired(nn.Embedding, normalised.embedding)}
    with seeded(seed):
        return players(
            condition,
            lambda: generator(condition, up, z_dim, tuple(shape), places=depth, norm=ConditionalBatchNorm1d),
            lambda: discriminator(condition, down, sizes[-1], hidden=d_depth - 2, **heads),
            glorot_conditional,
        )


def _hidden(
    sizes: Sequence[int],
    norm: Norm | None = None,
    joined: Mapping[int, Join] | None = None,
    linear: Make = nn.Linear,
) -> list[nn.Module]:
    """A linear layer, normalisation if there is any, and ReLU between neighbouring sizes; labels are joined to what
    some of the linear layers read."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        if join := (joined or {}).get(i):
            layers.append(join)
            n_in += join.size
        layers += [linear(n_in, n_out), *([] if norm is None else [norm(n_out)]), nn.ReLU()]
    return layers
