"""Residual networks of the SNGAN family: SNGAN, its twin without spectral normalisation, and the projection GAN.

A `Plan` is one table of the paper; `generator_layers` and `discriminator_layers` turn it into layers. SAGAN and BigGAN
(`gankit.models.biggan`) are built from the same two functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from gankit.models.blocks import (
    BatchNorm2d,
    ClassTable,
    ConditionalBatchNorm2d,
    ConditionalDiscriminator,
    ConditionalGenerator,
    Conv,
    Discriminator,
    FirstBlock,
    Norm,
    Projection,
    ResBlock,
    SelfAttention,
    SumPool,
    UpBlock,
    positive,
    residual_glorot,
    seeded,
)
from gankit.models.conditioning import Condition, Join, discriminator, generator, players
from gankit.models.normalisation import NORMALISATIONS, Normalisation, normalisation_of
from gankit.models.spectral import SNConv2d, SNEmbedding, SNLinear


@dataclass(frozen=True)
class Plan:
    """A generator and a discriminator for one size of picture. Filters are in multiples of the width.

    Attributes:
        start: side of the generator's first feature map.
        first: its filters.
        up: filters after each block of the generator; each doubles the side.
        down: filters after each block of the discriminator that halves the side.
        flat: filters after each further block, which keeps the side.
        attention: side of the feature map that attends to itself, in the generator and in the discriminator
            (BigGAN); 0 for none.
    """

    start: int
    first: int
    up: tuple[int, ...]
    down: tuple[int, ...]
    flat: tuple[int, ...]
    attention: tuple[int, int] = (0, 0)

    @property
    def features(self) -> int:
        """Filters of the discriminator's last feature map."""
        return (self.down + self.flat)[-1]


SNGAN: Mapping[int, Plan] = {
    8: Plan(4, 1, (1,), (1, 1), (1, 1)),
    16: Plan(4, 1, (1, 1), (1, 1), (1, 1)),
    28: Plan(7, 1, (1, 1), (1, 1), (1, 1)),
    32: Plan(4, 1, (1, 1, 1), (1, 1), (1, 1)),  # table 4
    48: Plan(6, 8, (4, 2, 1), (1, 2, 4, 8), (16,)),  # table 5
    64: Plan(4, 16, (8, 4, 2, 1), (1, 2, 4, 8, 16), ()),
    128: Plan(4, 16, (16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,)),  # table 6
}


def sngan(
    shape: tuple[int, int, int],
    z_dim: int = 128,
    width: int | None = None,
    *,
    d_width: int | None = None,
    normalisation: str = "spectral",
    condition: Condition | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Discriminator]:
    """SNGAN: residual blocks, batch normalisation in G, spectral normalisation in D.

    Args:
        shape: (C, S, S); S is 32 (table 4), 48 (table 5), 128 (table 6), or one of 8, 16, 28 (table 4 with fewer
            doublings) and 64 (table 6 with one block less in each network), which the paper does not have.
        z_dim: length of a latent vector.
        width: filters of the generator next to the picture; None takes the paper's, 256 up to S = 32 and 64 above.
        d_width: filters of the discriminator's first block; None takes the paper's share of `width`, a half up to
            S = 32 and all of it above.
        normalisation: of D (`gankit.models.normalisation`). Layer and batch norm stand before each ReLU of D's blocks,
            as batch norm does in figure 8, but not before the last ReLU, behind the blocks.
        condition: how both read labels; None for networks without. "concat-hidden" joins the label to what the
            discriminator's fourth block reads, as Miyato and Koyama 2018 did for comparison. With "batch-norm" and
            "projection" the networks are those of `projection_gan`.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps `[N, z_dim]` to `[N, C, S, S]` in [-1, 1], D maps that to logits `[N]`; with a condition both
        take labels `[N]` as well.

    Raises:
        ValueError: if a size is not positive or does not fit the condition, or S or the normalisation is not supported.

    Source: Miyato, Kataoka, Koyama and Yoshida 2018, figure 8 and tables 4 to 6.
    """
    return _residual(normalisation_of(normalisation), shape, z_dim, width, d_width, condition, seed)


