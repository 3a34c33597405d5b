import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gankit import classifiers, data
from gankit.classifiers import (
    Classifier,
    ResidualClassifier,
    Stacked,
    cache_path,
    class_frequencies,
    compute_features,
    flip_and_shift,
    hold_out,
    load,
    predict,
    read,
    train,
    train_and_cache,
    write,
)
from gankit.data import DataError

SPLITS = [data.load("digits", split=split) for split in ("train", "test")]


def tiny(seed=0, **settings):
    """A classifier trained for a moment: enough where its accuracy does not matter."""
    return train(*SPLITS, **{"epochs": 1, "seed": seed, "batch_size": 256, **settings})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A cache that holds the digits classifier of the recipe."""
    root = tmp_path_factory.mktemp("cache")
    train_and_cache("digits", root, progress=False)
    return root


def test_digits_classifier_reaches_98_percent(root):
    network = load("digits", root=root)
    images, labels = SPLITS[1].batch(torch.arange(len(SPLITS[1])))
    with torch.no_grad():
        accuracy = (network(images).argmax(1) == labels).double().mean().item()
    assert accuracy == network.test_accuracy >= 0.98
    assert not network.training


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_reach_98_percent_too(seed):
    assert train(*SPLITS, **{**classifiers.RECIPES["digits"], "seed": seed}).test_accuracy >= 0.98


def test_training_repeats_itself_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    first, second, other = tiny(), tiny(), tiny(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.output.weight, other.output.weight)


def test_forward_is_the_output_layer_of_the_features():
    network = Classifier((3, 12, 9), n_classes=5, n_features=7)
    x = torch.randn(4, 3, 12, 9)
    assert network.features(x).shape == (4, 7)
    assert (network.features(x) >= 0).all()
    assert torch.equal(network(x), nn.functional.linear(network.features(x), *network.output.parameters()))


def test_leading_dimensions_and_batches_change_nothing(root):
    network = load("digits", root=root)
    x, y = SPLITS[1].batch(torch.arange(24).reshape(2, 3, 4))
    predicted = predict(network, x)
    assert predicted.shape == y.shape
    assert torch.equal(predicted, predict(network, x, batch_size=5))
    assert torch.equal(predicted[1, 2], predict(network, x[1, 2]))
    features = compute_features(network, x)
    assert features.shape == (2, 3, 4, network.n_features)
    assert torch.allclose(features[1, 0, 3], network.features(x[1, 0, 3:4])[0], atol=1e-5)
    shares = class_frequencies(network, x)
    assert shares.shape == (2, 3, 10)
    assert torch.equal(shares[0, 1], torch.bincount(predicted[0, 1], minlength=10) / 4)
    assert not compute_features(network, x).requires_grad


def test_class_frequencies_of_real_digits_are_close_to_the_truth(root):
    x, _ = SPLITS[1].batch(torch.arange(len(SPLITS[1])))
    difference = class_frequencies(load("digits", root=root), x) - SPLITS[1].class_frequencies()
    assert difference.abs().max() < 0.02


def test_images_of_a_diverged_generator_are_of_no_class():
    x = torch.zeros(4, 1, 8, 8)
    x[1, 0, 3, 3] = torch.nan
    x[2] = torch.inf
    network = tiny()
    predicted = predict(network, x)
    assert predicted[1:3].tolist() == [-1, -1]
    assert (predicted[[0, 3]] >= 0).all()
    assert class_frequencies(network, x).sum() == 0.5


def test_stacked_classes_combine_the_channels(root):
    network = load("stacked-digits", root=root)
    images = data.load("stacked-digits", split="test", n=300)
    x, y = images.batch(torch.arange(300))
    predicted = predict(network, x)
    by_channel = predict(network.digits, x[:, :, None])  # channels as a leading dimension
    assert torch.equal(predicted, by_channel @ torch.tensor([100, 10, 1]))
    assert (predicted == y).double().mean() > 0.94  # three digits at 98 % each
    assert compute_features(network, x).shape == (300, 3 * network.digits.n_features)
    assert torch.allclose(network(x[:5]).exp().sum(1), torch.ones(5), atol=1e-5)
    with pytest.raises(ValueError, match="got 3 channels and 10 classes"):
        Stacked(Classifier((3, 8, 8), 10))


def test_cache_gives_back_the_same_network(root, tmp_path, monkeypatch):
    first = load("digits", root=root)
    x, _ = SPLITS[1].batch(torch.arange(5))
    assert [path.name for path in (root / "classifiers").iterdir()] == [cache_path("digits", root).name]
    monkeypatch.setenv("GANKIT_CACHE", str(root))
    second = load("digits")
    assert torch.equal(first(x), second(x))
    assert second.test_accuracy == first.test_accuracy
    # Another recipe is another file.
    monkeypatch.setitem(classifiers.RECIPES, "digits", {**classifiers.RECIPES["digits"], "epochs": 1})
    with pytest.raises(DataError, match="run `gankit classifier digits` once"):
        load("digits", root=root)
    trained = load("digits", root=tmp_path, train=True)
    assert cache_path("digits", tmp_path).exists()
    assert torch.equal(trained(x), load("digits", root=tmp_path)(x))


def test_missing_classifier_names_the_command(tmp_path):
    with pytest.raises(DataError, match="run `gankit classifier digits` once"):
        load("digits", root=tmp_path)
    with pytest.raises(DataError, match="run `gankit classifier mnist` once"):
        load("stacked-mnist", root=tmp_path)
    with pytest.raises(DataError, match="no classifier 'digit': known are digits, mnist"):
        load("digit", root=tmp_path)
    with pytest.raises(DataError, match="download=True"):
        train_and_cache("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_damaged_file_is_named(root, tmp_path, keep):
    whole = cache_path("digits", root).read_bytes()
    path = cache_path("digits", tmp_path)
    path.parent.mkdir()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(DataError, match=f"{path.name} is damaged: remove it and run"):
        load("digits", root=tmp_path)


def test_file_of_another_kind_is_damaged_too(tmp_path):
    path = cache_path("digits", tmp_path)
    path.parent.mkdir()
    for content in ([1, 2], {"shape": (1, 8, 8)}, {"shape": 3, "n_classes": 10, "n_features": 64}):
        torch.save(content, path)
        with pytest.raises(DataError, match="is damaged"):
            load("digits", root=tmp_path)


def test_full_disk_keeps_the_earlier_file(tmp_path, monkeypatch):
    monkeypatch.setitem(classifiers.RECIPES, "digits", {"epochs": 1, "batch_size": 512})
    train_and_cache("digits", tmp_path, progress=False)
    path = cache_path("digits", tmp_path)
    before = path.read_bytes()

    def full(saved, target):
        target.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match=r"cannot be written to .*No space left"):
        train_and_cache("digits", tmp_path, progress=False)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot be written to .*file"):
        train_and_cache("digits", tmp_path / "file", progress=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict(tiny(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), "uint8"),
        (
            lambda: predict(tiny(), torch.zeros(2, 3, 8, 8)),
            r"must be floating point \[\.\.\., 1, 8, 8\] .* of shape \[2, 3, 8, 8\]",
        ),
        (lambda: predict(tiny(), torch.zeros(8, 8)), r"of shape \[8, 8\]"),
        (lambda: class_frequencies(tiny(), torch.zeros(2, 0, 1, 8, 8)), r"of shape \[2, 0, 1, 8, 8\]"),
        (lambda: tiny(epochs=0), "epochs=0"),
        (lambda: tiny(batch_size=5000), "batch_size <= 1442 images, got .*batch_size=5000"),
        (lambda: train(SPLITS[0], data.load("ring", n=10), epochs=1), "data_test must match"),
        (lambda: train(data.load("ring", n=10), data.load("ring", n=10), epochs=1), "images of at least 4x4"),
    ],
)
def test_errors_name_the_argument_and_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_residual_features_are_means_of_torchvisions_blocks():
    network = ResidualClassifier((3, 12, 9), n_classes=5, n_features=16).eval()
    x = torch.randn(4, 3, 12, 9)
    features = network.features(x)
    assert features.shape == (4, 16)
    assert torch.equal(network(x), nn.functional.linear(features, *network.output.parameters()))
    maps = network.convolutions[:-2](x)
    assert maps.shape == (4, 16, 3, 3)  # halved twice, upwards
    torch.testing.assert_close(features, maps.mean((2, 3)))
    assert network.n_features == 16
    assert (features >= 0).all()


def test_residual_classifier_learns_digits():
    trained = tiny(network="residual", epochs=4, batch_size=64)
    assert trained.test_accuracy > 0.95
    assert torch.equal(predict(trained, torch.zeros(2, 1, 8, 8)), predict(trained, torch.zeros(2, 1, 8, 8)))


def test_training_with_shifts_repeats_itself_too():
    first, second, unshifted = tiny(shift=1), tiny(shift=1), tiny()
    assert torch.equal(first.output.weight, second.output.weight)
    assert not torch.equal(first.output.weight, unshifted.output.weight)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 5),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    shift=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_shifted_images_are_windows_of_the_reflected_one(n, height, width, shift, seed):
    shift = min(shift, height - 1, width - 1)
    x = torch.arange(n * 2 * height * width, dtype=torch.float32).reshape(n, 2, height, width)
    moved = flip_and_shift(x, shift, torch.Generator().manual_seed(seed))
    assert moved.shape == x.shape
    for image, result in zip(x.numpy(), moved.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        both = np.concatenate([windows, windows[..., ::-1]], 1)
        assert (both == result[:, None, None]).all((0, 3, 4)).any()


def test_half_of_the_images_are_mirrored_and_shifts_are_uniform():
    x = torch.arange(5.0).expand(20_000, 1, 5, 5)
    moved = flip_and_shift(x, 1, torch.Generator().manual_seed(0))[:, 0, 0]
    rising = moved[:, 3] > moved[:, 2]
    assert abs(rising.double().mean() - 0.5) < 0.02
    starts = moved[rising][:, 2].long().bincount(minlength=5)[1:4] / rising.sum()  # 1, 2 or 3 in the middle
    assert (starts - 1 / 3).abs().max() < 0.02


def test_every_tenth_image_of_each_class_is_held_out():
    images = data.load("digits")
    kept, held = hold_out(images)
    assert len(kept) + len(held) == len(images)
    counts, held_counts = images.labels.bincount(), held.labels.bincount()
    assert torch.equal(held_counts, counts // 10)
    sevens = images.images[images.labels == 7]
    assert torch.equal(held.images[held.labels == 7], sevens[9::10])
    with pytest.raises(ValueError, match="every must be at least 2, got 1"):
        hold_out(images, 1)
    with pytest.raises(ValueError, match="no class of 'digits' has 500 images"):
        hold_out(images, 500)


def test_a_written_classifier_is_read_with_its_name_and_classes(tmp_path):
    recipe = {"network": "residual", "epochs": 1}
    network = tiny(network="residual")
    path = tmp_path / "new" / "mine.pt"
    write(path, network, recipe, SPLITS[0])
    again, name, classes = read(path)
    x, _ = SPLITS[1].batch(torch.arange(5))
    assert torch.equal(network(x), again(x))
    assert not again.training
    assert (name, classes, again.test_accuracy) == ("digits", SPLITS[0].classes, network.test_accuracy)
    assert [file.name for file in path.parent.iterdir()] == ["mine.pt"]
    with pytest.raises(DataError, match=r"there is no trained classifier at .*none\.pt"):
        read(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "large"}, "network must be one of plain, residual, got 'large'"),
        ({"shift": 8}, "shift must be at least 0 and less than"),
        ({"shift": -1}, "got -1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)
