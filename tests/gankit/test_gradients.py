import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gankit.training.gradients import averaged, gradient_norm, unit_gradient

LEADS = [(), (3,)]


def gradient(lead: tuple[int, ...], seed: int = 0, size: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [size * torch.randn(*lead, *shape, generator=generator) for shape in ((4, 5), (5,), (2, 1, 3, 3))]


@pytest.mark.parametrize("lead", LEADS)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 15))
def test_the_norm_is_that_of_all_numbers_in_one_row(lead, seed, exponent):
    """Also where float32 has no squares: 1e-30 squared is 0 there."""
    parts = gradient(lead, seed, 10.0**exponent)
    rows = torch.cat([part.reshape(*lead, -1) for part in parts], -1).double().numpy()
    norm = gradient_norm(parts, lead)
    assert norm.dtype == torch.float64
    np.testing.assert_allclose(norm, np.linalg.norm(rows, axis=-1), rtol=1e-6)


@given(seed=st.integers(0, 2**31), unit=st.tuples(*[st.booleans()] * 3))
def test_unit_gradients_keep_their_direction_and_the_others_their_size(seed, unit):
    parts = gradient((3,), seed)
    scaled = unit_gradient(parts, (3,), unit)
    n = sum(part[0].numel() for part in parts)
    for i in range(3):
        row, new = (torch.cat([part[i].flatten() for part in of]) for of in (parts, scaled))
        if unit[i]:
            assert float(new.norm()) == pytest.approx(n, rel=1e-5)
            assert float(torch.cosine_similarity(row, new, dim=0)) == pytest.approx(1, abs=1e-5)
        else:
            assert torch.equal(row, new)


def test_a_unit_gradient_of_one_network_is_that_of_a_replica():
    stacked = gradient((3,))
    for i in range(3):
        alone = unit_gradient([part[i] for part in stacked])
        for one, three in zip(alone, unit_gradient(stacked, (3,)), strict=True):
            torch.testing.assert_close(one, three[i])


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_minibatches_are_averaged_number_by_number(accumulate):
    drawn = []

    def minibatch():
        drawn.append({"d_loss": torch.tensor(math.pi * len(drawn)), "d_grad": gradient((), len(drawn))})
        return dict(drawn[-1])

    mean = averaged(minibatch, accumulate)
    assert len(drawn) == accumulate
    torch.testing.assert_close(mean["d_loss"], torch.stack([one["d_loss"] for one in drawn]).mean())
    for i, part in enumerate(mean["d_grad"]):
        torch.testing.assert_close(part, torch.stack([one["d_grad"][i] for one in drawn]).mean(0))