def wgan_gp(
    shape: tuple[int, int, int],
    z_dim: int = 128,
    width: int | None = None,
    *,
    d_width: int | None = None,
    condition: Condition | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Discriminator]:
    """The networks of `sngan` without normalisation in D, for a gradient penalty in its place.

    Arguments, return values and errors are those of `sngan`.

    Source: "Mean Teachers Can Train Superior GANs", appendix B, which trains WGAN-GP with tables 6a and 6b of Miyato
    et al. 2018. The WGAN-GP paper's own networks (Gulrajani et al. 2017) are half as wide in G at 32 pixels.
    """
    return _residual(NORMALISATIONS["none"], shape, z_dim, width, d_width, condition, seed)


def projection_gan(
    shape: tuple[int, int, int],
    n_classes: int,
    z_dim: int = 128,
    width: int | None = None,
    *,
    d_width: int | None = None,
    seed: int = 0,
) -> tuple[ConditionalGenerator, ConditionalDiscriminator]:
    """SNGAN for labelled pictures: conditional batch normalisation in G, a projection of the label in D.

    Args:
        n_classes: number of classes; labels are 0..n_classes-1.
        The others are those of `sngan`.

    Returns:
        (G, D): G maps z `[N, z_dim]` and labels `[N]` to `[N, C, S, S]` in [-1, 1], D maps that and labels to logits.

    Raises:
        ValueError: if a size is not positive or S is not supported.

    Source: Miyato and Koyama 2018, "cGANs with projection discriminator", section 3 and figure 1 (d).
    """
    plan = plan_for(shape, SNGAN)
    width, d_width = sngan_widths(plan, width, d_width)
    return conditional(plan, shape, n_classes, z_dim, width, d_width, nn.Conv2d, nn.Linear, seed=seed)


def _residual(
    normalised: Normalisation,
    shape: tuple[int, int, int],
    z_dim: int,
    width: int | None,
    d_width: int | None,
    condition: Condition | None,
    seed: int,
) -> tuple[nn.Module, Discriminator]:
    plan = plan_for(shape, SNGAN)
    width, d_width = sngan_widths(plan, width, d_width)
    positive(z_dim=z_dim, width=width, d_width=d_width)

    def up(n_in: int, norm: Norm | None) -> list[nn.Module]:
        return generator_layers(plan, shape[0], n_in, width, nn.Conv2d, nn.Linear, norm)

    def down(joined: Mapping[int, Join]) -> list[nn.Module]:
        return discriminator_layers(
            plan, shape[0], d_width, normalised.conv, norm=normalised.of_maps, joined=joined
        )

    places = 1 + len(plan.up)
    kinds = {"norm": ConditionalBatchNorm2d, "plain": BatchNorm2d}
    heads = {"linear": normalised.linear, "embedding": normalised.embedding}
    with seeded(seed):
        return players(
            condition,
            lambda: generator(condition, up, z_dim, tuple(shape), places=places, **kinds),
            lambda: discriminator(condition, down, plan.features * d_width, hidden=3, **heads),
            residual_glorot,
        )


def conditional(
    plan: Plan,
    shape: tuple[int, int, int],
    n_classes: int,
    z_dim: int,
    width: int,
    d_width: int,
    conv: Conv,
    linear: type[nn.Linear],
    *,
    wide: bool = False,
    attention: tuple[int, int] = (0, 0),
    init: Callable[[nn.Module], None] = residual_glorot,
    seed: int,
) -> tuple[ConditionalGenerator, ConditionalDiscriminator]:
    """A generator with a gain and a bias for each class in every block, and a projection discriminator.

    `conv` and `linear` make the generator's layers; the discriminator's are spectrally normalised.
    """
    positive(n_classes=n_classes, z_dim=z_dim, width=width, d_width=d_width)
    with seeded(seed):
        norm = partial(class_norm, n_classes=n_classes)
        G = ConditionalGenerator(
            *generator_layers(plan, shape[0], z_dim, width, conv, linear, norm, attention=attention[0]),
            z_dim=z_dim,
            shape=shape,
            n_classes=n_classes,
        )
        D = projection_discriminator(plan, shape[0], n_classes, d_width, wide=wide, attention=attention[1])
        init(G)
        init(D)
    return G, D


