import builtins
import math
import os
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal
from torch.nn import functional as F

import gankit.metrics.similarity as similarity
from gankit.data import DataError, load
from gankit.metrics.similarity import (
    WEIGHTS,
    feature_distance,
    load_lpips,
    ms_ssim,
    ms_ssim_diversity,
    squared_distance,
)

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=30)
ARCHIVE = Path(os.environ.get("GANKIT_DATA", "."), "cifar10-jpeg-test.zip")
sides = st.sampled_from([(16, 16), (28, 28), (32, 32), (33, 47), (64, 32)])


def smooth(*shape, seed=0, blur=2.0):
    """Noise that neighbouring pixels share, in [-1, 1]: at fine scales alike enough to be compared."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    image = ndimage.gaussian_filter(noise, (*[0] * (len(shape) - 2), blur, blur))
    return torch.from_numpy(image / np.abs(image).max())


def noisy(x, level, seed=1):
    return (x + level * smooth(*x.shape, seed=seed, blur=1.0)).clamp(-1, 1)


def by_scipy(x, y, weights=WEIGHTS):
    """The rule written as two-dimensional correlations, one plane after another, in [0, 255]."""
    values = []
    for a, b in zip((x.double().numpy() + 1) * 127.5, (y.double().numpy() + 1) * 127.5, strict=True):
        result = 1.0
        for j, weight in enumerate(weights):
            size = min(11, *a.shape[-2:])
            place = np.arange(size) - (size - 1) / 2
            window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * (1.5 * size / 11) ** 2))
            window /= window.sum()
            maps = []
            for p, q in zip(a, b, strict=True):
                mp, mq, pp, qq, pq = (
                    signal.correlate2d(image, window, mode="valid") for image in (p, q, p * p, q * q, p * q)
                )
                structure = (2 * (pq - mp * mq) + 7.65**2) / (pp - mp**2 + qq - mq**2 + 7.65**2)
                luminance = (2 * mp * mq + 2.55**2) / (mp**2 + mq**2 + 2.55**2)
                maps.append(structure * luminance if j == len(weights) - 1 else structure)
            result *= max(np.mean(maps), 0) ** weight
            height, width = a.shape[1] // 2 * 2, a.shape[2] // 2 * 2
            a, b = (
                image[:, :height, :width].reshape(len(a), height // 2, 2, width // 2, 2).mean((2, 4))
                for image in (a, b)
            )
        values.append(result)
    return np.array(values)


# --- MS-SSIM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [(16, 16), (28, 28), (32, 32), (45, 70), (180, 176)])
def test_ms_ssim_agrees_with_the_rule_in_scipy(side):
    x = smooth(3, 3, *side)
    y = torch.stack([noisy(x[0], 0.3), noisy(x[1], 1.0), smooth(3, *side, seed=5)])
    ours = ms_ssim(x, y)
    assert np.allclose(ours.numpy(), by_scipy(x, y), rtol=0, atol=1e-9)
    assert ours[0] > ours[1] > ours[2]


def test_one_scale_is_ssim_with_scipys_gaussian_filter():
    x, y = smooth(40, 50) / 2 + 0.5, smooth(40, 50, seed=1) / 2 + 0.5  # in [0, 1]

    def blur(image):
        return ndimage.gaussian_filter(image.numpy(), 1.5, truncate=3.5)[5:-5, 5:-5]  # 11 pixels wide

    mx, my = blur(x), blur(y)
    sxx, syy, sxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    ssim = (2 * mx * my + 1e-4) * (2 * sxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (sxx + syy + 9e-4))
    ours = ms_ssim(2 * x[None] - 1, 2 * y[None] - 1, weights=[1.0])
    assert ours > 0.1
    assert ours.item() == pytest.approx(ssim.mean(), rel=1e-10)


def test_agrees_with_torchmetrics_map_by_map_from_176_pixels():
    """Four scales of its contrast, cropped to whole windows, and the fifth's SSIM map, which we crop for it."""
    peer = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    x = smooth(2, 1, 176, 192, blur=8.0).float()
    y = noisy(x, 0.5).float()
    expected, a, b = torch.ones(2), (x + 1) / 2, (y + 1) / 2
    for j, weight in enumerate(WEIGHTS):
        options = {"data_range": 1.0, "reduction": "none"}
        if j < 4:
            factor = peer(a, b, return_contrast_sensitivity=True, **options)[1]
        else:
            factor = peer(a, b, return_full_image=True, **options)[1][..., 5:-5, 5:-5].mean((1, 2, 3))
        expected = expected * factor.clamp_min(0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    assert 0.3 < expected.min() < expected.max() < 0.95
    assert torch.allclose(ms_ssim(x, y), expected.double(), rtol=1e-4)


def test_torchmetrics_ms_ssim_differs_by_its_padded_last_scale_alone():
    """It averages the coarsest SSIM map with windows over reflected edges, which we leave out.

    At 176 pixels its map has 11 x 11 windows of which one is whole: where the images differ coarsely the two are
    0.01 to 0.02 apart there, and closer with more whole windows. (The exact comparison is the one above.)
    """
    peer = pytest.importorskip("torchmetrics.functional.image").multiscale_structural_similarity_index_measure
    gaps = []
    for side in (176, 320):
        x, other = (smooth(1, 1, side, side, seed=seed, blur=side / 40) for seed in (0, 9))
        x, y = x.float(), (x + other).clamp(-1, 1).float()
        theirs = peer((x + 1) / 2, (y + 1) / 2, data_range=1.0, reduction="none", normalize="relu")
        gaps.append((ms_ssim(x, y) - theirs).abs().max().item())
    assert 0.005 < gaps[0] < 0.03
    assert gaps[1] < gaps[0] / 2


@relaxed
@given(st.integers(0, 2**32 - 1), sides, st.floats(0, 2))
def test_ms_ssim_is_a_bounded_symmetric_similarity(seed, side, level):
    x = smooth(2, 3, *side, seed=seed, blur=1.0)
    y = noisy(x, level, seed + 1)
    values = ms_ssim(x, y)
    assert ((values >= 0) & (values <= 1)).all()
    assert torch.equal(ms_ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(values, ms_ssim(y, x), rtol=1e-12)
    assert torch.allclose(values, ms_ssim(x.mT, y.mT), rtol=1e-9)
    assert torch.allclose(values, ms_ssim(x[:, [2, 0, 1]], y[:, [2, 0, 1]]), rtol=1e-12)


def test_flat_images_differ_in_luminance_alone():
    x, y = torch.full((1, 1, 32, 32), -0.5), torch.full((1, 1, 32, 32), 0.6)  # 0.25 and 0.8 of white
    luminance = (2 * 0.25 * 0.8 + 1e-4) / (0.25**2 + 0.8**2 + 1e-4)
    assert ms_ssim(x, y).item() == pytest.approx(luminance**0.1333, rel=1e-6)


def test_anticorrelated_images_score_zero():
    x = smooth(3, 1, 32, 32)
    assert torch.equal(ms_ssim(x, -x), torch.zeros(3, dtype=torch.float64))


def test_the_coarsest_scale_of_16_pixels_is_one_pixel_of_luminance():
    x, y = smooth(4, 1, 16, 16), smooth(4, 1, 16, 16, seed=3)
    a, b = (x.mean((1, 2, 3)) + 1) / 2, (y.mean((1, 2, 3)) + 1) / 2
    luminance = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert torch.allclose(ms_ssim(x, y, weights=[0, 0, 0, 0, 1]), luminance, rtol=1e-12)


def test_leading_dimensions_and_chunks_do_not_matter(monkeypatch):
    x, y = smooth(2, 3, 1, 32, 32), smooth(2, 3, 1, 32, 32, seed=1)
    whole = ms_ssim(x, noisy(y, 0.2))
    assert whole.shape == (2, 3)
    monkeypatch.setattr(similarity, "_CHUNK", 1)  # one image at a time
    parts = ms_ssim(x, noisy(y, 0.2))
    assert torch.allclose(whole, parts, rtol=1e-12)


def test_precision_of_the_pixels_hardly_matters():
    x = smooth(4, 3, 32, 32)
    y = noisy(x, 0.3)
    assert torch.allclose(ms_ssim(x.float(), y.float()), ms_ssim(x, y), rtol=0, atol=1e-6)
    assert torch.allclose(ms_ssim(x.half(), y.half()), ms_ssim(x, y), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 31), r"\[2, 1, 32, 32\] and \[2, 1, 32, 31\]"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), "x must have at least 16 pixels .* got 8 x 8"),
        (torch.zeros(2, 32), torch.zeros(2, 32), r"x must be floating point images .*\[2, 32\]"),
        (torch.zeros(1, 1, 32, 32).byte(), torch.zeros(1, 1, 32, 32), "uint8"),
        (torch.zeros(1, 1, 32, 32), torch.full((1, 1, 32, 32), 255.0), r"y must lie in \[-1, 1\] .* to 255"),
        (torch.full((1, 1, 32, 32), math.nan), torch.zeros(1, 1, 32, 32), "x must lie in .* got nan"),
        (torch.zeros(0, 1, 32, 32), torch.zeros(0, 1, 32, 32), r"\[0, 1, 32, 32\]"),
    ],
)
def test_ms_ssim_refuses(x, y, message):
    with pytest.raises(ValueError, match=message):
        ms_ssim(x, y)


