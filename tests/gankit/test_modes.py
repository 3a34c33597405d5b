import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon

from gankit.data import load
from gankit.metrics.modes import (
    class_divergence,
    classes_covered,
    frequencies,
    high_quality_fraction,
    mode_assignment,
    modes_covered,
)

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=60)

counts = hnp.arrays(np.int64, (2, 7), elements=st.integers(0, 1000)).filter(lambda c: (c.sum(1) > 0).all())


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
    quality = high_quality_fraction(points, centers, std)
    assert covered.shape == quality.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert covered[i, j] == modes_covered(points[i, j], centers, std)
            assert quality[i, j] == high_quality_fraction(points[i, j], centers, std)
    assert covered[1, 2] == 1
    assert covered[0, 0] == 8


def test_high_quality_fraction_of_the_mixture_itself():
    points, _, centers, std = mixture(50_000)
    expected = 1 - math.exp(-(3**2) / 2)
    assert round(expected, 3) == 0.989  # the number in mode_assignment's docstring
    error = math.sqrt(expected * (1 - expected) / 50_000)
    assert abs(high_quality_fraction(points, centers, std).item() - expected) < 4 * error


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
        (lambda: class_divergence(torch.ones(3), torch.ones(2)), "3 and 2"),
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
