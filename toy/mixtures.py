"""Mixtures of Gaussians in the plane, with exact densities: where mode dropping can be counted and computed.

The ring and the spiral are those of `gankit.data` (sample-weighting paper, figures 4 and 19, table 3), the grid is the
third usual test. With both densities known, so is the optimal discriminator of equation 7,

    D(x) = r(x) / (r(x) + g(x)),        with logit log r(x) - log g(x),

and with it what a mode has to say in the generator's update (section 2.3).

    >>> real = ring()
    >>> fake = real.reweighted([1, 1, 1, 1, 1, 1, 1, 0.01])      # one mode nearly dropped
    >>> x, label = fake.sample(1_000, torch.Generator().manual_seed(0))
    >>> optimal_logit(real, fake, x)                             # highest in that mode
    >>> voices(real.weights, fake.weights, gk.losses["ns"].g_weight)

Counting is `gankit.metrics.modes`, with its convention: a point belongs to its nearest mode if it lies within three
standard deviations of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import gankit as gk
from gankit.metrics import modes


@dataclass(frozen=True, eq=False)
class Mixture:
    """Isotropic Gaussians of one width.

    Attributes:
        centers: float64 ``[K, d]``, the means.
        weights: float64 ``[K]``, the share of each mode, adding to 1; given on any scale, none negative.
        std: standard deviation of every mode, above 0, in the units of the points.
        name: in words.

    Raises:
        ValueError: shapes that do not fit, negative weights or none above 0, or a width that is not positive.
    """

    centers: Tensor
    weights: Tensor
    std: float
    name: str = "mixture"

    def __post_init__(self) -> None:
        centers = torch.as_tensor(self.centers, dtype=torch.float64)
        weights = torch.as_tensor(self.weights, dtype=torch.float64)
        if centers.ndim != 2 or weights.shape != centers.shape[:1] or len(centers) == 0:
            raise ValueError(
                "centers must be [K, d] and weights [K], "
                f"got shapes {list(centers.shape)} and {list(weights.shape)}"
            )
        if not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f"weights must be at least 0 and not all 0, got {weights.tolist()}")
        if not (self.std > 0 and math.isfinite(self.std)):
            raise ValueError(f"std must be positive and finite, got {self.std}")
        object.__setattr__(self, "centers", centers)
        object.__setattr__(self, "weights", weights / weights.sum())

    def log_density(self, x: Tensor) -> Tensor:
        """The exact logarithm of the density.

        Args:
            x: points ``[..., N, d]``.

        Returns:
            float64 ``[..., N]``; finite wherever float64 reaches, also where the density itself underflows.
        """
        d = self.centers.shape[1]
        if x.ndim < 2 or x.shape[-1] != d:
            raise ValueError(f"x must have shape [..., N, {d}], got {list(x.shape)}")
        # Differences first: |x|^2 - 2 x c + |c|^2 would lose the digits that a narrow mode needs.
        squares = (x.double()[..., None, :] - self.centers).square().sum(-1)  # [..., N, K]
        logits = self.weights.log() - squares / (2 * self.std**2)
        return logits.logsumexp(-1) - d / 2 * math.log(2 * math.pi * self.std**2)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n points ``[n, d]`` (float64) and the modes ``[n]`` that they were drawn from."""
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        label = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.centers.shape[1], dtype=torch.float64, generator=generator)
        return self.centers[label] + self.std * noise, label

    def dataset(self, n: int = 50_000, seed: int = 0) -> gk.data.Dataset:
        """n points as a data set to train on, with `centers` and `std`."""
        points, label = self.sample(n, torch.Generator().manual_seed(seed))
        names = tuple(map(str, range(len(self.centers))))
        centers = self.centers.float()
        return gk.data.Dataset(self.name, points.float(), label, names, centers=centers, std=self.std)

    def reweighted(self, weights: Tensor | Sequence[float]) -> Mixture:
        """The same modes with other weights ``[K]``, on any scale: a generator that makes some too often."""
        return replace(self, weights=torch.as_tensor(weights, dtype=torch.float64))

    def assign(self, x: Tensor, radius: float = 3.0) -> Tensor:
        """The mode of each point, int64 ``[..., N]``, or -1 beyond `radius` standard deviations of all."""
        return modes.mode_assignment(x, self.centers, self.std, radius)

    def frequencies(self, x: Tensor, radius: float = 3.0) -> Tensor:
        """The share of the points in each mode, ``[..., K]``; what is missing to 1 lies in no mode."""
        return modes.frequencies(self.assign(x, radius), len(self.centers))

    def covered(self, x: Tensor, radius: float = 3.0, share: float = 0.1) -> Tensor:
        """Number of modes that receive at least `share` of their own weight, int64 ``[...]``."""
        return modes.modes_covered(
            x, self.centers, self.std, weights=self.weights, radius=radius, share=share
        )


