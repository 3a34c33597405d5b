"""The Inception Score, from class probabilities: are single images clear, and are all classes there?

Salimans et al., "Improved techniques for training GANs" (arXiv:1606.03498, section 4):

    IS = exp(E_x KL(p(y | x) || p(y))) = exp(H(mean of p) - mean of H(p)),

the exponential of the mutual information between image and class. It sees no real image: one picture of each
class, repeated, scores as high as the data, and so does noise that the classifier is sure about (Barratt and
Sharma, arXiv:1801.01973). The probabilities are the caller's, and their classifier belongs in the name of the
result: only the 1,008 outputs of the 2015 Inception network make it "IS"; that of another classifier is written
"IS[digits classifier]", say.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

# How far the sum of a row may be from one: a softmax in half precision is good to about this.
_SLACK = 1e-2
# Entries that are worked on at a time, and the least number above 0.
_CHUNK, _TINY = 2**16, torch.finfo(torch.float64).tiny


class InceptionScore(NamedTuple):
    """Mean over the splits, and their standard deviation, float64 ``[...]`` each."""

    mean: Tensor
    std: Tensor


def inception_score(probabilities: Tensor, *, splits: int = 10, seed: int | None = None) -> InceptionScore:
    """Inception Score of N images, by the class probabilities that a classifier gives them.

    The samples are cut into `splits` consecutive parts, each part is scored by itself, and the scores are averaged.
    The value therefore depends on three choices that belong beside it. The number of samples: the entropy of the
    mean of n rows is too low on average, so a small part scores too low, by a factor of about exp(-(C - 1) / 2n)
    where the classifier is sure of itself. The number of splits, for the same reason. And the order: samples of ten
    perfect classes that are sorted by class score 1 in ten splits, and 10 in one. Published values take 50,000
    samples in 10 splits.

    Args:
        probabilities: ``[..., N, C]``, floating point, each row a distribution over C classes (softmax of the
            logits). Rows are divided by their sum, to undo the rounding of low precision.
        splits: parts, each of at least two samples. Where N does not divide, parts differ by one, with the limits
            ``i * N // splits`` of the original code.
        seed: shuffles the samples first, all leading dimensions alike; None keeps their order.

    Returns:
        mean in [1, C] and standard deviation over the parts (divided by their number, as in the original code; a
        measure of spread, no standard error of the mean), float64 ``[...]``. One part has the deviation 0.

    Raises:
        ValueError: another shape or type, fewer than two samples in a part, or rows that are no distributions
            (NaN, negative, or with another sum than 1, as logits have).
    """
    _check_shape(probabilities)
    p, n = probabilities, probabilities.shape[-2]
    if splits < 1 or n < 2 * splits:
        raise ValueError(f"splits must be 1..N/2, two samples in each part, got splits={splits} with N={n}")
    if seed is not None:
        p = p[..., torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(p.device), :]
    limits = [i * n // splits for i in range(splits + 1)]
    parts = p.split([stop - start for start, stop in pairwise(limits)], dim=-2)
    scores = torch.stack([_score(part) for part in parts], dim=-1)
    return InceptionScore(scores.mean(-1), scores.std(-1, correction=0))


def _score(p: Tensor) -> Tensor:
    """The score of one part, from chunks of rows that stay in the cache."""
    total, entropies = 0, 0
    for rows in p.split(max(1, _CHUNK // (p.shape[-1] * p.shape[:-2].numel())), dim=-2):
        rows = _distributions(rows)
        total = total + rows.sum(-2)
        entropies = entropies + _entropy(rows).sum(-1)
    n = p.shape[-2]
    return (_entropy(total / n) - entropies / n).exp().clamp(1, p.shape[-1])


def _entropy(p: Tensor) -> Tensor:
    # p log p is 0 at 0: a class that no image belongs to costs nothing. With the logarithm of 0 it were NaN.
    return -torch.einsum("...c,...c->...", p, p.clamp_min(_TINY).log_())


def _check_shape(probabilities: Tensor) -> None:
    if probabilities.ndim < 2 or probabilities.numel() == 0 or not probabilities.is_floating_point():
        raise ValueError(
            "probabilities must be floating point [..., N, C], "
            f"got {probabilities.dtype} of shape {list(probabilities.shape)}"
        )


def _distributions(rows: Tensor) -> Tensor:
    """Rows divided by their sums, float64, after a check that they are distributions."""
    p = rows.to(torch.float64, copy=True)
    total = p.sum(-1, keepdim=True)
    least, (low, high) = p.min(), total.aminmax()
    # Written so that NaN, which passes no comparison, is refused.
    if not bool((least >= 0) & (low >= 1 - _SLACK) & (high <= 1 + _SLACK)):
        raise ValueError(
            "probabilities must not be negative and sum to 1 in each row (the softmax of logits), "
            f"got {least:.4g} to {p.max():.4g} with sums {low:.4g} to {high:.4g}"
        )
    return p.div_(total)
