"""The figures about growing and style: their stored numbers, and short runs of what made them."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from figures import provenance
from figures.lecture import smuggled_size, style_digits


def test_stored_maps_stand_out_on_the_rim_with_instance_norm_alone():
    stored = provenance.load("lecture/smuggled_size")
    assert min(stored["instance norm"]["rim"]) > 2 > 1.1 > max(stored["demodulation"]["rim"])
    assert (np.array(stored["demodulation"]["error"]) < stored["instance norm"]["error"]).all()
    plt.close(smuggled_size.draw(stored))


def test_a_size_is_lost_by_instance_norm_and_kept_by_demodulation():
    """Before any training."""
    x = smuggled_size.parcels(3, torch.Generator().manual_seed(0))
    for name, factor in (("instance norm", 1.0), ("demodulation", 3.0)):
        kernel = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(1))
        one, three = (smuggled_size.NORMS[name](torch.conv2d(k * x, kernel), kernel) for k in (1, 3))
        torch.testing.assert_close(three, factor * one, rtol=1e-4, atol=1e-4)


def test_a_short_training_is_the_same_twice():
    first, again = (smuggled_size.train("demodulation", 1, 5) for _ in range(2))
    assert first == again
    assert first[1] < 2


def test_variants_of_stylegan2_are_compared_in_pairs():
    result = style_digits.compute(n_seeds=2, steps=2)
    assert set(result["variants"]) == set(style_digits.VARIANTS)
    summary = result["summary"]
    assert set(summary["StyleGAN2"]["distance"]) == {"median", "low", "high"}
    for name in ("MM-nsat", "no path length"):
        for row in summary[name].values():
            assert row["below"] + row["above"] <= 2
            assert row["p"] == pytest.approx(1) or row["p"] <= 1
    plt.close(style_digits.draw(result))


def test_the_stored_comparison_of_stylegan2_is_summarised_and_drawn():
    stored = provenance.load("lecture/style_digits")
    assert style_digits.summarise(stored["variants"]) == stored["summary"]
    plt.close(style_digits.draw(stored))
