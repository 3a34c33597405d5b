import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit.metrics import neighbour_search
from gankit.metrics.neighbour_search import Pairs, by_differences, by_products, prepare, tiles

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=25)


def points(kind, n, d, seed, dtype=torch.float32):
    """Sets that are hard in different ways: clusters, large means, outliers, signs that add up."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    match kind:
        case "normal":
            pass
        case "far":
            x = x + 1000
        case "clusters":
            x = 1e-3 * x + 10 * torch.randint(-1, 2, (n, 1), generator=generator)
        case "outliers":
            x = x * torch.randn(n, 1, generator=generator).exp() ** 4
        case "positive":
            x = x.abs()
        case "tiny":
            x = x * 2.0**-80
        case "huge":
            x = x * 2.0**60
        case "lattice":
            x = x.round()
        case "scales":
            x = x * 10.0 ** torch.randint(-25, 1, (n, 1), generator=generator)
    return x.to(dtype)


KINDS = ["normal", "far", "clusters", "outliers", "positive", "tiny", "huge", "lattice", "scales"]


def direct(a, b):
    return torch.stack([(x - b.double()).square().sum(1) for x in a.double()])


def every_pair(n, m):
    rows, columns = (x.flatten() for x in torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij"))
    unknown = torch.full((n * m,), torch.inf, dtype=torch.float64)
    return Pairs(rows, columns, torch.zeros_like(unknown), unknown)


def unlimited(tile):
    """All pairs of a tile."""
    sizes = (len(range(len(part))[block]) for part, block in ((tile.a, tile.i), (tile.b, tile.j)))
    return tile.pairs(*(torch.full((size,), torch.inf) for size in sizes))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def product_type(request, monkeypatch):
    monkeypatch.setattr(neighbour_search, "product_type", lambda d, device: request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 3, 700])
def test_products_enclose_distances(kind, d, product_type):
    x, y = points(kind, 150, d, seed=1), points(kind, 130, d, seed=2)
    a, b = prepare(x, y)
    exact, seen = direct(x, y), torch.zeros(150, 130, dtype=torch.bool)
    for tile in tiles(a, b, 10**7):
        pairs = unlimited(tile)
        distance = exact[pairs.rows, pairs.columns]
        for bounds in (pairs, tile.narrow(pairs), by_products(a, b, pairs)):
            assert (bounds.low <= distance).all()
            assert (distance <= bounds.high).all()
        seen[pairs.rows, pairs.columns] = True
    assert seen.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_pair_products_enclose_distances(kind, dtype):
    x, y = points(kind, 40, 300, seed=3, dtype=dtype), points(kind, 50, 300, seed=4, dtype=dtype)
    a, b = prepare(x, y)
    pairs = by_products(a, b, every_pair(40, 50))
    exact = direct(x, y).flatten()
    assert (pairs.low <= exact).all()
    assert (exact <= pairs.high).all()


def test_narrower_bounds_are_narrower(product_type):
    (a,) = prepare(points("normal", 130, 512, seed=5))
    (tile,) = tiles(a, a, 10**9)
    pairs = unlimited(tile)
    products, whole = by_products(a, a, pairs), tile.narrow(pairs)
    widths = [(bounds.high - bounds.low).max() for bounds in (pairs, products, whole)]
    assert widths[0] >= widths[1] > 1e6 * widths[2] > 0


def test_bounds_are_narrow_enough_to_be_of_use(product_type):
    a, b = prepare(points("normal", 200, 2048, seed=6), points("normal", 200, 2048, seed=7))
    (tile,) = tiles(a, b, 10**9)
    pairs = unlimited(tile)
    # Squared distances are 4096 with a standard deviation of 128.
    assert (pairs.high - pairs.low).max() < 64
    assert (by_products(a, b, pairs).high - by_products(a, b, pairs).low).max() < 2


def test_within_a_set_every_pair_comes_and_none_with_itself():
    (a,) = prepare(points("normal", 300, 4, seed=8))
    seen = torch.zeros(300, 300, dtype=torch.int64)
    for tile in tiles(a, a, neighbour_search.least_tile_bytes(4)):
        pairs = unlimited(tile)
        seen[pairs.rows, pairs.columns] += 1
    assert (seen.diagonal() == 0).all()
    assert (seen + seen.T)[~torch.eye(300, dtype=torch.bool)].min() == 1
    assert seen.max() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_stay_as_they_are(dtype):
    x = points("normal", 50, 3, seed=12, dtype=dtype)
    before = x.clone()
    (a,) = prepare(x)
    for tile in tiles(a, a, 10**7):
        pairs = unlimited(tile)
        for bounds in (tile.narrow(pairs), by_products(a, a, pairs), by_differences(a, a, pairs)):
            assert len(bounds) == len(pairs)
    assert torch.equal(x, before)


@relaxed
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.integers(1, 90), st.integers(1, 90))
def test_limits_choose_the_pairs_below_them_and_few_others(seed, kind, n, m):
    x, y = points(kind, n, 6, seed), points(kind, m, 6, seed + 1)
    a, b = prepare(x, y)
    exact = direct(x, y)
    rows, columns = exact.median(1).values, exact.amin(0)
    (tile,) = tiles(a, b, 10**9)
    pairs = tile.pairs(rows, columns)
    chosen = torch.zeros(n, m, dtype=torch.bool)
    chosen[pairs.rows, pairs.columns] = True
    limit = torch.maximum(rows[:, None], columns)
    assert chosen[exact <= limit].all()
    assert (pairs.low <= limit[pairs.rows, pairs.columns] * (1 + 1e-6)).all()
    assert (pairs.rows.diff() >= 0).all()


@relaxed
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 5))
def test_nearest_bounds_belong_to_different_points(seed, n, k):
    """The k-th smallest of all bounds that tiles give for a point is no less than its k-th distance."""
    x = points("lattice", n, 3, seed)
    (a,) = prepare(x)
    exact = direct(x, x).fill_diagonal_(torch.inf).sort(1).values
    bounds = torch.full((n, k), torch.inf)
    for tile in tiles(a, a, neighbour_search.least_tile_bytes(3)):
        for block, found in zip((tile.i, tile.j), tile.nearest(k), strict=True):
            both = torch.cat([bounds[block], found[: len(bounds[block])]], 1)
            bounds[block] = both.topk(k, largest=False).values
    bounds = bounds.sort(1).values
    for j in range(min(k, n - 1)):
        assert (bounds[:, j] >= exact[:, j] * (1 - 1e-6)).all()


@pytest.mark.parametrize("d", [1, 7, 2048, 70_000])
def test_differences_have_the_same_bits_whichever_pairs_come_with_them(d):
    x, y = points("normal", 7, d, seed=9), points("normal", 5, d, seed=10)
    a, b = prepare(x, y)
    pairs = every_pair(7, 5)
    together = by_differences(a, b, pairs)
    assert torch.equal(together.low, together.high)
    alone = torch.cat([by_differences(a, b, pairs[torch.tensor([i])]).low for i in range(35)])
    backwards = by_differences(b, a, pairs.mirrored()[torch.arange(34, -1, -1)]).low.flip(0)
    assert torch.equal(together.low, alone)
    assert torch.equal(together.low, backwards)
    assert torch.allclose(together.low, direct(x, y).flatten(), rtol=1e-13)


def test_without_the_sparse_product_bounds_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    (a,) = prepare(points("normal", 5, 4, seed=11))
    pairs = every_pair(5, 5)
    assert by_products(a, a, pairs) is pairs
