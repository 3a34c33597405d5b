"""LSUN's lmdb folders: packed as the same pictures in a folder are, and as torchvision reads them."""

import hashlib
import io
import json
import pickle
import shutil
import sys
import tempfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from gankit import commands, data
from gankit.data import DataError, lsun, pack_writer, packs
from gankit.data.archives import resize

SIDE = 8


def photographs(n: int, seed: int = 0) -> dict[str, bytes]:
    """WebP and JPEG files of several sizes, by digests, as LSUN has them."""
    rng = np.random.default_rng(seed)
    made = {}
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        size = (int(rng.integers(9, 30)), int(rng.integers(9, 30)))
        buffer = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "webp" if i % 3 else "jpeg")
        made[hashlib.sha1(buffer.getvalue()).hexdigest()] = buffer.getvalue()
    return made


def write(path: Path, values: dict[str, bytes]) -> Path:
    """An lmdb folder, written by the package that reads it; the keys arrive unsorted."""
    with (
        lmdb.open(str(path), map_size=2**24, sync=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(key.encode("latin-1"), value)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    """The same pictures as files."""
    path.mkdir(parents=True)
    for key, content in files.items():
        (path / f"{key}.webp").write_bytes(content)
    return path


def gankit(*arguments: object) -> int:
    return commands.main([*map(str, arguments), "--quiet"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def church(tmp_path) -> Path:
    return write(tmp_path / "church_outdoor_train_lmdb", photographs(23))


@pytest.fixture
def blocks_of_four(monkeypatch):
    monkeypatch.setattr(packs, "BLOCK", 4)
    monkeypatch.setattr(pack_writer, "BLOCK", 4)


# --- Reading back is decoding -----------------------------------------------------------------------------------


def test_a_pack_is_what_torchvision_reads(church, tmp_path, monkeypatch, capsys):
    assert gankit("pack", church, tmp_path / "out", "--size", SIDE) == 0
    assert "23 pictures of 3 x 8 x 8 in 1 classes, 0 skipped" in capsys.readouterr().out
    mapped = data.load(tmp_path / "out")
    assert (mapped.classes, mapped.labels.unique().tolist()) == (("church_outdoor_train_lmdb",), [0])
    monkeypatch.chdir(tmp_path)  # torchvision keeps a list of the keys in the working directory
    theirs = datasets.LSUN(str(tmp_path), classes=["church_outdoor_train"])
    assert len(theirs) == len(mapped) == 23
    for i, (image, _) in enumerate(theirs):
        assert np.array_equal(mapped.images[i].permute(1, 2, 0), resize(image, SIDE))
    assert json.loads((tmp_path / "out" / "members.json").read_text()) == [
        key.decode() for key in theirs.dbs[0].keys
    ]


def test_a_pack_is_that_of_a_folder_of_the_same_pictures(church, tmp_path):
    folder = write_folder(tmp_path / "files" / church.name, photographs(23))
    assert gankit("pack", folder, tmp_path / "a", "--size", SIDE, "--unlabelled") == 0
    assert gankit("pack", church, tmp_path / "b", "--size", SIDE, "--unlabelled") == 0
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a["images.npy"] == b["images.npy"]
    assert a["labels.npy"] == b["labels.npy"]
    a, b = (vars(packs.read_header(tmp_path / name)) for name in "ab")
    assert {key for key in a if a[key] != b[key]} == {"members"}, "files have a suffix, and keys have none"


def test_pictures_of_one_size_need_no_size(tmp_path):
    pixels = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    header = pack_writer.pack(
        lsun.from_lmdb(write(tmp_path / "in", {"a": buffer.getvalue()})), tmp_path / "out"
    )
    assert (header.shape, header.rule) == ([1, 3, 5, 6], packs.AS_THEY_ARE)
    assert np.array_equal(data.load(tmp_path / "out").images[0].permute(1, 2, 0), pixels)


@given(st.dictionaries(st.binary(min_size=1, max_size=60), st.binary(max_size=9000), min_size=1, max_size=30))
@settings(deadline=None, max_examples=25)
def test_any_keys_and_values_are_found(values):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "in", {key.decode("latin-1"): value for key, value in values.items()})
        source = lsun.from_lmdb(path, size=1)
        keys = [name.encode("latin-1") for name in source.members]
        assert keys == sorted(values)
        read = lsun.Values(path).read
        assert {key: read(name) for key, name in zip(keys, source.members, strict=True)} == values
        with pytest.raises(KeyError):
            read("not there" * 7)


def test_a_decoder_travels_to_other_processes(church):
    source = lsun.from_lmdb(church, size=SIDE)
    other = pickle.loads(pickle.dumps(source.decode))
    assert all(np.array_equal(other(name), source.decode(name)) for name in source.members)


@pytest.mark.full
def test_processes_write_the_same_bytes_as_one(church, tmp_path, blocks_of_four, monkeypatch):
    monkeypatch.setattr(pack_writer, "BLOCKS_PER_WORKER", 1)
    for workers in (1, 2):
        assert gankit("pack", church, tmp_path / f"{workers}", "--size", SIDE, "--workers", workers) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


# --- Damaged, interrupted, changed ------------------------------------------------------------------------------


def test_damaged_values_are_skipped_and_listed_or_refused(tmp_path, capsys):
    values = photographs(5) | {"0bad": b"no picture", "1empty": b""}
    path = write(tmp_path / "in", values)
    assert gankit("pack", path, tmp_path / "out", "--size", SIDE) == 0
    out = capsys.readouterr().out
    assert "skipped: cannot decode 0bad (UnidentifiedImageError: cannot identify image file)" in out
    assert "skipped: cannot decode 1empty" in out
    assert "5 pictures of 3 x 8 x 8 in 1 classes, 2 skipped" in out
    assert sorted(json.loads((tmp_path / "out" / "members.json").read_text())) == sorted(photographs(5))
    packs.verify(tmp_path / "out", progress=False)
    assert gankit("pack", path, tmp_path / "strict", "--size", SIDE, "--strict") == 2
    assert f"{path}: cannot decode 0bad" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


def test_interrupted_and_started_again_the_bytes_are_the_same(church, tmp_path, blocks_of_four):
    source = lsun.from_lmdb(church, size=SIDE)
    pack_writer.pack(source, tmp_path / "whole", workers=1, progress=False)
    decoded: list[str] = []

    def dies(member: str) -> np.ndarray:
        if len(decoded) == 10:
            raise KeyboardInterrupt
        decoded.append(member)
        return source.decode(member)

    with pytest.raises(KeyboardInterrupt):
        pack_writer.pack(
            pack_writer.Source(**vars(source) | {"decode": dies}), tmp_path / "out", workers=1, progress=False
        )
    again = lsun.from_lmdb(church, size=SIDE)
    decoded.clear()
    counting = pack_writer.Source(**vars(again) | {"decode": lambda m: decoded.append(m) or again.decode(m)})
    pack_writer.pack(counting, tmp_path / "out", workers=1, progress=False)
    assert decoded == again.members[8:], "the two blocks that were done are not done again"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_fingerprint_changes_with_the_pictures(church, tmp_path):
    first = lsun.from_lmdb(church, size=SIDE).fingerprint
    assert lsun.from_lmdb(church, size=6).fingerprint == first, "reading changes nothing"
    key, value = next(iter(photographs(23).items()))
    write(church, {key: value[:-1] + bytes([value[-1] ^ 1])})  # one bit
    assert lsun.from_lmdb(church, size=SIDE).fingerprint != first


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda f: f.write_bytes(f.read_bytes()[:-1]),
            r"has [\d,]+ bytes instead of [\d,]+: it was cut short",
        ),
        (lambda f: f.write_bytes(f.read_bytes()[:8192]), "has 8,192 bytes instead of"),
        (lambda f: f.write_bytes(b""), "cannot be opened as an lmdb database"),
        (lambda f: f.write_bytes(b"not found" * 999), "not an LMDB file"),
        (lambda f: f.unlink(), "is no lmdb folder: there is no .*data.mdb"),
        (lambda f: shutil.rmtree(f.parent), "is no lmdb folder"),
    ],
)
def test_a_damaged_database_says_what_is_wrong(church, damage, sentence):
    damage(church / "data.mdb")
    with pytest.raises(DataError, match=sentence):
        lsun.from_lmdb(church, size=SIDE)


