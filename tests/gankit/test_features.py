"""Feature spaces against the networks behind them; Inception with random weights, since tests fetch nothing."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset as TorchDataset

import gankit as gk
from gankit import classifiers
from gankit.data import DataError
from gankit.metrics import features
from gankit.metrics.entropies import inception_score
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.kernel import kernel_distance


@pytest.fixture(scope="module")
def digits():
    return gk.data.load("digits")


def pictures(*lead, channels=3, size=16, seed=0):
    """uint8 images with structure, and the same in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(*lead, channels, 4, 4, generator=generator)
    images = nn.functional.interpolate(small.flatten(0, -4), size=(size, size), mode="bilinear")
    levels = (images * 255).round().to(torch.uint8).unflatten(0, lead)
    return levels, levels.float() / 127.5 - 1


# --- Small spaces -----------------------------------------------------------------------------------------------


def test_pixels_are_the_images_and_points_the_points(digits):
    space = features.pixels(digits)
    images = digits.normalise(digits.images[:6]).reshape(2, 3, 1, 8, 8)
    assert torch.equal(space(images), images.reshape(2, 3, 64))
    with pytest.raises(ValueError, match="the space 'pixels' has no classes"):
        space.logits(space(images))
    assert (space.title("FD"), space.n_classes) == ("FD[pixels]", 0)
    ring = gk.data.load("ring", n=10)
    assert torch.equal(features.pixels(ring)(ring.images), ring.images)
    assert features.pixels(ring).title("FD") == "FD[points]"


def test_a_classifier_gives_its_features_and_logits_for_replicas_in_batches(digits, monkeypatch, tmp_path):
    monkeypatch.setitem(classifiers.RECIPES, "digits", classifiers.RECIPES["digits"] | {"epochs": 1})
    with pytest.raises(DataError, match="run `gankit classifier digits` once"):
        features.classifier("digits", root=tmp_path)
    space = features.classifier("digits", root=tmp_path, train=True)
    net = classifiers.load("digits", root=tmp_path)
    images = digits.normalise(digits.images[:600]).reshape(2, 300, 1, 8, 8)
    ours = space(images)
    assert space.title("FD") == "FD[digits classifier]"
    assert space.n_classes == 10
    torch.testing.assert_close(ours, classifiers.compute_features(net, images))
    torch.testing.assert_close(space.logits(ours), net(images.flatten(0, 1)).reshape(2, 300, 10))
    assert not space.logits(ours).requires_grad


def test_any_module_runs_in_evaluation_mode_and_keeps_its_own():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    space = features.module(net, "four filters", rule="nothing")
    _, images = pictures(5)
    ours = space(images.double())  # cast to the type of the network
    assert ours.shape == (5, 4 * 14 * 14)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(ours, net.eval()(images).flatten(1))
    assert space.title("KD") == "KD[four filters]"


@pytest.mark.parametrize(
    "images", [torch.zeros(4, 1, 8, 9), torch.zeros(1, 8, 8), torch.zeros(0, 1, 8, 8), torch.zeros(4, 1, 8, 8).byte()]
)  # fmt: skip
def test_images_that_do_not_fit_a_space_are_refused(digits, images):
    with pytest.raises(ValueError, match=r"must be .*\[\.\.\., (N, )?1, 8, 8\] .*for the space 'pixels'"):
        features.pixels(digits)(images)


# --- Rounding ---------------------------------------------------------------------------------------------------


def test_all_256_levels_survive_normalisation_and_rounding():
    levels = torch.arange(256, dtype=torch.uint8)
    data = gk.data.Dataset("x", levels[:, None, None, None], torch.zeros(256, dtype=torch.int64), ("x",))
    values = data.normalise(levels)
    assert torch.equal(features.to_uint8(values), levels)
    # What truncation would do, so that the test above can fail.
    assert (values.add(1).mul(127.5).to(torch.uint8) != levels).sum() == 63
    x = torch.linspace(-1.5, 1.5, 1001, dtype=torch.float64)
    expected = np.rint((np.clip(x.numpy(), -1, 1) + 1) * 127.5).astype(np.uint8)
    assert np.array_equal(features.to_uint8(x).numpy(), expected)


@pytest.mark.parametrize(
    ("images", "what"), [(torch.tensor([0.0, torch.nan]), "NaN"), (torch.zeros(2).byte(), "torch.uint8")]
)
def test_what_is_no_picture_is_not_rounded(images, what):
    with pytest.raises(ValueError, match=what):
        features.to_uint8(images)


# --- Inception --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file like torch-fidelity's, with random weights whose features differ from image to image."""
    fidelity = pytest.importorskip("torch_fidelity")
    path = tmp_path_factory.mktemp("weights") / "random.pth"

    class Unloaded(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    net = Unloaded("random", ["2048"], feature_extractor_weights_path=nothing)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):  # keeps the size of activations, or 2,048 zeros come out
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    torch.save(net.state_dict(), path)
    return path