# --- Diversity -----------------------------------------------------------------------------------------------


def test_diversity_knows_classes_that_repeat_themselves():
    base = smooth(3, 1, 32, 32)
    labels = torch.arange(3).repeat_interleave(40)
    same = base[labels]  # one picture in each class
    spread = noisy(base[:1].expand(120, -1, -1, -1), level=1.0)
    result = ms_ssim_diversity(same, labels, pairs=20)
    assert result.mean == 1
    assert result.standard_error == 0
    assert result.clamped == 0
    assert result.per_class.tolist() == [1, 1, 1]
    mixed = torch.cat([same[:40], spread[40:]])
    per_class = ms_ssim_diversity(mixed, labels, pairs=20).per_class
    assert per_class[0] == 1
    assert (per_class[1:] < 0.9).all()


def test_diversity_is_the_mean_over_disjoint_pairs_within_a_class(monkeypatch):
    """The pixel of an image says which one it is: the pairs are read off a stand-in for the similarity."""
    labels = torch.tensor([0, 1, 2] * 30)
    images = torch.arange(90.0)[:, None, None, None].expand(90, 1, 32, 32)
    seen = []

    def record(x, y):
        seen.append((x[..., 0, 0, 0], y[..., 0, 0, 0]))
        return (x[..., 0, 0, 0] % 2).double() * 0.5  # 0 or 1/2

    monkeypatch.setattr(similarity, "ms_ssim", record)
    result = ms_ssim_diversity(images, labels, pairs=15, seed=3)
    (x, y) = (part.long() for part in seen[0])
    assert x.shape == (3, 15)
    assert (labels[x] == torch.arange(3)[:, None]).all()
    assert (labels[y] == torch.arange(3)[:, None]).all()
    assert torch.cat([x, y]).unique().numel() == 90  # every image once
    values = (x % 2).double() * 0.5
    assert result.mean.item() == pytest.approx(values.mean().item())
    assert torch.allclose(result.per_class, values.mean(1))
    assert result.clamped.item() == pytest.approx((values == 0).double().mean().item())
    expected = math.sqrt(sum(np.var(row, ddof=1) / 15 for row in values.numpy())) / 3
    assert result.standard_error.item() == pytest.approx(expected, rel=1e-12)
    ms_ssim_diversity(images, labels, pairs=15, seed=3)
    ms_ssim_diversity(images, labels, pairs=15, seed=4)
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], seen[2][0])


