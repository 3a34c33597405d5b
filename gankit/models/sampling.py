"""Samples from a generator, and scores from a discriminator."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.models.ensemble import layers_of, lead_shape
from gankit.streams import Streams


def generate(G: nn.Module, z: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
    """G(z), G(z, labels) for a conditional generator, and with noise at the end for one whose layers take some.

    Args:
        G: a generator or an ensemble; `G.noise_dim`, where there is one, says how many normal numbers a sample needs.
        z: latents `[*lead, N, z_dim]`, cast to the type of G's parameters.
        labels: int64 `[*lead, N]`.
        noise: `[*lead, N, noise_dim]`.
    """
    dtype = next(G.parameters()).dtype
    given = [labels] if getattr(G, "n_classes", 0) else []
    if getattr(G, "noise_dim", 0):
        given.append(noise if noise is None else noise.to(dtype))
    return G(z.to(dtype), *given)


def score(D: nn.Module, x: Tensor, labels: Tensor | None = None) -> Tensor:
    """D(x), or D(x, labels) for a conditional discriminator."""
    return D(x, labels) if getattr(D, "n_classes", 0) else D(x)


def logits(D: nn.Module, x: Tensor, labels: Tensor | None = None) -> Tensor:
    """The same without what a class head says of classes."""
    said = score(D, x, labels)
    return said[0] if isinstance(said, tuple) else said


def truncated_normal(streams: Streams, truncation: float, *shape: int) -> Tensor:
    """Normal numbers conditioned on |z| <= truncation, `[*lead, *shape]`, float32.

    Drawn by inverting the cumulative distribution, so every number costs the same however narrow the
    interval; the usual redraw-until-inside has the same distribution.

    Args:
        streams: source of uniform numbers.
        truncation: largest absolute value, above 0. Small values trade diversity for quality.
        shape: what one replica gets.

    Raises:
        ValueError: if `truncation` is not positive.

    Source: Brock, Donahue and Simonyan 2019, section 3.1 (the truncation trick).
    """
    if not truncation > 0:
        raise ValueError(f"truncation is the largest |z| and must be above 0, got {truncation}")
    limit = torch.special.ndtr(torch.tensor(float(truncation), dtype=torch.float64)).item()
    u = streams.uniform(*shape).double().clamp(2**-25, 1 - 2**-25)
    z = torch.special.ndtri(1 - limit + u * (2 * limit - 1))
    return z.float().clamp(-truncation, truncation)


@torch.no_grad()
def standing_statistics(
    G: nn.Module,
    *,
    batches: int = 100,
    batch_size: int = 64,
    seed: int = 0,
    truncation: float | None = None,
) -> nn.Module:
    """A copy of G whose batch normalisation, in evaluation, uses statistics of this very network's activations.

    The running statistics that training leaves lag behind the weights; an averaged generator (`Teacher`) has copies of
    another network's; and truncated z have activations that neither has seen. Here every layer's mean and variance
    are averaged, with equal weights, over `batches` forward passes. A network without batch normalisation is only
    copied.

    Args:
        G: a generator, `run.teacher.net` for example, or an ensemble.
        batches: number of forward passes, at least 1 (typically 100 in the paper).
        batch_size: samples in each, of each replica, at least 2.
        seed: of z and of the labels, which are drawn uniformly.
        truncation: largest |z|, which should be that of the samples to come (`sample`); None for none.

    Returns:
        The copy, in evaluation mode, on G's device. G stays as it is.

    Raises:
        ValueError: if `batches` is below 1 or `batch_size` below 2.

    Source: Brock, Donahue and Simonyan 2019, appendix C ("standing statistics").
    """
    if batches < 1 or batch_size < 2:
        raise ValueError(
            f"batches must be at least 1 and batch_size at least 2, got {batches} and {batch_size}"
        )
    net = copy.deepcopy(G).eval()
    norms = [m for m in layers_of(net) if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    lead = lead_shape(net)
    streams = Streams(
        [seed] * (lead[0] if lead else 1), lead, next(net.parameters()).device, "standing statistics"
    )
    n_classes = getattr(net, "n_classes", 0)
    for k in range(1, batches + 1 if norms else 1):
        # A layer in training mode moves its statistics towards the batch's by `momentum`. By 1/k makes the mean of k.
        for norm in norms:
            norm.train()
            norm.momentum = 1 / k
        shape = (batch_size, net.z_dim)
        z = streams.normal(*shape) if truncation is None else truncated_normal(streams, truncation, *shape)
        generate(net, z, streams.integers(n_classes, batch_size) if n_classes else None)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


@torch.no_grad()
def sample(
    G: nn.Module,
    n: int,
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    truncation: float | None = None,
    batch_size: int = 1000,
) -> Tensor:
    """Generate n samples, in evaluation mode (batch norm uses its running statistics).

    Args:
        G: a generator or an ensemble of S of them. Replicas get the same z.
        n: number of samples per replica, at least 1.
        seed: seed of z (and of the labels, where none are given).
        labels: int64 `[n]` for a conditional generator, or shares of the classes, float `[n, K]`, for what lies between
            them; drawn uniformly when None.
        truncation: largest |z| (`truncated_normal`); None draws from the whole normal distribution.
        batch_size: samples generated at a time. It does not change the result for networks without batch
            statistics, up to rounding.

    Returns:
        `[n, *shape]`, or `[S, n, *shape]` for an ensemble, on the generator's device.

    Raises:
        ValueError: if n or batch_size is below 1, or `labels` does not hold n labels.
    """
    parts = Sampler(G, seed, labels, truncation).batches(n, batch_size)
    return torch.cat([images for images, _ in parts], len(lead_shape(G)))


@dataclass(frozen=True, eq=False)
class Sampler:
    """The samples that `sample` draws, batch by batch: many do not fit in memory, and processes share them out.

    All batches come from one stream of z, so the samples are the same however many processes make them.

    Attributes:
        G, seed, labels, truncation: as for `sample`.
        z: latents `[n, z_dim]` in place of drawn ones (`z_path`).
    """

    G: nn.Module
    seed: int = 0
    labels: Tensor | None = None
    truncation: float | None = None
    z: Tensor | None = None

    def __call__(self, n: int) -> Tensor:
        """n samples at once: `sample`."""
        return torch.cat([images for images, _ in self.batches(n)], len(lead_shape(self.G)))

    @torch.no_grad()
    def batches(
        self, n: int, batch_size: int = 1000, part: slice = slice(None)
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """n samples in batches.

        Args:
            n: number of samples per replica, at least 1.
            batch_size: samples in each batch; the last may be smaller.
            part: which of the `ceil(n / batch_size)` batches to make.

        Yields:
            Samples `[*lead, batch_size, *shape]`, and the labels `[*lead, batch_size]` that a conditional generator
            was given (or shares of the classes, with K behind), or None.

        Raises:
            ValueError: if n or batch_size is below 1, or `labels` or `z` does not hold n.
        """
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1, got {n} and {batch_size}")
        n_classes = getattr(self.G, "n_classes", 0)
        _check_labels(self.labels, n, n_classes)
        if self.z is not None and self.z.shape != (n, self.G.z_dim):
            raise ValueError(f"z must have shape ({n}, {self.G.z_dim}), got {tuple(self.z.shape)}")
        lead = lead_shape(self.G)
        dim = len(lead)
        device = next(self.G.parameters()).device
        streams = Streams([self.seed] * (lead[0] if lead else 1), lead, device, name="sample")
        # All z at once, so that the samples depend neither on batch_size nor on part.
        if self.z is not None:
            z = self.z.to(device).expand(*lead, *self.z.shape)
        elif self.truncation is None:
            z = streams.normal(n, self.G.z_dim)
        else:
            z = truncated_normal(streams, self.truncation, n, self.G.z_dim)
        y = None
        if n_classes:
            y = (
                streams.integers(n_classes, n)
                if self.labels is None
                else self.labels.to(device).expand(*lead, *self.labels.shape)
            )
        for start in range(0, n, batch_size)[part]:
            length = min(batch_size, n - start)
            labels = None if y is None else y.narrow(dim, start, length)
            was_training = self.G.training
            self.G.eval()
            try:
                images = generate(self.G, z.narrow(dim, start, length), labels, self._noise(start, length))
            finally:
                self.G.train(was_training)
            yield images, labels

    def _noise(self, start: int, length: int) -> Tensor | None:
        """Noise for the layers of a generator that takes some, `[*lead, length, noise_dim]`: every sample has a stream
        of its own, since noise for all samples at once would not fit in memory."""
        if not (noise_dim := getattr(self.G, "noise_dim", 0)):
            return None
        lead, device = lead_shape(self.G), next(self.G.parameters()).device
        seeds = [self.seed] * (lead[0] if lead else 1)
        rows = [
            Streams(seeds, lead, device, name=f"noise of sample {i}").normal(1, noise_dim)
            for i in range(start, start + length)
        ]
        return torch.cat(rows, len(lead))


def _check_labels(labels: Tensor | None, n: int, n_classes: int) -> None:
    if labels is None:
        return
    expected = (n, n_classes) if labels.is_floating_point() else (n,)
    if labels.shape != expected:
        what = "the shares of all classes for each sample" if labels.is_floating_point() else "one per sample"
        raise ValueError(f"labels must have shape {expected}, {what}, got {tuple(labels.shape)}")


# --- Paths ------------------------------------------------------------------------------------------------------


def z_path(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Latents on the way from one z to another, `[R, steps, z_dim]`: cos(a) start + sin(a) end, a from 0 to pi/2.

    Every one of them is normal where starts and ends are, so a sample on the way is as likely as any other; those of a
    straight line are too short in the middle (White 2016, "Sampling generative networks", section 2).

    Args:
        starts, ends: `[R, z_dim]` each, independent of each other.
        steps: latents on each way, both ends included, at least 2.

    Raises:
        ValueError: shapes that differ, or fewer than 2 steps.
    """
    if starts.shape != ends.shape or starts.ndim != 2:
        raise ValueError(
            f"starts and ends must be [R, z_dim], got {list(starts.shape)} and {list(ends.shape)}"
        )
    a = _fractions(steps, starts)[:, None] * (torch.pi / 2)
    return a.cos() * starts[:, None] + a.sin() * ends[:, None]


def class_path(labels: Tensor, steps: int, n_classes: int) -> Tensor:
    """Shares of the classes on the way through some of them, float32 `[steps, K]`, in equal paces.

    One-hot vectors, embeddings, gains and biases depend on the shares linearly, so a generator walks in straight lines
    from one class's to the next one's, whichever of them it has.

    Args:
        labels: int64 `[M]`, at least 2.
        steps: on the whole way, both ends included, at least 2.
        n_classes: K.

    Raises:
        ValueError: fewer than 2 labels or steps.
    """
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(f"labels must be at least 2 classes, [M], got shape {list(labels.shape)}")
    corners = torch.nn.functional.one_hot(labels, n_classes).float()
    at = _fractions(steps, corners) * (len(labels) - 1)
    behind = at.long().clamp_max(len(labels) - 2)
    return torch.lerp(corners[behind], corners[behind + 1], (at - behind)[:, None])


def _fractions(steps: int, like: Tensor) -> Tensor:
    if steps < 2:
        raise ValueError(f"steps must be at least 2, the two ends, got {steps}")
    return torch.linspace(0, 1, steps, dtype=like.dtype, device=like.device)
