"""Ways through a generator's latent space: walks, styles of two latents mixed, truncation in W.

A walk works with every generator. The others need one with a mapping from z to w and a synthesis of pictures from w, as
StyleGAN and StyleGAN2 have (`gankit.models.style_blocks.StyleGenerator`). All of them see a generator as it is
evaluated, with fixed noise, and leave it as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gankit.models.ensemble import lead_shape
from gankit.models.sampling import generate
from gankit.models.style_blocks import Truncated
from gankit.models.stylegan import each_layer
from gankit.streams import Streams

RANGES = {"coarse": slice(0, 4), "middle": slice(4, 8), "fine": slice(8, None)}
"""Layers by the words of StyleGAN's figure 3: sides of 4 and 8, of 16 and 32, and larger ones."""


@torch.no_grad()
def walk(
    G: nn.Module, frames: int, n: int = 16, *, seed: int = 0, labels: Tensor | None = None
) -> Iterator[Tensor]:
    """n pictures that change step by step and come back to where they began.

    Each picture's latent runs once around an ellipse, z(t) = cos(2 pi t) a + sin(2 pi t) b with a and b drawn from
    N(0, I), which is nearly a circle where z is long. At every moment it is distributed like any other latent.

    Args:
        G: a generator, or an ensemble of S.
        frames: moments on the way, at least 2.
        n: pictures, each on a way of its own.
        seed: of the ways, and of labels that are drawn.
        labels: int64 `[n]`, which stay; drawn uniformly for a conditional generator when None.

    Yields:
        `[*lead, n, *shape]`, `frames` times.

    Raises:
        ValueError: if `frames` or `n` is too small, or `labels` does not hold n labels.
    """
    if frames < 2 or n < 1:
        raise ValueError(f"a walk needs at least 2 frames and 1 picture, got {frames} and {n}")
    if labels is not None and labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one per picture, got {tuple(labels.shape)}")
    lead, device = lead_shape(G), next(G.parameters()).device
    streams = Streams([seed] * (lead[0] if lead else 1), lead, device, name="walk")
    a, b = streams.normal(n, G.z_dim), streams.normal(n, G.z_dim)
    if n_classes := getattr(G, "n_classes", 0):
        labels = streams.integers(n_classes, n) if labels is None else labels.to(device).expand(*lead, n)
    for frame in range(frames):
        angle = 2 * math.pi * frame / frames
        with evaluating(G):
            yield generate(G, math.cos(angle) * a + math.sin(angle) * b, labels)


@torch.no_grad()
def mixed_styles(
    G: nn.Module,
    rows: Tensor,
    columns: Tensor,
    layers: slice = RANGES["coarse"],
    labels: Tensor | None = None,
) -> Tensor:
    """Every picture of `rows` with the styles that every one of `columns` has in some layers.

    Args:
        G: one generator with `mapping` and `synthesis`.
        rows, columns: latents `[R, z_dim]` and `[C, z_dim]`.
        layers: those whose w is that of the column.
        labels: of all pictures of a conditional generator: one, int64 `[1]`.

    Returns:
        `[R, C, *shape]`.

    Raises:
        ValueError: if the generator has no mapping, or `layers` holds none of its layers.

    Source: Karras, Laine and Aila 2019, section 3.1 and figure 3.
    """
    check_styles(G)
    with evaluating(G):
        used = G.synthesis.layers
        if not range(used)[layers]:
            raise ValueError(
                f"layers must hold some of 0..{used - 1}, got {layers.start or 0} up to {layers.stop}"
            )
        ws = each_layer(_mapped(G, rows, labels), used)[:, None].repeat(1, len(columns), 1, 1)
        ws[:, :, layers] = each_layer(_mapped(G, columns, labels), used)[None, :, layers]
        return G.synthesis(ws.flatten(0, 1)).unflatten(0, (len(rows), len(columns)))


@torch.no_grad()
def truncation_sweep(
    G: nn.Module, z: Tensor, psis: Sequence[float], *, cutoff: int | None = None, labels: Tensor | None = None
) -> Tensor:
    """The same latents at several truncations in W, w_avg + psi (w - w_avg).

    Args:
        G: a `gankit.models.style_blocks.StyleGenerator`.
        z: latents `[N, z_dim]`.
        psis: P of them. 1 is the generator itself, 0 its mean picture, a negative one the opposite of a picture.
        cutoff: how many of the layers are truncated, from the coarsest; None for all.
        labels: int64 `[N]`, for a conditional generator.

    Returns:
        `[P, N, *shape]`.

    Raises:
        ValueError: if the generator has no mapping and mean w, or a psi is not finite.

    Source: Karras, Laine and Aila 2019, appendix B and figure 8.
    """
    check_styles(G)
    if not hasattr(G, "w_avg"):
        raise ValueError(
            f"truncation in W needs the generator's mean w, which {type(G).__name__} does not have"
        )
    with evaluating(G):
        return torch.stack([generate(Truncated(G, psi, cutoff), z, labels) for psi in psis])


def check_styles(G: nn.Module) -> None:
    """Refuse a generator that has no w.

    Raises:
        ValueError: saying which have one.
    """
    if lead_shape(G) or not (hasattr(G, "mapping") and hasattr(G, "synthesis")):
        kind = "several side by side" if lead_shape(G) else type(G).__name__
        raise ValueError(
            f"styles need one generator with a mapping and a synthesis, as stylegan and stylegan2 have, got {kind}"
        )


def _mapped(G: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
    z = z.to(next(G.parameters()).dtype)
    return G.mapping(z, labels.expand(len(z))) if getattr(G, "n_classes", 0) else G.mapping(z)


@contextmanager
def evaluating(G: nn.Module) -> Iterator[None]:
    """G in evaluation mode, for a while."""
    was_training = G.training
    G.eval()
    try:
        yield
    finally:
        G.train(was_training)