def test_a_database_without_a_picture_is_refused(tmp_path):
    with pytest.raises(DataError, match="is empty: there is no picture in it"):
        lsun.from_lmdb(write(tmp_path / "none", {}), size=SIDE)
    source = lsun.from_lmdb(write(tmp_path / "text", {"a": b"b", "c": b"d"}), size=SIDE)
    with pytest.raises(DataError, match=r"not one of 2 pictures can be decoded \(cannot decode a "):
        pack_writer.pack(source, tmp_path / "out", progress=False)


def test_a_database_that_torchvision_holds_open_is_refused(church, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = datasets.lsun.LSUNClass(str(church))
    with pytest.raises(DataError, match="already open in this process"):
        lsun.from_lmdb(church, size=SIDE)
    theirs.env.close()
    assert len(lsun.from_lmdb(church, size=SIDE).members) == 23


# --- What is said ----------------------------------------------------------------------------------------------


def test_without_the_package_the_error_names_what_installs_it(church, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert gankit("pack", church, tmp_path / "out", "--size", SIDE) == 2
    assert 'pip install "gankit[lsun]"' in capsys.readouterr().err


def test_what_is_no_lmdb_folder_yet_says_how_to_get_there(church, tmp_path, capsys):
    command = f"write `gankit pack {church} DST --size 128`, and load DST"
    for path in (church, church.parent):
        with pytest.raises(DataError, match="is an lmdb folder, as LSUN's are") as refused:
            data.load(path)
        assert command in str(refused.value)
    archive = shutil.make_archive(str(tmp_path / "church"), "zip", tmp_path, church.name)
    assert gankit("pack", archive, tmp_path / "out", "--size", SIDE) == 2
    assert "holds the lmdb folder church_outdoor_train_lmdb: unpack it" in capsys.readouterr().err
    assert gankit("pack", church, tmp_path / "out", "--size", SIDE, "--split", "train") == 2
    assert "--split is about folders" in capsys.readouterr().err


def test_a_folder_that_is_read_only_and_has_no_lock_is_read(church):
    (church / "lock.mdb").unlink()
    church.chmod(0o500)
    try:
        assert len(lsun.from_lmdb(church, size=SIDE).members) == 23
        assert [path.name for path in church.iterdir()] == ["data.mdb"]
    finally:
        church.chmod(0o700)