def projection_discriminator(
    plan: Plan, channels: int, n_classes: int, width: int, *, wide: bool, attention: int
) -> ConditionalDiscriminator:
    """Spectrally normalised residual blocks, and at their end the projection of the label."""
    features = plan.features * width
    return ConditionalDiscriminator(
        *discriminator_layers(plan, channels, width, SNConv2d, wide=wide, attention=attention),
        Projection(SNLinear(features, 1), SNEmbedding(n_classes, features)),
        n_classes=n_classes,
    )


# --- From a table to layers --------------------------------------------------------------------------------------


def generator_layers(
    plan: Plan,
    channels: int,
    z_dim: int,
    width: int,
    conv: Conv,
    linear: type[nn.Linear],
    norm: Norm,
    *,
    attention: int = 0,
) -> list[nn.Module]:
    """Table (a): dense, residual blocks up, BN, ReLU, 3x3 convolution to the picture's `channels`, tanh.

    `conv`, `linear` and `norm` make the layers; attention follows the feature map of side `attention`.
    """
    side, filters = plan.start, [multiple * width for multiple in (plan.first, *plan.up)]
    layers: list[nn.Module] = [
        linear(z_dim, filters[0] * side * side),
        nn.Unflatten(-1, (filters[0], side, side)),
    ]
    if side == attention:
        layers.append(SelfAttention(filters[0], conv))
    for c_in, c_out in itertools.pairwise(filters):
        layers.append(UpBlock(c_in, c_out, conv, norm))
        side *= 2
        if side == attention:
            layers.append(SelfAttention(c_out, conv))
    last = filters[-1]
    return [*layers, BatchNorm2d(last), nn.ReLU(), conv(last, channels, 3, padding=1), nn.Tanh()]


def discriminator_layers(
    plan: Plan,
    channels: int,
    width: int,
    conv: Conv,
    *,
    norm: Norm | None = None,
    wide: bool = False,
    attention: int = 0,
    joined: Mapping[int, Join] | None = None,
) -> list[nn.Module]:
    """Table (b) up to the pooled features `[N, plan.features * width]`: residual blocks, ReLU, sum over the map.

    The first convolution of a block keeps the number of filters, or with `wide`, as in BigGAN, already raises it. A
    label may be joined before some blocks. `norm` makes what stands before each ReLU of a block, if there is anything.
    """
    side = plan.start * 2 ** len(plan.up)
    filters = [multiple * width for multiple in plan.down + plan.flat]
    layers: list[nn.Module] = []
    for i, (c_in, c_out) in enumerate(itertools.pairwise([channels, *filters])):
        down = i < len(plan.down)
        hidden = c_out if wide else c_in
        if join := (joined or {}).get(i):
            layers.append(join)
            c_in += join.size
        layers.append(
            ResBlock(c_in, c_out, hidden, conv, down=down, norm=norm)
            if i
            else FirstBlock(c_in, c_out, conv, norm)
        )
        side = side // 2 if down else side
        if down and side == attention:
            layers.append(SelfAttention(c_out, conv))
    return [*layers, nn.ReLU(), SumPool()]


def class_norm(channels: int, n_classes: int) -> ConditionalBatchNorm2d:
    """Batch normalisation with a gain and a bias of its own for each class and channel."""
    return ConditionalBatchNorm2d(channels, lambda c: ClassTable(n_classes, c))


def plan_for(shape: tuple[int, ...], plans: Mapping[int, Plan]) -> Plan:
    """The plan for pictures of this shape.

    Raises:
        ValueError: if `shape` is not (C, S, S) with an S that has a plan; the message lists them.
    """
    side = shape[-1] if len(shape) == 3 else None
    if side not in plans or shape[1] != side or shape[0] < 1:
        raise ValueError(
            f"shape must be (C, S, S) with S one of {', '.join(map(str, plans))}, got {tuple(shape)}; "
            "`conv` takes any size"
        )
    return plans[side]


def sngan_widths(plan: Plan, width: int | None, d_width: int | None) -> tuple[int, int]:
    """The generator's width and the discriminator's; None stands for the paper's (see `sngan`)."""
    small = plan.first == 1  # table 4: every block has as many filters, twice as many in G as in D
    if width is None:
        width = 256 if small else 64
    if d_width is None:
        d_width = max(width // 2, 1) if small else width
    return width, d_width
