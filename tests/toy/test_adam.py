"""Adam's update under an exponential gradient: the four cases, the closed forms and PyTorch's own Adam."""

import numpy as np
import pytest
import torch

from toy import adam

# a, beta1, beta2, steps: long enough for the slower of the two terms to have died out.
FOUR = {
    1: (-0.0002, 0.9, 0.999, 40_000),
    2: (-0.2, 0.9, 0.999, 1_500),
    3: (-0.002, 0.9, 0.999, 12_000),
    4: (-0.02, 0.99, 0.9, 2_000),
}


@pytest.mark.parametrize("number", FOUR)
def test_measured_exponent_is_the_predicted_one(number: int) -> None:
    a, beta1, beta2, steps = FOUR[number]
    assert adam.case(a, beta1, beta2) == number
    predicted = adam.exponent(a, beta1, beta2)
    measured = adam.measured_exponent(adam.simulate(steps, a, beta1, beta2))
    if number == 1:
        assert predicted == 0
        assert abs(measured) < 0.02 * abs(
            a
        )  # no number is within 2 % of zero: measured against the gradient's own
    else:
        assert measured == pytest.approx(predicted, rel=0.02)


def test_exponents_are_those_of_equation_22() -> None:
    expected = {
        1: 0,
        2: np.log(0.9 / np.sqrt(0.999)),
        3: -0.002 - np.log(0.999) / 2,
        4: np.log(0.99) + 0.02,
    }
    for number, (a, beta1, beta2, _) in FOUR.items():
        assert adam.exponent(a, beta1, beta2) == pytest.approx(expected[number], abs=1e-15)


def test_second_case_explodes_when_beta1_exceeds_the_root_of_beta2() -> None:
    assert adam.case(-0.3, 0.99, 0.9) == 2
    assert adam.exponent(-0.3, 0.99, 0.9) > 0
    assert np.diff(adam.simulate(800, -0.3, 0.99, 0.9)[100:]).min() > 0


def test_growing_gradients_are_normalised() -> None:
    assert adam.case(0.05, 0.9, 0.999) == 1
    assert abs(adam.measured_exponent(adam.simulate(6_000, 0.05))) < 0.02 * 0.05


@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize(("a", "beta1", "beta2"), [(-0.01, 0.9, 0.999), (-0.2, 0.5, 0.99), (0.02, 0.99, 0.9)])
def test_simulation_is_pytorchs_adam(a: float, beta1: float, beta2: float, eps: float) -> None:
    p = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.1, betas=(beta1, beta2), eps=eps)
    changes = []
    for t in range(1, 301):
        before = p.detach().clone()
        p.grad = torch.tensor(-0.3 * np.exp(a * t), dtype=torch.float64)
        optimizer.step()
        changes.append(float(before - p.detach()))
    ours = adam.simulate(300, a, beta1, beta2, lr=0.1, g0=-0.3, eps=eps)
    # The parameter holds the update to 16 digits of its own size only.
    np.testing.assert_allclose(ours, changes, rtol=1e-6, atol=1e-14)


def test_closed_form_is_the_simulation() -> None:
    t = np.arange(1, 1_001)[:, None, None]
    a = np.array([-0.2, -0.02, -0.002, 0, 0.03, np.log(0.9), np.log(0.999) / 2])[:, None]
    beta1, beta2 = np.array([0.5, 0.9, 0.99]), np.array([0.9, 0.999, 0.9999])
    simulated = adam.simulate(1_000, a, beta1, beta2)
    assert simulated.shape == (1_000, 7, 3)
    np.testing.assert_allclose(adam.exact(t, a, beta1, beta2), simulated, rtol=1e-8)


def test_the_papers_approximation_is_off_by_a_constant() -> None:
    t = np.arange(2_000, 20_000, 100)
    ratio = adam.approximate(t, -0.001, 0.99, 0.999) / adam.exact(t, -0.001, 0.99, 0.999)
    assert np.ptp(ratio) < 1e-9
    assert ratio[0] == pytest.approx(1, abs=0.01)
    without = adam.approximate(t, -0.001, 0.99, 0.999, bias_correction=False)
    bias = np.sqrt(1 - 0.999**t) / (1 - 0.99**t)
    np.testing.assert_allclose(adam.approximate(t, -0.001, 0.99, 0.999) / without, bias)


def test_the_exponent_is_continuous_across_the_borders() -> None:
    border = np.log(0.999) / 2
    for value in (-1e-9, 0, 1e-9):
        assert adam.exponent(border + value, 0.9, 0.999) == pytest.approx(0, abs=2e-9)
    assert adam.case(border, 0.9, 0.999) == 1
    assert adam.case(np.log(0.9), 0.9, 0.999) == 3


def test_epsilon_makes_the_update_vanish_like_the_gradient() -> None:
    updates = adam.simulate(8_000, -0.0004, 0.9, 0.999, g0=1e-6, eps=1e-3)
    assert adam.measured_exponent(updates) == pytest.approx(-0.0004, rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adam.simulate(0, 0), "steps must be at least 1"),
        (lambda: adam.simulate(10, 0, eps=-1), "eps must be at least 0"),
        (lambda: adam.simulate(10, 0, g0=0), "g0 not 0"),
        (lambda: adam.simulate(10_000, -0.1), "leaves float64's range"),
        (lambda: adam.exponent(0, 1.0, 0.9), r"beta1 must lie in \(0, 1\)"),
        (lambda: adam.exact(0, -0.1), "t must be at least 1"),
        (lambda: adam.approximate(5, np.log(0.9), 0.9, 0.999), "a must differ"),
        (lambda: adam.measured_exponent(np.zeros(8)), "a slope needs"),
        (lambda: adam.measured_exponent(np.ones(8), last=0), "a slope needs"),
    ],
)
def test_wrong_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
