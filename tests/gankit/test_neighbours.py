import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from gankit.metrics import neighbour_search, neighbours
from gankit.metrics.neighbours import density_coverage, prdc, precision_recall

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)


def normal(n, d, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)


def squared(a, b):
    return np.stack([((x - b) ** 2).sum(1) for x in a])


def by_definition(real, fake, k):
    """All distances by differences in float64, all comparisons as the papers write them."""
    real, fake = real.double().numpy(), fake.double().numpy()
    radii = []
    for x in (real, fake):
        within = squared(x, x)
        np.fill_diagonal(within, np.inf)
        radii.append(np.sort(within, axis=1)[:, k - 1])
    across = squared(real, fake)
    return {
        "precision": (across <= radii[0][:, None]).any(0).mean(),
        "recall": (across <= radii[1]).any(1).mean(),
        "density": (across < radii[0][:, None]).sum() / (k * len(fake)),
        "coverage": (across < radii[0][:, None]).any(1).mean(),
    }


def numbers(result):
    return {name: float(value) for name, value in result.items()}


def assert_equal(result, expected):
    # Counts are equal; only their division may round in another way.
    assert numbers(result) == pytest.approx(expected, rel=1e-15)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def product_type(request, monkeypatch):
    monkeypatch.setattr(neighbour_search, "product_type", lambda d, device: request.param)


@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(2, 2, 1, 1), (50, 40, 3, 3), (700, 900, 300, 5), (600, 600, 64, 20)]
)
def test_agrees_with_the_definition(n, m, d, k, product_type):
    real, fake = normal(n, d, seed=1), 0.95 * normal(m, d, seed=2) + 0.05
    assert_equal(prdc(real, fake, k), by_definition(real, fake, k))


def test_agrees_with_prdc(capsys):
    peer = pytest.importorskip("prdc")
    real, fake = normal(800, 32, seed=3), 0.9 * normal(700, 32, seed=4)
    expected = peer.compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=5)
    assert_equal(prdc(real, fake, 5), {name: float(value) for name, value in expected.items()})


def test_agrees_with_torch_fidelity():
    peer = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = normal(500, 16, seed=5), 0.9 * normal(400, 16, seed=6)
    precision, recall = peer.calculate_precision_recall_full(fake.double(), real.double(), neighborhood=3)
    result = precision_recall(real, fake)
    assert result.precision.item() == pytest.approx(precision, abs=1e-7)
    assert result.recall.item() == pytest.approx(recall, abs=1e-7)


@pytest.mark.parametrize("k", [1, 4])
def test_radii_agree_with_scikit_learn(k, product_type):
    x = normal(900, 40, seed=7)
    tree = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(x.double().numpy())
    expected = tree.kneighbors()[0][:, -1] ** 2
    radii = neighbours._radii(x, torch.ones(900, dtype=torch.int64), k, 2**26)
    assert np.allclose(radii.numpy(), expected, rtol=1e-12)


