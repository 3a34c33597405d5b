"""Few images: does D know them by heart, and does G copy them?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gankit.data import Dataset
from gankit.metrics.features import FeatureSpace
from gankit.models.ensemble import lead_shape
from gankit.models.sampling import generate, score
from gankit.streams import Streams

if TYPE_CHECKING:
    from gankit.training import Trainer


def watch_discriminator(
    validation: Dataset, *, n: int = 256, seed: int = 0
) -> Callable[[Trainer], dict[str, Tensor]]:
    """What D says of images that it learned from, of held-out ones and of generated ones, while it trains.

        >>> split = gk.data.load("digits").split(100, validation=100)
        >>> run.fit(4_000, callback=gk.metrics.watch_discriminator(split.validation), callback_every=100)
        >>> steps, d_train = run.curve("d_train")

    Mean logits `d_train`, `d_validation` and `d_generated`, without augmentation and with D in evaluation;
    `sign_train`, the mean sign on training images; and `r_v` = (d_train - d_validation) / (d_train - d_generated),
    which is 0 where held-out images look as training ones do, and 1 where they look generated. `[*lead]` each. The
    random numbers of training are not touched.

    Args:
        validation: images that training does not see.
        n: images of each kind, at least 1, drawn with replacement.
        seed: of the choice of images and of z.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")

    @torch.no_grad()
    def look(run: Trainer) -> dict[str, Tensor]:
        lead = lead_shape(run.G)
        streams = Streams([seed] * (lead[0] if lead else 1), lead, run.device, name="watch D")
        kinds = {}
        modes = {net: net.training for net in (run.G, run.D)}
        try:
            for net in modes:
                net.eval()
            for name, data in (("train", run.data), ("validation", validation.to(run.device))):
                kinds[name] = _mean_logit(run.D, *data.batch(streams.rows(n, data.draw)))
            n_classes = getattr(run.G, "n_classes", 0)
            labels = streams.integers(n_classes, n) if n_classes else None
            noise_dim = getattr(run.G, "noise_dim", 0)
            z = streams.normal(n, run.G.z_dim)
            noise = streams.normal(n, noise_dim) if noise_dim else None
            kinds["generated"] = _mean_logit(run.D, generate(run.G, z, labels, noise), labels)
        finally:
            for net, mode in modes.items():
                net.train(mode)
        (train, sign), (held_out, _), (fake, _) = (kinds[k] for k in ("train", "validation", "generated"))
        return {
            "d_train": train,
            "d_validation": held_out,
            "d_generated": fake,
            "sign_train": sign,
            "r_v": (train - held_out) / (train - fake),
        }

    return look


def _mean_logit(D: nn.Module, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Means of D's logits and of their signs, `[*lead]` each."""
    said = score(D, x.to(next(D.parameters()).dtype), labels)
    logits = (said[0] if isinstance(said, tuple) else said).flatten(len(lead_shape(D)))
    return logits.mean(-1), logits.sign().mean(-1)


def memorisation(
    samples: Tensor, train: Tensor, held_out: Tensor, features: FeatureSpace | None = None
) -> Tensor:
    """How much nearer samples are to training images than to held-out ones: a ratio, 1 where G copies nothing.

    The mean distance of a sample to the nearest training image, over that to the nearest of as many held-out images.
    Fewer images are farther away, so of the larger set the first ones count, as many as there are of the other.

    Args:
        samples: `[*lead, N, *shape]` in [-1, 1].
        train, held_out: images `[M, *shape]` and `[M', *shape]` of the same distribution, in random order.
        features: the space of the distances; None for the pixels.

    Returns:
        `[*lead]`, at least 0; 0 if all samples are training images.

    Raises:
        ValueError: the shapes of single images differ, or a set is empty.

    Source: nearest neighbours as in Brock, Donahue and Simonyan 2019, appendix A; the ratio to held-out images is that
    of Meehan, Chaudhuri and Dasgupta 2020, "A non-parametric test to detect data-copying", in means.
    """
    shape = train.shape[1:]
    if held_out.shape[1:] != shape or samples.shape[samples.ndim - len(shape) :] != shape:
        raise ValueError(
            f"images must have one shape, got {tuple(samples.shape)}, {tuple(train.shape)} and {tuple(held_out.shape)}"
        )
    m = min(len(train), len(held_out))
    if m == 0 or samples.numel() == 0:
        raise ValueError(
            "memorisation needs samples, training images and held-out images, and a set is empty"
        )
    lead = samples.shape[: samples.ndim - len(shape) - 1]
    as_points = (lambda x: x.flatten(1).float()) if features is None else features
    known, other = as_points(train[:m]), as_points(held_out[:m])
    points = as_points(samples.reshape(-1, *shape))
    near, far = (
        torch.cat(
            [
                torch.cdist(part, target, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
                for part in points.split(1_000)
            ]
        )
        for target in (known, other)
    )
    return near.reshape(*lead, -1).mean(-1) / far.reshape(*lead, -1).mean(-1)
