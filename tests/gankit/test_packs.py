"""Packs: reading back is decoding, a kill changes no byte, and what is damaged is named."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import gankit as gk
from gankit import commands, data
from gankit.data import DataError, MappedDataset, archives, pack_writer, packs
from gankit.data.dataset import host_generator
from gankit.data.packs import AS_THEY_ARE, BLOCK, RULE

relaxed = settings(deadline=None, max_examples=25)


def encode(pixels: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def photographs(n: int, seed: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, bytes]:
    """JPEGs of several sizes, in class folders."""
    rng = np.random.default_rng(seed)
    made = {}
    for i in range(n):
        coarse = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        size = (int(rng.integers(9, 30)), int(rng.integers(9, 30)))
        pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        made[f"{classes[i % len(classes)]}/{i:04d}.jpg"] = encode(pixels, "jpeg")
    return made


def write(folder: Path, files: dict[str, bytes], kind: str = "folder") -> Path:
    if kind == "zip":
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return folder.with_suffix(".zip")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, target: Path, *, size: int | None = 8, **settings) -> packs.Header:
    labelled = settings.pop("labelled", True)
    source = pack_writer.from_files(path, size=size, split=settings.pop("split", None), labelled=labelled)
    return pack_writer.pack(source, target, **({"workers": 1, "progress": False} | settings))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(a: data.Dataset, b: data.Dataset) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.classes == b.classes


@pytest.fixture
def blocks_of_four(monkeypatch):
    """Small blocks, so that few pictures make several."""
    monkeypatch.setattr(packs, "BLOCK", 4)
    monkeypatch.setattr(pack_writer, "BLOCK", 4)


# --- Reading back is decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_pack_is_what_decoding_gives(tmp_path, kind):
    path = write(tmp_path / "pets", photographs(30), kind)
    header = pack(path, tmp_path / "out", size=8)
    assert header.shape == [30, 3, 8, 8]
    assert (header.source, header.rule, header.skipped) == (path.name, RULE, [])
    mapped = data.load(tmp_path / "out")
    assert isinstance(mapped, MappedDataset)
    assert same(mapped, data.load(path, size=8))
    assert np.array_equal(
        np.load(tmp_path / "out" / "images.npy"), mapped.images
    )  # an ordinary file of NumPy
    assert json.loads((tmp_path / "out" / "members.json").read_text())[15:17] == [
        "dog/0001.jpg",
        "dog/0003.jpg",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {path.name, "out"}


def test_the_rule_is_the_stated_one(tmp_path):
    """Against Pillow directly, on a picture that is wider than high."""
    wide = np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)
    pack(write(tmp_path / "a", {"x/0.png": encode(wide)}), tmp_path / "out", size=7)
    expected = Image.fromarray(wide[:, 6:26]).resize((7, 7), Image.Resampling.LANCZOS)
    assert np.array_equal(data.load(tmp_path / "out").images[0].permute(1, 2, 0), expected)


@relaxed
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12), st.booleans()), min_size=1, max_size=9),
    st.integers(1, 9),
    st.sampled_from(["folder", "zip"]),
)
def test_any_pictures_read_back_as_decoded(tmp_path_factory, shapes, size, kind):
    """Of any sides, grey or in colour or mixed."""
    rng = np.random.default_rng(len(shapes))
    files = {
        f"{'ab'[i % 2]}/{i}.png": encode(rng.integers(0, 256, (h, w) if grey else (h, w, 3), dtype=np.uint8))
        for i, (h, w, grey) in enumerate(shapes)
    }
    folder = tmp_path_factory.mktemp("any")
    path = write(folder / "in", files, kind)
    header = pack(path, folder / "out", size=size)
    assert header.shape[1] == (1 if all(grey for *_, grey in shapes) else 3)
    assert same(data.load(folder / "out"), data.load(path, size=size))
    assert packs.verify(folder / "out", progress=False) == header


def test_pictures_of_one_size_need_no_size(tmp_path):
    pixels = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    path = write(tmp_path / "a", {"x/0.png": encode(pixels), "x/1.png": encode(pixels[::-1].copy())})
    header = pack(path, tmp_path / "out", size=None)
    assert (header.shape, header.rule) == ([2, 3, 5, 6], AS_THEY_ARE)
    assert same(data.load(tmp_path / "out"), data.load(path))
    write(path, {"x/2.png": encode(pixels[:4])})
    with pytest.raises(DataError, match=r"x/2.png is 6 x 4 and others are 6 x 5: give a size"):
        pack(path, tmp_path / "other", size=None)


def test_a_split_and_folders_that_are_no_classes(tmp_path):
    files = photographs(6)
    path = write(tmp_path / "faces", {f"train/00000/{i}.jpg": x for i, x in enumerate(files.values())})
    write(path, {f"train/01000/sub/{i}.jpg": x for i, x in enumerate(files.values())})
    write(path, {"test/00000/0.jpg": files["cat/0000.jpg"]})
    header = pack(path, tmp_path / "out", split="train", labelled=False)
    assert (header.shape[0], header.classes, header.split) == (12, ["faces"], "train")
    assert len(data.load(tmp_path / "out", split="train")) == 12
    with pytest.raises(DataError, match="was packed with split 'train', and split='test' was asked"):
        data.load(tmp_path / "out", split="test")


def test_a_data_set_in_memory_is_packed_with_its_levels(tmp_path):
    digits = data.load("digits")
    header = pack_writer.pack(pack_writer.from_dataset(digits), tmp_path / "out", progress=False)
    mapped = data.load(tmp_path / "out")
    assert (header.levels, mapped.levels) == (16, 16)
    assert same(mapped, digits)
    with pytest.raises(DataError, match="'ring' is a set of points, and pictures are packed"):
        pack_writer.from_dataset(data.load("ring", n=10))


@pytest.mark.full
def test_processes_write_the_same_bytes_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "BLOCKS_PER_WORKER", 1)
    path = write(tmp_path / "pets", photographs(2 * BLOCK + 9), "zip")
    pack(path, tmp_path / "one")
    pack(path, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# --- Pictures that cannot be decoded ----------------------------------------------------------------------------


@relaxed
@given(st.integers(1, 21), st.data())
def test_damaged_pictures_are_skipped_and_the_rest_stay(tmp_path_factory, n, draw):
    bad = draw.draw(st.sets(st.integers(0, n - 1), max_size=n - 1))
    folder = tmp_path_factory.mktemp("bad")
    files = photographs(n)
    names = sorted(files)
    for i in bad:
        files[names[i]] = files[names[i]][:60]
    path = write(folder / "in", files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "BLOCK", 4)
        patch.setattr(pack_writer, "BLOCK", 4)
        header = pack(path, folder / "out")
        packs.verify(folder / "out", progress=False)
    assert [reason.split()[2] for reason in header.skipped] == sorted(names[i] for i in bad)
    assert str(path) not in (folder / "out" / "pack.json").read_text()
    mapped, members = data.load(folder / "out"), json.loads((folder / "out" / "members.json").read_text())
    assert sorted(members) == [names[i] for i in range(n) if i not in bad]
    decode = archives.Decoder(path, 8)
    for image, label, member in zip(mapped.images, mapped.labels, members, strict=True):
        assert np.array_equal(image, decode(member))
        assert mapped.classes[label] == member.split("/")[0]
    # Only as many move as there are gaps: the others keep their place.
    kept = [m for i, m in enumerate(members) if m == names[i]]
    assert len(kept) >= len(members) - len(bad)


def test_strict_refuses_a_damaged_picture_and_goes_on_when_it_is_mended(tmp_path, blocks_of_four):
    files = photographs(11)
    path = write(tmp_path / "in", files | {"cat/0006.jpg": b"no picture"})
    with pytest.raises(DataError, match=r"cannot decode cat/0006.jpg \(UnidentifiedImageError"):
        pack(path, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    assert len(pack(path, tmp_path / "skipping").skipped) == 1
    write(path, {"cat/0006.jpg": files["cat/0006.jpg"]})
    pack(path, tmp_path / "out", strict=True)
    assert same(data.load(tmp_path / "out"), data.load(path, size=8))


def test_strict_also_refuses_what_an_earlier_start_had_skipped(tmp_path, blocks_of_four, monkeypatch):
    path = write(tmp_path / "in", photographs(11) | {"cat/0000.jpg": b"no picture"})
    monkeypatch.setattr(pack_writer._Job, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pack(path, tmp_path / "out")
    with pytest.raises(DataError, match=r"cannot decode cat/0000\.jpg"):
        pack(path, tmp_path / "out", strict=True)


def test_a_pack_and_a_folder_skip_the_same_pictures(tmp_path):
    """One rule: photographs of a telephone, a link that leads nowhere, damage, more bits, and a folder named .png."""
    files = photographs(6) | {
        "cat/a.heic": b"\0\0\0\x18ftypheic",
        "cat/b.jpg": b"damaged",
        "dog/deep.png": encode(np.full((9, 9), 40_000, dtype=np.uint16)),
        "dog/folder.png/notes.txt": b"x",
    }
    path = write(tmp_path / "in", files)
    (path / "dog" / "link.png").symlink_to(tmp_path / "gone.png")
    header = pack(path, tmp_path / "out")
    with pytest.warns(data.SkippedPictures) as caught:
        loaded = data.load(path, size=8)
    head, *lines = str(caught[0].message).split("\n  ")
    assert head == f"{path}: 4 of 10 pictures were skipped"
    assert lines == header.skipped == [
        "cannot decode cat/a.heic (UnidentifiedImageError: cannot identify image file); save it as .png or .jpg",
        "cannot decode cat/b.jpg (UnidentifiedImageError: cannot identify image file)",
        "dog/deep.png has pixels of mode 'I;16'; convert it to 8 bits per channel",
        "cannot decode dog/link.png (FileNotFoundError: No such file or directory)",
    ]  # fmt: skip
    packed = data.load(tmp_path / "out")
    assert packed.classes == loaded.classes
    assert len(packed) == len(loaded) == 6
    rows = [
        {(image.numpy().tobytes(), int(y)) for image, y in zip(d.images, d.labels, strict=True)}
        for d in (packed, loaded)
    ]
    assert rows[0] == rows[1]
    # A damaged first picture decides no shape.
    same_size = write(tmp_path / "same", {"a/0.png": b"x", "a/1.png": encode(np.zeros((5, 6), np.uint8))})
    assert pack(same_size, tmp_path / "same_out", size=None).shape == [1, 1, 5, 6]


def test_a_member_that_unpacks_to_gigabytes_is_skipped_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.png", encode(np.zeros((9, 9), np.uint8)))
        archive.writestr("a/bomb.png", bytes(3_500_000))
    assert path.stat().st_size < 5_000
    header = pack(path, tmp_path / "out")
    assert header.skipped == ["a/bomb.png has 3.50MB, and a picture may have 100kB at most"]
    with pytest.raises(DataError, match=r"bomb\.zip: a/bomb\.png has 3\.50MB"):
        pack(path, tmp_path / "strict", strict=True)
    # A length that is too short is where unpacking ends: the checksum is then another.
    lying = bytearray(path.read_bytes())
    for place in (lying.find(b"a/bomb.png") - 30, lying.rfind(b"a/bomb.png") - 46):
        field = place + (22 if lying[place : place + 4] == b"PK\x03\x04" else 24)
        lying[field : field + 4] = (50_000).to_bytes(4, "little")
    (tmp_path / "lying.zip").write_bytes(lying)
    assert "a/bomb.png (BadZipFile: Bad CRC-32" in pack(tmp_path / "lying.zip", tmp_path / "out2").skipped[0]


def test_packing_into_the_originals_is_refused_without_advice_to_remove_them(tmp_path, capsys):
    path = write(tmp_path / "pics", photographs(3))
    for target in (path, path.parent / "." / "pics"):
        assert gankit("pack", path, target, "--quiet") == 2
        error = capsys.readouterr().err
        assert "is SRC: give another name" in error
        assert "remove" not in error
    assert len(list(path.rglob("*.jpg"))) == 3


def test_nothing_to_pack_is_refused(tmp_path):
    path = write(tmp_path / "in", {"cat/0.jpg": b"no picture", "cat/1.jpg": b""})
    with pytest.raises(DataError, match=r"not one of 2 pictures can be decoded \(cannot decode cat/0\.jpg"):
        pack(path, tmp_path / "out")
    with pytest.raises(DataError, match="holds no image"):
        pack(write(tmp_path / "none", {"a.txt": b""}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Interrupted ------------------------------------------------------------------------------------------------


def test_killed_half_way_and_started_again_the_bytes_are_the_same(tmp_path, blocks_of_four):
    """SIGKILL, processes that decode included, and a damaged picture among the others."""
    blocks = 300
    files = photographs(4 * blocks)
    path = write(tmp_path / "pets", files | {"cat/0000.jpg": files["cat/0000.jpg"][:50]}, "zip")
    script = tmp_path / "pack.py"  # the command with this test's blocks
    script.write_text(
        "import sys\n"
        "from gankit import commands\n"
        "from gankit.data import pack_writer, packs\n"
        "packs.BLOCK = pack_writer.BLOCK = 4\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(commands.main())\n"
    )
    command = [sys.executable, str(script), "pack", str(path), str(tmp_path / "killed"), "--size", "48"]
    process = subprocess.Popen([*command, "--workers", "2", "--quiet"], stdout=subprocess.DEVNULL)
    journal = tmp_path / ".killed.partial" / "done.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and len(journal.read_text().split("\n")) > 2):
        assert process.poll() is None, "the pack was done before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    done = len(journal.read_text().split("\n")) - 1
    assert 1 <= done < blocks

    decoded = []
    source = pack_writer.from_files(path, size=48)
    again = pack_writer.Source(**vars(source) | {"decode": lambda m: decoded.append(m) or source.decode(m)})
    pack_writer.pack(again, tmp_path / "killed", workers=1, progress=False)
    assert 0 < len(decoded) <= 4 * (blocks - done + 1)  # what was done is not done again
    pack(path, tmp_path / "whole", size=48)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not journal.exists()


@pytest.mark.parametrize("calls", range(8))
def test_interrupted_anywhere_at_the_end_it_ends_the_same(tmp_path, blocks_of_four, monkeypatch, calls):
    """Closing the gaps, cutting the file and writing the header may stop between any two steps."""
    files = photographs(14)
    path = write(
        tmp_path / "in", files | dict.fromkeys(["cat/0002.jpg", "dog/0013.jpg", "dog/0003.jpg"], b"x")
    )
    pack(path, tmp_path / "whole")
    left = iter(range(calls))

    def stop_after(function):
        def wrapped(*arguments, **settings):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return function(*arguments, **settings)

        return wrapped

    steps = [(os, "fsync"), (np, "save"), (os, "rename")]
    steps += [(packs, "digest_of_rows"), (packs, "digest_of_file")]
    for owner, name in steps:
        monkeypatch.setattr(owner, name, stop_after(getattr(owner, name)))
    with pytest.raises(KeyboardInterrupt):
        pack(path, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(packs, "BLOCK", 4)
    monkeypatch.setattr(pack_writer, "BLOCK", 4)
    assert not (tmp_path / "out").exists()
    pack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_half_written_block_or_line_is_done_again(tmp_path, blocks_of_four, monkeypatch):
    path = write(tmp_path / "in", photographs(14))
    pack(path, tmp_path / "whole")
    monkeypatch.setattr(pack_writer._Job, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pack(path, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(packs, "BLOCK", 4)
    monkeypatch.setattr(pack_writer, "BLOCK", 4)
    partial = tmp_path / ".out.partial"
    with open(partial / "done.jsonl", "a") as f:
        f.write('\n[4, "1234')
    with open(partial / "pack" / "images.npy", "r+b") as f:  # bytes that never reached the disk
        f.seek(128 + 5 * 192)
        f.write(bytes(100))
    pack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_start_anew(tmp_path, monkeypatch):
    path = write(tmp_path / "in", photographs(5))
    monkeypatch.setattr(pack_writer._Job, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pack(path, tmp_path / "out")
    monkeypatch.undo()
    write(path, {"cat/0000.jpg": photographs(1, seed=1)["cat/0000.jpg"]})  # replaced in between
    pack(path, tmp_path / "out", size=6)
    assert same(data.load(tmp_path / "out"), data.load(path, size=6))


def test_a_second_process_is_kept_out(tmp_path):
    pytest.importorskip("fcntl")
    source = pack_writer.from_files(write(tmp_path / "in", photographs(3)), size=8)

    def decode(member):
        with pytest.raises(DataError, match="another process is writing into"):
            pack(tmp_path / "in", tmp_path / "out")
        return source.decode(member)

    first = pack_writer.Source(**vars(source) | {"decode": decode, "in_memory": True})
    pack_writer.pack(first, tmp_path / "out", progress=False)


def test_a_full_disk_is_said_before_decoding(tmp_path, monkeypatch):
    path = write(tmp_path / "in", photographs(3))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=12_000))
    with pytest.raises(
        DataError, match=r"has 12.0kB free, and the pack needs \d\d\.\dkB more: \d\d,\d{3} bytes too few"
    ):
        pack(path, tmp_path / "out", size=64)


def test_ctrl_c_says_how_to_go_on_and_the_pack_is_finished(tmp_path, capsys, blocks_of_four, monkeypatch):
    path, out = write(tmp_path / "in", photographs(9)), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pack_writer._Job, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert gankit("pack", path, out, "--size", 8, "--quiet") == 130
    assert "the same command goes on from what is saved" in capsys.readouterr().err
    assert gankit("pack", path, out, "--size", 8, "--quiet") == 0
    assert same(data.load(out), data.load(path, size=8))


def test_what_is_already_there_is_left_alone(tmp_path):
    path = write(tmp_path / "in", photographs(5))
    header = pack(path, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert pack(path, tmp_path / "out") == header
    with pytest.raises(DataError, match=r"is a pack of in \(split None, size 8\): remove that pack, or"):
        pack(path, tmp_path / "out", size=6)
    assert contents(tmp_path / "out") == before
    with pytest.raises(DataError, match=r"exists and is no pack: give another name$"):
        pack(path, path)  # and no word of removing it: these may be the only originals


# --- Damaged packs ----------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path) -> Path:
    pack(write(tmp_path / "in", photographs(12)), tmp_path / "out")
    return tmp_path / "out"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@relaxed
@given(st.sampled_from(["images.npy", "labels.npy", "members.json"]), st.integers(0, 10**6))
def test_any_flipped_bit_is_found(tmp_path_factory, name, at):
    folder = tmp_path_factory.mktemp("flip")
    pack(write(folder / "in", photographs(3), "zip"), folder / "out", size=4)
    flip(folder / "out" / name, at % (folder / "out" / name).stat().st_size)
    with pytest.raises(DataError, match=name):
        packs.verify(folder / "out", progress=False)


def test_verify_names_the_pictures(tmp_path, blocks_of_four):
    pack(write(tmp_path / "in", photographs(12)), tmp_path / "out")
    flip(tmp_path / "out" / "images.npy", 128 + 192 * 6)
    data.load(tmp_path / "out")  # opening a pack does not read its pictures
    with pytest.raises(
        DataError,
        match=r"1 of 3 blocks have another checksum .*, the first with pictures 4 to 7",
    ):
        packs.verify(tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "images.npy").unlink(), "images.npy is missing"),
        (lambda f: os.truncate(f / "images.npy", 1000), "images.npy has 1,000 bytes instead of 2,432"),
        (lambda f: flip(f / "images.npy", 30), "does not hold uint8 of shape"),
        (lambda f: flip(f / "labels.npy", 200), "labels.npy has another checksum"),
        (lambda f: os.truncate(f / "pack.json", 100), "pack.json is not the header of a pack"),
        (lambda f: (f / "pack.json").write_text("[]"), "pack.json is not the header of a pack"),
        (lambda f: (f / "pack.json").write_text('{"format": "x"}'), "is of format 'x', and this version reads"),
        (lambda f: (f / "pack.json").write_text(json.dumps({"format": packs.FORMAT})), "not the header of a pack"),
    ],
)  # fmt: skip
def test_a_damaged_pack_is_refused(made, damage, sentence):
    damage(made)
    with pytest.raises(DataError, match=sentence):
        data.load(made)


def test_another_size_is_refused(made):
    assert len(data.load(made, size=8)) == 12
    with pytest.raises(DataError, match="holds pictures of 8 x 8 pixels, and size=16 was asked"):
        data.load(made, size=16)


# --- Training from a pack ---------------------------------------------------------------------------------------


def test_training_on_a_pack_is_training_on_the_folder(made, tmp_path):
    def run(path: Path) -> gk.Trainer:
        images = data.load(path, size=8)
        G, D = gk.models.mlp(images.shape, z_dim=4, depth=2, width=8)
        return gk.Trainer(G, D, images, batch_size=4, device="cpu").fit(3, progress=False)

    a, b = run(made), run(tmp_path / "in")
    assert all(torch.equal(x, y) for x, y in zip(a.G.parameters(), b.G.parameters(), strict=True))


@pytest.mark.full
def test_two_processes_train_on_a_pack_as_one_does(made, tmp_path):
    """Both map the same file; torchrun starts them."""
    command = [
        "train",
        "ns-digits",
        "--data",
        str(made),
        "--width",
        "8",
        "--steps",
        "5",
        "--quiet",
        "--device",
        "cpu",
    ]
    two = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "gankit",
    ]
    for start, out in (([sys.executable, "-m", "gankit"], "one"), (two, "two")):
        subprocess.run([*start, *command, "--out", str(tmp_path / out)], check=True, capture_output=True)
    one, two = (gk.checkpoints.read(tmp_path / out / "checkpoint-00000005.pt")["G"] for out in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)


def test_a_batch_reads_its_rows_and_leaves_the_rest_on_disk(tmp_path):
    """A pack of 2 GB that occupies a few kilobytes: only its last picture is not zero."""
    pack(write(tmp_path / "in", photographs(2)), tmp_path / "out", size=256)
    n, row = 10_000, 3 * 256 * 256
    images = tmp_path / "out" / "images.npy"
    last = np.load(images)[1]
    with open(images, "r+b") as f:
        f.write(packs.npy_header(np.uint8, (n, 3, 256, 256)))
        f.truncate(128 + n * row)
        f.seek(128 + (n - 1) * row)
        f.write(last.tobytes())
    labels = tmp_path / "out" / "labels.npy"
    np.save(labels, np.zeros(n, dtype=np.int64))
    header = json.loads((tmp_path / "out" / "pack.json").read_text())
    header |= {"shape": [n, 3, 256, 256], "labels": packs.digest_of_file(labels)}
    (tmp_path / "out" / "pack.json").write_text(json.dumps(header))
    code = (
        "import resource, sys, torch, gankit as gk\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "images = gk.data.load(sys.argv[1])\n"
        "x, y = images.batch(torch.tensor([2, 5000, 9999]))\n"
        "print(x.shape, float(x[0].max()), int(((x[2].double() + 1) * 127.5).round().sum()))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out[0] == f"torch.Size([3, 3, 256, 256]) -1.0 {last.sum(dtype=int)}"
    assert int(out[1]) < 100_000, "kilobytes; the whole file has two million"


def test_a_pack_is_a_data_set_like_any_other(made, tmp_path):
    mapped, plain = data.load(made), data.load(tmp_path / "in", size=8)
    weights = torch.rand(12, generator=torch.Generator().manual_seed(0))
    for a, b in ((mapped, plain), (mapped.with_weights(weights), plain.with_weights(weights))):
        i, j = (x.draw((2, 5), torch.Generator().manual_seed(1)) for x in (a, b))
        assert torch.equal(i, j)
        assert all(torch.equal(x, y) for x, y in zip(a.batch(i), b.batch(j), strict=True))
        assert torch.equal(a.class_frequencies(), b.class_frequencies())
    assert torch.equal(mapped.subset(torch.arange(3)).images, plain.images[:3])
    assert data.load(made, n=5, seed=3).images.equal(data.load(tmp_path / "in", size=8, n=5, seed=3).images)


def test_images_stay_where_they_are_and_batches_move(made):
    """The meta device stands for any other one."""
    mapped = data.load(made)
    moved = mapped.to("meta")
    assert moved.images.data_ptr() == mapped.images.data_ptr()
    images, labels = moved.batch(torch.tensor([[0, 1], [2, 3]]))
    assert (images.device.type, labels.device.type) == ("meta", "meta")
    assert (images.shape, labels.shape, images.dtype) == ((2, 2, 3, 8, 8), (2, 2), torch.float32)


def test_writing_into_a_batch_or_the_array_leaves_the_file_alone(made):
    before = contents(made)
    mapped = data.load(made)
    mapped.batch(torch.arange(3))[0].zero_()
    mapped.images[0].zero_()
    del mapped
    assert contents(made) == before


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_a_host_generator_follows_the_state_of_another(seed):
    """What a GPU's generator decides on the CPU repeats with its state, and moves on with each draw."""
    generator = torch.Generator().manual_seed(seed)
    state = generator.get_state()
    first, second = (torch.rand(4, generator=host_generator(generator)) for _ in range(2))
    assert not torch.equal(first, second)
    generator.set_state(state)
    assert torch.equal(torch.rand(4, generator=host_generator(generator)), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_come_out_on_the_gpu(made):
    mapped = data.load(made).to("cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    state = generator.get_state()
    indices = mapped.draw((3, 4), generator)
    images, labels = mapped.batch(indices)
    assert (indices.device.type, images.device.type, labels.device.type) == ("cpu", "cuda", "cuda")
    assert torch.equal(images.cpu(), mapped.to("cpu").batch(indices)[0])
    assert not torch.equal(mapped.draw((3, 4), generator), indices)
    generator.set_state(state)
    assert torch.equal(mapped.draw((3, 4), generator), indices)


# --- The commands -----------------------------------------------------------------------------------------------


def gankit(*arguments: object) -> int:
    return commands.main([str(argument) for argument in arguments])


def test_pack_and_verify_on_the_command_line(tmp_path, capsys):
    path = write(tmp_path / "pets", photographs(6) | {"cat/0002.jpg": b"x"})
    assert gankit("pack", path, tmp_path / "out", "--size", 8, "--quiet") == 0
    assert capsys.readouterr().out.splitlines() == [
        "skipped: cannot decode cat/0002.jpg (UnidentifiedImageError: cannot identify image file)",
        f"{tmp_path / 'out'}: 5 pictures of 3 x 8 x 8 in 2 classes, 1 skipped",
    ]
    assert gankit("verify", tmp_path / "out", "--quiet") == 0
    assert "5 pictures of 3 x 8 x 8 in 2 classes, every checksum is right" in capsys.readouterr().out
    assert gankit("pack", path, tmp_path / "strict", "--size", 8, "--strict", "--quiet") == 2
    assert "cannot decode cat/0002.jpg" in capsys.readouterr().err
    flip(tmp_path / "out" / "images.npy", 500)
    assert gankit("verify", tmp_path / "out", "--quiet") == 2
    assert "another checksum" in capsys.readouterr().err


def test_a_named_set_is_packed_and_trained_on(tmp_path, capsys):
    assert gankit("pack", "digits", tmp_path / "d", "--split", "train", "--quiet") == 0
    assert "1,442 pictures of 1 x 8 x 8 in 10 classes, 0 skipped" in capsys.readouterr().out
    small = ("--steps", 2, "--width", 8, "--quiet", "--device", "cpu")
    assert gankit("train", "ns-digits", "--data", tmp_path / "d", "--out", tmp_path / "run", *small) == 0
    assert gankit("pack", "digits", tmp_path / "e", "--unlabelled") == 2
    assert gankit("pack", "digitz", tmp_path / "e") == 2
    assert "did you mean 'digits'" in capsys.readouterr().err
