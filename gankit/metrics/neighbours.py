"""Precision and recall, density and coverage: which samples lie among the nearest neighbours of others.

Balls around the samples of a set, each as large as the distance to its k-th nearest neighbour in the same set,
stand for the region that the set covers. Four numbers count what lies in which balls:

.. table:: The four numbers.

 =========  ====================================================================  =====================================
 precision  share of generated samples in the ball of some real one               Kynkaanniemi et al., arXiv:1904.06991
 recall     share of real samples in the ball of some generated one               the same
 density    real balls that hold a generated sample, on average, divided by k     Naeem et al., arXiv:2002.09797
 coverage   share of real balls that hold a generated sample                      the same
 =========  ====================================================================  =====================================

Balls of the first pair are closed (a sample on the border lies inside, as in equation 1 of the paper), those of
the second are open (as in its authors' program `prdc`). A sample is not its own neighbour, a duplicate of it is: a ball
may have radius 0, and then holds copies of its centre if it is closed and nothing if it is open.

**What is exact.** Every radius and every comparison is that of squared distances ``sum (x - y)^2`` of the given
features in float64, ties and duplicates included, whatever the memory, the number of threads and the machine's
fastest arithmetic: matrix products sort out only what their rounding errors cannot change (see
`gankit.metrics.neighbour_search`). A generator that repeats training samples shifted by less than float32 resolves is
told apart from one that copies them.

The space of the features is the caller's and belongs in the name of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gankit.metrics.neighbour_search import (
    Pairs,
    Points,
    Tile,
    by_differences,
    by_products,
    bytes_of_rounded,
    least_tile_bytes,
    prepare,
    tile_entries,
    tiles,
)


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], float64 scalars."""

    precision: Tensor
    recall: Tensor


class DensityCoverage(NamedTuple):
    """Density, at least 0 and about 1 for equal distributions, and coverage in [0, 1], float64 scalars."""

    density: Tensor
    coverage: Tensor


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, *, max_bytes: int = 2**29) -> PrecisionRecall:
    """Shares of generated samples among the real ones and of real samples among the generated ones.

    Exchanging the sets exchanges the numbers.

    Args:
        real: ``[N, d]``, floating point.
        fake: ``[M, d]``, floating point.
        k: neighbours that a ball reaches to, 1 to min(N, M) - 1. The paper uses 3.
        max_bytes: memory beyond the features themselves. Large sets need at least that of their copies in the
            type of the products; the time depends on it little.

    Raises:
        ValueError: shapes or types that do not fit, features that are not finite, k out of range, or too
            little memory.
    """
    counts = prdc(real, fake, k, max_bytes=max_bytes)
    return PrecisionRecall(counts["precision"], counts["recall"])


def density_coverage(real: Tensor, fake: Tensor, k: int = 5, *, max_bytes: int = 2**29) -> DensityCoverage:
    """How many real balls hold a generated sample, and which share of them.

    Args and Raises: as for `precision_recall`, with k up to N - 1. The paper uses 5.
    """
    real, fake = _checked(real, fake)
    _check_k(k, {"real": len(real)})
    real, real_weight = _distinct(real)
    fake, fake_weight = _distinct(fake)
    _check_memory(max_bytes, k, real, fake)
    radii = _radii(real, real_weight, k, max_bytes)
    no_balls = torch.full((len(fake),), -1.0, dtype=torch.float64, device=fake.device)
    inside = _inside(real, fake, real_weight, radii, no_balls, max_bytes)
    return DensityCoverage(*_density_coverage(inside, real_weight, fake_weight, k))


def prdc(real: Tensor, fake: Tensor, k: int = 5, *, max_bytes: int = 2**29) -> dict[str, Tensor]:
    """All four numbers for one k, for little more than the price of two.

    Args and Raises: as for `precision_recall`.

    Returns:
        `precision`, `recall`, `density` and `coverage`, float64 scalars.
    """
    real, fake = _checked(real, fake)
    _check_k(k, {"real": len(real), "fake": len(fake)})
    real, real_weight = _distinct(real)
    fake, fake_weight = _distinct(fake)
    _check_memory(max_bytes, k, real, fake)
    real_radii = _radii(real, real_weight, k, max_bytes)
    fake_radii = _radii(fake, fake_weight, k, max_bytes)
    inside = _inside(real, fake, real_weight, real_radii, fake_radii, max_bytes)
    density, coverage = _density_coverage(inside, real_weight, fake_weight, k)
    return {
        "precision": _share(inside.fake_in_closed, fake_weight),
        "recall": _share(inside.real_in_closed, real_weight),
        "density": density,
        "coverage": coverage,
    }


