"""A play: one minibatch of the game, what D says of it, and the two gradients that are made of that.

A *game* says what is played: a cost, and around it terms, an augmentation, a leak and rules with a state. Each is a
small object, and a new idea is a new object:

.. table:: The objects of a game.

   =============  ===============================  ============================================================
   object         called as                        and gives
   =============  ===============================  ============================================================
   term           `term(play)`                     one number per replica, `[*lead]`, added to a player's cost
   augmentation   `augment(x, streams, states)`    the samples as D sees them, of x's shape
   rule           `init`, `observe`, `update`      a state that a step updates (`Rule`)
   projection     `project(D)`                     nothing: it changes D's weights after a step of D
   =============  ===============================  ============================================================

`gankit.game.penalties` holds terms and projections.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gankit.data import Dataset
from gankit.device import autocast
from gankit.game.leak import Leak, leak_batch
from gankit.game.losses import Loss
from gankit.models.ensemble import lead_shape, mixes_samples
from gankit.models.growing import as_grown
from gankit.models.sampling import generate, score
from gankit.streams import Streams

States = Mapping[str, Tensor]
Term = Callable[["Play"], Tensor]
Augment = Callable[[Tensor, Streams, States], Tensor]
Projection = Callable[[nn.Module], None]


class Rule(Protocol):
    """A state that training updates: an adaptive probability, a balance, a running mean.

    Its numbers have names of their own and lie beside those of the other rules in `Play.states`; they are logged and
    stored in checkpoints. Each is `[*lead]`: one per replica.
    """

    def init(self, lead: tuple[int, ...]) -> dict[str, Tensor]:
        """The numbers at the start of a run."""
        ...

    def observe(self, play: Play) -> dict[str, Tensor]:
        """What the rule needs to know of a play of either player (`Play.learner`), `[*lead]` each, under names of its
        own. It is averaged over the minibatches of a step and over processes, and logged."""
        ...

    def update(self, states: States, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The rule's numbers after a generator step. `seen` has the costs, mean logits and observations of that step
        and of the last step of D before it, and as `step_images` the number of real images of a whole step."""
        ...


@dataclass(frozen=True)
class Game:
    """What is played.

    Attributes:
        loss: the cost of both players.
        leak: what replaces part of the real samples that D learns from, or None.
        augment: how D sees every sample, real or generated, in its own steps and in G's; None for as they are.
        data_augment: what happens to real samples alone, before all else; None for nothing. What it makes is the data
            that G learns.
        d_terms, g_terms: added to the cost of D and of G.
        rules: states that terms and the augmentation may read.
        projections: applied to D after each of its steps.
        share_fakes: G learns from the very samples that D saw in its last step, which saves a pass of G.

    Raises:
        ValueError: if the loss refuses what is around it (`Loss.check`).
    """

    loss: Loss
    leak: Leak | None = None
    augment: Augment | None = None
    data_augment: Augment | None = None
    d_terms: tuple[Term, ...] = ()
    g_terms: tuple[Term, ...] = ()
    rules: tuple[Rule, ...] = ()
    projections: tuple[Projection, ...] = ()
    share_fakes: bool = False

    def __post_init__(self) -> None:
        self.loss.check(self)


@dataclass(frozen=True)
class Every:
    """A term that is looked at in every `interval`-th generator step only, and counts `interval` times then.

    In expectation it is the term itself, at a fraction of the price: lazy regularisation. StyleGAN2 corrects Adam for
    it (`gankit.training.optimisers.Adam.lazy`).

    Raises:
        ValueError: if the interval is below 1.

    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", section 3.1 and appendix B.
    """

    term: Term
    interval: int

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval must be at least 1 generator step, got {self.interval}")

    def __call__(self, play: Play) -> Tensor:
        if play.step % self.interval:
            return torch.zeros(play.lead, device=play.z.device)
        return self.interval * self.term(play)


