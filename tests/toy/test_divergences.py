import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, norm, wasserstein_distance

from toy import divergences as dv

LOG2 = np.log(2)


def histograms(cells: int = 6) -> st.SearchStrategy[np.ndarray]:
    weights = arrays(float, cells, elements=st.integers(0, 20).map(float))
    return weights.filter(lambda w: w.sum() > 0).map(lambda w: w / w.sum())


positions = st.lists(st.integers(1, 50), min_size=6, max_size=6).map(lambda gaps: np.cumsum(gaps) / 10)


@settings(max_examples=200, deadline=None)
@given(histograms(), histograms())
def test_divergences_against_scipy_and_their_bounds(p: np.ndarray, q: np.ndarray) -> None:
    assert dv.js(p, q) == pytest.approx(dv.js(q, p), abs=1e-12)
    assert -1e-12 <= dv.js(p, q) <= LOG2 + 1e-12
    assert dv.js(p, q) == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-9)
    assert dv.kl(p, q) == pytest.approx(entropy(p, q))
    assert dv.kl(p, q) >= -1e-12
    assert dv.reverse_kl(p, q) == dv.kl(q, p)
    assert dv.kl(p, p) == 0
    assert np.isinf(dv.kl(p, q)) == bool(((p > 0) & (q == 0)).any())
    if not (p * q).any():
        assert dv.js(p, q) == pytest.approx(LOG2)


@settings(max_examples=200, deadline=None)
@given(histograms(), histograms(), histograms(), positions)
def test_w1_is_a_metric(p: np.ndarray, q: np.ndarray, r: np.ndarray, x: np.ndarray) -> None:
    assert dv.w1(p, p, x) == 0
    assert dv.w1(p, q, x) == pytest.approx(dv.w1(q, p, x))
    assert dv.w1(p, r, x) <= dv.w1(p, q, x) + dv.w1(q, r, x) + 1e-12
    assert (dv.w1(p, q, x) > 1e-12) == (np.abs(p - q).max() > 1e-12)
    assert dv.w1(p, q, x) == pytest.approx(wasserstein_distance(x, x, p, q))


@settings(max_examples=60, deadline=None)
@given(histograms(5), histograms(4), positions, positions)
def test_the_earth_mover_solves_its_program(
    p: np.ndarray, q: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    x, y = x[:5], y[:4]
    moved = dv.earth_mover(p, q, x, y)
    assert moved.work == pytest.approx(wasserstein_distance(x, y, p, q), abs=1e-9)
    np.testing.assert_allclose(moved.plan.sum(1), p, atol=1e-9)
    np.testing.assert_allclose(moved.plan.sum(0), q, atol=1e-9)
    assert (moved.plan >= -1e-12).all()
    assert (moved.plan * np.abs(x[:, None] - y)).sum() == pytest.approx(moved.work, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(histograms(), histograms(), positions)
def test_the_potential_is_a_perfect_critic(p: np.ndarray, q: np.ndarray, x: np.ndarray) -> None:
    moved = dv.earth_mover(p, q, x)
    assert moved.potential @ (p - q) == pytest.approx(moved.work, abs=1e-9)
    assert (np.abs(np.diff(moved.potential)) <= np.diff(x) + 1e-9).all()


def test_the_lectures_earth_mover() -> None:
    p, q = np.array([3, 2, 1, 4]), np.array([1, 2, 4, 3])
    moved = dv.earth_mover(p, q)
    assert moved.work == pytest.approx(5)
    assert np.abs(np.cumsum(p - q)).sum() == 5
    assert moved.potential @ (p - q) == pytest.approx(5)


def test_arrays_of_distributions() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), (3, 1))
    q = np.random.default_rng(1).dirichlet(np.ones(5), (1, 4))
    x = np.arange(5.0)
    assert dv.kl(p, q).shape == dv.js(p, q).shape == dv.w1(p, q, x).shape == (3, 4)
    assert dv.js(p, q)[2, 1] == pytest.approx(dv.js(p[2, 0], q[0, 1]))
    assert dv.w1(p, q, x)[2, 1] == pytest.approx(dv.w1(p[2, 0], q[0, 1], x))