def _checked(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    for name, x in (("real", real), ("fake", fake)):
        if x.ndim != 2 or x.shape[1] == 0 or not x.is_floating_point():
            raise ValueError(
                f"{name} must be floating point features [N, d], got {x.dtype} of shape {list(x.shape)}"
            )
        if len(x) < 2:
            raise ValueError(f"{name} must hold at least 2 samples, got {len(x)}")
        largest = max(abs(float(end)) for end in x.aminmax())
        if not math.isfinite(largest):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        if largest > 1e150:
            raise ValueError(f"{name} must not exceed 1e150 in size, where squares overflow, got {largest:g}")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real and fake must have equally many features, got {real.shape[1]} and {fake.shape[1]}"
        )
    dtype = torch.float64 if torch.float64 in (real.dtype, fake.dtype) else torch.float32
    return real.detach().to(dtype).contiguous(), fake.detach().to(dtype).contiguous()


def _check_k(k: int, sizes: dict[str, int]) -> None:
    name = min(sizes, key=sizes.get)
    if not 1 <= k < sizes[name]:
        raise ValueError(
            f"k must lie in 1..{sizes[name] - 1}, for {name} holds {sizes[name]} samples, got {k}"
        )


def _check_memory(max_bytes: int, k: int, real: Tensor, fake: Tensor) -> None:
    least = _least(k, real, fake) + least_tile_bytes(real.shape[1])
    if max_bytes < least:
        raise ValueError(f"max_bytes must be at least {least} for these sets, got {max_bytes}")


def _least(k: int, *sets: Tensor) -> int:
    """Bytes of rounded copies, and of k neighbours of each sample while they are sorted."""
    return sum(bytes_of_rounded(len(x), x.shape[1], x.device) + 160 * k * len(x) for x in sets)


