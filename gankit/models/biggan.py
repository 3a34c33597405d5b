"""SAGAN and BigGAN: class-conditional residual networks with self-attention, spectrally normalised on both sides."""

from __future__ import annotations

from collections.abc import Mapping

from gankit.models.blocks import (
    ClassTable,
    ConditionalBatchNorm2d,
    ConditionalDiscriminator,
    ConditionalGenerator,
    HierarchicalGenerator,
    equal_chunk,
    orthogonal,
    positive,
    seeded,
)
from gankit.models.resnet import (
    SNGAN,
    Plan,
    conditional,
    generator_layers,
    plan_for,
    projection_discriminator,
    sngan_widths,
)
from gankit.models.spectral import SNConv2d, SNLinear

SMALL: Mapping[int, Plan] = {
    8: Plan(4, 4, (4,), (4, 4), (4, 4)),
    16: Plan(4, 4, (4, 4), (4, 4), (4, 4)),
    28: Plan(7, 4, (4, 4), (4, 4), (4, 4)),
    32: Plan(4, 4, (4, 4, 4), (4, 4), (4, 4)),  # the authors' networks for CIFAR-10
}
BIGGAN: Mapping[int, Plan] = SMALL | {
    64: Plan(4, 16, (16, 8, 4, 2), (1, 2, 4, 8), (16,), attention=(32, 32)),
    128: Plan(4, 16, (16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,), attention=(64, 64)),  # table 4
    256: Plan(4, 16, (16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16), (16,), attention=(128, 64)),  # table 5
}
CHUNK = 20  # numbers of z for each place of the generator that reads some (appendix B)


def sagan(
    shape: tuple[int, int, int],
    n_classes: int,
    z_dim: int = 128,
    width: int | None = None,
    *,
    d_width: int | None = None,
    attention: int | None = None,
    seed: int = 0,
) -> tuple[ConditionalGenerator, ConditionalDiscriminator]:
    """SAGAN: the projection GAN with self-attention, and with spectral normalisation in G as well.

    Args:
        shape: (C, S, S), S as in `gankit.models.sngan`. The paper has 128.
        n_classes: number of classes; labels are 0..n_classes-1.
        z_dim: length of a latent vector.
        width, d_width: filters as in `gankit.models.sngan`.
        attention: side of the feature map that attends to itself, in G and in D; 0 for none. None takes 32 for
            S = 128 (the paper's best, table 1) and S / 2 below.
        seed: seed of the initial weights.

    Returns:
        (G, D): G maps z `[N, z_dim]` and labels `[N]` to `[N, C, S, S]` in [-1, 1], D maps that and labels to logits.

    Raises:
        ValueError: if a size is not positive, S is not supported or no feature map has the side `attention`.

    Source: Zhang, Goodfellow, Metaxas and Odena 2018, "Self-attention generative adversarial networks", sections 3
    and 4, around the networks of Miyato and Koyama 2018.
    """
    plan = plan_for(shape, SNGAN)
    width, d_width = sngan_widths(plan, width, d_width)
    if attention is None:
        attention = 32 if shape[-1] == 128 else shape[-1] // 2
    where = _attention(plan, attention)
    return conditional(
        plan, shape, n_classes, z_dim, width, d_width, SNConv2d, SNLinear, attention=where, seed=seed
    )


def biggan_cifar(
    shape: tuple[int, int, int],
    n_classes: int,
    z_dim: int = 128,
    width: int = 64,
    *,
    d_width: int | None = None,
    attention: int | None = None,
    seed: int = 0,
) -> tuple[ConditionalGenerator, ConditionalDiscriminator]:
    """BigGAN as it is run on CIFAR-10: wide blocks in D, and neither shared embedding, nor skip-z, nor attention.

    Args:
        shape: (C, S, S) with S one of 8, 16, 28 and 32.
        n_classes: number of classes; labels are 0..n_classes-1.
        z_dim: length of a latent vector.
        width: ch; every block of G has 4 ch filters.
        d_width: ch of D, where it differs.
        attention: side of the feature map that attends to itself, in G and in D; 0 or None for none.
        seed: seed of the initial weights, random orthogonal matrices.

    Returns:
        (G, D): G maps z `[N, z_dim]` and labels `[N]` to `[N, C, S, S]` in [-1, 1], D maps that and labels to logits.

    Raises:
        ValueError: if a size is not positive, S is not supported or no feature map has the side `attention`.

    Source: Brock, Donahue and Simonyan 2019, and the authors' PyTorch code for CIFAR-10, which "Mean Teachers
    Can Train Superior GANs" uses (table 6). The paper itself prints no table for 32 pixels.
    """
    plan = plan_for(shape, SMALL)
    d_width = width if d_width is None else d_width
    where = _attention(plan, attention)
    return conditional(
        plan, shape, n_classes, z_dim, width, d_width, SNConv2d, SNLinear,
        wide=True, attention=where, init=orthogonal, seed=seed,
    )  # fmt: skip


