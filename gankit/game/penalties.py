"""Penalties and projections: terms of a player's cost (`gankit.game.play`), and what is done to D's weights.

*Penalties of the discriminator's slope* are terms of D's cost. Each sample's gradient is exact because a logit depends
on its own sample only; that fails for a discriminator with batch normalisation, where a penalty of this kind has no
clear meaning (Gulrajani et al. 2017, section 4). Slopes are those of D as it sees samples, through the augmentation,
and are computed in float32, also where the rest of a step runs in lower precision.

*Penalties of the weights* are terms of the cost of the player that learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.device import constant
from gankit.game.play import Play
from gankit.models.ensemble import Ensemble, lead_shape

PerReplica = float | tuple[float, ...]


@dataclass(frozen=True)
class R1:
    """gamma / 2 times the mean squared gradient norm on real samples (zero-centred penalty).

    Attributes:
        gamma: strength, at least 0; in an ensemble also a tuple, one number per replica.

    Source: Mescheder, Geiger and Nowozin 2018, equation 9.
    """

    gamma: PerReplica

    def __post_init__(self) -> None:
        _check_strength("gamma", self.gamma)

    def __call__(self, play: Play) -> Tensor:
        return _half(self.gamma, squared_slope(_score(play), play.real))


@dataclass(frozen=True)
class R2:
    """gamma / 2 times the mean squared gradient norm on generated samples (zero-centred penalty), as `R1` on real ones.

    Attributes:
        gamma: strength, at least 0; in an ensemble also a tuple, one number per replica.

    Source: Mescheder, Geiger and Nowozin 2018, equation 10.
    """

    gamma: PerReplica

    def __post_init__(self) -> None:
        _check_strength("gamma", self.gamma)

    def __call__(self, play: Play) -> Tensor:
        return _half(self.gamma, squared_slope(_score(play, play.labels), play.fake))


@dataclass(frozen=True)
class WganGP:
    """weight times the mean of (|gradient| - 1)^2 at random points between real and fake samples.

    Attributes:
        weight: strength lambda, at least 0 (10 in the paper); in an ensemble also a tuple, one number per replica.

    Source: Gulrajani et al. 2017, equation 3.
    """

    weight: PerReplica = 10.0

    def __post_init__(self) -> None:
        _check_strength("weight", self.weight)

    def __call__(self, play: Play) -> Tensor:
        real, fake = play.real, play.fake
        u = play.streams.uniform(play.n).to(real)
        between = torch.lerp(fake, real, u.reshape(*u.shape, *[1] * (real.ndim - u.ndim)))
        return _times(self.weight, (slope(_score(play), between) - 1).square().mean(-1))


@dataclass(frozen=True)
class Dragan:
    """weight times the mean of (|gradient| - 1)^2 at real samples with noise on them.

    A sample's noise is alpha spread s u: u is uniform in [0, 1) for each value and alpha for each sample, and s is the
    standard deviation of all values of the minibatch. This is the authors' programme, which takes a random point on the
    line from a sample to its noisy copy; algorithm 1 of their text has Gaussian noise and no alpha.

    Attributes:
        weight: strength lambda, at least 0 (10 in the paper); in an ensemble also a tuple, one number per replica.
        spread: size of the noise, above 0, in standard deviations of the data.

    Source: Kodali et al. 2017, "On convergence and stability of GANs", algorithm 1.
    """

    weight: PerReplica = 10.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        _check_strength("weight", self.weight)
        if not 0 < self.spread < float("inf"):
            raise ValueError(f"spread must be above 0 and finite, got {self.spread}")

    def __call__(self, play: Play) -> Tensor:
        real, lead = play.real, len(play.lead)
        each = (..., *[None] * (real.ndim - lead - 1))  # one number per sample, spread over its values
        deviation = real.flatten(lead).std(-1, correction=0)
        noise = play.streams.uniform(*real.shape[lead:]).to(real)
        alpha = play.streams.uniform(play.n).to(real)
        near = real + self.spread * (alpha * deviation[..., None])[each] * noise
        return _times(self.weight, (slope(_score(play), near) - 1).square().mean(-1))


@dataclass(frozen=True)
class L2:
    """weight times the mean over D's weight matrices of |W|_F^2 / 2 (weight decay as a term of the cost).

    Kernels count as matrices; biases, and gains and biases of normalising layers, are left alone, and so are
    embeddings. The mean makes the strength independent of the number of layers.

    Attributes:
        weight: strength lambda, at least 0; in an ensemble also a tuple, one number per replica.

    Source: Kurach et al. 2019, section 2.2; the mean over layers is their programme's.
    """

    weight: PerReplica

    def __post_init__(self) -> None:
        _check_strength("weight", self.weight)

    def __call__(self, play: Play) -> Tensor:
        first = len(play.lead)
        squares = [matrix.square().flatten(first).sum(-1) / 2 for matrix in _matrices(play.learner)]
        return _times(self.weight, torch.stack(squares).mean(0))


@dataclass(frozen=True)
class Drift:
    """weight times the mean squared logit of real samples, which keeps a Wasserstein critic near zero.

    Attributes:
        weight: strength, at least 0 (0.001 in the paper).

    Source: Karras et al. 2018 (ProGAN), appendix A.1.
    """

    weight: float = 0.001

    def __post_init__(self) -> None:
        _check_strength("weight", self.weight)

    def __call__(self, play: Play) -> Tensor:
        return self.weight * play.real_verdict.logits.square().mean(-1)


@dataclass(frozen=True)
class Orthogonal:
    """weight times the sum over weight matrices of the squared inner products of different rows.

    A convolution's kernel counts as a matrix with one row per filter. Rows may have any length, unlike in plain
    orthogonal regularisation, so a network keeps its scale. Embeddings and biases are left alone.

    Attributes:
        weight: strength beta, at least 0 (1e-4 in the paper).

    Source: Brock, Donahue and Simonyan 2019, equation 3.
    """

    weight: float = 1e-4

    def __post_init__(self) -> None:
        _check_strength("weight", self.weight)

    def __call__(self, play: Play) -> Tensor:
        with torch.autocast(play.z.device.type, enabled=False):
            return self.weight * row_products(play.learner)


@dataclass(frozen=True)
class ClipWeights:
    """Clips every parameter to [-limit, limit]: the first WGAN's way to a Lipschitz critic.

    Attributes:
        limit: above 0 (0.01 in the paper).

    Source: Arjovsky, Chintala and Bottou 2017, algorithm 1.
    """

    limit: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.limit < float("inf"):
            raise ValueError(f"limit must be above 0 and finite, got {self.limit}")

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> None:
        torch._foreach_clamp_min_(list(network.parameters()), -self.limit)
        torch._foreach_clamp_max_(list(network.parameters()), self.limit)


def row_products(network: nn.Module) -> Tensor:
    """Sum over weight matrices of the squared inner products of different rows, `[*lead]` (see `Orthogonal`)."""
    lead = lead_shape(network)
    total = torch.zeros(lead, device=next(network.parameters()).device)
    for matrix in _matrices(network):
        rows = matrix.flatten(len(lead) + 1)
        products = rows @ rows.mT
        total = total + (products - torch.diag_embed(products.diagonal(0, -2, -1))).square().sum((-2, -1))
    return total


def _matrices(network: nn.Module) -> Iterator[Tensor]:
    """Parameters with rows and columns behind the replicas' dimension, those of embeddings excepted."""
    # A stacked network has its template's parameters in the template's order, and none of its layers.
    plain = network.template if isinstance(network, Ensemble) else network
    embeddings = {
        p for layer in plain.modules() if isinstance(layer, nn.Embedding) for p in layer.parameters()
    }
    for p, in_plain in zip(network.parameters(), plain.parameters(), strict=True):
        if in_plain.ndim >= 2 and in_plain not in embeddings:
            yield p


