"""How alike two images are: multi-scale structural similarity, LPIPS, and plain distances.

A *distance* here is any function of two batches ``[N, ...]`` that gives one number for each pair, ``[N]``: what
`gankit.metrics.path_length` takes. Images are floating point in [-1, 1].
"""

import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from torch import Tensor
from torch.nn import functional as F

from gankit.data import DataError

Distance = Callable[[Tensor, Tensor], Tensor]

# Exponents of the five scales, finest first (Wang, Simoncelli and Bovik 2003, section 3.2).
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Window of the local statistics, and its standard deviation, in pixels.
_WINDOW, _SIGMA = 11, 1.5
# (0.01 L)^2 and (0.03 L)^2 for the range L = 1 of pixels: they keep the ratios finite on flat patches.
_C1, _C2 = 0.01**2, 0.03**2
# Values of one image batch that are worked on at a time.
_CHUNK = 2**18

# torchvision's name of the ImageNet weights, and the smallest image that the layers leave something of.
_BACKBONES = {
    "alex": ("AlexNet_Weights", 31),
    "vgg": ("VGG16_Weights", 16),
    "squeeze": ("SqueezeNet1_1_Weights", 17),
}


def ms_ssim(x: Tensor, y: Tensor, *, weights: Sequence[float] = WEIGHTS) -> Tensor:
    """Multi-scale structural similarity of pairs of images: 1 for equal images, 0 for unrelated ones.

    Local means, variances and covariances under a Gaussian window compare the two images in luminance,
    ``l = (2 m_x m_y + c_1) / (m_x^2 + m_y^2 + c_1)``, and in contrast and structure,
    ``cs = (2 s_xy + c_2) / (s_xx + s_yy + c_2)``. Each is averaged over an image; halving the image four times
    gives five scales, and ``MS-SSIM = prod_j mean(cs_j)^w_j * mean(l_5 cs_5)^w_5`` (Wang, Simoncelli and Bovik,
    "Multiscale structural similarity for image quality assessment", 2003, equation 7).

    Libraries refuse images below about 160 pixels, whose coarsest scale is smaller than the window of 11 pixels.
    The rule here is that of the metric code of progressive GANs (Karras et al., arXiv:1710.10196), which runs
    from 32 pixels: the window is ``min(11, H, W)`` pixels wide at every scale, with a standard deviation in
    proportion (1.5 at 11), and lies within the image. Scales of 32 pixels use windows of 11, 11, 8, 4 and 2.
    From 176 pixels on nothing shrinks, and this is the measure of the paper. Below 32 pixels the coarsest scale is
    a single pixel, which has no structure: only its luminance is compared. Below 16 there is no fifth scale, and
    the image is refused; ``weights=WEIGHTS[:3]`` asks for three scales, another measure. Halving an odd side
    leaves out its last row or column.

    Negative factors are set to 0, and so is the product: a pair that is anticorrelated on average at one scale
    scores 0 whatever the other scales say. Among unrelated small images this is common, so report the share of
    zeros (`ms_ssim_diversity` does). Every colour channel counts by itself. Pixels are not rounded to 8 bits.

    Args:
        x, y: ``[..., C, H, W]`` in [-1, 1], of one shape.
        weights: exponents of the scales, finest first.

    Returns:
        float64 ``[...]`` in [0, 1].

    Raises:
        ValueError: shapes that differ or are no images, fewer than ``2**(scales - 1)`` pixels on a side, NaN, or
            pixels outside [-1, 1].
    """
    _check_images(x, "x", least=2 ** (len(weights) - 1))
    _check_images(y, "y", least=2 ** (len(weights) - 1))
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape, got {list(x.shape)} and {list(y.shape)}")
    image = x.shape[-3:]
    chunk = max(1, _CHUNK // image.numel())
    pairs = zip(x.reshape(-1, *image).split(chunk), y.reshape(-1, *image).split(chunk), strict=True)
    return torch.cat([_ms_ssim(a, b, weights) for a, b in pairs]).reshape(x.shape[:-3])


def _ms_ssim(x: Tensor, y: Tensor, weights: Sequence[float]) -> Tensor:
    # Pixels in [0, 1]: luminance is a ratio, so black must be 0. In float64, because variances of flat patches
    # are small differences of large squares.
    x, y = (x.to(torch.float64) + 1) / 2, (y.to(torch.float64) + 1) / 2
    result = 1.0
    for scale, weight in enumerate(weights):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = _compare(x, y)
        last = scale == len(weights) - 1
        factor = (luminance * structure if last else structure).mean((1, 2, 3))
        result = result * factor.clamp(0, 1) ** weight  # rounding may leave 1e-16 above one
    return result


def _compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of luminance and of contrast with structure, ``[N, C, H', W']`` each."""
    height, width = x.shape[-2:]
    size = min(_WINDOW, height, width)
    rows, columns = _blur(height, size).to(x), _blur(width, size).to(x).T
    # Blurring along both sides is two matrix products, the fastest form on a CPU.
    mx, my, xx, yy, xy = (rows @ image @ columns for image in (x, y, x * x, y * y, x * y))
    luminance = (2 * mx * my + _C1) / (mx * mx + my * my + _C1)
    structure = (2 * (xy - mx * my) + _C2) / ((xx - mx * mx) + (yy - my * my) + _C2)
    return luminance, structure


def _blur(n: int, size: int) -> Tensor:
    """Matrix ``[n - size + 1, n]`` that averages `size` neighbours with Gaussian weights."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-((offsets / (_SIGMA * size / _WINDOW)) ** 2) / 2)
    matrix = torch.zeros(n - size + 1, n, dtype=torch.float64)
    for i, row in enumerate(matrix):
        row[i : i + size] = window / window.sum()
    return matrix


class Diversity(NamedTuple):
    """Similarity of images within their classes; see `ms_ssim_diversity`. float64."""

    mean: Tensor
    standard_error: Tensor
    per_class: Tensor
    clamped: Tensor


def ms_ssim_diversity(images: Tensor, labels: Tensor, *, pairs: int = 200, seed: int = 0) -> Diversity:
    """Mean MS-SSIM of random pairs of one class: low for a diverse generator, high for one that repeats itself.

    The protocol of "Boosting generative networks for incremental learning" (section 4.3, tables 2 and 4, which
    print the mean times 100): 200 pairs of each class, 4,000 images of ten classes in all, so no image is in two
    pairs. The idea is that of AC-GAN (Odena, Olah and Shlens, arXiv:1610.09585, section 4.2), with 100 pairs of each
    class. That paper prints deviations without saying of what; `per_class` has the spread between classes.

    Its values are of another rule, which it does not state, and do not compare with these: it prints 40.5 for
    CIFAR-10, where `ms_ssim` gives about 10 with two thirds of the pairs clamped. A library of its time that keeps
    negative factors alive as ``(1 + x) / 2``, averages them over the pairs before multiplying, takes the last one
    four times and reads black as -1 gives 41.

    Args:
        images: ``[N, C, H, W]`` in [-1, 1], see `ms_ssim` for sizes.
        labels: int64 ``[N]`` in 0..K-1.
        pairs: pairs of each class; a class needs twice as many images.
        seed: of the choice of the pairs.

    Returns:
        `mean` over all pairs; its `standard_error`, from the spread of the pairs within each class (the pairs are
        disjoint, so they are independent given the classes); the mean `per_class`, ``[K]``; and the share of pairs
        that are `clamped` to 0. Real small images have many of these, which hide how unlike the pairs are.

    Raises:
        ValueError: shapes that do not fit, labels that are no classes, fewer than two pairs, or a class with too few
            images (the message names it), and as `ms_ssim`.
    """
    if images.ndim != 4 or labels.shape != images.shape[:1] or len(labels) == 0:
        raise ValueError(
            "images must be [N, C, H, W] and labels [N] with N > 0, "
            f"got shapes {list(images.shape)} and {list(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool or int(labels.min()) < 0:
        raise ValueError(f"labels must be integers from 0, got {labels.dtype} from {labels.min()}")
    if pairs < 2:
        raise ValueError(f"pairs must be at least 2 in each class, got {pairs}")
    counts = torch.bincount(labels.long())
    if int(counts.min()) < 2 * pairs:
        rare = int(counts.argmin())
        raise ValueError(
            f"{pairs} pairs of each class need {2 * pairs} images of it, "
            f"but class {rare} of labels has {int(counts[rare])}"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in range(len(counts)):
        members = (labels == label).nonzero()[:, 0]
        chosen.append(
            members[torch.randperm(len(members), generator=generator)[: 2 * pairs].to(members.device)]
        )
    first, second = torch.stack(chosen).split(pairs, dim=1)  # [K, pairs] each
    values = ms_ssim(images[first], images[second])
    return Diversity(
        mean=values.mean(),
        standard_error=(values.var(1) / pairs).sum().sqrt() / len(counts),
        per_class=values.mean(1),
        clamped=(values == 0).double().mean(),
    )


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance of each pair, ``[N]``, for two batches ``[N, ...]`` of one shape."""
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"a and b must be [N, ...] of one shape, got {list(a.shape)} and {list(b.shape)}")
    return (a - b).square().flatten(1).sum(1)


def feature_distance(features: Callable[[Tensor], Tensor]) -> Distance:
    """The squared distance in a space of features: `features` maps a batch of images to ``[N, d]``."""
    return lambda a, b: squared_distance(features(a), features(b))


def load_lpips(
    backbone: str = "alex", *, download: bool = False, device: torch.device | str = "cpu"
) -> Distance:
    """LPIPS: the distance of two images in the layers of a classifier, weighted to agree with people.

    Activations of each layer are scaled to unit length at every position; their squared differences are weighted
    channel by channel, averaged over positions and summed over layers (Zhang et al., arXiv:1801.03924, equation 1).
    The weights of the channels come with torchmetrics. The classifier's are torchvision's, trained on ImageNet:
    they are read from the folder where torch.hub keeps such files, and fetched only if `download` says so.

    Made for photographs of 64 pixels or so. It runs on smaller ones, but "Boosting generative networks for
    incremental learning" (section 4.3, footnote 3) holds it unsuited to CIFAR-10's 32 pixels.

    Args:
        backbone: "alex" (the authors' choice as a metric), "vgg" (StyleGAN's path length) or "squeeze" (small).
        download: fetch the classifier's weights when they are not there (233, 528 and 5 MB).
        device: where to compute.

    Returns:
        A distance: images ``[N, 3, H, W]`` (or one channel, taken as grey) in [-1, 1], of at least 31, 16 or
        17 pixels on a side, to float32 ``[N]``, on `device`. It can be differentiated with respect to the images.

    Raises:
        ImportError: torchmetrics is not installed.
        DataError: the weights are missing (the message says which file, where, and how to get it), could not be
            fetched, or are damaged.
        ValueError: an unknown backbone; and, when called, images that do not fit.
    """
    if backbone not in _BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(_BACKBONES)}, got {backbone!r}")
    try:
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        raise ImportError("LPIPS needs torchmetrics: pip install 'gankit[metrics]'") from error
    from torchvision import models

    weights, least = _BACKBONES[backbone]
    path = _find_weights(getattr(models, weights).DEFAULT.url, backbone, download)
    try:
        # torchvision unpickles whatever the file holds; reading it first by this stricter rule refuses code.
        torch.load(path, map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights before they get their own
            network = LearnedPerceptualImagePatchSimilarity(net_type=backbone).net.to(device)
    except (RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError, pickle.PickleError) as error:
        raise DataError(f"{path} is damaged: remove it and fetch it again") from error

    def distance(a: Tensor, b: Tensor) -> Tensor:
        _check_images(a, "a", least)
        _check_images(b, "b", least)
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
            raise ValueError(f"a and b must be [N, 3, H, W], got {list(a.shape)} and {list(b.shape)}")
        a, b = (image.to(device, torch.float32).expand(-1, 3, -1, -1) for image in (a, b))
        return network(a, b).flatten()

    return distance


def _find_weights(url: str, backbone: str, download: bool) -> Path:
    """The file with a classifier's weights, fetched if need be and allowed."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if path.exists():
        return path
    if not download:
        raise DataError(
            f"LPIPS with backbone {backbone!r} needs torchvision's ImageNet weights at {path}, which is not there: "
            f"download=True fetches it, or copy {url} to that place yourself (the environment variable "
            "TORCH_HOME moves the folder)"
        )
    try:
        torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (
        OSError,
        RuntimeError,
    ) as error:  # no connection, a full disk; a file that is not the promised one
        raise DataError(f"{url} could not be fetched to {path} ({error})") from error
    return path


def _check_images(images: Tensor, name: str, least: int) -> None:
    if images.ndim < 3 or images.numel() == 0 or not images.is_floating_point():
        raise ValueError(
            f"{name} must be floating point images [..., C, H, W], got {images.dtype} of shape {list(images.shape)}"
        )
    if min(images.shape[-2:]) < least:
        raise ValueError(
            f"{name} must have at least {least} pixels on each side, got {images.shape[-2]} x {images.shape[-1]}"
        )
    low, high = (limit.item() for limit in images.detach().aminmax())
    # Written so that NaN, which passes no comparison, is refused; the margin is for rounding.
    if not (low >= -1.001 and high <= 1.001) or math.isnan(low):
        raise ValueError(f"{name} must lie in [-1, 1] (Dataset.normalise), got {low:.4g} to {high:.4g}")
