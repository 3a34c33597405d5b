"""How far images move: along a path of latent vectors, and over one step of training.

Both take a *distance* of two batches of images, such as `gankit.metrics.similarity.squared_distance` or LPIPS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gankit.metrics.similarity import Distance
from gankit.models.ensemble import lead_shape
from gankit.models.sampling import generate, sample
from gankit.models.walking import evaluating
from gankit.streams import Streams

if TYPE_CHECKING:
    from gankit.training import Trainer


# --- Along a path of latent vectors ---------------------------------------------------------------------------


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The point at share t of the arc between the directions of a and b: unit vectors, at constant speed.

    Args:
        a, b: ``[..., d]``, not zero, d >= 2. For opposite directions the arc is not determined.
        t: ``[...]``; 0 is the direction of a, 1 that of b.

    Returns:
        ``[..., d]`` of length 1.

    Source: Shoemake, "Animating rotation with quaternion curves" (1985).
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    along = (a * b).sum(-1, keepdim=True)
    across = b - along * a
    # The arc tangent is exact for small angles, where the arc cosine loses half of the digits.
    angle = t[..., None] * torch.atan2(across.norm(dim=-1, keepdim=True), along)
    return a * angle.cos() + F.normalize(across, dim=-1) * angle.sin()


def perceptual_path_length(
    G: nn.Module,
    distance: Distance,
    n: int,
    *,
    space: str = "z",
    t_range: tuple[float, float] = (0.0, 1.0),
    epsilon: float = 1e-4,
    discard: float = 0.01,
    seed: int = 0,
    batch_size: int = 50,
) -> Tensor:
    """Perceptual path length: how fast images change along the path between two latent vectors.

    ``E[d(G(p(t)), G(p(t + epsilon))) / epsilon^2]`` (Karras, Laine and Aila, "A style-based generator architecture
    for generative adversarial networks", arXiv:1812.04948, section 4.1, equations 2 and 3): the mean squared speed
    in a distance that, like LPIPS, is quadratic for small changes. Paths that pass through unlike images are long.

    In Z, p is an arc (`slerp`) between two normal vectors, on the sphere of radius ``sqrt(z_dim)`` near which
    normal vectors lie; generators that normalise their z, as those of the paper do, do not see the radius. In W, p
    is a straight line between the outputs of ``G.mapping``, and images are made by ``G.synthesis``. The two have
    different units and do not compare.

    The paper's numbers are means over 100,000 pairs with LPIPS on VGG, for faces cut to their centre; StyleGAN2's
    (arXiv:1912.04958, the path lengths of its tables) take the ends of paths in W, ``t_range=(0, 0)``, without the
    cut. The paper does not say so, but its code leaves out the smallest and the largest hundredth of the values.
    Resizing and cutting images is up to `distance`.

    Args:
        G: generator with `z_dim`, conditional or not (both images of a pair have one label, drawn uniformly), or in Z
            an ensemble of S. Where its images depend on PyTorch's global random numbers (noise inputs, say), both
            images of a pair see the same ones.
        distance: of two batches ``[N, *shape]``, ``[N]``.
        n: number of pairs, at least 2.
        space: "z" or "w".
        t_range: where on the path, uniformly: (0, 1) is the full path, (0, 0) its end.
        epsilon: the step, above 0. Below about 1e-5 single precision shows in the images.
        discard: share of the pairs left out at either end, in [0, 0.5), rounded down: a hundredth of up to 100 pairs
            is none. 0 keeps all.
        seed: of latent vectors, labels and t. Replicas get the same ones.
        batch_size: pairs at a time.

    Returns:
        float64, `[*lead]`.

    Raises:
        ValueError: arguments out of range, a generator that does not fit the space, or distances that are not one
            finite number for each pair.
    """
    if not 0 <= discard < 0.5:
        raise ValueError(f"discard must lie in [0, 0.5), got {discard}")
    lengths = path_lengths(
        G, distance, n, space=space, t_range=t_range, epsilon=epsilon, seed=seed, batch_size=batch_size
    )
    low = lengths.quantile(discard, dim=-1, keepdim=True, interpolation="lower")
    high = lengths.quantile(1 - discard, dim=-1, keepdim=True, interpolation="higher")
    kept = (lengths >= low) & (lengths <= high)
    return torch.where(kept, lengths, 0).sum(-1) / kept.sum(-1)


@torch.no_grad()
def path_lengths(
    G: nn.Module,
    distance: Distance,
    n: int,
    *,
    space: str = "z",
    t_range: tuple[float, float] = (0.0, 1.0),
    epsilon: float = 1e-4,
    seed: int = 0,
    batch_size: int = 50,
) -> Tensor:
    """Squared speeds ``distance / epsilon^2`` of n pairs, float64 `[*lead, n]`.

    `perceptual_path_length` is their mean, and explains the arguments; a histogram shows what the mean hides.
    """
    for name, value, least in (("n", n, 2), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 <= t_range[0] <= t_range[1] <= 1:
        raise ValueError(f"t_range must be two numbers in [0, 1], the smaller first, got {t_range}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}")
    _check_space(G, space)
    build = _SPACES[space]
    lead, device = lead_shape(G), next(G.parameters()).device
    streams = Streams([seed] * (lead[0] if lead else 1), lead, device, name="path length")
    a, b = streams.normal(n, G.z_dim), streams.normal(n, G.z_dim)
    t = t_range[0] + (t_range[1] - t_range[0]) * streams.uniform(n).double()
    n_classes = getattr(G, "n_classes", 0)
    labels = streams.integers(n_classes, n) if n_classes else None
    values = []
    with evaluating(G):
        for start in range(0, n, batch_size):
            part = slice(start, start + batch_size)
            y = None if labels is None else labels[..., part]
            path, images = build(G, a[..., part, :], b[..., part, :], y)
            first, second = t[..., part], t[..., part] + epsilon
            x, moved = (_with_noise(seed + start, device, images, path(s)) for s in (first, second))
            values.append(_distances(distance, x, moved, len(lead)) / epsilon**2)
    return torch.cat(values, -1)


def cropped(
    distance: Distance,
    rows: tuple[float, float] = (3 / 8, 7 / 8),
    columns: tuple[float, float] = (1 / 4, 3 / 4),
    side: int = 256,
) -> Distance:
    """A distance that sees a part of each image, and sees it small: how StyleGAN measures path lengths of faces.

        >>> G, _ = gk.models.stylegan2((3, 16, 16), z_dim=8, width=4, mapping=2)
        >>> face = metrics.cropped(squared_distance)  # StyleGAN: of metrics.load_lpips("vgg")
        >>> length = metrics.perceptual_path_length(G, face, 200, space="w", t_range=(0, 0))

    Args:
        distance: of two batches ``[N, C, H, W]``, ``[N]``.
        rows, columns: shares of height and width where the part begins and ends; by default the face in a picture of
            FFHQ. (0, 1) is all.
        side: a part that is at least twice as large is averaged over squares of pixels, down to no less than this.

    Raises:
        ValueError: if a part is empty or leaves the image, or `side` is below 1.

    Source: the code of Karras, Laine and Aila 2019 for their table 3.
    """
    for name, (begin, end) in (("rows", rows), ("columns", columns)):
        if not 0 <= begin < end <= 1:
            raise ValueError(f"{name} must be two shares in [0, 1], the smaller first, got {(begin, end)}")
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}")

    def part(images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        top, bottom, left, right = (
            int(share * n) for share, n in zip((*rows, *columns), (h, h, w, w), strict=True)
        )
        if top == bottom or left == right:
            raise ValueError(f"rows {rows} and columns {columns} leave nothing of {h} x {w} pixels")
        x = images[..., top:bottom, left:right]
        factor = min(x.shape[-2:]) // side
        return F.avg_pool2d(x, factor) if factor > 1 else x

    return lambda a, b: distance(part(a), part(b))


_Path = Callable[[Tensor], Tensor]  # t [*lead, N] -> latent vectors
_Images = Callable[[Tensor], Tensor]  # latent vectors -> images


def _in_z(G: nn.Module, a: Tensor, b: Tensor, labels: Tensor | None) -> tuple[_Path, _Images]:
    """Arcs on the sphere of radius sqrt(z_dim). In float64: in float32 t + epsilon is good to three digits."""
    a, b, radius = a.double(), b.double(), math.sqrt(G.z_dim)
    return lambda t: radius * slerp(a, b, t), lambda z: generate(G, z, labels)


def _in_w(G: nn.Module, a: Tensor, b: Tensor, labels: Tensor | None) -> tuple[_Path, _Images]:
    """Straight lines between outputs of the mapping, of any shape ``[N, ...]``."""
    dtype = next(G.parameters()).dtype
    a, b = (G.mapping(z.to(dtype), *([] if labels is None else [labels])).double() for z in (a, b))
    return (
        lambda t: torch.lerp(a, b, t.reshape(-1, *[1] * (a.ndim - 1))),
        lambda w: G.synthesis(w.to(dtype)),
    )


_SPACES = {"z": _in_z, "w": _in_w}


def _check_space(G: nn.Module, space: str) -> None:
    if space not in _SPACES:
        raise ValueError(f"space must be one of {', '.join(_SPACES)}, got {space!r}")
    if space == "z" and G.z_dim < 2:
        raise ValueError(f"arcs in space 'z' need z_dim of at least 2, got {G.z_dim}")
    if space == "w" and (lead_shape(G) or not (hasattr(G, "mapping") and hasattr(G, "synthesis"))):
        raise ValueError(
            "space 'w' needs one generator (Ensemble.replica) with G.mapping and G.synthesis, "
            f"got {type(G).__name__}"
        )


def _with_noise(seed: int, device: torch.device, images: _Images, latents: Tensor) -> Tensor:
    """Images with PyTorch's global random numbers started at `seed`, so that two calls see the same noise."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        return images(latents)


def _distances(distance: Distance, a: Tensor, b: Tensor, dim: int = 0) -> Tensor:
    """`distance` of samples along dimension `dim`, all before it taken together: float64 ``[..., N]``."""
    values = distance(a.flatten(0, dim), b.flatten(0, dim))
    lead = a.shape[: dim + 1]
    if values.shape != (lead.numel(),):
        raise ValueError(
            f"distance must give one number for each of {lead.numel()} pairs, got shape {list(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        raise ValueError(
            "distance must be finite, got NaN or infinity: the images or the distance are at fault"
        )
    return values.double().reshape(lead)


# --- Over one step of training --------------------------------------------------------------------------------


@torch.no_grad()
def consecutive_distance(
    before: Tensor, after: Tensor, distance: Distance, *, batch_size: int = 50
) -> Tensor:
    """Mean distance between what one generator made of the same z before and after a step of training.

    "Mean teachers can train superior GANs" (section 4.2, figure 7) plots it along training, with LPIPS and 5,000
    samples, on the generator itself (not on its average): the smaller, the smoother the images evolve.

    Args:
        before, after: ``[N, *shape]``, of the same latent vectors in the same order.
        distance: of two batches ``[N, *shape]``, ``[N]``.
        batch_size: pairs at a time.

    Returns:
        float64 scalar, in units of the distance.

    Raises:
        ValueError: shapes that differ, fewer than two samples, or distances that are not one finite number for each.
    """
    if before.shape != after.shape or before.ndim < 2 or len(before) < 2:
        raise ValueError(
            "before and after must be [N, ...] of one shape with N >= 2, "
            f"got {list(before.shape)} and {list(after.shape)}"
        )
    pairs = zip(before.split(batch_size), after.split(batch_size), strict=True)
    return torch.cat([_distances(distance, a, b) for a, b in pairs]).mean()


class ConsecutiveDistance:
    """`consecutive_distance` of a run's generator, as a callback of `Trainer.fit`.

        >>> moved = ConsecutiveDistance(run, squared_distance, every=100)
        >>> run.fit(5_000, callback=moved, callback_every=100)
        >>> steps, values = run.curve("consecutive_distance")

    The callback comes after a step, when the weights from before are gone. So the object asks G's optimiser to
    tell it before each step, and makes the earlier images then, at every `every`-th step alone. Training itself stays
    as it is, number for number.

    Args:
        run: whose `G` is followed; one run or an ensemble.
        distance: of two batches ``[N, *shape]``, ``[N]``.
        every: steps between two values; give `fit` the same `callback_every`, or a divisor of it.
        n: samples per replica (the paper takes 5,000); they stay in memory during the step.
        seed: of their z.
        batch_size: samples at a time.

    Raises:
        ValueError: `n` below 2 or `every` below 1.
    """

    def __init__(
        self,
        run: Trainer,
        distance: Distance,
        *,
        every: int,
        n: int = 5000,
        seed: int = 0,
        batch_size: int = 50,
    ) -> None:
        for name, value, least in (("n", n, 2), ("every", every, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.run, self.distance, self.every = run, distance, every
        self.n, self.seed, self.batch_size = n, seed, batch_size
        self._before: tuple[int, Tensor] | None = None  # after which step, and the images
        self._hook = run.g_opt.register_step_pre_hook(self._keep)

    def remove(self) -> None:
        """Stop listening to the optimiser."""
        self._hook.remove()
        self._before = None

    def __call__(self, run: Trainer) -> dict[str, Tensor] | None:
        """`{"consecutive_distance": [*lead]}` if the images of one step ago are there, None otherwise."""
        if self._before is None or self._before[0] != run.steps - 1:
            return None
        before, after = self._before[1], self._samples()
        self._before = None
        if not run.lead:
            return {"consecutive_distance": consecutive_distance(before, after, self.distance)}
        pairs = zip(before, after, strict=True)
        return {
            "consecutive_distance": torch.stack([consecutive_distance(a, b, self.distance) for a, b in pairs])
        }

    def _keep(self, *_: object) -> None:
        done = self.run.steps  # the step that begins now is not counted yet
        # An optimiser may call its hooks twice in one step.
        if (done + 1) % self.every == 0 and (self._before is None or self._before[0] != done):
            self._before = done, self._samples()

    def _samples(self) -> Tensor:
        return sample(self.run.G, self.n, seed=self.seed, batch_size=self.batch_size)