def test_the_standard_error_is_the_spread_over_choices_of_pairs():
    images, labels = smooth(400, 1, 32, 32, blur=4.0), torch.tensor([0, 1]).repeat_interleave(200)
    images[labels == 1] = (images[labels == 1] * 0.4 + images[200] * 0.6).clone()
    results = [ms_ssim_diversity(images, labels, pairs=10, seed=seed) for seed in range(40)]
    spread = np.std([result.mean.item() for result in results], ddof=1)
    error = np.mean([result.standard_error.item() for result in results])
    assert spread == pytest.approx(error, rel=0.35)  # 40 draws know their spread to 11 %


def by_a_library_of_2020(x, y):
    """MS-SSIM of a whole batch as `pytorch-msssim` had it, with its option to normalise, for images in [-1, 1]."""
    contrast = []
    for _ in WEIGHTS:
        size = min(11, *x.shape[-2:])
        window = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * 1.5**2))
        window = torch.outer(window, window).expand(3, 1, size, size) / window.sum() ** 2
        mx, my, xx, yy, xy = (F.conv2d(image, window, groups=3) for image in (x, y, x * x, y * y, x * y))
        cs = (2 * (xy - mx * my) + 0.06**2) / (xx - mx * mx + yy - my * my + 0.06**2)
        ssim = cs * (2 * mx * my + 0.02**2) / (mx * mx + my * my + 0.02**2)
        contrast.append((1 + cs.mean()) / 2)
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    powers = torch.stack(contrast) ** torch.tensor(WEIGHTS)
    return (powers[:-1] * ((1 + ssim.mean()) / 2) ** WEIGHTS[-1]).prod()


