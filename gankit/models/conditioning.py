"""How a label enters the two networks, as one argument of an architecture.

.. table:: Ways of the label into G.

   ==================  ============================================================================================
   of G                the label
   ==================  ============================================================================================
   "one-hot"           is joined to z as K numbers (Mirza and Osindero 2014)
   "embedding"         is joined to z as a learned vector
   "batch-norm"        chooses the gain and the bias of every normalisation (Dumoulin et al. 2017)
   "skip-z"            makes them, together with a chunk of z, by way of one shared vector (Brock et al. 2019)
   ==================  ============================================================================================

.. table:: Ways of the label into D.

   ==================  ============================================================================================
   of D                the label
   ==================  ============================================================================================
   "concat"            is joined to the sample, to a picture as K constant maps (Mirza and Osindero 2014)
   "concat-hidden"     is joined to a hidden layer as a learned vector (Reed et al. 2016)
   "class-head"        is not read: D names a class beside its logit (AC-GAN, Odena et al. 2017); terms of the two
                       costs make use of that (`gankit.game.classes`)
   "projection"        adds an inner product <V_y, phi(x)> to the logit (Miyato and Koyama 2018)
   ==================  ============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.models.blocks import (
    ClassTable,
    ConditionalBatchNorm2d,
    ConditionalDiscriminator,
    ConditionalGenerator,
    Conditioned,
    Discriminator,
    Generator,
    HierarchicalGenerator,
    Norm,
    Projection,
    Squeeze,
    equal_chunk,
    positive,
)

G_WAYS = ("one-hot", "embedding", "batch-norm", "skip-z")
D_WAYS = ("concat", "concat-hidden", "class-head", "projection")


@dataclass(frozen=True)
class Condition:
    """The classes and where they enter (see the module's tables).

    Attributes:
        n_classes: K; labels are 0..K-1.
        g: one of "one-hot", "embedding", "batch-norm", "skip-z". A generator without normalisation (`mlp`, `conv`) gets
            some with the last two.
        d: one of "concat", "concat-hidden", "class-head", "projection".
        y_dim: length of the learned vectors of "embedding", "skip-z" and "concat-hidden".

    Raises:
        ValueError: an unknown way, or a size that is not a positive whole number.
    """

    n_classes: int
    g: str = "one-hot"
    d: str = "projection"
    y_dim: int = 32

    def __post_init__(self) -> None:
        positive(n_classes=self.n_classes, y_dim=self.y_dim)
        for name, way, ways in (("g", self.g, G_WAYS), ("d", self.d, D_WAYS)):
            if way not in ways:
                raise ValueError(f"{name}_condition must be one of {', '.join(ways)}, got {way!r}")


class OneHot(nn.Module):
    """Labels int64 `[...]` as K numbers, `[..., K]`: 1 at the label. Shares of the classes `[..., K]` stay."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes

    def forward(self, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            return labels
        return (labels[..., None] == torch.arange(self.n_classes, device=labels.device)).float()


class Join(Conditioned):
    """A label's numbers behind the features `[N, C]`, or behind the channels of each pixel, `[N, C, H, W]`.

    Attributes:
        embed: labels -> `[N, size]`.
        size: how many numbers.
    """

    def __init__(self, embed: nn.Module, size: int) -> None:
        super().__init__()
        self.embed = embed
        self.size = size

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        e = self.embed(labels).to(h)
        pixels = h.shape[e.ndim :]
        e = e.reshape(*e.shape, *[1] * len(pixels)).expand(*e.shape, *pixels)
        return torch.cat([h, e], -1 - len(pixels))


class ClassHead(nn.Module):
    """Features `[N, C]` to the pair (logits `[N]`, class logits `[N, K]`).

    Source: Odena, Olah and Shlens 2017, "Conditional image synthesis with auxiliary classifier GANs", section 3.
    """

    def __init__(self, psi: nn.Module, classes: nn.Module) -> None:
        super().__init__()
        self.psi = psi
        self.classes = classes

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        return self.psi(phi).squeeze(-1), self.classes(phi)


def players(
    condition: Condition | None,
    make_G: Callable[[], nn.Module],
    make_D: Callable[[], Discriminator],
    init: Callable[[nn.Module], None],
) -> tuple[nn.Module, Discriminator]:
    """(G, D) with initial weights. Those of a conditional G are drawn before D is made: ways to condition D, at a seed,
    begin with the same G."""
    G = make_G()
    if condition is not None:
        init(G)
    D = make_D()
    if condition is None:
        init(G)
    init(D)
    return G, D


def generator(
    condition: Condition | None,
    layers: Callable[[int, Norm | None], list[nn.Module]],
    z_dim: int,
    shape: tuple[int, ...],
    *,
    places: int,
    norm: type[ConditionalBatchNorm2d],
    linear: type[nn.Linear] = nn.Linear,
    plain: Norm | None = None,
) -> nn.Module:
    """A generator of these layers that reads labels in the condition's way; without a condition, it reads none.

    Args:
        condition: None for an unconditional generator.
        layers: (numbers that the first layer reads, what makes a normalisation of so many channels) -> the layers.
        z_dim, shape: as for `Generator`.
        places: of "skip-z": the first layer and each layer or block that is normalised.
        norm: the conditional normalisation.
        linear: maps the shared vector to gains and biases ("skip-z").
        plain: the normalisation that does not read the label, or None for none.

    Raises:
        ValueError: "skip-z" with a `z_dim` that does not split into `places` chunks.
    """
    if condition is None:
        return Generator(*layers(z_dim, plain), z_dim=z_dim, shape=shape)
    n_classes, y_dim = condition.n_classes, condition.y_dim
    if condition.g in ("batch-norm", "skip-z") and places < 2:
        raise ValueError(f"g_condition {condition.g!r} needs a hidden layer, so a depth of at least 2")
    if condition.g == "skip-z":
        chunk = equal_chunk(z_dim, places)
        made = layers(chunk, lambda c: norm(c, lambda c: linear(y_dim + chunk, c, bias=False)))
        return HierarchicalGenerator(ClassTable(n_classes, y_dim), *made, z_dim=z_dim, shape=shape)
    if condition.g == "batch-norm":
        made = layers(z_dim, lambda c: norm(c, lambda c: ClassTable(n_classes, c)))
    else:
        first = (
            Join(OneHot(n_classes), n_classes)
            if condition.g == "one-hot"
            else Join(ClassTable(n_classes, y_dim), y_dim)
        )
        made = [first, *layers(z_dim + first.size, plain)]
    return ConditionalGenerator(*made, z_dim=z_dim, shape=shape, n_classes=n_classes)


def discriminator(
    condition: Condition | None,
    layers: Callable[[Mapping[int, Join]], list[nn.Module]],
    features: int,
    *,
    hidden: int,
    linear: type[nn.Linear] = nn.Linear,
    embedding: type[nn.Embedding] = nn.Embedding,
) -> Discriminator:
    """A discriminator of these layers that reads labels in the condition's way; without a condition, it reads none.

    Args:
        condition: None for an unconditional discriminator.
        layers: what is joined before which layer or block -> the layers up to the features `[N, features]`.
        features: how many.
        hidden: the layer or block before which "concat-hidden" joins, at least 1: in front of the first it would be
            "concat", and behind the last the label could do no more than add a number to the logit.
        linear, embedding: make the head's layers and tables.

    Raises:
        ValueError: "concat-hidden" in a network that is too shallow.
    """
    if condition is None:
        return Discriminator(*layers({}), linear(features, 1), Squeeze())
    n_classes, joined = condition.n_classes, {}
    if condition.d == "concat":
        if hidden < 0:
            raise ValueError("d_condition 'concat' needs a hidden layer, so a depth of at least 2")
        joined = {0: Join(OneHot(n_classes), n_classes)}
    elif condition.d == "concat-hidden":
        if hidden < 1:
            raise ValueError("d_condition 'concat-hidden' needs two hidden layers, so a depth of at least 3")
        joined = {hidden: Join(embedding(n_classes, condition.y_dim), condition.y_dim)}
    made = layers(joined)
    if condition.d == "class-head":
        made.append(ClassHead(linear(features, 1), linear(features, n_classes)))
    elif condition.d == "projection":
        made.append(Projection(linear(features, 1), embedding(n_classes, features)))
    else:
        made += [linear(features, 1), Squeeze()]
    return ConditionalDiscriminator(*made, n_classes=n_classes)