def _distinct(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that differ, and how often each occurs, int64 ``[n]``. Without duplicates x itself comes back."""
    # The first features tell most rows apart.
    for d in (min(16, x.shape[1]), x.shape[1]):
        _, group, count = _keys(x[:, :d]).unique(return_inverse=True, return_counts=True)
        if len(count) == len(x):
            return x, torch.ones_like(count)
    rows = torch.arange(len(x), device=x.device)
    first = torch.full_like(count, len(x)).scatter_reduce_(0, group, rows, "amin")
    same = [(x[part] == x[first[group[part]]]).all(1) for part in rows.split(_rows_at_a_time(x))]
    mixed = torch.zeros_like(count, dtype=torch.bool).index_fill_(0, group[~torch.cat(same)], True)
    # Rows that share a key and yet differ, which no key of 64 bits rules out, are compared themselves.
    pure, unsure = ~mixed, x[mixed[group]]
    if len(unsure) == 0:
        return x[first], count
    rest, rest_count = unsure.unique(dim=0, return_counts=True)
    return torch.cat([x[first[pure]], rest]), torch.cat([count[pure], rest_count])


def _keys(x: Tensor) -> Tensor:
    """A number of 64 bits for each row, int64 ``[n]``: equal for equal rows, and for others hardly ever."""
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (2, x.shape[1]), generator=generator).mul_(2).add_(1).to(x.device)
    bits = {4: torch.int32, 8: torch.int64}[x.element_size()]
    keys = []
    for chunk in x.split(_rows_at_a_time(x)):
        # Adding 0 makes 0 of -0: rows that are equal shall have equal bits.
        mixed = chunk.add(0.0).view(bits).to(torch.int64)
        # A product carries bits upwards only, and those of halves and small integers lie at the upper end: a sum of
        # products alone would keep a few bits of 64. So the upper half is folded onto the lower one before each.
        for factor in odd:
            mixed = (mixed ^ (mixed >> 32 & 0xFFFFFFFF)) * factor
        # Sums of integers wrap around and do not depend on their order.
        keys.append(mixed.sum(1))
    return torch.cat(keys)


def _rows_at_a_time(x: Tensor) -> int:
    return max(1, 2**16 // x.shape[1])


def _radii(x: Tensor, weight: Tensor, k: int, max_bytes: int) -> Tensor:
    """Squared distance of each row to its k-th nearest neighbour, float64 ``[n]``; other rows count `weight` times.

    Each tile serves the neighbours of its rows and of its columns. What is kept of it are the pairs that may still
    be among the k nearest of a point.
    """
    (points,) = prepare(x)
    max_bytes -= _least(k, x)
    search = _Search(points, weight, k, room=max(tile_entries(max_bytes, x.shape[1]) // 4, 2 * k * len(x)))
    for tile in tiles(points, points, max_bytes):
        search.look_at(tile)
    return search.squared_radii()


class _Search:
    """The k nearest neighbours of each point, from tiles of their distances.

    Attributes:
        need: duplicates left to find among other points; the first ones of a point are at distance 0 from it.
        nearest: upper bounds of distances to k different points, float64 ``[n, k]``.
        limit: an upper bound of the radius, float64 ``[n]``.
        found: pairs i, j such that j may be among the nearest of i.
        fresh: pairs i, j such that one of them may be among the nearest of the other.
        room: number of pairs above which those are sorted out that others have overtaken.
    """

    def __init__(self, points: Points, weight: Tensor, k: int, room: int) -> None:
        self.points, self.weight, self.k, self.room = points, weight, k, room
        self.need = k + 1 - weight
        none = torch.empty(0, dtype=torch.float64, device=weight.device)
        self.nearest = none.new_full((len(points), k), torch.inf)
        self.limit = self.nearest[:, -1].clone()
        self.found, self.fresh = Pairs(none.long(), none.long(), none, none), []

    def look_at(self, tile: Tile) -> None:
        for block, bounds in zip((tile.i, tile.j), tile.nearest(self.k), strict=True):
            known = self.nearest[block]
            bounds = torch.cat([known, bounds[: len(known)]], 1).topk(self.k, largest=False).values
            self.nearest[block] = bounds
            self.limit[block] = torch.minimum(self.limit[block], bounds[:, -1])
        pairs = tile.pairs(self.limit[tile.i], self.limit[tile.j])
        if tile.own:
            pairs = pairs[pairs.columns > pairs.rows]
        self.fresh.append(tile.narrow(pairs) if tile.crowded(pairs) else pairs)
        if sum(map(len, self.fresh)) > self.room:
            self.prune()
            # Where many are left, in dense clusters or on a lattice, narrower bounds tell more; at last k are left.
            for narrow in (by_products, by_differences):
                if len(self.found) > self.room:
                    self.narrow((self.found.low < self.found.high).nonzero()[:, 0], narrow)
                    self.prune()

    def narrow(self, index: Tensor, narrow: Callable[[Points, Points, Pairs], Pairs]) -> None:
        """Exchange some of the pairs found for the same with narrower bounds."""
        self.found = self.found.replaced(index, narrow(self.points, self.points, self.found[index]))

    def prune(self) -> None:
        """Keep only neighbours that may be among the nearest, sorted by rows."""
        both = [pairs for fresh in self.fresh for pairs in (fresh, fresh.mirrored())]
        both = [pairs[pairs.low <= self.limit[pairs.rows]] for pairs in both]
        found, self.fresh = Pairs.joined([self.found, *both]), []
        kth, nearest = _kth(found.rows, found.high, self.weight[found.columns], self.need)
        self.limit = torch.minimum(self.limit, kth)
        # Of many neighbours at the very limit the k that establish it are enough.
        keep = (nearest | (found.low < self.limit[found.rows])) & (self.need[found.rows] > 0)
        found = found[keep]
        self.found = found[found.rows.argsort(stable=True)]

    def squared_radii(self) -> Tensor:
        """The distances themselves, float64 ``[n]``."""
        for narrow in (by_products, by_differences):
            self.prune()
            found, weight = self.found, self.weight[self.found.columns]
            low, _ = _kth(found.rows, found.low, weight, self.need)
            # The k-th is one of these; of nearer and farther ones the order suffices.
            open_ = (found.low <= self.limit[found.rows]) & (found.high >= low[found.rows])
            self.narrow(open_.nonzero()[:, 0], narrow)
        radii, _ = _kth(found.rows, self.found.low, weight, self.need)
        return torch.where(self.need > 0, radii, 0.0)


def _kth(owner: Tensor, value: Tensor, weight: Tensor, need: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest value of each owner at which the weights of its values up to there reach `need`.

    Returns:
        float64 ``[n]``, inf where they never do, and a mask of the entries up to there.
    """
    order = value.argsort()
    order = order[owner[order].argsort(stable=True)]
    owner_, weight_ = owner[order], weight[order]
    total = weight_.cumsum(0)
    count = torch.bincount(owner_, minlength=len(need))
    first = count.cumsum(0) - count
    ahead = torch.cat([total.new_zeros(1), total])[first]
    reached = total - ahead[owner_]
    before = reached - weight_ < need[owner_]
    last = before & (reached >= need[owner_])
    kth = torch.full((len(need),), torch.inf, dtype=torch.float64, device=value.device)
    kth[owner_[last]] = value[order][last]
    mask = torch.empty_like(before)
    mask[order] = before
    return kth, mask


class _Inside(NamedTuple):
    """Which samples lie in which balls.

    Attributes:
        fake_in_closed: in some closed real ball, bool ``[M]``.
        real_in_closed: in some closed generated ball, bool ``[N]``.
        fake_in_open: number of open real balls, those of duplicates included, float64 ``[M]``.
        open_not_empty: whether the open real ball holds a generated sample, bool ``[N]``.
    """

    fake_in_closed: Tensor
    real_in_closed: Tensor
    fake_in_open: Tensor
    open_not_empty: Tensor


def _inside(
    real: Tensor,
    fake: Tensor,
    real_weight: Tensor,
    real_radii: Tensor,
    fake_radii: Tensor,
    max_bytes: int,
) -> _Inside:
    """Compare all pairs with the squared radii of both sets, float64 ``[N]`` and ``[M]``; below 0 is no ball."""
    a, b = prepare(real, fake)
    fake_in_closed, fake_in_open = (
        torch.zeros_like(fake_radii, dtype=torch.bool),
        torch.zeros_like(fake_radii),
    )
    real_in_closed, open_not_empty = (torch.zeros_like(real_radii, dtype=torch.bool) for _ in range(2))
    for tile in tiles(a, b, max_bytes - _least(0, real, fake)):
        pairs = tile.pairs(real_radii[tile.i], fake_radii[tile.j])
        pairs = _settled(tile, pairs, real_radii, fake_radii)
        rows, columns = pairs.rows, pairs.columns
        closed, open_ = pairs.high <= real_radii[rows], pairs.high < real_radii[rows]
        fake_in_closed[columns[closed]] = True
        open_not_empty[rows[open_]] = True
        fake_in_open.index_add_(0, columns[open_], real_weight[rows[open_]].to(torch.float64))
        real_in_closed[rows[pairs.high <= fake_radii[columns]]] = True
    return _Inside(fake_in_closed, real_in_closed, fake_in_open, open_not_empty)


def _settled(tile: Tile, pairs: Pairs, row_limit: Tensor, column_limit: Tensor) -> Pairs:
    """The same pairs, their enclosures narrowed until a distance is known to be above, below or at each limit."""
    limits = row_limit[pairs.rows], column_limit[pairs.columns]
    for narrow in (
        tile.narrow,
        partial(by_products, tile.a, tile.b),
        partial(by_differences, tile.a, tile.b),
    ):
        open_ = [(pairs.low <= limit) & (limit <= pairs.high) for limit in limits]
        open_ = (open_[0] | open_[1]).nonzero()[:, 0]
        if narrow != tile.narrow or tile.crowded(open_):
            pairs = pairs.replaced(open_, narrow(pairs[open_]))
    return pairs


def _share(member: Tensor, weight: Tensor) -> Tensor:
    return weight[member].sum() / weight.sum().to(torch.float64)


def _density_coverage(
    inside: _Inside, real_weight: Tensor, fake_weight: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    density = (inside.fake_in_open * fake_weight).sum() / (k * fake_weight.sum())
    return density, _share(inside.open_not_empty, real_weight)
