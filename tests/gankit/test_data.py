import io
import math
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from gankit.data import (
    NAMES,
    SHAPES,
    DataError,
    Dataset,
    SkippedPictures,
    archives,
    cache_root,
    data_root,
    load,
    sample_shape,
)

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=60)

REAL = os.environ.get("GANKIT_DATA")


def real(*names):
    """Skips a test that needs files of the data root, and says which."""
    missing = [name for name in names if not (REAL and (Path(REAL) / name).exists())]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} in GANKIT_DATA")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def encode(pixels, kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def grey(value, size=(6, 5)):
    return np.full(size, value, dtype=np.uint8)


def rgb(*value, size=(6, 5)):
    return np.broadcast_to(np.uint8(value), (*size, 3)).copy()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_folder(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture(params=["zip", "folder"])
def pack(request, tmp_path):
    """Writes members to a zip file or to a folder: both read the same."""
    if request.param == "zip":
        return lambda members: write_zip(tmp_path / "pack.zip", members)
    return lambda members: write_folder(tmp_path / "pack", members)


def write_mnist(root, n=30, seed=0):
    """MNIST's files with random pixels: 28x28 images of n training and n // 2 test digits."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for prefix, count in (("train", n), ("t10k", n // 2)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return root


# Dataset


def test_digits_are_scikit_learns():
    data = load("digits")
    bunch = load_digits()
    assert (len(data), data.shape, data.n_classes, data.levels) == (1797, (1, 8, 8), 10, 16)
    assert np.array_equal(data.images[:, 0], bunch.images)
    assert np.array_equal(data.labels, bunch.target)
    assert repr(data) == "Dataset('digits', 1,797 x [1x8x8], 10 classes)"
    x, _ = data.batch(torch.arange(1797))
    assert (x.min(), x.max(), x.dtype) == (-1, 1, torch.float32)
    assert np.array_equal(x[:, 0], bunch.images / 8 - 1)


def test_digits_split_is_a_stratified_partition():
    whole, train, test = (load("digits", split=split) for split in ("all", "train", "test"))
    assert (len(whole), len(train), len(test)) == (1797, 1442, 355)
    together = torch.cat([train.images, test.images]).flatten(1)
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, whole.images.flatten(1).numpy()))
    share = torch.bincount(test.labels) / torch.bincount(whole.labels)
    assert ((share > 0.19) & (share <= 0.2)).all()


@relaxed
@given(st.integers(1, 255), st.data())
def test_normalise_maps_levels_onto_minus_one_to_one(levels, draw):
    x = torch.tensor(draw.draw(st.lists(st.integers(0, levels), min_size=1)), dtype=torch.uint8)
    data = Dataset(
        "d", torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.zeros(1).long(), ("a",), levels=levels
    )
    result = data.normalise(x)
    assert result.abs().max() <= 1
    assert torch.allclose((result.double() + 1) / 2 * levels, x.double(), atol=1e-4)
    ends = data.normalise(torch.tensor([0, levels], dtype=torch.uint8))
    assert ends.tolist() == [-1, 1]


def test_batch_keeps_the_shape_of_the_indices():
    data = load("digits")
    indices = torch.arange(24).reshape(2, 3, 4)
    x, y = data.batch(indices)
    assert (x.shape, y.shape) == ((2, 3, 4, 1, 8, 8), (2, 3, 4))
    assert torch.equal(x[1, 2, 3], data.normalise(data.images[23]))
    assert y[1, 2, 3] == data.labels[23]
    points = load("ring", n=10)
    assert torch.equal(points.batch(indices[0] % 10)[0], points.images[indices[0] % 10])


def test_draw_is_uniform_seeded_and_of_any_shape():
    data = load("digits").subset(torch.arange(20))
    indices = data.draw((3, 40_000), rng())
    assert (indices.shape, indices.dtype) == ((3, 40_000), torch.int64)
    assert torch.equal(indices, data.draw((3, 40_000), rng()))
    assert not torch.equal(indices, data.draw((3, 40_000), rng(1)))
    assert data.draw(7, rng()).shape == (7,)
    expected = 120_000 / 20
    chi2 = ((torch.bincount(indices.flatten(), minlength=20) - expected) ** 2 / expected).sum()
    assert chi2 < 50  # 19 degrees of freedom: exceeded with probability 1.3e-4


def test_weighted_draw_follows_the_weights_at_any_scale():
    weights = torch.tensor([0.0, 1, 2, 0, 3, 4, 0], dtype=torch.float64)
    for scale in (1.0, 1e-300, 4e307):  # the sum of the last overflows
        data = load("digits").subset(torch.arange(7)).with_weights(weights * scale)
        counts = torch.bincount(data.draw((2, 50_000), rng()).flatten(), minlength=7)
        assert (counts[weights == 0] == 0).all()
        expected = 100_000 * weights[weights > 0] / 10
        assert ((counts[weights > 0] - expected) ** 2 / expected).sum() < 21  # 3 degrees of freedom: p = 1e-4
    assert repr(data).endswith("10 classes, weighted)")


@relaxed
@given(
    st.lists(st.floats(0, 1.7e308) | st.just(0.0), min_size=1, max_size=50).filter(any),
    st.integers(0, 2**32),
)
def test_a_sample_of_weight_zero_is_never_drawn(weights, seed):
    n = len(weights)
    data = Dataset("d", torch.zeros(n, 2), torch.zeros(n).long(), ("a",))
    weighted = data.with_weights(torch.tensor(weights, dtype=torch.float64))
    indices = weighted.draw(200, rng(seed))
    assert (torch.tensor(weights, dtype=torch.float64)[indices] > 0).all()


def test_draw_at_the_ends_of_the_random_numbers(monkeypatch):
    tail = load("ring", n=5).with_weights(torch.tensor([0, 1, 1, 1e-12, 0], dtype=torch.float64))

    def largest(size, *, dtype, **_):
        return torch.full(size, 1 - torch.finfo(dtype).eps / 2, dtype=dtype)

    monkeypatch.setattr(torch, "rand", largest)
    assert tail.draw(3, rng()).tolist() == [3, 3, 3]  # out of reach of float32 numbers
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.ones(size, dtype=torch.float64))
    assert tail.draw(3, rng()).tolist() == [3, 3, 3]  # as if rounded up
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.zeros(size, dtype=torch.float64))
    assert tail.draw(3, rng()).tolist() == [1, 1, 1]


def test_draw_reaches_beyond_two_to_the_24():
    # In float32 the cumulative sum of ones stops at 2^24, and torch.multinomial refuses more categories.
    n = 2**24 + 1000
    images = torch.zeros(1, 1).expand(n, 1)
    data = Dataset("d", images, torch.zeros(1).long().expand(n), ("a",), weights=torch.ones(n).double())
    assert data.draw(400_000, rng()).max() >= 2**24


def test_class_frequencies_are_weighted():
    data = Dataset("d", torch.zeros(4, 2), torch.tensor([0, 0, 1, 2]), ("a", "b", "c", "never"))
    assert data.class_frequencies().tolist() == [0.5, 0.25, 0.25, 0.0]
    weighted = data.with_weights(torch.tensor([0, 1, 3, 4]))
    assert weighted.class_frequencies().tolist() == [0.125, 0.375, 0.5, 0.0]
    assert weighted.with_weights(None).class_frequencies().tolist() == [0.5, 0.25, 0.25, 0.0]


def test_subset_takes_indices_or_a_mask_and_keeps_weights():
    data = load("digits").with_weights(torch.arange(1797))
    mask = data.labels == 3
    assert torch.equal(data.subset(mask).images, data.images[mask])
    some = data.subset(torch.tensor([5, 5, 2]))
    assert (some.weights.tolist(), some.n_classes, some.levels) == ([5, 5, 2], 10, 16)
    assert torch.equal(some.labels, data.labels[[5, 5, 2]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_cpu_generator_draws_the_same_batches():
    data = load("ring", n=1000)
    for here in (data, data.with_weights(torch.arange(1000))):
        there = here.to("cuda")
        assert {t.device.type for t in (there.images, there.labels, there.centers)} == {"cuda"}
        x, y = there.batch(there.draw((2, 50), rng()))
        assert (x.device.type, y.device.type) == ("cuda", "cuda")
        assert torch.equal(x.cpu(), here.batch(here.draw((2, 50), rng()))[0])


# Named datasets


def test_ring():
    data = load("ring")
    assert (len(data), data.shape, data.n_classes, data.std) == (50_000, (2,), 8, 0.05)
    assert torch.allclose(data.centers.norm(dim=1), torch.tensor(2.0))
    assert torch.allclose(data.centers.sum(0), torch.zeros(2), atol=1e-6)
    residual = data.images - data.centers[data.labels]
    assert residual.std().item() == pytest.approx(0.05, rel=0.01)
    assert residual.mean(0).abs().max() < 1e-3
    assert (data.class_frequencies() - 1 / 8).abs().max() < 0.006


def test_spiral_has_the_weights_of_the_papers_table():
    # "Sample weighting as an explanation for mode collapse", table 3, row Data, in percent as printed there.
    row = [2.0, 3.1, 4.3, 5.4, 6.6, 7.7, 8.9, 10, 11, 12, 13, 15]
    digits = [0.1] * 7 + [1] * 5
    data = load("spiral", n=400_000)
    shares = 100 * data.class_frequencies()
    error = 100 * 4 * math.sqrt(0.15 * 0.85 / 400_000)
    for share, printed, unit in zip(shares.tolist(), row, digits, strict=True):
        assert abs(share - printed) < 0.6 * unit + error
    radius = data.centers.norm(dim=1)
    assert (radius[0].item(), radius[-1].item()) == pytest.approx((0.3, 2.0))
    assert (radius.diff() > 0).all()
    angle = torch.atan2(data.centers[:, 1], data.centers[:, 0])
    turns = (angle.diff() % (2 * math.pi)).sum() / (2 * math.pi)
    assert turns.item() == pytest.approx(2.2)


def test_gaussian_is_standard_normal():
    data = load("gaussian", n=20_000)
    assert (data.centers.tolist(), data.std, data.classes) == ([[0, 0]], 1.0, ("0",))
    assert torch.allclose(data.images.T.cov(), torch.eye(2), atol=0.04)


@pytest.mark.parametrize("name", ["ring", "spiral", "gaussian", "stacked-digits"])
def test_drawn_sets_repeat_with_their_seed(name):
    first = load(name, n=50, seed=3)
    assert len(first) == 50
    assert torch.equal(first.images, load(name, n=50, seed=3).images)
    assert not torch.equal(first.images, load(name, n=50, seed=4).images)
    assert not torch.equal(first.images, load(name, n=50, seed=3, split="test").images)


def test_stacked_digits_hold_three_digits():
    data = load("stacked-digits", n=500)
    assert (data.shape, data.n_classes, data.levels, data.classes[407]) == ((3, 8, 8), 1000, 16, "407")
    digits = load("digits")
    label = {bytes(image): int(y) for image, y in zip(digits.images.numpy(), digits.labels, strict=True)}
    for image, y in zip(data.images.numpy(), data.labels.tolist(), strict=True):
        r, g, b = (label[bytes(channel)] for channel in image)
        assert y == 100 * r + 10 * g + b


def test_n_chooses_without_replacement():
    data = load("digits", n=1797, seed=5)
    assert torch.equal(data.labels.sort().values, load("digits").labels.sort().values)
    assert not torch.equal(data.labels, load("digits").labels)
    assert len(load("digits", n=100, split="test")) == 100


def test_mnist_reads_idx_files_and_writes_nothing(tmp_path):
    root = write_mnist(tmp_path / "root")
    before = sorted(path.name for path in root.rglob("*"))
    train, test, both = (load("mnist", root=root, split=split) for split in (None, "test", "all"))
    assert (len(train), len(test), len(both), train.shape) == (30, 15, 45, (1, 28, 28))
    raw = (root / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16:]
    assert train.images.numpy().tobytes() == raw
    assert torch.equal(both.images, torch.cat([train.images, test.images]))
    assert train.classes == tuple("0123456789")
    assert load("mnist", root=root, size=32).shape == (1, 32, 32)
    stacked = load("stacked-mnist", root=root, n=12, split="test")
    assert stacked.shape == (3, 28, 28)
    channels = {bytes(image) for image in test.images[:, 0].numpy()}
    assert all(bytes(channel) in channels for channel in stacked.images.flatten(0, 1).numpy())
    assert sorted(path.name for path in root.rglob("*")) == before


def test_cifar10_through_torchvision(monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)

    class Fake:
        classes = ("plane", "car")

        def __init__(self, root, train):
            assert root == tmp_path
            self.data, self.targets = pixels[:3] if train else pixels[3:], [0, 1, 1] if train else [1, 0]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    data = load("cifar10", root=tmp_path, split="all")
    assert np.array_equal(data.images, pixels.transpose(0, 3, 1, 2))
    assert (data.labels.tolist(), data.classes) == ([0, 1, 1, 1, 0], ("plane", "car"))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "stacked-mnist"])
def test_missing_dataset_says_how_to_get_it(name, tmp_path):
    root = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        load(name, root=root)
    message = str(caught.value)
    assert "\n" not in message
    for hint in (str(root), "download=True", "--download", "GANKIT_DATA"):
        assert hint in message
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("cat64", ["get the CAT data set", "gankit pack FOLDER", "--size 64 --unlabelled"]),
        ("ffhq1024", ["github.com/NVlabs/ffhq-dataset", "--size 1024 --unlabelled"]),
        ("imagenet128", ["--size 128 --split train"]),
        ("ffhq", ["unknown dataset 'ffhq'"]),
    ],
)
def test_sets_that_a_reader_has_to_get_are_asked_for_with_their_size(name, hints, tmp_path):
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path)
    assert all(hint in str(caught.value) for hint in hints)


def test_faces_lie_in_a_folder_or_in_a_zip_file_without_classes(tmp_path):
    pictures = {f"{i % 2:05d}/{i}.png": encode(rgb(i, 2 * i, 0)) for i in range(4)}
    write_folder(tmp_path / "cat8", pictures)
    write_zip(tmp_path / "ffhq8.zip", pictures)
    for name in ("cat8", "ffhq8"):
        data = load(name, root=tmp_path, size=8)
        assert (data.name, data.shape, len(data)) == (name, (3, 8, 8), 4)
        assert data.classes == (name[:-1],)
        assert data.labels.tolist() == [0] * 4


def test_damaged_mnist_is_named(tmp_path):
    root = write_mnist(tmp_path)
    file = root / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"MNIST is incomplete or damaged .*remove it first"):
        load("mnist", root=root)


def test_download_moves_whole_files_into_place(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    def fetch(self):
        write_mnist(Path(self.root))

    monkeypatch.setattr(MNIST, "download", fetch)
    assert len(load("mnist", root=tmp_path / "root", download=True)) == 30
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["MNIST"]
    # A second call finds the files and does not fetch.
    monkeypatch.setattr(MNIST, "download", lambda self: pytest.fail("fetched again"))
    assert len(load("mnist", root=tmp_path / "root", download=True)) == 30


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    def fail(self):
        (Path(self.root) / "MNIST").mkdir()
        (Path(self.root) / "MNIST" / "half").write_bytes(b"x")
        raise RuntimeError("Error downloading train-images:\nno route to host")

    monkeypatch.setattr(MNIST, "download", fail)
    with pytest.raises(DataError, match=r"'mnist' could not be downloaded to .* no route to host"):
        load("mnist", root=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_roots(monkeypatch, tmp_path):
    monkeypatch.delenv("GANKIT_DATA", raising=False)
    monkeypatch.delenv("GANKIT_CACHE", raising=False)
    assert data_root() == cache_root() == Path("~/.cache/gankit").expanduser()
    monkeypatch.setenv("GANKIT_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert cache_root() == Path("~/.cache/gankit").expanduser()
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    assert cache_root() == tmp_path / "cache"
    assert data_root("~/x") == Path("~/x").expanduser()
    write_zip(tmp_path / "below.zip", {"a/1.png": encode(grey(1))})
    assert load("below.zip").name == "below"


# Folders and archives


def test_class_folders(pack):
    path = pack(
        {
            "set/train/cat/2.png": encode(rgb(4, 5, 6)),
            "set/train/cat/1.png": encode(rgb(1, 2, 3)),
            "set/train/ant/1.bmp": encode(rgb(7, 8, 9), "bmp"),
        }
    )
    data = load(path)
    assert (data.name, data.classes, data.shape) == ("pack", ("ant", "cat"), (3, 6, 5))
    assert data.images[:, :, 0, 0].tolist() == [[7, 8, 9], [1, 2, 3], [4, 5, 6]]
    assert data.labels.tolist() == [0, 1, 1]
    assert load(str(path), split="train", n=2).shape == (3, 6, 5)


def test_grey_files_give_one_channel_and_mixed_files_three(pack):
    data = load(pack({"a/1.png": encode(grey(10)), "a/2.png": encode(grey(20))}))
    assert (data.shape, data.images[:, 0, 0, 0].tolist()) == ((1, 6, 5), [10, 20])
    data = load(pack({"a/1.png": encode(grey(10)), "a/2.png": encode(rgb(1, 2, 3))}))
    assert data.images[:, :, 0, 0].tolist() == [[10, 10, 10], [1, 2, 3]]


def test_palette_and_alpha_become_rgb(pack):
    palette = io.BytesIO()
    Image.fromarray(rgb(200, 100, 50)).convert("P", palette=Image.Palette.ADAPTIVE).save(palette, "png")
    alpha = np.dstack([rgb(9, 8, 7), np.zeros((6, 5), np.uint8)])
    data = load(pack({"a/1.png": palette.getvalue(), "a/2.png": encode(alpha)}))
    assert data.images[:, :, 0, 0].tolist() == [[200, 100, 50], [9, 8, 7]]


def test_other_files_are_ignored(pack):
    junk = b"not an image"
    data = load(
        pack(
            {
                "a/1.png": encode(grey(1)),
                "a/readme.txt": junk,
                "a/.hidden.png": junk,
                "__MACOSX/a/._1.png": junk,
                "__MACOSX/a/2.png": junk,
                ".git/a/3.png": junk,
                "labels.csv": junk,
            }
        )
    )
    assert (len(data), data.classes) == (1, ("a",))


def test_members_that_leave_the_archive_are_ignored(tmp_path):
    image = encode(grey(1))
    path = write_zip(tmp_path / "x.zip", {"../up/1.png": image, "/root/1.png": image, "a/1.png": image})
    assert load(path).classes == ("a",)


def test_images_without_a_class_folder_are_one_class(pack):
    data = load(pack({"1.png": encode(grey(1)), "2.png": encode(grey(2))}))
    assert (data.classes, len(data)) == (("pack",), 2)


def test_folder_links_are_followed_and_cycles_are_not(tmp_path):
    real_folder = write_folder(tmp_path / "real", {"1.png": encode(grey(1))})
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat").symlink_to(real_folder)
    (root / "loop").symlink_to(root)
    data = load(root)
    assert (len(data), data.classes) == (1, ("cat",))


def test_splits(pack):
    path = pack(
        {
            "train/cat/1.png": encode(grey(1)),
            "test/cat/1.png": encode(grey(2)),
            "test/ant/1.png": encode(grey(3)),
        }
    )
    with pytest.raises(DataError, match=r"holds the splits test, train: choose one with split="):
        load(path)
    assert load(path, split="train").images.flatten(1)[:, 0].tolist() == [1]
    assert load(path, split="test").images.flatten(1)[:, 0].tolist() == [3, 2]
    assert len(load(path, split="all")) == 3
    with pytest.raises(DataError, match=r"no images under a folder named 'val': its splits are test, train"):
        load(path, split="val")


def test_a_class_may_be_called_train(pack):
    path = pack({"bus/1.png": encode(grey(1)), "train/1.png": encode(grey(2)), "test/1.png": encode(grey(3))})
    assert load(path).classes == ("bus", "test", "train")
    with pytest.raises(DataError, match="not divided into splits"):
        load(path, split="train")


def test_stray_image_beside_class_folders_is_named(pack):
    path = pack({"set/preview.png": encode(grey(1)), "set/a/1.png": encode(grey(2))})
    with pytest.raises(DataError, match=r"holds set/preview\.png beside class folders"):
        load(path)


def test_size_crops_the_centre_and_resamples(pack):
    gradient = np.broadcast_to(np.arange(40, dtype=np.uint8) * 6, (20, 40)).copy()
    path = pack({"a/1.png": encode(gradient), "b/1.png": encode(grey(7, (9, 9)))})
    with pytest.raises(DataError, match=r"a/1\.png is 40 x 20, b/1\.png is 9 x 9\): give size="):
        load(path)
    data = load(path, size=10)
    assert data.shape == (1, 10, 10)
    cropped = Image.fromarray(gradient[:, 10:30])
    assert np.array_equal(data.images[0, 0], np.asarray(cropped.resize((10, 10), Image.Resampling.LANCZOS)))
    assert (data.images[1] == 7).all()
    odd = archives.resize(Image.fromarray(gradient[:, :25]), 20)
    assert np.array_equal(np.asarray(odd), gradient[:, 2:22])


def test_downsizing_is_antialiased(pack):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = load(pack({"a/1.png": encode(stripes)}), size=16).images.float()
    assert (small[..., 2:-2] - 127.5).abs().max() < 4  # without a filter it would be all black or all white


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "zeros"])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_corrupt_image_is_named(pack, kind, damage):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = encode(noise, kind)
    broken = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>", "zeros": bytes(500)}[
        damage
    ]
    path = pack({f"a/{i}.{kind}": whole for i in range(20)} | {f"b/broken.{kind}": broken})
    named = rf"{path.name}: 1 of 21 pictures were skipped\n  cannot decode b/broken\.{kind} \("
    with pytest.warns(SkippedPictures, match=named):
        data = load(path)
    assert (len(data), data.classes) == (20, ("a", "b"))
    assert all(np.array_equal(image, data.images[0]) for image in data.images)
    path = pack({f"b/broken.{kind}": broken})
    alone = rf"not one of (1|21) pictures can be decoded \(cannot decode b/broken\.{kind} \("
    if path.is_file():  # the folder still holds the others
        with pytest.raises(DataError, match=alone) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_at_most_ten_skipped_pictures_are_named(pack):
    path = pack({"a/good.png": encode(grey(1))} | {f"a/{i:02d}.heif": b"" for i in range(13)})
    with pytest.warns(SkippedPictures) as caught:
        assert len(load(path)) == 1
    lines = str(caught[0].message).split("\n  ")
    assert lines[0].endswith("13 of 14 pictures were skipped")
    assert lines[-1] == "and 3 more"
    assert [line.split()[2] for line in lines[1:-1]] == [f"a/{i:02d}.heif" for i in range(10)]


# Pillow's names of what it writes into files of these endings.
FORMATS = {
    ".jfif": "jpeg",
    ".jpe": "jpeg",
    ".jp2": "jpeg2000",
    ".avif": "avif",
    ".webp": "webp",
    ".tga": "tga",
    ".qoi": "qoi",
    ".pnm": "ppm",
}


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_every_picture_that_can_be_read_is(pack, suffix):
    try:
        content = encode(rgb(200, 100, 50, size=(16, 16)), FORMATS[suffix])
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {FORMATS[suffix]}")
    data = load(pack({f"a/1{suffix}": content, f"a/2{suffix.upper()}": content}))
    assert len(data) == 2
    assert (data.images.float().mean((0, 2, 3)) - torch.tensor([200.0, 100, 50])).abs().max() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_pictures_are_turned_as_exif_says(pack, orientation, kind):
    """Against the table of the EXIF standard: which side of the stored picture is the top, and which the left one."""
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255  # the corner at row 0 and column 0 is white
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(buffer, kind, exif=exif.tobytes())
    image = load(pack({f"a/1.{kind}": buffer.getvalue()})).images[0].float().mean(0)
    top_left = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    row, column = top_left[orientation]
    assert image.shape == ((16, 24) if orientation < 5 else (24, 16))
    corners = image[:: image.shape[0] - 1, :: image.shape[1] - 1]
    assert corners[row, column] > 200
    assert corners.sum() < 300


def test_damaged_exif_does_no_harm(pack):
    buffer = io.BytesIO()
    Image.fromarray(rgb(1, 2, 3)).save(buffer, "png", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert load(pack({"a/1.png": buffer.getvalue()})).shape == (3, 6, 5)


def test_damaged_bytes_in_a_zip_file_are_named(tmp_path):
    content = encode(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    path = write_zip(tmp_path / "x.zip", {"a/1.png": content, "a/2.png": content})
    raw = bytearray(path.read_bytes())
    raw[len(content) // 2] ^= 255
    path.write_bytes(raw)
    with pytest.warns(
        SkippedPictures, match=r"x\.zip: 1 of 2 pictures were skipped\n  cannot decode a/1\.png \(BadZip"
    ):
        assert len(load(path)) == 1


def test_sixteen_bit_files_are_refused(pack):
    path = pack({"a/deep.png": encode(np.full((4, 4), 40_000, dtype=np.uint16))})
    with pytest.raises(DataError, match=r"a/deep\.png has pixels of mode 'I;16'"):
        load(path)


@relaxed
@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_a_data_error(tmp_path_factory, content):
    path = write_zip(tmp_path_factory.mktemp("any") / "x.zip", {"a/1.png": content})
    with pytest.raises(DataError, match=r"a/1\.png"):
        load(path)


# Errors


POINTS = torch.zeros(3, 2)
LABELS = torch.zeros(3).long()
NHWC = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tmp: load("digitz"), "unknown dataset 'digitz': did you mean 'digits'"),
        (lambda tmp: load("Spiral"), "did you mean 'spiral'"),
        (lambda tmp: load("qqqq"), f"unknown dataset 'qqqq': known are {', '.join(NAMES)}"),
        (lambda tmp: load(tmp / "no.zip"), "no folder or .zip file at .*no.zip, nor below"),
        (
            lambda tmp: load(write_folder(tmp, {"a.zip": b"PK"}) / "a.zip"),
            "a.zip is not a readable .zip file",
        ),
        (
            lambda tmp: load(write_zip(tmp / "a.zip", {"a/b.txt": b""})),
            "a.zip holds no image: expected class",
        ),
        (lambda tmp: load(tmp), "holds no image"),
        (lambda tmp: load(tmp, size=0), "size must be a positive number of pixels or None, got 0"),
        (lambda tmp: load("ring", size=8), "'ring' is a set of points"),
        (lambda tmp: load("digits", size=16), "size= is not available"),
        (
            lambda tmp: load("digits", split="val"),
            "split must be 'train', 'test' or 'all' for 'digits', got 'val'",
        ),
        (lambda tmp: load("digits", n=0), "n must be a positive number of samples or None, got 0"),
        (lambda tmp: load("digits", n=2000), "n = 2,000 samples were asked of 'digits', which has 1,797"),
        (lambda tmp: load("digits", n=1.5), "got 1.5"),
        (lambda tmp: Dataset("d", POINTS.double(), LABELS, ("a",)), "got torch.float64 of shape"),
        (lambda tmp: Dataset("d", POINTS.byte(), LABELS, ("a",)), "got torch.uint8 of shape"),
        (lambda tmp: Dataset("d", NHWC, LABELS, ("a",)), r"give images\.permute\(0, 3, 1, 2\)"),
        (lambda tmp: Dataset("d", POINTS, LABELS[:2], ("a",)), r"labels must be int64 \[3\] on cpu"),
        (lambda tmp: Dataset("d", POINTS, LABELS.int(), ("a",)), "got torch.int32"),
        (lambda tmp: Dataset("d", POINTS, LABELS + 1, ("a",)), r"labels must lie in 0\.\.0, got 1\.\.1"),
        (lambda tmp: Dataset("d", POINTS[:0], LABELS[:0], ("a",)), "holds no sample"),
        (lambda tmp: load("ring", n=3).with_weights(torch.ones(2)), r"weights must be float64 \[3\]"),
        (lambda tmp: load("ring", n=3).with_weights(torch.zeros(3)), "not all zero"),
        (lambda tmp: load("ring", n=3).with_weights(torch.tensor([1.0, -1, 1])), "not negative"),
        (lambda tmp: load("ring", n=3).with_weights(torch.tensor([1.0, math.nan, 1])), "finite"),
        (lambda tmp: load("ring", n=3).subset(torch.tensor([3])), "do not fit a dataset of 3 samples"),
        (lambda tmp: load("ring", n=3).subset(torch.tensor([True])), "do not fit a dataset of 3 samples"),
        (lambda tmp: load("ring", n=3).subset(torch.tensor([0.0])), "got torch.float32"),
        (lambda tmp: load("ring", n=3).subset(torch.tensor([], dtype=torch.int64)), "holds no sample"),
    ],
)
def test_errors_name_the_argument_and_what_came(call, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


# Real files


@real("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte")
def test_real_mnist():
    data = load("mnist", split="all")
    assert (len(data), data.shape) == (70_000, (1, 28, 28))
    # The class counts of the training images, from the dataset's page.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.labels[:60_000]).tolist() == counts
    assert data.images.float().mean().item() / 255 == pytest.approx(0.1309, abs=1e-3)


@real("cifar10-jpeg-test.zip")
def test_real_cifar10_jpeg():
    data = load("cifar10-jpeg-test.zip", split="test")
    assert (len(data), data.shape, data.n_classes) == (10_000, (3, 32, 32), 10)
    assert data.class_frequencies().tolist() == [0.1] * 10
    assert data.classes[:2] == ("airplane", "automobile")
    means = data.images.double().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.494, 0.485, 0.450], abs=0.005)


@real("imagenet1k-sample.zip")
def test_real_imagenet_sample():
    with pytest.raises(DataError, match="give size="):
        load("imagenet1k-sample.zip")
    data = load("imagenet1k-sample.zip", size=32, n=100)
    assert (len(data), data.shape, data.n_classes) == (100, (3, 32, 32), 1000)


def test_shapes_are_those_of_the_data():
    for name in ("digits", "ring", "spiral", "gaussian", "stacked-digits"):
        data = load(name, n=4)
        assert sample_shape(name) == (data.shape, data.n_classes)
    assert all(sample_shape(name) for name in NAMES)
    assert sample_shape("photos", 16) == ((3, 16, 16), 1000)
    assert sample_shape("photos", 16, n_classes=7) == ((3, 16, 16), 7)
    assert sample_shape("mnist", 16) == ((1, 16, 16), 10)
    with pytest.raises(ValueError, match="the size of the pictures in photos is not known: give size"):
        sample_shape("photos")


@pytest.mark.parametrize(
    "name",
    [name for name in SHAPES if name.startswith(("digits", "stacked-digits", "ring", "spiral", "gaussian"))],
)
def test_the_shapes_of_named_sets_are_those_of_the_sets(name):
    data = load(name, n=5)
    assert SHAPES[name] == (data.shape, data.n_classes)
    assert set(SHAPES) == set(NAMES)
