"""The study of depth: its pictures, what measures them, what counts as a collapse, and the stored result."""

import io
import zipfile

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from figures.mm_nsat import fig23_depth as depth
from gankit.data import DataError
from gankit.metrics.frechet import frechet_distance
from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")
torch.set_num_threads(1)
CLASSES = ("n01440764_fish", "n02655020_puffer", "n02666196_abacus")


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Both archives, of twelve pictures for each class, in the data root."""
    rng = np.random.default_rng(0)
    for name in (depth.CIFAR, depth.IMAGENET):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for number in range(36):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
                archive.writestr(f"{CLASSES[number % 3]}/{number}.png", buffer.getvalue())
    monkeypatch.setenv("GANKIT_DATA", str(tmp_path))
    depth.pictures.cache_clear()
    yield tmp_path
    depth.pictures.cache_clear()


def test_animals_are_the_classes_up_to_the_puffer(sets):
    animals = depth.pictures(depth.SETTINGS["animals-conv6"])
    assert len(animals) == 24
    assert set(animals.labels.tolist()) == {0, 1}
    everything = depth.pictures(depth.SETTINGS["cifar10-conv4"])
    assert sorted(everything.labels.tolist()) == sorted([0, 1, 2] * 12)


def test_an_archive_without_animals_is_refused(sets):
    with zipfile.ZipFile(sets / depth.IMAGENET, "w") as archive:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32)).save(buffer, "PNG")
        archive.writestr("n09999999_cliff/0.png", buffer.getvalue())
    with pytest.raises(DataError, match="no folder of an animal"):
        depth.pictures(depth.SETTINGS["animals-conv6"])


def test_cells_are_means_of_pixels():
    images = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = images.reshape(2, 3, 3, 8, 4, 8, 4).mean((-3, -1)).flatten(-3)
    torch.testing.assert_close(depth.cells(images), expected)


def test_what_is_measured_of_a_run(sets):
    data = depth.pictures(depth.SETTINGS["cifar10-conv4"])
    recipe = depth.SETTINGS["cifar10-conv4"].recipe.changed({"width": 2})
    run = recipe.build((0, 1), data=data, device="cpu")
    found = depth.judge(data)(run)
    assert {name: x.shape for name, x in found.items()} == {name: (2,) for name in depth.MEASURES}
    real = depth.cells(data.normalise(data.images))
    made = depth.cells(run.G(torch.zeros(2, 1, 64)).detach())
    assert bool((found["spread"] < 0.5).all()), "an untrained generator makes pictures that are nearly alike"
    one = frechet_distance(made[0].expand(500, -1), real)  # nearly that of one grey picture, then
    assert found["distance"][0] == pytest.approx(float(one), rel=0.05)
    assert bool(((found["coverage"] >= 0) & (found["coverage"] <= 1)).all())


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_a_collapse_is_the_first_reading_below_half_of_the_largest_so_far(values):
    found = depth.collapse(np.array(values)[:, None])[0]
    most = [max(values[: i + 1]) for i in range(len(values))]
    fallen = [i for i, x in enumerate(values) if most[i] >= depth.LEAST and x < most[i] / 2]
    expected = fallen[0] if fallen else len(values)
    assert found == expected


def test_a_study_is_computed_once_and_drawn(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(depth, "STEPS", 400)
    monkeypatch.setattr(depth, "SAMPLES", 12)
    monkeypatch.setattr(
        depth.Setting,
        "recipe",
        property(lambda self: depth.recipes["ns-digits"].changed({"width": 4, "steps": 400})),
    )
    folder = tmp_path / "runs"
    result = depth.compute("cifar10-conv4,animals-conv6", 2, 400, str(folder))
    assert list(result["runs"]) == ["cifar10-conv4", "animals-conv6"]
    assert result["runs"]["animals-conv6"]["steps"] == [200, 400]
    again = depth.compute("cifar10-conv4,animals-conv6", 2, 400, str(folder))
    assert again["runs"] == result["runs"]
    assert_shaped_alike(result, again)
    assert_drawn(depth.draw(result))
    assert depth.table(result).count("p = ") == 2
    longer = depth.compute(
        "cifar10-conv4", 1, 600, str(folder)
    )  # a part of another length is no part of this
    assert longer["runs"]["cifar10-conv4"]["steps"] == [200, 400, 600]
    with pytest.raises(ValueError, match="got cifar10-conv9"):
        depth.compute("cifar10-conv9", 1)
