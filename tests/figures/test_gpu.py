"""What one card does, on a CPU with a tiny budget: no minute on a card is to be lost to a bug."""

from __future__ import annotations

import json

import pytest
import torch

from figures.book import gpu
from figures.queue import read
from tests.figures.stored import assert_drawn

torch.set_num_threads(1)
SIZES = {"width": 4, "batch_size": 2}


def test_everything_is_measured_or_says_why_not_and_nothing_twice(tmp_path):
    settings = {"minutes": 1e-4, "width": 4, "batch_size": 2, "networks": "SNGAN-32,Conv-4", "ways": "0,1,4"}
    settings |= {"pictures": 6, "device": "cpu", "folder": str(tmp_path)}
    result = gpu.compute(**settings)
    json.dumps(result, allow_nan=False)
    for name in ("SNGAN-32", "Conv-4"):
        found = result["steps"][name]
        assert "it needs a CUDA device" in found["bfloat16, CUDA graph"]["not"]
        for way in ("float32", "TF32"):
            assert found[way]["ms"][0] > 0
            assert found[way]["images_per_second"] > 0
            assert found[way]["memory_mb"] is None
        assert result["equal"][name]["float32"] == result["equal"][name]["tf32"] == 0  # the same device
        assert 0 < result["equal"][name]["bfloat16"] < 0.3
        assert result["ratios"][name]["float32"] == 1
    assert result["collectives"] == result["collectives"] | {"backend": "gloo", "exact": True}
    assert result["packs"]["mapped"] > 0
    assert gpu.compute(**settings)["steps"] == result["steps"]
    assert gpu.table(result).count("it needs a CUDA device") == 2
    assert_drawn(gpu.draw(result))


def test_numbers_of_the_streams_do_not_depend_on_the_device():
    plain = gpu.Streams((3,), (), "cpu")
    host = gpu.HostStreams((3,), (), torch.device("cpu"))
    assert torch.equal(plain.normal(4, 2), host.normal(4, 2))
    moved = gpu.HostStreams((3,), (), torch.device("meta")).normal(4, 2)
    assert moved.device.type == "meta"


def test_gradients_differ_where_weights_do():
    run = gpu.build("Conv-4", torch.device("cpu"), SIZES)
    first = torch.cat([g.flatten() for g in gpu.gradients(run)])
    assert torch.equal(first, torch.cat([g.flatten() for g in gpu.gradients(run)]))
    with torch.no_grad():
        next(run.D.parameters()).mul_(1.5)
    assert not torch.equal(first, torch.cat([g.flatten() for g in gpu.gradients(run)]))


@pytest.mark.parametrize("name", gpu.NETWORKS)
def test_every_network_has_its_papers_size_unless_told_otherwise(name):
    recipe = gpu.recipe_of(name, {"width": 0, "batch_size": 0})
    assert recipe.changed({}) == recipe
    assert gpu.recipe_of(name, SIZES, "bfloat16").precision == "bfloat16"
    assert gpu.recipe_of(name, SIZES).batch_size == 2


def test_what_cannot_be_measured_costs_nothing_else():
    assert gpu.attempted(lambda: {"ms": 1}) == {"ms": 1}
    assert gpu.attempted(lambda: 1 / 0) == {"not": "ZeroDivisionError: division by zero"}
    for settings, message in (
        ({"networks": "VAE"}, "networks must be among SNGAN-32"),
        ({"ways": "9"}, "numbers from 0 to 6"),
    ):
        with pytest.raises(ValueError, match=message):
            gpu.compute(**settings)


def test_the_cards_list_begins_with_the_measurements():
    cards = [item.name for item in read() if "h100" in item.minutes]
    assert cards == ["gpu-measurements", "cifar10-sngan-full", "mnist-conv4", "cifar10-conv4"]
    assert sum(item.minutes.get("h100", 0) for item in read()) <= 30