class Pictures(TorchDataset):
    """uint8 images, as torch-fidelity takes them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def test_inception_agrees_with_torch_fidelity(weights):
    """Features, logits, FID, KID and IS, from the same images and the same (random) weights."""
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    (a, a_float), (b, b_float) = pictures(4, seed=1), pictures(4, seed=2)
    space = features.inception(weights)
    ours, other = space(a_float), space(b_float)
    assert ours.shape == (4, 2048)
    assert space.logits(ours).shape == (4, 1008)
    assert ours.std(0).mean() > 0.01, "random weights that see no difference would test nothing"

    layers = ["2048", "logits_unbiased"]
    extractor = fidelity.FeatureExtractorInceptionV3("x", layers, feature_extractor_weights_path=str(weights))
    (pool, logits), (other_pool, _) = extractor(a), extractor(b)
    torch.testing.assert_close(ours, pool)
    torch.testing.assert_close(space.logits(ours), logits)
    theirs = fidelity.calculate_metrics(
        input1=Pictures(a), input2=Pictures(b), cuda=False, isc=True, isc_splits=2, samples_shuffle=False,
        kid=True, kid_subsets=1, kid_subset_size=4, batch_size=4, feature_extractor_weights_path=str(weights),
        save_cpu_ram=True, verbose=False, cache=False,
    )  # fmt: skip
    score = inception_score(space.logits(ours).double().softmax(-1), splits=2)
    assert score.mean.item() == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    kid = kernel_distance(ours, other).item()
    assert kid == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-6)  # they sum in float32
    # Its eigenvalues of a 2,048 x 2,048 matrix take half a minute: every eighth feature will do.
    some = [fid_features_to_statistics(x[:, ::8].double()) for x in (pool, other_pool)]
    fid = fid_statistics_to_metric(*some, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(ours[:, ::8], other[:, ::8]).item() == pytest.approx(fid, rel=1e-5)


def test_grey_images_are_repeated_over_the_channels(weights):
    space = features.inception(weights)
    _, grey = pictures(2, channels=1)
    assert torch.equal(space(grey), space(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match="grey or RGB for the Inception network, got 4 channels"):
        space(torch.zeros(1, 4, 8, 8))


def test_only_the_published_weights_make_an_fid(weights, monkeypatch):
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert features.inception(weights).title("FD") == f"FD[Inception {sha256[:8]}]"
    monkeypatch.setattr(features, "INCEPTION_SHA256", sha256)
    space = features.inception(weights)
    titles = [space.title(measure) for measure in ("FD", "KD", "IS", "precision")]
    assert titles == ["FID", "KID", "IS", "precision[Inception]"]


def test_the_published_weights_are_those_of_the_links_name():
    assert features.INCEPTION_URL.endswith(f"-{features.INCEPTION_SHA256[:8]}.pth")
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    assert features.INCEPTION_URL == extractor.URL_INCEPTION_V3


def test_missing_weights_say_where_they_come_from_and_where_they_go(monkeypatch, tmp_path, weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert features.inception_path() == place
    with pytest.raises(DataError) as caught:
        features.inception()
    for piece in (str(place), features.INCEPTION_URL, "download=True", "--download", "weights="):
        assert piece in str(caught.value)
    assert not list(tmp_path.rglob("*"))
    place.parent.mkdir(parents=True)
    place.write_bytes(weights.read_bytes())  # torch-fidelity's own cache
    assert features.inception().net is not None


def test_weights_are_fetched_when_allowed_and_checked(monkeypatch, tmp_path, weights):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(features, "INCEPTION_URL", weights.as_uri())
    with pytest.raises(DataError, match=r"could not be fetched to .* \(invalid hash value"):
        features.inception(download=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    assert features.inception(download=True).name == "Inception"
    monkeypatch.setattr(features, "INCEPTION_URL", weights.with_name("gone.pth").as_uri())
    with pytest.raises(DataError, match="could not be fetched"):
        features.inception(download=True)


def test_a_file_of_something_else_is_refused_and_runs_no_code(tmp_path, weights):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    good = torch.load(weights, weights_only=True)
    files = {"code": {"x": Touch()}, "tensors": {"x": torch.zeros(3)}, "list": [1, 2]}
    files["shape"] = good | {"fc.weight": torch.zeros(10, 2048)}
    for name, value in files.items():
        path = tmp_path / f"{name}.pth"
        torch.save(value, path)
        with pytest.raises(DataError, match=f"{name}.pth does not hold weights of the Inception network"):
            features.inception(path)
    path.write_bytes(weights.read_bytes()[:10_000])
    with pytest.raises(DataError, match="does not hold weights"):
        features.inception(path)
    assert not (tmp_path / "was_here").exists()


def test_without_torch_fidelity_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ImportError, match=r'pip install "gankit\[metrics\]"'):
        features.inception()


def test_importing_gankit_imports_no_network_of_the_metrics():
    code = "import sys, gankit.commands; print({'torch_fidelity', 'torchmetrics'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