# ------------------------------------------------------------------------------------------------ densities


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 0.7), (-2.0, 2.0)])
def test_densities_on_a_grid_against_closed_forms(mean: float, std: float) -> None:
    x = np.linspace(-20, 20, 4001)
    p, q = dv.cell_probabilities(norm.pdf(x), x), dv.cell_probabilities(norm.pdf(x, mean, std), x)
    want = np.log(std) + (1 + mean**2) / (2 * std**2) - 0.5
    assert dv.kl(p, q) == pytest.approx(want, abs=1e-8)

    def integrand(v: float) -> float:
        a, b = norm.pdf(v), norm.pdf(v, mean, std)
        return (a * np.log(2 * a / (a + b)) + b * np.log(2 * b / (a + b))) / 2

    assert dv.js(p, q) == pytest.approx(quad(integrand, -18, 18, limit=400, points=[0, mean])[0], abs=1e-7)
    area = quad(lambda v: abs(norm.cdf(v) - norm.cdf(v, mean, std)), -20, 20, limit=400, points=[0])[0]
    assert dv.w1(p, q, x) == pytest.approx(area, abs=1e-3)


def test_a_grid_that_loses_mass_is_refused() -> None:
    x = np.linspace(-1, 1, 100)
    with pytest.raises(ValueError, match="make it wider"):
        dv.cell_probabilities(norm.pdf(x), x)
    with pytest.raises(ValueError, match="increasing grid"):
        dv.cell_probabilities(norm.pdf(x), x[::-1])


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0.5, 0.6], [0.5, 0.5], "p must sum to 1"),
        ([0.5, 0.5], [1.5, -0.5], "q must be probabilities"),
        ([1.0], [0.5, 0.5], "same cells"),
    ],
)
def test_masses_are_checked(p: list[float], q: list[float], message: str) -> None:
    for divergence in (dv.kl, dv.js):
        with pytest.raises(ValueError, match=message):
            divergence(p, q)


# -------------------------------------------------------------------------------------------------- samples


@settings(max_examples=100, deadline=None)
@given(
    arrays(float, st.integers(1, 12), elements=st.floats(-10, 10)),
    arrays(float, st.integers(1, 12), elements=st.floats(-10, 10)),
)
def test_w1_between_samples_is_scipys(x: np.ndarray, y: np.ndarray) -> None:
    assert dv.w1_samples(x, y) == pytest.approx(wasserstein_distance(x, y), abs=1e-9)


def test_w1_in_the_plane_is_the_assignment() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    shuffled = x[rng.permutation(40)]
    assert dv.w1_samples(x, shuffled) == 0
    # A shift moves every point by its length, and no plan does better.
    assert dv.w1_samples(x, shuffled + np.array([0.3, -0.4])) == pytest.approx(0.5)
    on_a_line = (
        np.stack([rng.normal(size=30), np.zeros(30)], axis=1),
        np.stack([rng.normal(size=30), np.zeros(30)], axis=1),
    )
    assert dv.w1_samples(*on_a_line) == pytest.approx(
        wasserstein_distance(on_a_line[0][:, 0], on_a_line[1][:, 0])
    )
    with pytest.raises(ValueError, match="of one shape"):
        dv.w1_samples(x, x[:-1])


def test_divergences_from_samples_are_near_the_truth() -> None:
    rng = np.random.default_rng(0)
    mean, std = 1.0, 1.3
    grid = np.linspace(-20, 20, 4001)
    exact = (
        dv.cell_probabilities(norm.pdf(grid), grid),
        dv.cell_probabilities(norm.pdf(grid, mean, std), grid),
    )
    draws = [(rng.normal(size=4000), rng.normal(mean, std, 4000)) for _ in range(4)]
    for estimate, want in (
        (lambda x, y: dv.kl_samples(x, y), dv.kl(*exact)),
        (lambda x, y: dv.kl_samples(y, x), dv.reverse_kl(*exact)),
        (lambda x, y: dv.js_samples(x, y), dv.js(*exact)),
    ):
        values = [estimate(x, y) for x, y in draws]
        assert np.mean(values) == pytest.approx(want, abs=0.06)
    # In two dimensions, where KL of independent coordinates adds up.
    plane = [(rng.normal(size=(4000, 2)), rng.normal(mean, std, (4000, 2))) for _ in range(4)]
    assert np.mean([dv.kl_samples(x, y) for x, y in plane]) == pytest.approx(2 * dv.kl(*exact), abs=0.08)


def test_estimates_for_distributions_without_overlap() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, 500), rng.uniform(50, 51, 500)
    assert dv.js_samples(x, y) == pytest.approx(LOG2, abs=2e-3)
    assert dv.js_samples(x, y) <= LOG2
    assert 5 < dv.kl_samples(x, y) < np.inf
    with pytest.raises(ValueError, match="repeated points"):
        dv.kl_samples(np.zeros(10), y)
    with pytest.raises(ValueError, match="k must lie in"):
        dv.kl_samples(x[:3], y, k=5)


# ------------------------------------------------------------------------------------- the best Gaussian

X = np.linspace(-15, 15, 1501)


def target(separation: float) -> np.ndarray:
    return dv.mixture_log_density(X, [-separation, separation], [1, 1], [0.5, 0.5])