def ring() -> Mixture:
    """Eight equal modes on a circle of radius 2, standard deviation 0.05: the mixture of `load("ring")`."""
    return Mixture(*gk.data.mixture("ring"), name="ring")


def spiral() -> Mixture:
    """Twelve modes on 2.2 turns of a spiral, with weights growing outwards: the mixture of `load("spiral")`.

    The weights are the Data row of the sample-weighting paper's table 3, from 2.0 to 14.7 %.
    """
    return Mixture(*gk.data.mixture("spiral"), name="spiral")


def grid(side: int = 5, spacing: float = 1.0, std: float = 0.05) -> Mixture:
    """Equal modes on a square grid around the origin.

    Args:
        side: modes along each axis, at least 1.
        spacing: between neighbours, in the units of the points, above 0.
        std: standard deviation of every mode, above 0.

    Returns:
        A mixture of side x side modes, row by row.

    Raises:
        ValueError: an argument is out of range.
    """
    if side < 1 or not spacing > 0:
        raise ValueError(f"side must be at least 1 and spacing above 0, got {side} and {spacing}")
    axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centers = torch.stack([x.flatten(), y.flatten()], 1)
    return Mixture(centers, torch.ones(side**2), std, name="grid")


def optimal_logit(real: Mixture, fake: Mixture, x: Tensor) -> Tensor:
    """Logit of the optimal discriminator for two known densities, log r(x) - log g(x) (equation 7).

    Args:
        real, fake: the densities of data and generator.
        x: points ``[..., N, d]``.

    Returns:
        float64 ``[..., N]``.
    """
    return real.log_density(x) - fake.log_density(x)


def voices(real: Tensor, fake: Tensor, g_weight: Callable[[Tensor], Tensor]) -> Tensor:
    """The share of each mode in the sum of all sample weights, for modes without overlap (section 2.3).

    A mode is heard as often as it is generated, times the weight of its samples' logit, log(real_k / fake_k). Costs
    that scale a whole minibatch (MM-nsat) have the voices of the cost that they scale (MM).

    Args:
        real: ``[K]``, the data's share of each mode, above 0.
        fake: ``[K]``, the generator's share of each mode, above 0; both on any scale.
        g_weight: weight of a generated sample by its logit, such as `gk.losses["ns"].g_weight`.

    Returns:
        float64 ``[K]``, adding to 1.

    Raises:
        ValueError: shapes differ or a share is not positive.
    """
    real, fake = (torch.as_tensor(x, dtype=torch.float64) for x in (real, fake))
    if real.shape != fake.shape or real.ndim != 1 or not ((real > 0).all() and (fake > 0).all()):
        raise ValueError(
            "real and fake must be [K] and positive (a dropped mode has no voice at all), "
            f"got {real.tolist()} and {fake.tolist()}"
        )
    real, fake = real / real.sum(), fake / fake.sum()
    voice = fake * g_weight((real / fake).log())
    return voice / voice.sum()
