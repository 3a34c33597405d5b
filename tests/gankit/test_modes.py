import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from gankit.data import load
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.measures import METRICS
from gankit.metrics.modes import (
    class_divergence,
    class_kl,
    classes_covered,
    frequencies,
    intra_class,
    mode_assignment,
    modes_covered,
)

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=60)

counts = hnp.arrays(np.int64, (2, 7), elements=st.integers(0, 1000)).filter(lambda c: (c.sum(1) > 0).all())


def high_quality(points, centers, std):
    return frequencies(mode_assignment(points, centers, std), len(centers)).sum(-1)


def mode_coverage(labels, n_modes, expected=None):
    """All metrics of the modes' frequencies, as `evaluate` computes them."""
    shares = frequencies(labels, n_modes)
    expected = torch.ones(n_modes, dtype=torch.float64) if expected is None else expected.double()
    case = SimpleNamespace(class_shares=shares, mode_shares=shares, expected=expected / expected.sum())
    names = ("modes_covered", "stacked_modes", "high_quality", "mode_divergence", "mode_kl")
    return {METRICS[name].title: METRICS[name].value(case) for name in names}


def stacked_modes(labels, n_classes=1000):
    case = SimpleNamespace(class_shares=frequencies(labels, n_classes), expected=None)
    return {METRICS[name].title: METRICS[name].value(case) for name in ("stacked_modes", "stacked_kl")}


def mixture(n=4000, seed=0):
    data = load("ring", n=n, seed=seed)
    return data.images, data.labels, data.centers, data.std


def test_assignment_finds_the_component_a_point_was_drawn_from():
    points, labels, centers, std = mixture()
    assigned = mode_assignment(points, centers, std)
    near = (points - centers[labels]).norm(dim=1) <= 3 * std
    assert torch.equal(assigned == labels, near)
    assert torch.equal(assigned == -1, ~near)


def test_assignment_is_inclusive_at_the_radius_and_refuses_points_beyond():
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    points = torch.tensor([[3.0, 0.0], [3.001, 0.0], [7.5, 0.0], [5.0, 0.0]], dtype=torch.float64)
    assert mode_assignment(points, centers, std=1.0).tolist() == [0, -1, 1, -1]
    assert mode_assignment(points, centers, std=1.0, radius=5.0).tolist() == [0, 0, 1, 0]


def test_points_that_are_not_finite_belong_to_no_mode():
    points = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [0.0, 0.0]])
    assert mode_assignment(points, torch.zeros(1, 2), std=1.0).tolist() == [-1, -1, 0]


def test_small_distances_survive_a_large_offset():
    centers = torch.tensor([[1e4, 0.0], [1e4 + 1, 0.0]])
    assert mode_assignment(centers.repeat(40, 1), centers, std=0.01).tolist() == [0, 1] * 40


def test_leading_dimensions_equal_a_loop():
    points = torch.stack([mixture(500, seed)[0] for seed in range(6)]).reshape(2, 3, 500, 2)
    points[1, 2] = points[1, 2, :1]  # one replica collapsed to a point
    _, _, centers, std = mixture()
    covered = modes_covered(points, centers, std)
    quality = high_quality(points, centers, std)
    assert covered.shape == quality.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert covered[i, j] == modes_covered(points[i, j], centers, std)
            assert quality[i, j] == high_quality(points[i, j], centers, std)
    assert covered[1, 2] == 1
    assert covered[0, 0] == 8


def test_high_quality_fraction_of_the_mixture_itself():
    points, _, centers, std = mixture(50_000)
    expected = 1 - math.exp(-(3**2) / 2)
    assert round(expected, 3) == 0.989  # the number in mode_assignment's docstring
    error = math.sqrt(expected * (1 - expected) / 50_000)
    assert abs(high_quality(points, centers, std).item() - expected) < 4 * error


