import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import polynomial_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from gankit.metrics.kernel import kernel_distance, kernel_distance_error

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 6))


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def by_definition(a, b):
    """The unbiased estimate from whole kernel matrices of scikit-learn."""
    a, b = a.double().numpy(), b.double().numpy()
    aa, bb, ab = (polynomial_kernel(x, y, degree=3, coef0=1) for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    return (aa.sum() - aa.trace()) / (n * (n - 1)) + (bb.sum() - bb.trace()) / (m * (m - 1)) - 2 * ab.mean()


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (40, 30, 5), (150, 150, 200), (3000, 1100, 3)])
def test_agrees_with_scikit_learn(n, m, d):
    a, b = normal(n, d, seed=1), 1.3 * normal(m, d, seed=2) + 0.2
    assert kernel_distance(a, b).item() == pytest.approx(by_definition(a, b), rel=1e-12)


def test_agrees_with_torch_fidelity():
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = normal(200, 64, seed=3), 0.8 * normal(200, 64, seed=4) + 0.1
    # A subset as large as the sets is the whole, whatever the seed.
    options = {"kid_subset_size": 200, "kid_subsets": 1, "verbose": False}
    peer = kid.kid_features_to_metric(a, b, **options)[kid.KEY_METRIC_KID_MEAN]
    assert kernel_distance(a, b).item() == pytest.approx(peer, rel=1e-11)


def test_agrees_with_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = normal(200, 64, seed=5), 0.8 * normal(200, 64, seed=6) + 0.1
    assert kernel_distance(a, b).item() == pytest.approx(kid.poly_mmd(a, b).item(), rel=1e-11)


def test_two_points_against_two_points_by_hand():
    a, b = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [0.0]])
    # k(1, -1) = 0, k(0, 0) = 1, k(+-1, 0) = 1.
    assert kernel_distance(a, b).item() == 0 + 1 - 2
    # Shifted by 1: k(2, 0) = 1, k(1, 1) = 8, k(2, 1) = 27, k(0, 1) = 1.
    assert kernel_distance(a + 1, b + 1).item() == 1 + 8 - (27 + 1)


def test_unbiased_for_equal_distributions_and_the_error_does_not_understate_the_spread():
    a, b = normal(400, 30, 4, seed=7), normal(400, 25, 4, seed=8)
    values, errors = kernel_distance_error(a, b)
    spread = values.std().item()
    assert abs(values.mean().item()) < 4 * spread / math.sqrt(400)
    assert 1.0 < errors.square().mean().sqrt().item() / spread < 1.75


def test_the_error_is_the_spread_where_distributions_differ():
    a, b = normal(400, 60, 3, seed=9), 0.7 * normal(400, 50, 3, seed=10) + 0.8
    values, errors = kernel_distance_error(a, b)
    assert errors.square().mean().sqrt().item() == pytest.approx(values.std().item(), rel=0.15)


def test_the_error_is_the_jackknife_done_the_long_way():
    a, b = normal(9, 3, seed=11), normal(7, 3, seed=12)
    variance = 0.0
    for x, distance in ((a, lambda x: by_definition(x, b)), (b, lambda y: by_definition(a, y))):
        without = np.array([distance(torch.cat([x[:i], x[i + 1 :]])) for i in range(len(x))])
        variance += (len(x) - 1) / len(x) * ((without - without.mean()) ** 2).sum()
    assert kernel_distance_error(a, b).standard_error.item() == pytest.approx(math.sqrt(variance), rel=1e-10)


@relaxed
@given(seeds, sizes)
def test_symmetric_and_blind_to_order_and_rotation(seed, shape):
    n, m, d = shape
    a, b = normal(n, d, seed=seed), normal(m, d, seed=seed + 1) + 0.5
    value = kernel_distance(a, b)
    tolerance = {"rtol": 1e-9, "atol": 1e-10 * (1 + max(a.abs().max(), b.abs().max()).item() ** 6)}
    assert torch.allclose(value, kernel_distance(b, a), **tolerance)
    assert torch.allclose(value, kernel_distance(a.flip(0), b), **tolerance)
    rotation = torch.linalg.qr(normal(d, d, seed=seed + 2)).Q
    assert torch.allclose(value, kernel_distance(a @ rotation, b @ rotation), **tolerance)


@relaxed
@given(seeds, sizes, st.integers(1, 5))
def test_blocks_change_nothing(seed, shape, side):
    n, m, d = shape
    a, b = normal(n, d, seed=seed), normal(m, d, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gankit.metrics.kernel._SIDE", side)
        value, error = kernel_distance_error(a, b)
    whole = kernel_distance_error(a, b)
    assert torch.allclose(value, whole.value, rtol=1e-9, atol=1e-11)
    assert torch.allclose(error, whole.standard_error, rtol=1e-6, atol=1e-11)


def test_leading_dimensions_equal_a_loop_and_broadcast():
    real, fake = normal(20, 4, seed=13), normal(2, 3, 15, 4, seed=14)
    values, errors = kernel_distance_error(fake, real)
    assert values.shape == errors.shape == (2, 3)
    assert values.dtype == errors.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            assert values[i, j] == kernel_distance(fake[i, j], real)
    pairs = kernel_distance(fake[0][:, None], fake[1])
    assert pairs.shape == (3, 3)
    assert pairs[2, 1] == kernel_distance(fake[0, 2], fake[1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_loses_little(dtype):
    a, b = normal(500, 256, seed=15, dtype=dtype), (normal(400, 256, seed=16) + 0.1).to(dtype)
    # The features are rounded here already; what is left is the error of float32 products.
    assert kernel_distance(a, b).item() == pytest.approx(by_definition(a, b), abs=1e-7)
    assert kernel_distance(a, b.double()).item() == pytest.approx(by_definition(a, b), rel=1e-10)


class Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


def test_blocks_stay_below_the_memory_argument():
    a, b = normal(2000, 3, seed=21), normal(1500, 3, seed=22)
    with Largest() as largest:
        kernel_distance(a, b, max_bytes=2**16)
    # Whole kernel matrices would have 32 MB.
    assert largest.bytes <= 2**16
    with Largest() as largest:
        kernel_distance(a, b)
    assert largest.bytes > 2**20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_distance(torch.zeros(5, 3), torch.zeros(5, 2)), "equally many features, got 3 and 2"),
        (
            lambda: kernel_distance(torch.zeros(1, 3), torch.zeros(5, 3)),
            "a must hold at least 2 samples, got 1",
        ),
        (lambda: kernel_distance(torch.zeros(5, 3), torch.full((5, 3), math.nan)), "b must be finite"),
        (lambda: kernel_distance(torch.zeros(5, 3).long(), torch.zeros(5, 3)), "a must be floating .*int64"),
        (lambda: kernel_distance(torch.zeros(5), torch.zeros(5, 1)), r"shape \[5\]"),
        (
            lambda: kernel_distance(torch.zeros(5, 3), torch.zeros(5, 3), max_bytes=9),
            "at least 65536, got 9",
        ),
    ],
)
def test_errors_name_the_argument_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()