def biggan(
    shape: tuple[int, int, int],
    n_classes: int,
    z_dim: int | None = None,
    width: int = 96,
    *,
    d_width: int | None = None,
    y_dim: int = 128,
    attention: int | None = None,
    seed: int = 0,
) -> tuple[HierarchicalGenerator, ConditionalDiscriminator]:
    """BigGAN: SAGAN made wider, with a shared class embedding, hierarchical latents and orthogonal initial weights.

    Args:
        shape: (C, S, S); S is 128 (table 4), 256 (table 5), or one of 8, 16, 28, 32 and 64, which the paper does not
            have.
        n_classes: number of classes; labels are 0..n_classes-1.
        z_dim: length of a latent vector, a multiple of the number of places that read a chunk of it: the first layer
            and each block of G. None takes 20 for each place, 120 at S = 128.
        width: ch; the generator's last block has ch filters at S = 128 and 256, 2 ch at 64, 4 ch below.
        d_width: ch of D, where it differs.
        y_dim: length of the class embedding that all blocks of G share.
        attention: side of the feature map that attends to itself, in G and in D; 0 for none. None takes the paper's:
            64 in both at S = 128, 128 in G and 64 in D at 256; 32 at S = 64 and none below.
        seed: seed of the initial weights, random orthogonal matrices.

    Returns:
        (G, D): G maps z `[N, z_dim]` and labels `[N]` to `[N, C, S, S]` in [-1, 1], D maps that and labels to logits.

    Raises:
        ValueError: if a size is not positive, S is not supported, no feature map has the side `attention` or `z_dim`
            does not split evenly.

    Source: Brock, Donahue and Simonyan 2019, appendix B, figure 15 and tables 4 and 5. Where the tables and the
    numbers of parameters in appendix B (70.4 and 88.0 million at S = 128, ch = 96) disagree, this follows the
    numbers, as the authors' PyTorch code does: the first layer of G reads a chunk of z alone, and the first
    block of D has ch filters.
    """
    plan = plan_for(shape, BIGGAN)
    d_width = width if d_width is None else d_width
    positive(n_classes=n_classes, width=width, d_width=d_width, y_dim=y_dim)
    g_attention, d_attention = _attention(plan, attention)
    places = 1 + len(plan.up)
    z_dim = CHUNK * places if z_dim is None else z_dim
    positive(z_dim=z_dim)
    chunk = equal_chunk(z_dim, places)

    def norm(channels: int) -> ConditionalBatchNorm2d:
        return ConditionalBatchNorm2d(channels, lambda c: SNLinear(y_dim + chunk, c, bias=False))

    with seeded(seed):
        G = HierarchicalGenerator(
            ClassTable(n_classes, y_dim),
            *generator_layers(plan, shape[0], chunk, width, SNConv2d, SNLinear, norm, attention=g_attention),
            z_dim=z_dim,
            shape=shape,
        )
        D = projection_discriminator(plan, shape[0], n_classes, d_width, wide=True, attention=d_attention)
        orthogonal(G)
        orthogonal(D)
    return G, D


def _attention(plan: Plan, side: int | None) -> tuple[int, int]:
    """Where G and D attend: `side` in both, or the plan's own sides for None.

    Raises:
        ValueError: if no feature map of both networks has that side.
    """
    if side is None:
        return plan.attention
    in_G = {plan.start * 2**i for i in range(len(plan.up) + 1)}
    in_D = {max(in_G) // 2**i for i in range(1, len(plan.down) + 1)}
    if side != 0 and side not in in_G & in_D:
        sides = ", ".join(map(str, sorted(in_G & in_D)))
        raise ValueError(
            f"attention must be the side of a feature map of G and D, one of {sides}, or 0, got {side}"
        )
    return side, side