@pytest.mark.parametrize(("n_modes", "n"), [(8, 80), (10, 100), (3, 30), (7, 70)])
def test_a_class_at_exactly_its_share_counts_and_one_sample_less_does_not(n_modes, n):
    labels = torch.ones(n, dtype=torch.int64)
    assert classes_covered(frequencies(labels, n_modes)) == 1
    labels[0] = 0  # 1 of n = 10 * n_modes samples is exactly a tenth of 1 / n_modes
    assert classes_covered(frequencies(labels, n_modes)) == 2
    assert classes_covered(frequencies(torch.cat([labels, torch.ones(1, dtype=torch.int64)]), n_modes)) == 1


def test_coverage_follows_the_expected_weights():
    shares = torch.tensor([0.02, 0.49, 0.49], dtype=torch.float64)
    assert classes_covered(shares) == 2  # 2 % is less than a tenth of one third
    assert classes_covered(shares, torch.tensor([2, 49, 49])) == 3
    assert classes_covered(shares, torch.tensor([0, 1, 1])) == 2  # what is not expected does not count
    assert classes_covered(torch.tensor([0.0, 1e-6, 1.0]), share=0.0) == 2
    points, _, centers, std = mixture()
    assert (
        modes_covered(points, centers, std, weights=torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), share=1.0) == 0
    )


def test_frequencies_count_no_mode_in_the_denominator_alone():
    labels = torch.tensor([[0, 1, 1, -1], [-1, -1, -1, -1]])
    result = frequencies(labels, 3)
    assert result.tolist() == [[0.25, 0.5, 0.0], [0.0, 0.0, 0.0]]
    assert result.dtype == torch.float64
    assert frequencies(labels + 1, 4)[0].tolist() == [0.25, 0.25, 0.5, 0.0]


@relaxed
@given(labels=hnp.arrays(np.int64, (3, 2, 11), elements=st.integers(-1, 4)))
def test_frequencies_agree_with_numpy(labels):
    result = frequencies(torch.from_numpy(labels), 5)
    for index in np.ndindex(3, 2):
        row = labels[index]
        assert np.array_equal(result[index], np.bincount(row[row >= 0], minlength=5) / 11)


def test_divergence_of_one_class_of_ten_from_uniform():
    one = torch.zeros(10)
    one[3] = 1
    assert round(class_divergence(one, torch.ones(10)).item(), 3) == 0.758


@relaxed
@given(counts)
def test_divergence_agrees_with_scipy(pair):
    ours = class_divergence(*torch.from_numpy(pair)).item()
    theirs = jensenshannon(*(pair / pair.sum(1, keepdims=True)), base=2)
    # Of equal distributions scipy may take the root of a rounding error below zero.
    assert ours == pytest.approx(np.nan_to_num(theirs) ** 2, abs=1e-14)


@relaxed
@given(counts, st.floats(1e-300, 1e300), st.permutations(range(7)))
def test_divergence_is_a_bounded_symmetric_measure_of_shares(pair, scale, order):
    p, q = torch.from_numpy(pair).double()
    value = class_divergence(p, q)
    assert 0 <= value <= 1
    assert class_divergence(p, p) == 0
    assert torch.allclose(value, class_divergence(q, p), rtol=0, atol=1e-15)
    assert torch.allclose(value, class_divergence(p * scale, q), rtol=0, atol=1e-12)
    assert torch.allclose(value, class_divergence(p[order], q[order]), rtol=0, atol=1e-14)


def test_divergence_of_disjoint_classes_is_one_and_broadcasts():
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    values = class_divergence(p, torch.tensor([0.0, 0.0, 2.0]))
    assert values.tolist() == [1.0, 1.0, 0.0]
    assert class_divergence(p[:, None], p).shape == (3, 3)


def test_sums_of_huge_counts_do_not_overflow():
    assert class_divergence(torch.tensor([1.5e308, 1.5e308], dtype=torch.float64), torch.ones(2)) == 0


def test_divergence_of_a_perfect_generator():
    n, n_classes = 1000, 10
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(n_classes, (400, n), generator=generator)
    mean = class_divergence(frequencies(labels, n_classes), torch.ones(n_classes)).mean().item()
    assert mean == pytest.approx((n_classes - 1) / (8 * n * math.log(2)), rel=0.1)