@relaxed
@given(seeds, st.integers(2, 60), st.integers(2, 60), st.integers(1, 4), st.integers(1, 4), st.data())
def test_ties_and_duplicates_count_as_in_the_definition(seed, n, m, d, width, data):
    """Small integers: many points coincide, and many distances are equal to radii."""
    generator = torch.Generator().manual_seed(seed)
    real, fake = (torch.randint(0, width, (size, d), generator=generator).float() for size in (n, m))
    k = data.draw(st.integers(1, min(n, m) - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(prdc(real, fake, k), by_definition(real, fake, k))


@relaxed
@given(seeds, st.sampled_from([1e-6, 1e-3, 1.0]), st.sampled_from([0.0, 1.0, 3000.0]), st.integers(1, 3))
def test_clusters_closer_than_rounding_count_as_in_the_definition(seed, width, mean, k):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randn(4, 5, generator=generator) + mean
    real, fake = (
        corners[torch.randint(0, 4, (90,), generator=generator)]
        + width * torch.randn(90, 5, generator=generator)
        for _ in range(2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbour_search, "product_type", lambda d, device: torch.bfloat16)
        assert_equal(prdc(real, fake, k), by_definition(real, fake, k))


@relaxed
@given(seeds, st.integers(3, 30), st.integers(3, 30), st.integers(1, 3), st.integers(1, 2))
def test_swapping_the_sets_swaps_precision_and_recall(seed, n, m, d, k):
    real, fake = normal(n, d, seed), normal(m, d, seed + 1)
    result, swapped = precision_recall(real, fake, k), precision_recall(fake, real, k)
    assert result.precision == swapped.recall
    assert result.recall == swapped.precision
    all_four = prdc(real, fake, k)
    assert (all_four["precision"], all_four["recall"]) == result
    density, coverage = density_coverage(real, fake, k)
    assert (all_four["density"], all_four["coverage"]) == (density, coverage)
    assert 0 <= min(*result, coverage) <= max(*result, coverage) <= 1
    assert density >= 0
    assert (
        result.precision > 0 or coverage == density == 0
    )  # what lies in an open ball lies in the closed one


@relaxed
@given(seeds, st.integers(-60, 60))
def test_a_power_of_two_a_reflection_and_the_order_change_nothing(seed, exponent):
    real, fake = normal(40, 4, seed), normal(30, 4, seed + 1)
    result = numbers(prdc(real, fake, 3))
    assert numbers(prdc(real * 2.0**exponent, fake * 2.0**exponent, 3)) == result
    assert numbers(prdc(-real.flip(0), -fake.flip(0), 3)) == result


def test_equal_sets():
    x = normal(60, 5, seed=8)
    # Each sample lies in its own ball and, once more, in those of which it is one of the k nearest.
    assert numbers(precision_recall(x, x)._asdict()) == {"precision": 1.0, "recall": 1.0}
    assert density_coverage(x, x).coverage == 1
    # k - 1 neighbours lie within the open ball, and the centre.
    assert density_coverage(x, x, 4).density == 1


def test_a_generator_that_copies_is_not_given_recall_by_rounding():
    """Copies of the training set, each many times: balls of radius 0 that hold no other sample."""
    held_out = normal(300, 64, seed=9) + 500
    # The training set is nearly the held-out one: the nearest sample is 1e-4 away, at a distance of 4,000 from 0.
    training = held_out + 2.0**-13 * normal(300, 64, seed=10).sign()
    copies = training[:100].repeat(5, 1)
    result = prdc(held_out, copies, 3)
    assert result["recall"] == 0
    assert result["precision"] == 1
    # What distances from float32 products say.
    product = copies @ copies.T
    within = product.diagonal()[:, None] + product.diagonal() - 2 * product
    across = held_out.square().sum(1)[:, None] + product.diagonal() - 2 * held_out @ copies.T
    radii = within.fill_diagonal_(torch.inf).sort(1).values[:, 2]
    assert (across <= radii).any(1).float().mean() > 0.05
    # The held-out samples that it does copy lie in closed balls, and in no open ones.
    copied = torch.cat([held_out[:30], held_out[:30], held_out[:30], held_out[:30]])
    result = prdc(held_out, copied, 3)
    assert result["recall"] == 30 / 300
    collapsed = density_coverage(copied, held_out, 3)
    assert collapsed == (0, 0)


@pytest.mark.parametrize("kind", ["line", "collapsed", "lattice", "outliers"])
def test_memory_and_type_of_products_change_nothing(kind, product_type):
    generator = torch.Generator().manual_seed(11)
    real, fake = torch.randn(2, 400, 6, generator=generator)
    match kind:
        case "line":  # all within rounding of each other in most directions
            real, fake = (x[:, :1] * torch.ones(6) + 1e-4 * x for x in (real, fake))
        case "collapsed":
            fake = 2 + 1e-5 * fake
            fake[::2] = fake[0]
        case "lattice":
            real, fake = (x.round() for x in (real, fake))
        case "outliers":
            real = real * (3 * real[:, :1]).exp()
    expected = by_definition(real, fake, 4)
    assert_equal(prdc(real, fake, 4), expected)
    least = neighbour_search.least_tile_bytes(6) + neighbours._least(4, real, fake)
    assert_equal(prdc(real, fake, 4, max_bytes=least), expected)
    with pytest.MonkeyPatch.context() as patch:
        # No sparse products; room for few pairs, so that they have to be sorted out again and again.
        patch.setattr(torch.backends.mkl, "is_available", lambda: False)
        patch.setattr(neighbours, "tile_entries", lambda max_bytes, d: 0)
        assert_equal(prdc(real, fake, 4, max_bytes=least), expected)


def test_products_that_round_their_arguments_change_nothing():
    real, fake = normal(300, 40, seed=12), normal(300, 40, seed=13)
    expected = by_definition(real, fake, 5)
    torch.set_float32_matmul_precision("medium")
    try:
        assert neighbour_search.prepare(real)[0].slack > 1e-3
        assert_equal(prdc(real, fake), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(dtype):
    real, fake = normal(150, 8, seed=14, dtype=dtype), normal(140, 8, seed=15, dtype=dtype)
    assert_equal(prdc(real, fake, 3), by_definition(real, fake, 3))
    mixed = fake.double() + 1e-9
    assert_equal(prdc(real, mixed, 3), by_definition(real, mixed, 3))


def test_positive_and_negative_zero_are_equal():
    real = torch.tensor([[0.0], [-0.0], [1.0], [2.0]])
    distinct, weight = neighbours._distinct(real)
    assert sorted(zip(distinct.flatten().tolist(), weight.tolist(), strict=True)) == [
        (0.0, 2),
        (1.0, 1),
        (2.0, 1),
    ]
    assert_equal(prdc(real, real + 0.5, 1), by_definition(real, real + 0.5, 1))


def test_rows_that_agree_in_their_first_features_stay_apart():
    x = torch.zeros(6, 40)
    x[:, 30] = torch.tensor([0.0, 1, 2, 1, 0, 1])
    distinct, weight = neighbours._distinct(x)
    assert sorted(zip(distinct[:, 30].tolist(), weight.tolist(), strict=True)) == [(0, 2), (1, 3), (2, 1)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: prdc(torch.zeros(9, 3), torch.zeros(9, 2)),
            "real and fake must have equally many features, got 3 and 2",
        ),
        (lambda: prdc(torch.zeros(1, 3), torch.zeros(9, 3)), "real must hold at least 2 samples, got 1"),
        (lambda: prdc(torch.zeros(9, 3), torch.full((9, 3), math.nan)), "fake must be finite"),
        (lambda: prdc(torch.full((9, 3), math.inf), torch.zeros(9, 3)), "real must be finite"),
        (lambda: prdc(torch.tensor([[1e200], [0]], dtype=torch.float64), torch.zeros(9, 1)), "1e150"),
        (lambda: prdc(torch.zeros(9, 3).long(), torch.zeros(9, 3)), "real must be floating .*int64"),
        (lambda: prdc(torch.zeros(9), torch.zeros(9, 1)), r"shape \[9\]"),
        (lambda: prdc(torch.zeros(2, 9, 3), torch.zeros(9, 3)), r"shape \[2, 9, 3\]"),
        (lambda: prdc(torch.zeros(9, 0), torch.zeros(9, 0)), r"shape \[9, 0\]"),
        (
            lambda: prdc(torch.zeros(9, 3), torch.zeros(5, 3), 5),
            r"k must lie in 1\.\.4, for fake holds 5 samples, got 5",
        ),
        (lambda: precision_recall(torch.zeros(9, 3), torch.zeros(5, 3), 0), r"1\.\.4, .* got 0"),
        (
            lambda: density_coverage(torch.zeros(9, 3), torch.zeros(5, 3), 9),
            r"1\.\.8, for real holds 9 samples, got 9",
        ),
        (
            lambda: prdc(normal(9, 3), normal(9, 3), 2, max_bytes=1000),
            "max_bytes must be at least .* got 1000",
        ),
    ],
)
def test_errors_name_the_argument_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_density_takes_more_neighbours_than_there_are_generated_samples():
    real, fake = normal(9, 2, seed=16), normal(3, 2, seed=17)
    across = squared(real.double().numpy(), fake.double().numpy())
    within = np.sort(squared(real.double().numpy(), real.double().numpy()), axis=1)[:, 7]
    assert density_coverage(real, fake, 7).density.item() == pytest.approx(
        (across < within[:, None]).sum() / (7 * 3)
    )


# Features of few bits: keys of rows that differ must differ, and where they do not, nothing may be lost

LATTICES = {
    "halves": lambda x: x.mul(4).round().div(2).double(),
    "integers": lambda x: x.mul(2).round().double(),
    "bfloat16": lambda x: x.bfloat16().double(),
    "float16": lambda x: x.half().double(),
    "bfloat16 as float32": lambda x: x.bfloat16().float(),
    "large powers of two": lambda x: (2.0**40) * x.mul(2).round().double(),
}


def lattice(name, n, d, seed, repeats):
    """n rows on a lattice, of which every `repeats`-th is a copy of another."""
    generator = torch.Generator().manual_seed(seed)
    x = LATTICES[name](torch.randn(n, d, generator=generator))
    x[::repeats] = x[torch.randint(n, (len(x[::repeats]),), generator=generator)]
    return x


@relaxed
@given(
    st.sampled_from(sorted(LATTICES)), seeds, st.integers(3, 60), st.integers(3, 60),
    st.integers(1, 70), st.integers(1, 3), st.integers(2, 9),
)  # fmt: skip
def test_lattices_count_as_in_the_definition(name, seed, n, m, d, k, repeats):
    k = min(k, n - 1, m - 1)
    real, fake = (lattice(name, size, d, seed + i, repeats) for i, size in enumerate((n, m)))
    result = prdc(real, fake, k)
    assert_equal(result, by_definition(real, fake, k))
    assert precision_recall(real, fake, k)._asdict() == {key: result[key] for key in ("precision", "recall")}
    assert density_coverage(real, fake, k)._asdict() == {key: result[key] for key in ("density", "coverage")}


@pytest.mark.parametrize("name", ["halves", "integers", "bfloat16", "float16"])
def test_lattices_agree_with_prdc(name, capsys):
    """With products of few bits the package prdc's distances are exact, and ties are ties for it, too.

    Its balls are open throughout, and those of precision and recall are closed by definition: on a lattice, where
    points lie on borders, these differ.
    """
    peer = pytest.importorskip("prdc")
    real, fake = (LATTICES[name](normal(300, 48, seed)) for seed in (1, 2))
    expected = peer.compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    alike = ("density", "coverage") if name in ("halves", "integers") else tuple(expected)
    result = prdc(real, fake, 5)
    assert_equal({key: result[key] for key in alike}, {key: float(expected[key]) for key in alike})


def test_digits_as_float64_count_as_in_the_definition():
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().data)
    assert x.dtype == torch.float64
    real, fake = x[:900], x[897:]  # the two share three images
    assert_equal(prdc(real, fake, 5), by_definition(real, fake, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_differ_have_different_keys(dtype):
    """All 2^16 corners of a cube, each coordinate 0 or 1: one bit of exponent each, and no key twice."""
    corners = (torch.arange(2**16)[:, None] >> torch.arange(16) & 1).to(dtype)
    assert len(neighbours._keys(corners).unique()) == len(corners)


@relaxed
@given(seeds, st.integers(1, 5), st.integers(2, 40))
def test_rows_that_share_a_key_are_told_apart_exactly(seed, n_keys, n):
    """With keys of a few values nearly all rows collide; the result is that of NumPy's own `unique`."""
    x = torch.randint(0, 3, (n, 2), generator=torch.Generator().manual_seed(seed)).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_keys", lambda x: x.sum(1).long() % n_keys)
        rows, count = neighbours._distinct(x)
        if n > 3:
            assert_equal(prdc(x, x + 1, 2), by_definition(x, x + 1, 2))
    expected, expected_count = np.unique(x.numpy(), axis=0, return_counts=True)
    found = sorted(zip(rows.tolist(), count.tolist(), strict=True))
    assert found == sorted(zip(expected.tolist(), expected_count.tolist(), strict=True))