def _score(play: Play, labels: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """D's logits as a function of samples, with the labels of the real ones unless others are given."""
    return lambda x: play.judge(x, play.real_labels if labels is None else labels).logits


def _half(gamma: PerReplica, squared_slope: Tensor) -> Tensor:
    """gamma / 2 times the mean over the minibatch."""
    return _times(gamma, squared_slope.mean(-1) / 2)


def _times(strength: PerReplica, value: Tensor) -> Tensor:
    """A strength, or one for each replica, times a value `[*lead]`."""
    return value * constant(strength, value.device, value.dtype)


def slope(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """|df/dx| for each sample: x `[..., N, *shape]` -> `[..., N]`, differentiable also where it is 0."""
    squared = squared_slope(score, x)
    # sqrt has an infinite slope at zero; adding the smallest normal number keeps 0 * inf out of the step.
    return (squared + torch.finfo(squared.dtype).tiny).sqrt()


def squared_slope(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """|df/dx|^2 for each sample: x `[..., N, *shape]` -> `[..., N]`, differentiable in D's parameters."""
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        logits = score(x)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().flatten(logits.ndim).sum(-1) if x.ndim > logits.ndim else gradient.square()


def _check_strength(name: str, value: PerReplica) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if not 0 <= one < float("inf"):
            raise ValueError(f"{name} is the penalty's strength and must be at least 0 and finite, got {one}")