class Verdict(NamedTuple):
    """What D says of samples: logits `[*lead, N]` and, where D has a class head, class logits `[*lead, N, K]`."""

    logits: Tensor
    classes: Tensor | None = None


class Play:
    """One minibatch, drawn for one of the players.

    Real samples, generated ones and what D says of them are made when they are first asked for, and kept.

    Args:
        game: what is played.
        learner: the player whose step this is, G or D. Only for G's step do generated samples carry a gradient, and
            only D's is leaked to.
        G, D, teacher: the networks; `teacher` is the averaged generator, which a leak may sample.
        data: where real samples come from.
        streams: the run's random numbers.
        n: samples of each kind, N.
        step: generator steps done.
        states: of the rules.

    Attributes:
        z, labels: latents `[*lead, N, z_dim]` and, for a conditional generator, labels `[*lead, N]` (else None).
        notes: numbers that a term leaves for a rule or for the log, `[*lead]` each.
    """

    def __init__(
        self, game: Game, learner: nn.Module, G: nn.Module, D: nn.Module, teacher: nn.Module, data: Dataset,
        streams: Streams, n: int, step: int, states: States,
    ) -> None:  # fmt: skip
        self.game, self.learner, self.G, self.D, self.teacher = game, learner, G, D, teacher
        self.data, self.streams, self.n, self.step, self.states = data, streams, n, step, states
        self.lead = lead_shape(G)
        self.notes: dict[str, Tensor] = {}
        self.z, self.labels = draw_latents(G, streams, n)

    @cached_property
    def _minibatch(self) -> tuple[Tensor, Tensor]:
        x, labels = draw_data(self.data, self.G, self.streams, self.n)
        if self.game.data_augment is not None:
            x = self.game.data_augment(x, self.streams, self.states)
        x = as_grown(self.G, x)
        if self.game.leak is None or self.learner is not self.D:
            return x, labels
        _ = self.fake  # before the leak samples: batch norm's running statistics remember the order
        return leak_batch(self.game.leak, self, x, labels)

    @property
    def real(self) -> Tensor:
        """Real samples, those that a leak replaced among them, `[*lead, N, *shape]`."""
        return self._minibatch[0]

    @property
    def real_labels(self) -> Tensor:
        """Their labels, `[*lead, N]`."""
        return self._minibatch[1]

    @cached_property
    def fake(self) -> Tensor:
        """Generated samples, `[*lead, N, *shape]`."""
        with torch.set_grad_enabled(self.learner is self.G or self.game.share_fakes):
            x = self.generate(self.z, self.labels)
        if list(x.shape) != (expected := [*self.lead, self.n, *self.data.shape]):
            raise ValueError(f"G must make samples [*lead, N, *shape], here {expected}, got {list(x.shape)}")
        if self.learner is self.G:
            return x
        self._shared = x
        # In D's step they are joined with real ones, which have the type of the parameters.
        return x.detach().to(next(self.G.parameters()).dtype)

    def for_generator(self) -> Play:
        """This play of D's as one of G's, after D has learnt: the same latents and samples, and all else anew."""
        other = copy.copy(self)
        other.learner, other.notes = self.G, {}
        for made in ("_minibatch", "real_verdict", "fake_verdict"):
            vars(other).pop(made, None)
        vars(other)["fake"] = self._shared
        return other

    def generate(self, z: Tensor, labels: Tensor | None, net: nn.Module | None = None) -> Tensor:
        """Samples of G, or of another generator; noise inside its layers comes from the run's own streams."""
        net = self.G if net is None else net
        noise_dim = getattr(net, "noise_dim", 0)
        noise = self.streams.normal(z.shape[len(self.lead)], noise_dim) if noise_dim else None
        return generate(net, z, labels, noise)

    def judge(self, x: Tensor, labels: Tensor | None) -> Verdict:
        """What D says of samples `[*lead, M, *shape]`, which it sees through the augmentation.

        Raises:
            ValueError: if D's logits are not one number for each sample.
        """
        if self.game.augment is not None:
            x = self.game.augment(x, self.streams, self.states)
        said = score(self.D, x, labels)
        logits, classes = said if isinstance(said, tuple) else (said, None)
        samples = x.shape[: len(self.lead) + 1]
        if logits.shape != samples:
            if logits.shape[: len(samples)] != samples or logits.numel() != samples.numel():
                raise ValueError(
                    f"D must give one logit for each sample, {list(samples)} here, got {list(logits.shape)}; "
                    "a D with a class head returns the pair (logits, class logits)"
                )
            logits = logits.reshape(samples)  # [N, 1], the usual end of a linear layer
        return Verdict(logits, classes)

    def judge_together(self) -> None:
        """Real and generated samples in one pass of D, which is faster.

        Not for a D that mixes the samples of a minibatch: then each kind is normalised by its own statistics, as DCGAN
        is trained.
        """
        if mixes_samples(self.D):
            return
        dim = len(self.lead)
        labels = None if self.labels is None else torch.cat([self.real_labels, self.labels], dim)
        both = self.judge(torch.cat([self.real, self.fake], dim), labels)
        halves = [(None, None) if x is None else x.split([self.n, self.n], dim) for x in both]
        self.real_verdict, self.fake_verdict = (Verdict(*pair) for pair in zip(*halves, strict=True))

    @cached_property
    def real_verdict(self) -> Verdict:
        """What D says of the real samples."""
        return self.judge(self.real, self.real_labels)

    @cached_property
    def fake_verdict(self) -> Verdict:
        """What D says of the generated samples."""
        return self.judge(self.fake, self.labels)

    def seen(self, **numbers: Tensor) -> dict[str, Any]:
        """Statistics of this play: these numbers, the notes of terms, and what rules observe."""
        found = {name: x.detach() for name, x in (numbers | self.notes).items()}
        for rule in self.game.rules:
            found |= {name: x.detach() for name, x in rule.observe(self).items()}
        return found


