"""Squared distances between many points: bounded by matrix products, decided by direct differences.

``|x - y|^2 = |x|^2 + |y|^2 - 2 x . y`` turns all distances into one matrix product, in which small distances
between large vectors drown. So a product here only encloses a squared distance between `low` and `high`, with the
bounds of rounding analysis (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1). Comparisons
that an enclosure cannot decide are decided by ``sum (x - y)^2`` in float64. Since every number that counts comes
from that one formula, results are those of the slow program that uses nothing else, bit for bit; how the bounds were
found changes the time alone. (A GPU may sum in another order from call to call, which ties alone can notice.) That
leaves products free to use the fastest type of the machine.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

# Entries of a matrix that are worked on at a time where rows are converted or subtracted: they stay in the cache.
_CHUNK = 2**17
# Entries of a tile that are looked at together, in a row and in a column: most groups have no small distance.
_GROUP = 64
_SPAN = 32
# Rows of a tile at most, and columns per row; larger tiles leave the cache, and halves of a matrix are cut coarser.
_SIDE, _RATIO = 512, 4
# Bytes per entry of a tile: product, bounds, a buffer, and what finding all entries takes.
_TILE_ENTRY = 128
# Lower bound of a squared distance from a point to the rows that fill the last group.
_FAR = 1e30
# Where more than this share of a tile is undecided, a float64 product of all of it is cheaper than single pairs.
_CROWDED = 1 / 32


@dataclass(frozen=True, eq=False)
class Points:
    """A set of points, and what their products need.

    Attributes:
        x: ``[n, d]``, float32 or float64, as given.
        norm: squared lengths of `x`, float64 ``[n]``.
        centre: ``[d]``, subtracted before products.
        unit: a power of two by which squares and products of centred points are divided, so that none exceeds 1.
        rounded: centred points in the type of the products, filled with zeros to a multiple of `_GROUP` rows.
        square: squared lengths of the centred points, in `unit`; float32, filled with zeros.
        base: lower bounds of the points' parts in a squared distance, in `unit`; float32, filled with `_FAR`.
        slack: relative to the sum of two squares, the error of a squared distance from products.
    """

    x: Tensor
    norm: Tensor
    centre: Tensor
    unit: float
    rounded: Tensor
    square: Tensor
    base: Tensor
    slack: float

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of points, each with an enclosure of its squared distance (float64, in the units of the points)."""

    rows: Tensor
    columns: Tensor
    low: Tensor
    high: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Pairs:
        return Pairs(self.rows[index], self.columns[index], self.low[index], self.high[index])

    @staticmethod
    def joined(parts: list[Pairs]) -> Pairs:
        """All pairs of several collections."""
        fields = ("rows", "columns", "low", "high")
        return Pairs(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))

    def mirrored(self) -> Pairs:
        """The pairs j, i."""
        return Pairs(self.columns, self.rows, self.low, self.high)

    def replaced(self, index: Tensor, pairs: Pairs) -> Pairs:
        """The same pairs with the enclosures of some of them exchanged."""
        return Pairs(
            self.rows,
            self.columns,
            self.low.index_put((index,), pairs.low),
            self.high.index_put((index,), pairs.high),
        )

    def within(self, low: Tensor, high: Tensor) -> Pairs:
        """The same pairs with whichever bounds are narrower; bounds that overflowed to NaN tell nothing."""
        low = torch.fmax(self.low, low)
        return Pairs(self.rows, self.columns, low, torch.fmin(self.high, high))


def bytes_of_rounded(n: int, d: int, device: torch.device) -> int:
    """Memory of the rounded copy of n points, their squares included."""
    return (n + _GROUP) * (d * product_type(d, device).itemsize + 16)


def prepare(*sets: Tensor) -> list[Points]:
    """Sets of points ``[n, d]`` of one type, centred and rounded alike, so that their products can be compared."""
    d, dtype, device = sets[0].shape[1], sets[0].dtype, sets[0].device
    # Any centre is right; the mean makes the squares small.
    centre = sum(chunk.sum(0) for x in sets for chunk in _chunks(x)) / sum(len(x) for x in sets)
    # A power of two changes no digit.
    largest = 2 * max(abs(float(end)) for x in sets for end in x.aminmax())
    scale = 2.0 ** -math.ceil(math.log2(largest * math.sqrt(d))) if largest > 0 else 1.0
    # Where float32 products may round their arguments, they round them to no fewer digits than bfloat16.
    may_round = _products_round()
    parts, loss = [], 0.0
    for x in sets:
        norm, square = torch.empty(len(x), dtype=torch.float64, device=device), x.new_empty(len(x))
        rounded = torch.zeros(_filled(len(x)), d, dtype=product_type(d, device), device=device)
        start = 0
        for chunk in _chunks(x):
            rows = slice(start, start + len(chunk))
            start = rows.stop
            norm[rows] = vector_norm(chunk, dim=1, dtype=torch.float64).square_()
            centred = (chunk - centre).mul_(scale)
            length = vector_norm(centred, dim=1)
            square[rows] = length.square()
            rounded[rows] = centred
            lost = centred.sub_(centred.to(torch.bfloat16) if may_round else rounded[rows])
            loss = max(loss, float((vector_norm(lost, dim=1) / length).nan_to_num_(0).max()))
        parts.append((x, norm, square, rounded))
    # What is lost in the arguments, centring included; then sums of d products and of d squares.
    loss = loss * (1 + d * 2.0**-23) + torch.finfo(dtype).eps
    slack = 2 * loss * (1 + loss) + 1.01 * d * 2.0**-23 * (2 if may_round else 1) + 2.0**-20
    points = []
    for x, norm, square, rounded in parts:
        filled, base = (torch.full((len(rounded),), rest, device=device) for rest in (0.0, _FAR))
        filled[: len(x)], base[: len(x)] = square, (1 - slack) * square
        points.append(Points(x, norm, centre, scale**-2, rounded, filled, base, slack))
    return points


