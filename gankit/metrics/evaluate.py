"""What a run's generator covers, and how far its samples are from the data, as one dict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.classifier import compute_features
from gankit.data import Dataset
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.modes import (
    class_divergence,
    classes_covered,
    frequencies,
    high_quality_fraction,
    mode_assignment,
    modes_covered,
)


def evaluate_points(samples: Tensor, data: Dataset) -> dict[str, Tensor]:
    """Mode statistics of generated points.

    Args:
        samples: `[*lead, N, d]`.
        data: a mixture with `centers` and `std`, such as `ring`.

    Returns:
        `modes_covered` (a mode counts at 10 % of its share), `high_quality` (fraction within 3 standard
        deviations of a mode), `D_JS[modes]` (base 2, over the points that belong to a mode) and
        `FD[points]`, the Frechet distance of the points themselves; `[*lead]` each.

    Raises:
        ValueError: if `data` is no mixture.
    """
    if data.centers is None or data.std is None:
        raise ValueError(f"data must be a mixture with centers and std, got {data.name!r}")
    expected = data.class_frequencies()
    modes = mode_assignment(samples, data.centers, data.std)
    share = frequencies(modes, len(data.centers))
    # A generator that hits no mode at all has no mode frequencies; it scores the upper bound.
    hits = share.sum(-1, keepdim=True)
    divergence = class_divergence(torch.where(hits > 0, share, expected), expected)
    return {
        "modes_covered": modes_covered(samples, data.centers, data.std, weights=expected),
        "high_quality": high_quality_fraction(samples, data.centers, data.std),
        "D_JS[modes]": torch.where(hits[..., 0] > 0, divergence, torch.ones_like(divergence)),
        "FD[points]": frechet_distance(samples, data.images.to(samples.dtype)),
    }


@torch.no_grad()
def evaluate_classes(samples: Tensor, data: Dataset, classifier: nn.Module) -> dict[str, Tensor]:
    """Class statistics of generated images, as a classifier sees them.

    Args:
        samples: `[*lead, N, C, H, W]` in [-1, 1].
        data: the real images with labels.
        classifier: trained on the same classes.

    Returns:
        `classes_covered` (a class counts at 10 % of its share), `D_JS[classes]` (base 2; equation 12 of the
        sample-weighting paper) and `FD[<data> classifier]`, the Frechet distance in the classifier's features, which is
        no FID: its values compare with each other only; `[*lead]` each.
    """
    fake_features = compute_features(classifier, samples)
    real_features = compute_features(classifier, data.normalise(data.images))
    predicted = classifier.logits(fake_features).argmax(-1)
    share, expected = frequencies(predicted, data.n_classes), data.class_frequencies()
    return {
        "classes_covered": classes_covered(share, expected),
        "D_JS[classes]": class_divergence(share, expected),
        f"FD[{data.name} classifier]": frechet_distance(fake_features, real_features),
    }


def evaluate_pixels(samples: Tensor, data: Dataset) -> dict[str, Tensor]:
    """`FD[pixels]`: the Frechet distance of flattened images, for data without a classifier, `[*lead]`.

    Args:
        samples: `[*lead, N, C, H, W]` in [-1, 1].
        data: the real images, all of which are compared. Time and memory grow with the square of an image's size.
    """
    real = data.normalise(data.images).flatten(1)
    return {"FD[pixels]": frechet_distance(samples.flatten(-len(data.shape)), real)}