def d_gradient(play: Play, params: Sequence[nn.Parameter], precision: str = "float32") -> dict[str, Any]:
    """The discriminator's gradient on a minibatch ("d_grad"), with its statistics, `[*lead]` each."""
    with autocast(play.z.device, precision):
        play.judge_together()
        real, fake = play.real_verdict.logits, play.fake_verdict.logits
        cost = play.game.loss.d_cost(play)
        total = cost + sum(term(play) for term in play.game.d_terms)
        seen = play.seen(d_loss=cost, real_logit=real.mean(-1), fake_logit=fake.mean(-1))
    return seen | {"d_grad": gradient(total, params)}


def g_gradient(play: Play, params: Sequence[nn.Parameter], precision: str = "float32") -> dict[str, Any]:
    """The generator's gradient on a minibatch ("g_grad"), with its statistics, `[*lead]` each."""
    with autocast(play.z.device, precision):
        cost = play.game.loss.g_cost(play)
        total = cost + sum(term(play) for term in play.game.g_terms)
        seen = play.seen(g_loss=cost)
    return seen | {"g_grad": gradient(total, params)}


def gradient(cost: Tensor, params: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradient of a cost `[*lead]`, each replica's its own; zero for parameters that take no part."""
    return list(torch.autograd.grad(cost.sum(), params, materialize_grads=True))


def draw_latents(G: nn.Module, streams: Streams, n: int) -> tuple[Tensor, Tensor | None]:
    """n latents z `[*lead, n, z_dim]` and, for a conditional generator, labels `[*lead, n]`."""
    n_classes = getattr(G, "n_classes", 0)
    return streams.normal(n, G.z_dim), streams.integers(n_classes, n) if n_classes else None


def draw_data(data: Dataset, G: nn.Module, streams: Streams, n: int) -> tuple[Tensor, Tensor]:
    """n real samples `[*lead, n, *shape]`, of the type of G's parameters, and labels, drawn with replacement."""
    x, labels = data.batch(streams.rows(n, data.draw))
    return x.to(next(G.parameters()).dtype), labels