@functools.cache
def product_type(d: int, device: torch.device) -> torch.dtype:
    """The type whose products this machine forms fastest: bfloat16 on processors that have it, else float32."""
    # Short products take little time beside everything else, and float32 leaves fewer pairs undecided.
    if device.type != "cpu" or d < 256:
        return torch.float32
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(256, 512, dtype=dtype)
        trials = []
        for _ in range(4):
            begun = time.perf_counter()
            x @ x.T
            trials.append(time.perf_counter() - begun)
        seconds[dtype] = min(trials)
    return min(seconds, key=seconds.get)


class Tile:
    """Bounds of the squared distances between a block of rows and a block of columns, from one product.

    Attributes:
        low: lower bounds in the unit of the points, float32 ``[B, C]``; columns that are no points are far away,
            and so is each point from itself.
    """

    def __init__(self, a: Points, i: slice, b: Points, j: slice, buffers: list[Tensor]) -> None:
        self.a, self.i, self.b, self.j = a, i, b, j
        shape = (i.stop - i.start, j.stop - j.start)
        # Memory that is used again costs a fraction of memory that is new.
        product, self.low, self._spare = (x[: shape[0] * shape[1]].view(shape) for x in buffers)
        torch.mm(a.rounded[i], b.rounded[j].T, out=product)
        self.own = a is b and i.start == j.start
        if self.own:
            product.diagonal().zero_()
        # What does not grow with the squares: numbers too small for float32, ...
        error = 2.0**-100
        if product.dtype == torch.bfloat16:
            # ... and a product stored as bfloat16, which was rounded to half a unit in the last place; it counts twice.
            error += 1.01 * 2.0**-7 * max(abs(float(end)) for end in product.aminmax())
        torch.add(b.base[j], product, alpha=-2, out=self.low).add_(a.base[i, None] - error)
        if self.own:
            self.low.diagonal().fill_(_FAR)
        # What makes a lower bound an upper one: a part of the row, and one of the column.
        self._reach_a, self._reach_b = (
            2 * p.slack * p.square[block] + error for p, block in ((a, i), (b, j))
        )

    def nearest(self, k: int) -> tuple[Tensor, Tensor]:
        """Upper bounds of distances to different points, small ones among them: ``[B, <= k]`` and ``[C, <= k]``.

        Smallest entries of groups are found much faster than smallest entries, and most of the nearest are among
        them.
        """
        high = torch.add(self.low, self._reach_b, out=self._spare).add_(self._reach_a[:, None])
        rows = high.view(len(high), -1, _GROUP).amin(2)
        span = min(_SPAN, len(high))
        columns = high[: len(high) // span * span].view(-1, span, high.shape[1]).amin(1).T.contiguous()
        if self.own:
            columns[: len(high)] = torch.inf  # these pairs are among those of the rows already
        found = (x.topk(min(k, x.shape[1]), largest=False, sorted=False).values for x in (rows, columns))
        return tuple(x.to(torch.float64) * self.a.unit for x in found)

    def pairs(self, row_limit: Tensor, column_limit: Tensor) -> Pairs:
        """All pairs whose distance may be at most the larger of two limits, sorted by rows.

        Args:
            row_limit: squared distance for each row of the tile, in the units of the points.
            column_limit: the same for each column; columns that are no points may lack one.
        """
        limits = []
        for limit, size in zip((row_limit, column_limit), self.low.shape, strict=True):
            filled = self.low.new_full((size,), -_FAR)
            # Rounded up, and kept below the bound of the columns that are no points.
            filled[: len(limit)] = (limit.to(torch.float64) / self.a.unit * (1 + 2.0**-22)).clamp(
                max=_FAR / 4
            )
            limits.append(filled)
        excess = torch.maximum(limits[0][:, None], limits[1], out=self._spare)
        groups = torch.sub(self.low, excess, out=excess).view(-1, _GROUP)
        hits = (groups.amin(1) <= 0).nonzero()[:, 0]
        inner = (groups[hits] <= 0).nonzero()
        position = hits[inner[:, 0]] * _GROUP + inner[:, 1]
        rows = position.div(self.low.shape[1], rounding_mode="floor")
        columns = position - rows * self.low.shape[1]
        low = self.low.view(-1)[position].to(torch.float64)
        high = low + self._reach_a[rows] + self._reach_b[columns]
        unit = self.a.unit
        return Pairs(rows + self.i.start, columns + self.j.start, (low * unit).clamp_min_(0), high * unit)

    def crowded(self, pairs: Pairs | Tensor) -> bool:
        """Whether so many pairs of the tile are left that products of all of them are cheaper."""
        return len(pairs) > _CROWDED * self.low.numel()

    def narrow(self, pairs: Pairs) -> Pairs:
        """Narrower enclosures from a float64 product of the whole tile."""
        blocks = []
        for points, block in ((self.a, self.i), (self.b, self.j)):
            blocks.append(points.x[block].to(torch.float64) - points.centre)
        product = blocks[0] @ blocks[1].T
        squares = [vector_norm(block, dim=1).square() for block in blocks]
        rows, columns = pairs.rows - self.i.start, pairs.columns - self.j.start
        scale = squares[0][rows] + squares[1][columns]
        middle = scale - 2 * product[rows, columns]
        error = (8 * self.a.x.shape[1] + 16) * 2.0**-53 * scale
        return pairs.within(middle - error, middle + error)


def tiles(a: Points, b: Points, max_bytes: int) -> Iterator[Tile]:
    """Tiles of all pairs of two sets, row blocks first; of one set with itself, at least one of (i, j) and (j, i).

    A tile is good until the next one comes, which takes its memory.
    """
    side, ratio = _tile_side(max_bytes, a.x.shape[1]), _RATIO
    buffers = [x.new_empty(ratio * side**2) for x in (a.rounded, a.base, a.base)]
    for start in range(0, len(a), side):
        i = slice(start, min(start + side, len(a)))
        for first in range(start if a is b else 0, len(b), ratio * side):
            yield Tile(a, i, b, slice(first, min(first + ratio * side, len(b.rounded))), buffers)


def tile_entries(max_bytes: int, d: int) -> int:
    """Entries of a tile that fits into the memory."""
    return _RATIO * _tile_side(max_bytes, d) ** 2


def least_tile_bytes(d: int) -> int:
    """Memory of the smallest tile there is."""
    return _RATIO * _TILE_ENTRY * _GROUP**2 + 8 * d * (1 + _RATIO) * _GROUP + 1


def _tile_side(max_bytes: int, d: int) -> int:
    """Rows of a tile, which has `_RATIO` times as many columns: a multiple of `_GROUP` up to `_SIDE`, or 0."""
    # Solves entries * side^2 + points * side = max_bytes, for points in float64.
    entries, points = _RATIO * _TILE_ENTRY, 8 * d * (1 + _RATIO)
    side = int((math.sqrt(points**2 + 4 * entries * max(max_bytes, 0)) - points) / (2 * entries))
    return min(_SIDE, side // _GROUP * _GROUP)


def by_products(a: Points, b: Points, pairs: Pairs) -> Pairs:
    """Narrower enclosures from one dot product for each pair, in the type of the points; pairs sorted by rows."""
    if len(pairs) == 0 or not (a.x.is_cuda or torch.backends.mkl.is_available()):
        return pairs
    first, last = int(pairs.rows[0]), int(pairs.rows[-1]) + 1
    counts = torch.bincount(pairs.rows - first, minlength=last - first)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    shape = (last - first, len(b))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            starts, pairs.columns, a.x.new_zeros(len(pairs)), shape, check_invariants=False
        )
        product = torch.sparse.sampled_addmm(pattern, a.x[first:last], b.x.T, beta=0.0).values()
    product = product.to(torch.float64)
    product[~product.isfinite()] = torch.nan
    scale = a.norm[pairs.rows] + b.norm[pairs.columns]
    middle = scale - 2 * product
    d, kind = a.x.shape[1], torch.finfo(a.x.dtype)
    error = (0.51 * d * kind.eps + (8 * d + 16) * 2.0**-53) * scale + 4 * d * kind.tiny
    return pairs.within(middle - error, middle + error)


def by_differences(a: Points, b: Points, pairs: Pairs) -> Pairs:
    """Squared distances themselves, ``sum (a_i - b_j)^2`` in float64: `low` and `high` are equal."""
    exact, rows = [], max(1, _CHUNK // 2 // a.x.shape[1])
    for i, j in zip(pairs.rows.split(rows), pairs.columns.split(rows), strict=True):
        exact.append(a.x[i].to(torch.float64).sub_(b.x[j]).square_().sum(1))
    distance = torch.cat(exact)
    return Pairs(pairs.rows, pairs.columns, distance, distance)


def _products_round() -> bool:
    """Whether the settings allow float32 products to round their arguments (TF32 or bfloat16)."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # newer settings were used, which this older question does not understand
        return True


def _filled(n: int) -> int:
    return -(-n // _GROUP) * _GROUP


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    return x.split(max(1, _CHUNK // x.shape[1]))
