"""Several generators as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gankit.models.ensemble import lead_shape

# Spacing, in z, of the digits that choose: far below what a network resolves, far above float32's rounding.
_FINE = 2**10


class Union(nn.Module):
    """A mixture of generators: each sample comes from one of them, chosen by their shares.

    The choice is read off digits of z that make no difference to a network, so that the mixture is itself a
    generator, a function of z: whatever takes a generator takes it (`sample`, `Sampler`, `metrics.evaluate`,
    `classifiers.synthetic`), truncated z included, and the samples depend neither on the batch nor on a hidden state.
    "Boosting generative networks for incremental learning" (section 5.1) chooses once for each batch of training;
    the distribution of a sample is the same.

    Args:
        generators: plain networks, or ensembles of equally many replicas; of one z_dim, shape and number of classes.
        shares: how often each is chosen, up to a factor; None is equally often.

    Attributes:
        z_dim, shape, n_classes: as of each of them.
        members: the generators.
        shares: float64 ``[len(generators)]``, sums to one.

    Raises:
        ValueError: there is no generator, they do not fit together, or the shares are not one positive number each.
    """

    def __init__(self, generators: Sequence[nn.Module], shares: Sequence[float] | None = None) -> None:
        super().__init__()
        if not generators:
            raise ValueError("generators is empty: give at least one")
        for name, of in _ALIKE.items():
            values = [of(G) for G in generators]
            if any(value != values[0] for value in values):
                raise ValueError(f"generators must have one {name}, got {', '.join(map(str, values))}")
        shares = [1.0] * len(generators) if shares is None else list(shares)
        if len(shares) != len(generators) or not all(0 < share < float("inf") for share in shares):
            raise ValueError(
                f"shares must be one positive number for each of {len(generators)} generators, got {shares}"
            )
        self.members = nn.ModuleList(generators)
        self.z_dim, self.n_classes = generators[0].z_dim, getattr(generators[0], "n_classes", 0)
        self.shape = getattr(generators[0], "shape", None)
        if lead := lead_shape(generators[0]):
            self.replicas, self.seeds = lead[0], tuple(generators[0].seeds)
        whole = torch.tensor(shares, dtype=torch.float64)
        self.register_buffer("shares", whole / whole.sum(), persistent=False)

    def choose(self, z: Tensor) -> Tensor:
        """Which generator makes each sample: int64 ``[..., N]`` for z ``[..., N, z_dim]``."""
        u = (z.double().sum(-1) * _FINE) % 1
        edges = self.shares.cumsum(0)[:-1].to(z.device)
        return torch.bucketize(u, edges, right=True)

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        """Samples ``[..., N, *shape]`` of z ``[..., N, z_dim]`` (and labels ``[..., N]``)."""
        chosen = self.choose(z)
        if hasattr(self, "replicas"):
            # Replicas choose differently, so each member makes all samples.
            made = torch.stack([G(z, *labels) for G in self.members])
            place = chosen.reshape(1, *chosen.shape, *[1] * (made.ndim - 1 - chosen.ndim))
            return made.gather(0, place.expand(1, *made.shape[1:]))[0]
        rows = [(chosen == i).nonzero()[:, 0] for i in range(len(self.members))]
        parts = [
            G(z[own], *(label[own] for label in labels))
            for G, own in zip(self.members, rows, strict=True)
            if len(own)
        ]
        return torch.cat(parts)[torch.cat(rows).argsort()]


_ALIKE = {
    "z_dim": lambda G: G.z_dim,
    "number of classes": lambda G: getattr(G, "n_classes", 0),
    "shape": lambda G: getattr(G, "shape", None),
    "number of replicas": lead_shape,
}
