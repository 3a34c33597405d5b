"""Standard errors against the spread of scores of independent samples, closed forms, and finite differences."""

import math

import pytest
import torch
from scipy import stats

from gankit.metrics import uncertainty
from gankit.metrics.frechet import FrechetStats, frechet_distance, frechet_from_stats
from gankit.metrics.modes import class_divergence
from gankit.metrics.uncertainty import bootstrap_counts, frechet_error, jackknife


def relu_features(n, weight, shift, generator):
    """Like a classifier's: not Gaussian, correlated, some often zero."""
    x = torch.randn(n, len(weight), dtype=torch.float64, generator=generator)
    return torch.relu(x @ weight + shift)


@pytest.mark.parametrize(("n", "d"), [(400, 6), (60, 6), (40, 20), (15, 20)])
def test_frechet_error_is_the_spread_over_independent_samples(n, d):
    """Also with hardly more samples than dimensions, where it may be a quarter too large."""
    g = torch.Generator().manual_seed(n)
    weight = torch.randn(d, d, dtype=torch.float64, generator=g) / math.sqrt(d)
    other = weight + 0.3 * torch.randn(d, d, dtype=torch.float64, generator=g) / math.sqrt(d)
    real = relu_features(1000, weight, 0.0, g)
    fakes = torch.stack([relu_features(n, other, 0.3, g) for _ in range(300)])
    spread = frechet_distance(fakes, real).std().item()
    estimates = frechet_error(fakes, real)
    assert estimates.shape == (300,)
    assert 0.85 < estimates.median().item() / spread < 1.35


def test_the_bootstrap_of_a_frechet_distance_is_biased_and_the_jackknife_agrees_with_frechet_error():
    """Why `frechet_error` exists: no bootstrap sample comes as close to the data as the sample itself."""
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(m, 20, dtype=torch.float64, generator=g) for m in (1000, 100))
    value, error = frechet_distance(fake, real).item(), frechet_error(fake, real).item()
    again = torch.stack([fake[torch.randint(100, (100,), generator=g)] for _ in range(50)])
    assert frechet_distance(again, real).min().item() > value + 2 * error
    left_out = jackknife(lambda keep: frechet_distance(fake[keep], real), 100, groups=100).item()
    assert left_out == pytest.approx(error, rel=0.3)


def test_the_influence_is_the_derivative_towards_a_sample():
    """Moving a share e of the mass to sample x changes the distance by e I(x), by finite differences of moments."""
    g = torch.Generator().manual_seed(1)
    fake = torch.randn(30, 4, dtype=torch.float64, generator=g) @ torch.randn(
        4, 4, dtype=torch.float64, generator=g
    )
    real = torch.randn(50, 4, dtype=torch.float64, generator=g) + 0.5
    target = FrechetStats.from_features(real)

    def distance(weights):
        mean = weights @ fake
        cov = (fake - mean).T @ (weights[:, None] * (fake - mean)) * 30 / 29
        return frechet_from_stats(FrechetStats.from_moments(mean, cov, 30), target).item()

    even, e = torch.full((30,), 1 / 30, dtype=torch.float64), 1e-5
    rates = []
    for i in range(30):
        towards = torch.zeros(30, dtype=torch.float64)
        towards[i] = 1
        rates.append(
            (distance(even + e * (towards - even)) - distance(even - e * (towards - even))) / (2 * e)
        )
    expected = torch.tensor(rates, dtype=torch.float64).std().item() / math.sqrt(30)
    # The weighted covariance carries 30 / 29 in front of its derivative as well.
    assert frechet_error(fake, real).item() == pytest.approx(expected, rel=0.05)


def test_frechet_error_of_features_without_variance_is_finite():
    g = torch.Generator().manual_seed(2)
    real = torch.randn(100, 5, generator=g)
    fake = torch.randn(2, 50, 5, generator=g)
    fake[0, :, 2] = 0  # a dead unit
    fake[1] = 3.0  # a generator of a single image
    first, second = frechet_error(fake, real).tolist()
    assert 0 < first < math.inf
    assert second == 0
    without = [0, 1, 3, 4]
    assert first == pytest.approx(frechet_error(fake[0][:, without], real[:, without]).item(), rel=0.2)


def test_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one_by_one = jackknife(lambda keep: x[keep].mean(), 1000, groups=1000).item()
    assert one_by_one == pytest.approx(stats.sem(x.numpy()), rel=1e-10)
    g = torch.Generator().manual_seed(1)
    draws = torch.randn(200, 100, dtype=torch.float64, generator=g)
    tenths = jackknife(lambda keep: draws[:, keep].mean(1), 100)
    assert tenths.shape == (200,)
    assert tenths.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)


def test_jackknife_groups_do_not_follow_the_order_of_the_samples():
    """Leaving out a class at a time would measure the differences between classes."""
    x = torch.arange(10.0).repeat_interleave(10)
    assert jackknife(lambda keep: x[keep].mean(), 100).item() == 0


@pytest.mark.parametrize("groups", [1, 11])
def test_a_number_of_groups_out_of_range_is_refused(groups):
    with pytest.raises(ValueError, match=f"groups must be from 2 to the number of samples, 10, got {groups}"):
        jackknife(lambda keep: keep.double().mean(), 10, groups=groups)


def test_bootstrap_of_a_share_is_the_binomial_error():
    shares = torch.tensor([[0.2, 0.5], [0.0, 1.0]], dtype=torch.float64)
    error = bootstrap_counts(lambda s: s[..., 0], shares, 400, draws=4000)
    assert error[0].item() == pytest.approx(math.sqrt(0.2 * 0.8 / 400), rel=0.05)
    assert error[1].item() == 0
    assert torch.equal(error, bootstrap_counts(lambda s: s[..., 0], shares, 400, draws=4000))


def test_bootstrap_of_a_divergence_is_the_spread_over_independent_samples():
    g = torch.Generator().manual_seed(0)
    true, expected = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.full((4,), 0.25, dtype=torch.float64)
    counts = torch.stack(
        [torch.multinomial(true, 500, True, generator=g).bincount(minlength=4) for _ in range(400)]
    )
    shares = counts.double() / 500
    spread = class_divergence(shares, expected).std().item()
    errors = bootstrap_counts(lambda s: class_divergence(s, expected), shares, 500)
    assert errors.median().item() == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("n", "m", "d"), [(12, 300, 40), (40, 300, 40), (7, 5, 30)])
def test_the_error_of_few_samples_is_that_of_the_full_space(n, m, d):
    """Fewer samples than features: computed within their span, and as the formula has it in all dimensions."""
    fake, real = (
        torch.randn(k, d, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (n, m)
    )
    fake[:, 3] = 2.0  # an axis without variance
    full = uncertainty._influence(fake, FrechetStats.from_features(real)).std() / math.sqrt(n)
    assert frechet_error(fake, real).item() == pytest.approx(full.item(), rel=1e-7)
