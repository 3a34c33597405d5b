"""StyleGAN2's path-length term: steps of one size in w should change pictures by one amount, whatever their direction.

>>> from gankit.game import path_length
>>> G, D = gk.models.stylegan2(data.shape, z_dim=16, width=8)
>>> term, rule = path_length.PathLength(2.0), path_length.MeanPathLength()
>>> styled = gk.Trainer(G, D, data, g_terms=[term], rules=[rule])
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit import processes
from gankit.game.play import Play, States, draw_latents
from gankit.models.ensemble import call

STATE, SEEN = "mean_path_length", "path_length"


@dataclass(frozen=True)
class PathLength:
    """weight times the mean of (length - a)^2, where a is the running mean of lengths (`MeanPathLength`).

    The length at w is |J_w^T y| for a picture y of white noise, divided by the picture's side: the expected change of a
    picture, in all directions of pictures alike, by a step in w. It is taken at every layer's w, as their root mean
    square, for z of its own. a moves before it is used, and the gradient sees that.

    The generator needs `styles(z, labels, noise)`, `pictures(ws, noise)` (`gankit.models.style_blocks.StyleGenerator`).

    Attributes:
        weight: strength, at least 0; 2 in the authors' code, which is their formula ln 2 / (r^2 (ln r - ln 2)) for
            their layers and interval.
        decay: of the running mean, in [0, 1); it should be that of the rule.
        part: share of the minibatch's size that the z of the term have, in (0, 1].

    Source: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", section 3.2 and appendix B.
    """

    weight: float = 2.0
    decay: float = 0.99
    part: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be at least 0 and finite, got {self.weight}")
        _check_decay(self.decay)
        if not 0 < self.part <= 1:
            raise ValueError(f"part must lie in (0, 1], got {self.part}")

    def __call__(self, play: Play) -> Tensor:
        if STATE not in play.states:
            raise ValueError("a path length is compared with its running mean: add the rule MeanPathLength")
        n = max(1, round(self.part * play.n))
        z, labels = draw_latents(play.G, play.streams, n)
        noise_dim = getattr(play.G, "noise_dim", 0)
        noise = play.streams.normal(n, noise_dim) if noise_dim else None
        direction = play.streams.normal(n, *play.data.shape)
        lengths = path_lengths(play.G, z, direction, labels, noise)
        # Over all processes, so that P of them move the mean as one would.
        mean = processes.stack(lengths.mean(-1)).mean(0)
        play.notes[SEEN] = mean
        a = play.states[STATE].to(mean)
        a = a + (1 - self.decay) * (mean - a)
        return self.weight * (lengths - a[..., None]).square().mean(-1)


@dataclass(frozen=True)
class MeanPathLength:
    """The running mean of path lengths, from 0; it stays as it is in steps without a `PathLength`.

    Attributes:
        decay: in [0, 1).
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        _check_decay(self.decay)

    def init(self, lead: tuple[int, ...]) -> dict[str, Tensor]:
        return {STATE: torch.zeros(lead)}

    def observe(self, play: Play) -> dict[str, Tensor]:
        return {}

    def update(self, states: States, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        a = states[STATE]
        return {STATE: a + (1 - self.decay) * (seen[SEEN].to(a) - a)} if SEEN in seen else {}


def path_lengths(
    G: nn.Module, z: Tensor, direction: Tensor, labels: Tensor | None = None, noise: Tensor | None = None
) -> Tensor:
    """|J_w^T y| / side for each sample, the root mean square over layers: `[*lead, N]`, differentiable in G.

    In float32, also where the rest of a step runs in lower precision.

    Args:
        G: a generator with `styles` and `pictures`, or an ensemble.
        z: `[*lead, N, z_dim]`.
        direction: y, white noise `[*lead, N, C, H, W]`.
        labels, noise: as for `gankit.models.sampling.generate`.
    """
    dtype = next(G.parameters()).dtype
    noise = None if noise is None else noise.to(dtype)
    with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
        ws = call(G, "styles", z.to(dtype), labels, noise)
        pictures = call(G, "pictures", ws, noise)
        y = direction.to(dtype) / math.sqrt(direction.shape[-2:].numel())
        (slope,) = torch.autograd.grad((pictures * y).sum(), ws, create_graph=True)
        squared = slope.square().sum(-1).mean(-1)
        # sqrt has an infinite slope at zero; adding the smallest normal number keeps 0 * inf out of the step.
        return (squared + torch.finfo(squared.dtype).tiny).sqrt()


def _check_decay(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}")