@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"needs {ARCHIVE.name} in GANKIT_DATA")
def test_cifar10_of_the_incremental_paper_is_of_another_rule():
    data = load(ARCHIVE)
    images, labels = data.normalise(data.images), data.labels
    result = ms_ssim_diversity(images, labels)
    assert 0.08 < result.mean < 0.12
    assert 0.003 < result.standard_error < 0.005
    assert 0.6 < result.clamped < 0.7
    values = []
    for label in range(10):
        x, y = images[labels == label][:400].split(200)
        values.append(by_a_library_of_2020(x, y))
    # Table 2 has 40.5 +- 0.8, on images that were no JPEG files before.
    assert 0.39 < torch.stack(values).mean() < 0.43


@pytest.mark.parametrize(
    ("labels", "pairs", "message"),
    [
        (torch.tensor([0, 0, 0, 0, 1, 1, 1]), 2, "2 pairs of each class need 4 images .* class 1 .* has 3"),
        (torch.tensor([0, 0, 0, 0, 2, 2, 2]), 2, "class 1 of labels has 0"),
        (torch.tensor([0, 0, 0, 0, 0, 0, -1]), 2, "integers from 0, got torch.int64 from -1"),
        (torch.zeros(7), 2, "float32"),
        (torch.zeros(6).long(), 2, r"\[7, 1, 32, 32\] and \[6\]"),
        (torch.zeros(7).long(), 1, "pairs must be at least 2 .* got 1"),
    ],
)
def test_diversity_refuses(labels, pairs, message):
    with pytest.raises(ValueError, match=message):
        ms_ssim_diversity(torch.zeros(7, 1, 32, 32), labels, pairs=pairs)


# --- Distances -----------------------------------------------------------------------------------------------


def test_squared_distance_of_pixels_and_of_features():
    a, b = smooth(5, 2, 8, 8), smooth(5, 2, 8, 8, seed=1)
    expected = ((a.numpy() - b.numpy()) ** 2).reshape(5, -1).sum(1)
    assert np.allclose(squared_distance(a, b), expected)
    halves = feature_distance(lambda x: x.flatten(1) / 2)
    assert np.allclose(halves(a, b), expected / 4)
    with pytest.raises(ValueError, match=r"a and b must be .* got \[5, 2, 8, 8\] and \[4, 2, 8, 8\]"):
        squared_distance(a, b[:4])


# --- LPIPS ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch.hub, and no way to the network."""

    def refuse(url, *args, **kwargs):
        raise urllib.error.URLError(f"no network in tests: {url}")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"


@pytest.fixture
def squeeze(hub):
    """Random weights in the place of the ImageNet ones."""
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.squeezenet1_1(weights=None)
    hub.parent.mkdir(parents=True)
    torch.save(network.state_dict(), hub)
    return network.eval()


def by_equation_1(network, a, b):
    """Zhang et al. 2018, equation 1, on torchvision's layers."""
    import torchmetrics.functional.image.lpips as peer

    heads = torch.load(
        Path(peer.__file__).with_name("lpips_models") / "squeeze.pth", "cpu", weights_only=True
    )
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = torch.zeros(len(a))
    with torch.no_grad():
        layers = [(x - shift[:, None, None]) / scale[:, None, None] for x in (a, b)]
        for l, stops in enumerate([(0, 2), (2, 5), (5, 8), (8, 10), (10, 11), (11, 12), (12, 13)]):
            layers = [network.features[slice(*stops)](x) for x in layers]
            unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-10) for x in layers]
            total += ((unit[0] - unit[1]) ** 2 * heads[f"lin{l}.model.1.weight"]).sum(1).mean((1, 2))
    return total