@pytest.mark.parametrize("objective", dv.OBJECTIVES)
def test_a_gaussian_fits_itself(objective: str) -> None:
    fit = dv.fit_gaussian(norm.logpdf(X, 1.2, 0.8), X, objective)
    assert (fit.mean, fit.std, fit.value) == pytest.approx((1.2, 0.8, 0), abs=2e-3)


@pytest.mark.parametrize("separation", [1.0, 2.0, 3.0])
def test_kl_matches_moments(separation: float) -> None:
    fit = dv.fit_gaussian(target(separation), X, "kl")
    assert fit.mean == pytest.approx(0, abs=1e-3)
    assert fit.std == pytest.approx(np.sqrt(1 + separation**2), rel=0.01)


def test_reverse_kl_and_js_leave_a_mode_out_when_the_modes_are_far_apart() -> None:
    reverse = dv.fit_gaussian(target(5.0), X, "reverse-kl")
    assert (reverse.mean, reverse.std, reverse.value) == pytest.approx((-5, 1, LOG2), abs=1e-3)
    single = dv.fit_gaussian(target(6.0), X, "js")
    # q = A, p = (A + B) / 2 without overlap, so m = 3/4 A + 1/4 B.
    want = (np.log(2 / 3) / 2 + LOG2 / 2 + np.log(4 / 3)) / 2
    assert (single.mean, single.std, single.value) == pytest.approx((-6, 1, want), abs=2e-3)
    assert dv.fit_gaussian(target(1.0), X, "reverse-kl").mean == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("objective", dv.OBJECTIVES)
def test_no_gaussian_of_a_grid_is_closer(objective: str) -> None:
    log_p = target(3.0)
    log_p = log_p - np.log(np.exp(log_p).sum())
    fit = dv.fit_gaussian(log_p, X, objective)
    for mean in np.linspace(-4, 4, 17):
        for std in np.geomspace(0.3, 5, 17):
            value = dv.OBJECTIVES[objective](log_p, dv.gaussian_log_probabilities(X, mean, std), X)
            assert value >= fit.value - 1e-9


def test_objectives_are_the_divergences() -> None:
    log_p, log_q = target(2.0), dv.gaussian_log_probabilities(X, 0.5, 2.0)
    log_p = log_p - np.log(np.exp(log_p).sum())
    p, q = np.exp(log_p), np.exp(log_q)
    wanted = {"kl": dv.kl(p, q), "reverse-kl": dv.reverse_kl(p, q), "js": dv.js(p, q), "w1": dv.w1(p, q, X)}
    for name, want in wanted.items():
        assert dv.OBJECTIVES[name](log_p, log_q, X) == pytest.approx(want)
    with pytest.raises(ValueError, match="objective must be one of"):
        dv.fit_gaussian(log_p, X, "tv")
    with pytest.raises(ValueError, match="weights must sum to 1"):
        dv.mixture_log_density(X, [0], [1], [0.9])


# ----------------------------------------------------------------------------------------- parallel lines


def test_parallel_lines_in_closed_form() -> None:
    values = dv.parallel_lines(np.array([-0.5, 0.0, 2.0]))
    np.testing.assert_array_equal(values["kl"], [np.inf, 0, np.inf])
    np.testing.assert_array_equal(values["reverse-kl"], [np.inf, 0, np.inf])
    np.testing.assert_array_equal(values["js"], [LOG2, 0, LOG2])
    np.testing.assert_array_equal(values["w1"], [0.5, 0, 2.0])


@pytest.mark.parametrize("theta", [-0.7, 0.1, 3.0])
def test_parallel_lines_from_samples_and_cells(theta: float) -> None:
    z = np.random.default_rng(0).uniform(size=200)
    lines = [np.stack([np.full(200, shift), z], axis=1) for shift in (0.0, theta)]
    assert dv.w1_samples(*lines) == pytest.approx(abs(theta))
    edges = [np.linspace(-4.05, 4.05, 82), np.linspace(0, 1, 11)]
    cells = [np.histogramdd(line, edges)[0].ravel() / 200 for line in lines]
    closed = dv.parallel_lines(theta)
    assert dv.js(*cells) == pytest.approx(closed["js"])
    assert dv.kl(*cells) == closed["kl"]


@pytest.mark.parametrize(
    ("p", "q", "x", "message"),
    [
        ([1, 1], [1, 2], None, "equal totals"),
        ([2, -1], [1, 0], None, "must be >= 0"),
        ([1, 1], [1, 1], [0, 1, 2], "must match"),
    ],
)
def test_transport_checks_its_masses(p: list, q: list, x: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dv.earth_mover(np.array(p), np.array(q), x)
