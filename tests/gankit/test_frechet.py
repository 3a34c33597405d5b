import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gankit.metrics import frechet
from gankit.metrics.frechet import FrechetStats, frechet_distance, frechet_from_stats

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=40)

seeds = st.integers(0, 2**32 - 1)
# (samples, features): more samples than features, equally many, fewer.
shapes = st.tuples(st.integers(2, 30), st.integers(1, 12))


def normal(*shape, seed=0, rank=None):
    """Correlated features with a mean; of lower rank on request."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    d = shape[-1]
    mix = torch.randn(rank or d, d, **draw)
    return torch.randn(*shape[:-1], rank or d, **draw) @ mix + torch.randn(d, **draw)


def by_sqrtm(a, b):
    a, b = a.numpy(), b.numpy()
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return shift + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(sqrtm(cov_a @ cov_b)).real


def stats_distance(a, b):
    return frechet_from_stats(FrechetStats.from_features(a), FrechetStats.from_features(b))


@pytest.mark.parametrize("distance", [frechet_distance, stats_distance])
@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 1), (300, 200, 16), (2000, 3000, 48)])
def test_agrees_with_scipy_where_covariances_have_full_rank(distance, n, m, d):
    a, b = normal(n, d, seed=1), normal(m, d, seed=2)
    assert distance(a, b).item() == pytest.approx(by_sqrtm(a, b), rel=1e-9)


@pytest.mark.parametrize("distance", [frechet_distance, stats_distance])
def test_closed_form_for_commuting_covariances(distance):
    # Signs of a Hadamard matrix: zero mean and covariance n / (n - 1) times one, exactly.
    x = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
    scale_a, scale_b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 2.0, 0.0])
    shift = torch.tensor([0.0, 3.0, 4.0])
    expected = 25 + ((scale_a - scale_b) ** 2).sum() * 4 / 3
    assert distance(x * scale_a, x * scale_b + shift).item() == pytest.approx(expected.item(), rel=1e-14)


@pytest.mark.parametrize("distance", [frechet_distance, stats_distance])
@pytest.mark.parametrize(("n", "d"), [(400, 12), (13, 12), (12, 12), (5, 12), (2, 12), (30, 1)])
def test_exact_for_a_positive_definite_map(distance, n, d):
    """Y = X A + b is the optimal transport map, for any n: the distance is the mean square of Y - X, unbiased."""
    x = normal(n, d, seed=3)
    root = normal(d, d, seed=4)
    a = root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)
    b = torch.linspace(-1, 1, d, dtype=torch.float64)
    move = a - torch.eye(d, dtype=torch.float64)
    exact = (x.mean(0) @ move + b).square().sum() + ((x - x.mean(0)) @ move).square().sum() / (n - 1)
    assert distance(x, x @ a + b).item() == pytest.approx(exact.item(), rel=1e-11)


@pytest.mark.parametrize("distance", [frechet_distance, stats_distance])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_exact_for_a_map_of_singular_features_with_many_samples(distance, constant, seed):
    # More samples than features, but most features are a function of the others. Rounding decides whether a
    # Cholesky factorisation of such a covariance succeeds.
    x = normal(500, 10, seed=seed, rank=4)
    if constant:
        x[:, 3] = 2.5
    root = normal(10, 10, seed=seed + 100)
    a = root @ root.T / 10 + 0.1 * torch.eye(10, dtype=torch.float64)
    move = a - torch.eye(10, dtype=torch.float64)
    exact = (x.mean(0) @ move).square().sum() + ((x - x.mean(0)) @ move).square().sum() / 499
    assert distance(x, x @ a).item() == pytest.approx(exact.item(), rel=1e-11)
    assert distance(x, x).item() <= 1e-12 * x.var(0).sum().item()


@pytest.mark.parametrize(("n", "d"), [(500, 20), (21, 20), (10, 64)])
def test_a_set_is_at_distance_zero_from_itself_to_all_digits(n, d):
    x = normal(n, d, seed=7)
    scale = x.var(0).sum().item()
    assert frechet_distance(x, x).item() <= 1e-13 * scale
    assert stats_distance(x, x.flip(0)).item() <= 1e-12 * scale


@relaxed
@given(seeds, shapes, st.integers(2, 30))
def test_symmetric_not_negative_and_blind_to_order_and_rotation(seed, shape, m):
    n, d = shape
    a, b = normal(n, d, seed=seed), normal(m, d, seed=seed + 1)
    value = frechet_distance(a, b)
    tolerance = {"rtol": 1e-9, "atol": 1e-9 * (a.square().sum(1).max() + b.square().sum(1).max()).item()}
    assert value >= 0
    assert frechet_distance(a, a) >= 0
    assert torch.allclose(value, frechet_distance(b, a), **tolerance)
    assert torch.allclose(value, frechet_distance(a.flip(0), b), **tolerance)
    assert torch.allclose(value, stats_distance(a, b), **tolerance)
    rotation = torch.linalg.qr(normal(d, d, seed=seed + 2)).Q
    assert torch.allclose(value, frechet_distance(a @ rotation, b @ rotation), **tolerance)
    # Features scaled by s: the distance is in squared units. Both sets moved alike: nothing changes.
    assert torch.allclose(4 * value, frechet_distance(2 * a, 2 * b), rtol=1e-9, atol=4 * tolerance["atol"])
    assert torch.allclose(value, frechet_distance(a + 5, b + 5), **tolerance)


@relaxed
@given(seeds, shapes)
def test_a_pure_shift_costs_its_squared_length(seed, shape):
    a = normal(*shape, seed=seed)
    shift = normal(2, shape[1], seed=seed + 1)[0]
    scale = a.square().sum(1).max() + shift.square().sum()
    assert torch.allclose(frechet_distance(a, a + shift), shift.square().sum(), atol=1e-11 * scale.item())


def test_leading_dimensions_equal_a_loop_and_broadcast():
    real, fake = normal(40, 6, seed=8), normal(2, 3, 25, 6, seed=9)
    values = frechet_distance(fake, real)
    assert values.shape == (2, 3)
    assert values.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            assert values[i, j] == frechet_distance(fake[i, j], real)
    pairs = frechet_distance(fake[0][:, None], fake[1])
    assert pairs.shape == (3, 3)
    assert pairs[2, 1] == frechet_distance(fake[0, 2], fake[1, 1])


def test_float32_features_far_from_the_origin_keep_their_distance():
    near = normal(200, 5, seed=10)
    a, b = near.float() + 4096, 1.5 * near.float() + 4096  # rounded to 2^-11, and then computed in float64
    assert frechet_distance(a, b).item() == pytest.approx(by_sqrtm(a.double(), b.double()), rel=1e-8)


@relaxed
@given(seeds, st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_streaming_and_merging_equal_the_whole(seed, sizes):
    x = normal(sum(sizes), 4, seed=seed) + 1000
    whole = FrechetStats.from_features(x)
    streamed = FrechetStats.from_features(x[: sizes[0]])
    right = None
    for batch in x.split(sizes)[1:]:
        part = FrechetStats.from_features(batch)
        streamed = streamed.merge(part)
        right = part if right is None else right.merge(part)
    merged = FrechetStats.from_features(x[: sizes[0]])
    merged = merged if right is None else right.merge(merged)
    for stats in (streamed, merged):
        assert stats.n == whole.n == len(x)
        assert torch.allclose(stats.mean, whole.mean, rtol=1e-13)
        assert torch.allclose(stats.scatter, whole.scatter, rtol=1e-9, atol=1e-8)


def test_statistics_agree_with_numpy_across_chunks(monkeypatch):
    x = normal(1000, 7, seed=11)
    monkeypatch.setattr("gankit.metrics.frechet._CHUNK", 64)
    stats = FrechetStats.from_features(x)
    assert np.allclose(stats.mean, x.numpy().mean(0), rtol=1e-13)
    assert np.allclose(stats.cov, np.cov(x.numpy(), rowvar=False), rtol=1e-11)
    stored = FrechetStats.from_moments(stats.mean, stats.cov, stats.n)
    assert torch.allclose(stored.scatter, stats.scatter, rtol=1e-14)
    assert stored.merge(FrechetStats.from_features(x)).n == 2000


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 16), (2000, 3000, 48)])
def test_agrees_with_torchmetrics_and_torch_fidelity(n, m, d):
    torchmetrics = pytest.importorskip("torchmetrics.image.fid")
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = normal(n, d, seed=12), normal(m, d, seed=13)
    a, b = FrechetStats.from_features(x), FrechetStats.from_features(y)
    value = frechet_from_stats(a, b).item()
    assert value == pytest.approx(torchmetrics._compute_fid(a.mean, a.cov, b.mean, b.cov).item(), rel=1e-9)
    statistics = [fidelity.fid_features_to_statistics(features) for features in (x, y)]
    peer = fidelity.fid_statistics_to_metric(*statistics, verbose=False)[fidelity.KEY_METRIC_FID]
    assert value == pytest.approx(peer, rel=1e-9)


@pytest.mark.parametrize("s", [0.5, 1.0, 3.0])
def test_exact_moments_of_isotropic_gaussians(s):
    d = 700  # several blocks of the triangular products
    mean = torch.linspace(-1, 1, d, dtype=torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    a = FrechetStats.from_moments(torch.zeros(d), eye, 1000)
    b = FrechetStats.from_moments(mean, s**2 * eye, 1000)
    expected = mean.square().sum().item() + d * (s - 1) ** 2
    assert frechet_from_stats(a, b).item() == pytest.approx(expected, rel=1e-12)


def with_spectra(first, second, seed=14):
    """Covariances with common axes: their distance is that of the roots of the spectra."""
    axes = torch.linalg.qr(normal(len(first), len(first), seed=seed)).Q
    covs = [(axes * spectrum) @ axes.T for spectrum in (first, second)]
    zero = torch.zeros(len(first))
    stats = [FrechetStats.from_moments(zero, (cov + cov.T) / 2, 10**4) for cov in covs]
    return stats, (first.sqrt() - second.sqrt()).square().sum().item()


@pytest.mark.parametrize("power", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("difference", [1.0, 1e-1, 1e-2, 1e-3])
def test_error_bounds_for_spectra_that_decay(power, difference):
    d = 120
    spectrum = torch.arange(1, d + 1, dtype=torch.float64) ** -power
    factors = (1 + difference * normal(1, d, seed=15)[0].sin()).square()
    (a, b), expected = with_spectra(spectrum, spectrum * factors)
    traces = (a.cov.trace() + b.cov.trace()).item()
    for value in (frechet_from_stats(a, b), frechet_from_stats(b, a)):
        assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-10 * traces)
        # What is promised is the worst case; what is seen is far better.
        assert value.item() == pytest.approx(expected, rel=1e-8, abs=1e-13 * traces)


def test_eigenvalues_are_used_where_they_are_safe_and_nowhere_else(monkeypatch):
    d = 60
    flat, steep = torch.ones(d, dtype=torch.float64), 10.0 ** -torch.linspace(0, 9, d, dtype=torch.float64)
    used = []
    svdvals = torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda x: used.append(x) or svdvals(x))
    (a, b), expected = with_spectra(flat, 4 * flat)
    assert frechet_from_stats(a, b).item() == pytest.approx(expected, rel=1e-13)
    assert not used
    (a, b), expected = with_spectra(steep, steep * 1.0001)
    assert frechet_from_stats(a, b).item() == pytest.approx(expected, abs=1e-14)
    assert len(used) == 1
    # The bound that decides this holds: it is above the error.
    trace, bound = frechet._by_eigenvalues(a, b.cholesky)
    assert abs(trace.item() - (steep * 1.0001**0.5).sum().item()) < bound.item()


def test_both_ways_agree(monkeypatch):
    a, b = (FrechetStats.from_features(normal(900, 300, seed=seed)) for seed in (16, 17))
    by_eigenvalues = frechet_from_stats(a, b).item()
    monkeypatch.setattr(frechet, "_TOLERANCES", (0.0, 0.0))
    assert frechet_from_stats(a, b).item() == pytest.approx(by_eigenvalues, rel=1e-12)


@relaxed
@given(seeds, st.integers(1, 40), st.integers(1, 9))
def test_blocks_of_triangular_products_change_nothing(seed, d, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frechet, "_BLOCK", block)
        x = normal(d + 5, d, seed=seed)
        gram = frechet._gram(x)
        assert torch.equal(gram, gram.T)
        assert torch.allclose(gram, x.T @ x, rtol=1e-12, atol=1e-12 * gram.abs().max().item())
        lower = normal(d, d, seed=seed + 1).tril()
        product = frechet._congruence(lower, gram)
        expected = lower.T @ gram @ lower
        assert torch.allclose(product.tril(), expected.tril(), rtol=1e-11, atol=1e-12 * expected.abs().max())


def test_a_reference_is_factorised_once(monkeypatch):
    counted = []
    cholesky = torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda x: counted.append(x) or cholesky(x))
    real = FrechetStats.from_features(normal(50, 6, seed=18))
    for seed in range(4):
        frechet_from_stats(FrechetStats.from_features(normal(50, 6, seed=seed)), real)
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: frechet_distance(torch.zeros(5, 3), torch.zeros(5, 2)),
            "equally many features, got 3 and 2",
        ),
        (
            lambda: frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3)),
            "a must hold at least 2 samples, got 1",
        ),
        (lambda: frechet_distance(torch.zeros(5, 3), torch.full((5, 3), math.nan)), "b must be finite"),
        (lambda: frechet_distance(torch.full((5, 3), math.inf), torch.zeros(5, 3)), "a must be finite"),
        (lambda: frechet_distance(torch.zeros(5, 3).long(), torch.zeros(5, 3)), "a must be floating .*int64"),
        (lambda: frechet_distance(torch.zeros(5), torch.zeros(5, 1)), r"shape \[5\]"),
        (lambda: frechet_distance(torch.zeros(5, 3), torch.zeros(0, 5, 3)), r"shape \[0, 5, 3\]"),
        (lambda: frechet_distance(torch.zeros(5, 0), torch.zeros(5, 0)), r"shape \[5, 0\]"),
        (lambda: FrechetStats.from_features(torch.zeros(0, 3)), "at least 1 samples, got 0"),
        (lambda: FrechetStats.from_features(torch.zeros(1, 3)).cov, "at least 2 samples, got 1"),
        (
            lambda: FrechetStats.from_features(torch.zeros(2, 3)).merge(
                FrechetStats.from_features(torch.zeros(2, 4))
            ),
            "got 3 and 4",
        ),
        (lambda: FrechetStats.from_moments(torch.zeros(3), torch.zeros(2, 2), 5), r"\[3\] and \[2, 2\]"),
        (lambda: FrechetStats.from_moments(torch.zeros(2), torch.eye(2), 1), "n = 1"),
        (lambda: FrechetStats.from_moments(torch.zeros(2), torch.eye(2) * math.nan, 9), "finite"),
        (lambda: FrechetStats.from_moments(torch.zeros(2), torch.tensor([[1.0, 2], [0, 1]]), 9), "symmetric"),
        (lambda: stats_distance(torch.zeros(4, 3), torch.zeros(4, 2)), "equally many features, got 3 and 2"),
        (lambda: stats_distance(torch.zeros(1, 3), torch.zeros(4, 3)), "at least 2 samples, got 1"),
    ],
)
def test_errors_name_the_argument_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@relaxed
@given(seeds, st.integers(1, 8), st.integers(2, 14), st.integers(20, 60), st.booleans())
def test_sets_that_vary_in_few_dimensions_have_the_distance_within_these(seed, rank, more, n, as_float32):
    """Moved into a larger space by a rotation, sets keep their distance; there, both covariances are singular."""
    generator = torch.Generator().manual_seed(seed)
    small = [torch.randn(n, rank, generator=generator, dtype=torch.float64) * (1 + i) + i for i in range(2)]
    axes = torch.linalg.qr(torch.randn(rank + more, rank + more, generator=generator, dtype=torch.float64)).Q
    large = [x @ axes[:rank] + axes[-1] for x in small]
    if as_float32:
        large = [x.float() for x in large]
    expected = frechet_distance(*small).item()
    assert frechet_distance(*large).item() == pytest.approx(expected, rel=1e-4 if as_float32 else 1e-9)


def test_singular_sets_need_no_decomposition_of_their_features(monkeypatch):
    """Rank 64 of 256, as float32 rounds it: eigenvalues in the common subspace agree with singular values."""
    axes = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    a, b = (normal(900, 64, seed=seed).float() @ axes * scale for seed, scale in ((30, 1.0), (31, 0.98)))
    factors = [frechet._feature_factor(x, FrechetStats.from_features(x)) for x in (a, b)]
    traces = sum(x.double().var(0).sum() for x in (a, b))
    mean = (a.double().mean(0) - b.double().mean(0)).square().sum()
    slow = mean + traces - 2 * torch.linalg.svdvals(factors[0] @ factors[1].T).sum()

    def fail(*_):
        raise AssertionError("a decomposition of all features")

    monkeypatch.setattr(frechet, "_feature_factor", fail)
    # Either within 1e-10 of the traces.
    assert frechet_distance(a, b).item() == pytest.approx(slow.item(), abs=2e-10 * traces.item())


def test_few_samples_of_many_features_multiply_out_no_covariance(monkeypatch):
    a, b = normal(30, 200, seed=32), 1.3 * normal(20, 200, seed=33) + 0.1
    expected = by_sqrtm(a, b)
    monkeypatch.setattr(frechet, "_gram", lambda x: 1 / 0)
    assert frechet_distance(a, b).item() == pytest.approx(expected, rel=1e-6)