def test_lpips_is_equation_1_on_the_cached_network(squeeze):
    pytest.importorskip("torchmetrics")
    before = torch.get_rng_state()
    distance = load_lpips("squeeze")
    assert torch.equal(torch.get_rng_state(), before)
    a, b = smooth(3, 3, 64, 48).float(), smooth(3, 3, 64, 48, seed=1).float()
    values = distance(a, b)
    assert values.shape == (3,)
    assert torch.allclose(values, by_equation_1(squeeze, a, b), rtol=1e-4)
    assert torch.allclose(values, distance(b, a))
    assert torch.equal(distance(a, a), torch.zeros(3))
    assert torch.allclose(distance(a[:1], b[:1]), values[:1], rtol=1e-4)  # one pair keeps its dimension
    grey = distance(a[:, :1], b[:, :1])
    assert torch.allclose(grey, distance(a[:, :1].expand(-1, 3, -1, -1), b[:, :1].expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), "a must have at least 17 pixels"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32), r"\[1, 3, 32, 32\] and \[2, 3, 32, 32\]"),
        (torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32), r"\[N, 3, H, W\]"),
        (torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), math.nan), "b must lie in .* got nan"),
        (torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 9.0), "b must lie in .* to 9"),
    ],
)
def test_lpips_refuses(squeeze, a, b, message):
    pytest.importorskip("torchmetrics")
    with pytest.raises(ValueError, match=message):
        load_lpips("squeeze")(a, b)


@pytest.mark.parametrize(("backbone", "least"), [("alex", 31), ("vgg", 16), ("squeeze", 17)])
def test_the_smallest_images_are_those_that_every_layer_leaves_something_of(backbone, least):
    torchvision = pytest.importorskip("torchvision")
    assert similarity._BACKBONES[backbone][1] == least
    names = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
    with torch.device("meta"):
        layers = getattr(torchvision.models, names[backbone])(weights=None).features
        layers = layers[:30] if backbone == "vgg" else layers[:12] if backbone == "alex" else layers
        assert min(layers(torch.zeros(1, 3, least, least)).shape) >= 1
        with pytest.raises(RuntimeError, match="too small"):
            layers(torch.zeros(1, 3, least - 1, least - 1))


def test_missing_weights_are_named_with_their_place_and_source(hub):
    pytest.importorskip("torchmetrics")
    with pytest.raises(DataError) as caught:
        load_lpips("squeeze")
    message = str(caught.value)
    assert str(hub) in message
    assert "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth" in message
    assert "download=True" in message
    assert "TORCH_HOME" in message
    assert not hub.exists()


def test_download_is_asked_for_and_its_failure_is_told(hub, squeeze, monkeypatch):
    pytest.importorskip("torchmetrics")
    content = hub.read_bytes()
    hub.unlink()
    with pytest.raises(DataError, match=r"squeezenet1_1-b8a52dc0.pth could not be fetched to .*no network"):
        load_lpips("squeeze", download=True)
    asked = []

    def fetch(url, target, hash_prefix=None, progress=True):
        asked.append((url, hash_prefix))
        Path(target).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    x = torch.zeros(1, 3, 32, 32)
    assert load_lpips("squeeze", download=True)(x, x) == 0
    load_lpips("squeeze", download=True)  # it is there now
    assert asked == [("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", "b8a52dc0")]


class Trap:
    """What a file from somewhere else may hold: code that runs when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize("content", ["cut", "other network", "code"])
def test_damaged_weights_are_named_and_never_run(hub, squeeze, content, monkeypatch, tmp_path):
    pytest.importorskip("torchmetrics")
    monkeypatch.chdir(tmp_path)
    if content == "cut":
        hub.write_bytes(hub.read_bytes()[:1000])
    else:
        torch.save({"weight": torch.zeros(1)} if content == "other network" else {"weight": Trap()}, hub)
    with pytest.raises(DataError, match=r"squeezenet1_1-b8a52dc0.pth is damaged: remove it"):
        load_lpips("squeeze")
    assert not Path("sprung").exists()


def test_without_torchmetrics_the_error_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("torchmetrics"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'gankit\[metrics\]'"):
        load_lpips("squeeze")


def test_unknown_backbones_are_told_the_known_ones():
    with pytest.raises(ValueError, match="one of alex, vgg, squeeze, got 'resnet'"):
        load_lpips("resnet")


def test_digits_need_fewer_scales():
    digits = load("digits", n=200, seed=0)
    images = digits.normalise(digits.images)
    with pytest.raises(ValueError, match="at least 16 pixels on each side, got 8 x 8"):
        ms_ssim_diversity(images, torch.zeros(200).long(), pairs=2)
    values = ms_ssim(images[:100], images[100:], weights=WEIGHTS[:3])
    assert ((values >= 0) & (values <= 1)).all()
