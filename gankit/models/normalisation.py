"""How the layers of a discriminator are normalised: variants of one network, by name.

A variant says which layers hold the weights, and what follows each hidden one before its non-linearity. `mlp`, `conv`
and `sngan` take its name as `normalisation`:

.. table:: Variants of normalisation.

   ==========  ===================================  ============================================================
   name        layers                               parameters more than "none"
   ==========  ===================================  ============================================================
   none        PyTorch's own                        -
   spectral    weights over their largest           none
               singular value
   layer       plain, then layer norm               a gain and a bias for each unit or channel that is normalised
   batch       plain, then batch norm               the same
   ==========  ===================================  ============================================================

Batch norm mixes the samples of a minibatch, so a penalty of a sample's slope has no clear meaning beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.models.blocks import BatchNorm2d
from gankit.models.spectral import SNConv2d, SNEmbedding, SNLinear

Make = Callable[..., nn.Module]


def layer_norm(channels: int) -> nn.GroupNorm:
    """Layer norm of `[N, C]` or `[N, C, H, W]`: each sample by the moments of its values, a gain and bias a channel.

    `nn.LayerNorm` would have a gain for each value of a feature map, which ties a network to one size of picture.

    Source: Ba et al. 2016, equations 3 and 4, as Kurach et al. 2019 have it in convolutional discriminators.
    """
    return nn.GroupNorm(1, channels)


class BatchNorm1d(BatchNorm2d):
    """Batch norm of features `[N, C]`; in training the batch is that of all processes that train together."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., None, None])[..., 0, 0]


@dataclass(frozen=True)
class Normalisation:
    """A variant.

    Attributes:
        conv, linear, embedding: layers with weights, called as PyTorch's.
        of_maps, of_features: channels -> the layer behind a hidden one, for `[N, C, H, W]` and for `[N, C]`.
    """

    conv: Make = nn.Conv2d
    linear: Make = nn.Linear
    embedding: Make = nn.Embedding
    of_maps: Callable[[int], nn.Module] | None = None
    of_features: Callable[[int], nn.Module] | None = None


NORMALISATIONS: Mapping[str, Normalisation] = {
    "none": Normalisation(),
    "spectral": Normalisation(SNConv2d, SNLinear, SNEmbedding),
    "layer": Normalisation(of_maps=layer_norm, of_features=layer_norm),
    "batch": Normalisation(of_maps=BatchNorm2d, of_features=BatchNorm1d),
}
"""The variants by name."""


def normalisation_of(name: str | Normalisation) -> Normalisation:
    """A variant by name; one of one's own is itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(name, Normalisation):
        return name
    if name not in NORMALISATIONS:
        raise ValueError(f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {name!r}")
    return NORMALISATIONS[name]


def paired(plain: Make, layer: Make) -> Make:
    """Make layers of one kind, and draw as many random numbers for each as for a plain one.

    Networks that differ in their layers then have equal weights at the start, seed by seed.
    """
    if layer is plain:
        return plain

    def make(*arguments: int, **settings: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            made = layer(*arguments, **settings)
        plain(*arguments, **settings)
        return made

    return make
