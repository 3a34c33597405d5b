"""Pieces that several networks share: the generator's and discriminator's outer form, and their initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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


class Squeeze(nn.Module):
    """Drop the last dimension, `[..., N, 1]` -> `[..., N]`: one logit per sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(-1)


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