@relaxed
@given(counts)
def test_kl_agrees_with_scipy(pair):
    ours = class_kl(*torch.from_numpy(pair)).item()
    assert ours == pytest.approx(entropy(*pair.astype(float)), rel=1e-12, abs=1e-14)


def test_kl_of_one_class_from_uniform_and_of_classes_that_the_data_lack():
    one = torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert class_kl(one, torch.ones(4)).item() == pytest.approx(math.log(4))
    assert class_kl(torch.ones(4), one) == math.inf
    assert class_kl(one, one) == 0
    assert class_kl(torch.ones(3, 1, 4), torch.ones(2, 4)).shape == (3, 2)


# --- Summaries -------------------------------------------------------------------------------------------------


def test_a_summary_of_the_ring_itself():
    """2,500 samples within three standard deviations, the usual protocol."""
    points, _, centers, std = mixture(2500)
    summary = mode_coverage(mode_assignment(points, centers, std), 8)
    assert summary["modes_covered"] == summary["modes_hit"] == 8
    assert summary["high_quality"] == high_quality(points, centers, std)
    expected = 1 - math.exp(-4.5)
    assert abs(summary["high_quality"] - expected) < 4 * math.sqrt(expected * (1 - expected) / 2500)
    assert 0 < summary["KL[modes]"] < 4 * 7 / 5000
    assert 0 < summary["D_JS[modes]"] < 4 * 7 / (8 * 2500 * math.log(2))


def test_a_summary_of_a_generator_that_drops_modes():
    labels = torch.tensor([0] * 48 + [1] * 48 + [3] * 1 + [-1] * 3)
    summary = mode_coverage(labels, 4)
    assert summary["modes_covered"] == 2  # one sample of 100 is less than a tenth of a quarter
    assert summary["modes_hit"] == 3
    assert summary["high_quality"].item() == pytest.approx(0.97)
    shares = np.array([48, 48, 0, 1]) / 97
    assert summary["KL[modes]"].item() == pytest.approx(entropy(shares, np.ones(4)))
    assert summary["D_JS[modes]"].item() == pytest.approx(jensenshannon(shares, np.ones(4) / 4, base=2) ** 2)
    expected = torch.tensor([49.0, 49.0, 0.0, 2.0])
    assert classes_covered(frequencies(labels, 4), expected, share=0.4) == 3
    assert mode_coverage(labels, 4, expected)["KL[modes]"] < 0.01


def test_no_sample_in_any_mode_scores_the_worst_and_rows_keep_apart():
    labels = torch.tensor([[-1, -1, -1, -1], [0, 0, 0, 0], [0, 1, 2, 3]])
    summary = mode_coverage(labels, 4)
    assert summary["modes_covered"].tolist() == summary["modes_hit"].tolist() == [0, 1, 4]
    assert summary["high_quality"].tolist() == [0, 1, 1]
    assert summary["KL[modes]"].tolist() == pytest.approx([math.log(4), math.log(4), 0])
    assert summary["D_JS[modes]"][0] == 1
    assert summary["D_JS[modes]"][1].item() == pytest.approx(0.5487949407)
    assert summary["D_JS[modes]"][2] == 0
    rare = mode_coverage(labels, 4, expected=torch.tensor([1.0, 4.0, 4.0, 1.0]))
    assert rare["KL[modes]"][0].item() == pytest.approx(math.log(10))


@relaxed
@given(hnp.arrays(np.int64, (2, 40), elements=st.integers(-1, 5)), st.permutations(range(6)))
def test_summaries_are_bounded_and_know_no_order(labels, order):
    labels = torch.from_numpy(labels)
    summary = mode_coverage(labels, 6)
    assert (summary["modes_covered"] <= summary["modes_hit"]).all()
    assert ((summary["KL[modes]"] >= 0) & (summary["KL[modes]"] <= math.log(6) + 1e-12)).all()
    assert ((summary["D_JS[modes]"] >= 0) & (summary["D_JS[modes]"] <= 1)).all()
    renamed = torch.tensor([*order, -1])[labels]
    for name, value in mode_coverage(renamed.flip(-1), 6).items():
        assert torch.allclose(value.double(), summary[name].double(), rtol=1e-9, atol=1e-12)


def test_a_perfect_generator_of_stacked_digits_scores_about_0019():
    """26,000 samples of 1,000 classes: (C - 1) / 2n, and a little of second order, (C^2 - 1) / 12 n^2."""
    n, n_classes = 26_000, 1000
    labels = torch.randint(n_classes, (30, n), generator=torch.Generator().manual_seed(0))
    result = stacked_modes(labels)
    assert (result["modes_hit"] == 1000).all()
    expected = (n_classes - 1) / (2 * n) + (n_classes**2 - 1) / (12 * n**2)
    assert round(expected, 3) == 0.019
    spread = math.sqrt((n_classes - 1) / 2) / n
    assert abs(result["KL[modes]"].mean().item() - expected) < 4 * spread / math.sqrt(30)


def test_stacked_digits_that_are_always_the_same():
    labels = torch.full((26_000,), 123)
    labels[0] = -1  # an image that no class could be given
    result = stacked_modes(labels)
    assert result["modes_hit"] == 1
    assert result["KL[modes]"].item() == pytest.approx(math.log(1000))
    digits = load("stacked-digits", n=2000, seed=0)
    assert stacked_modes(digits.labels)["modes_hit"] == digits.labels.unique().numel()


# --- Inside classes --------------------------------------------------------------------------------------------


def features(n, n_classes, shift=0.0, seed=0):
    """Features whose class c lies around c times ten, and their labels in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64) + 10 * labels[:, None] + shift
    order = torch.randperm(n, generator=generator)
    return x[order], labels[order]


def test_intra_class_distance_is_a_loop_over_classes():
    real, real_labels = features(120, 4)
    fake, fake_labels = features(160, 4, shift=2.0, seed=1)
    result = intra_class(frechet_distance, real, real_labels, fake, fake_labels)
    for label in range(4):
        alone = frechet_distance(real[real_labels == label], fake[fake_labels == label])
        assert result.per_class[label] == alone
    assert result.mean == result.per_class.mean()
    assert 10 < result.mean < 16  # three coordinates are off by two, and few samples add a little


def test_a_generator_that_swaps_classes_matches_the_whole_and_no_class():
    real, labels = features(400, 2)
    assert frechet_distance(real, real) < 1e-9
    swapped = intra_class(frechet_distance, real, labels, real, 1 - labels)
    assert (swapped.per_class > 250).all()  # 3 * 10^2
    assert intra_class(frechet_distance, real, labels, real, labels).mean < 1e-9


def test_intra_class_of_replicas_equals_a_loop_and_tells_real_from_fake():
    real, real_labels = features(60, 3)
    fakes, labels = zip(*(features(30, 3, seed=seed) for seed in range(4)), strict=True)
    fake, fake_labels = torch.stack(fakes).reshape(2, 2, 30, 3), torch.stack(labels).reshape(2, 2, 30)

    def ratio(real, fake):
        return len(real) / len(fake) + fake.mean()

    result = intra_class(ratio, real, real_labels, fake, fake_labels)
    assert result.per_class.shape == (2, 2, 3)
    assert result.mean.shape == (2, 2)
    for i, j in np.ndindex(2, 2):
        one = intra_class(ratio, real, real_labels, fake[i, j], fake_labels[i, j])
        assert torch.equal(result.per_class[i, j], one.per_class)
    assert (result.per_class.diff(dim=-1) > 5).all()
    sizes = intra_class(lambda a, b: len(a) / len(b), real, real_labels, fake, fake_labels)
    assert (sizes.per_class == 2).all()
    assert sizes.mean.dtype == torch.float64


@pytest.mark.parametrize(
    ("real_labels", "fake_labels", "message"),
    [
        ([0, 0, 1, 1], [0, 0, 0, 1], "at least 2 samples, but class 1 of fake_labels has 1"),
        ([0, 0, 2, 2], [0, 0, 2, 2], "class 1 of real_labels has 0"),
        ([0, 0, 1, 1], [0, 0, 1, 2], r"0\.\.2"),
        ([0, 0, 1, 1], [0, 0, 1, -1], "fake_labels must be classes from 0, got -1"),
        ([0, 0, 1], [0, 0, 1, 1], r"real_labels must give one label for each .*\[3\] and \[4, 2\]"),
        ([0, 0, 1, 1], [0, 0, 1], r"fake_labels must give one label for each .*\[3\] and \[4, 2\]"),
        ([[0, 0, 1, 1]], [0, 0, 1, 1], r"real_labels must be \[M\], got shape \[1, 4\]"),
        ([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], "float32"),
    ],
)
def test_intra_class_names_what_is_missing(real_labels, fake_labels, message):
    with pytest.raises(ValueError, match=message):
        intra_class(
            frechet_distance,
            torch.randn(4, 2),
            torch.tensor(real_labels),
            torch.randn(4, 2),
            torch.tensor(fake_labels),
        )


def test_intra_class_refuses_metrics_that_give_no_scalar_and_asks_for_more_on_request():
    x, labels = features(8, 2)
    with pytest.raises(ValueError, match=r"metric must give a scalar, got shape \[4, 3\]"):
        intra_class(lambda a, b: a - b, x, labels, x, labels)
    with pytest.raises(ValueError, match="at least 5 samples, but class 0 of real_labels has 4"):
        intra_class(frechet_distance, x, labels, x, labels, least=5)
    with pytest.raises(ValueError, match="finite"):
        intra_class(frechet_distance, x, labels, x * math.nan, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mode_assignment(torch.zeros(5, 3), torch.zeros(2, 2), 1.0), r"points must be .*\[5, 3\]"),
        (lambda: mode_assignment(torch.zeros(5, 2), torch.zeros(0, 2), 1.0), r"\[0, 2\]"),
        (lambda: mode_assignment(torch.zeros(5, 2).long(), torch.zeros(2, 2), 1.0), "torch.int64"),
        (lambda: mode_assignment(torch.zeros(5, 2), torch.zeros(2, 2), 0.0), "std=0.0"),
        (lambda: mode_assignment(torch.zeros(5, 2), torch.zeros(2, 2), 1.0, math.nan), "radius=nan"),
        (lambda: frequencies(torch.tensor([0, 3]), 3), r"0\.\.3"),
        (lambda: frequencies(torch.tensor([-2]), 3), r"-2\.\.-2"),
        (lambda: frequencies(torch.tensor([0.0]), 3), "float32"),
        (lambda: frequencies(torch.zeros(4, 0).long(), 3), r"\[4, 0\]"),
        (lambda: classes_covered(torch.ones(3), torch.ones(4)), "3 and 4"),
        (lambda: classes_covered(torch.ones(3), share=1.5), "1.5"),
        (lambda: classes_covered(torch.ones(3), share=-1), "share .* got -1"),
        (lambda: class_divergence(torch.ones(3), torch.ones(2)), "3 and 2"),
        (lambda: class_kl(torch.ones(3), torch.ones(2)), "3 and 2"),
        (lambda: class_kl(torch.tensor([1.0, math.nan]), torch.ones(2)), "p must be finite"),
        (
            lambda: class_divergence(torch.tensor([1.0, -1.0]), torch.ones(2)),
            "p must be finite and not negative",
        ),
        (lambda: class_divergence(torch.ones(2), torch.tensor([1.0, math.nan])), "q must be finite"),
        (
            lambda: class_divergence(torch.ones(2, 2), torch.tensor([0.0, 0.0])),
            "q must have a positive entry",
        ),
    ],
)
def test_errors_name_the_argument_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()
