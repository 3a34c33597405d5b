"""Packs: pictures that were decoded once, in one memory-mapped array that any number of processes can read.

`gankit pack SRC DST` writes them (`gankit.data.pack_writer`). A pack is a folder:

.. table:: The files of a pack.

   =============== ====================================================================================================
   images.npy      uint8 ``[N, C, H, W]``, an ordinary NumPy file
   labels.npy      int64 ``[N]``
   members.json    where each picture came from: names of files, or numbers in a torchvision set
   pack.json       the header: source, rule of resizing, shape, classes, pictures that were skipped, and checksums
   =============== ====================================================================================================

`gankit.data.load` takes the folder like any other path. Opening one checks the header, the sizes of the files and the
labels; `verify` reads the pictures, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tqdm import tqdm

from gankit.data.archives import DataError
from gankit.data.dataset import MappedDataset

FORMAT = "gankit pack 1"
RULE = (
    "rotation as EXIF says, centre crop to a square of the short side, then Lanczos resampling (antialiased)"
)
AS_THEY_ARE = "as they are, rotated as EXIF says"
BLOCK = 256
"""Pictures that share a checksum."""


@dataclass(frozen=True)
class Header:
    """`pack.json`.

    Attributes:
        source: name of the folder, archive or data set that was packed.
        split: the part of it, or None.
        size: side in pixels that was asked for; None if pictures were kept as they were.
        rule: how pictures were brought to that size: `RULE`, or `AS_THEY_ARE` if none was asked for.
        shape: ``[N, C, H, W]``.
        levels: the value that is white.
        classes: their names, in the order of the labels.
        skipped: for each picture that could not be decoded, what was wrong with it.
        images: SHA-256 of each block of `BLOCK` pictures.
        labels, members: SHA-256 of the two files.
        versions: of the programs that decoded.
        format: `FORMAT`.
    """

    source: str
    split: str | None
    size: int | None
    rule: str
    shape: list[int]
    levels: int
    classes: list[str]
    skipped: list[str]
    images: list[str]
    labels: str
    members: str
    versions: dict[str, str]
    format: str = FORMAT


def is_pack(path: Path) -> bool:
    """Whether a path is a folder that `gankit pack` wrote."""
    return (path / "pack.json").is_file()


def read_header(folder: Path) -> Header:
    """The header of a pack, after a check of the sizes of its files.

    Raises:
        DataError: it is no pack, one of another version, or incomplete; the message says which file.
    """
    path = folder / "pack.json"
    try:
        values = json.loads(path.read_text("utf-8"))
        if values.get("format") != FORMAT:
            raise DataError(
                f"{path} is of format {values.get('format')!r}, and this version reads {FORMAT!r}"
            )
        header = Header(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not the header of a pack ({type(error).__name__}: {error})") from error
    for name, dtype, shape in (
        ("images.npy", np.uint8, tuple(header.shape)),
        ("labels.npy", np.int64, tuple(header.shape[:1])),
    ):
        expected = len(npy_header(dtype, shape)) + int(np.prod(shape)) * np.dtype(dtype).itemsize
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != expected:
            what = "is missing" if found is None else f"has {found:,} bytes instead of {expected:,}"
            raise DataError(f"{folder / name} {what}: the pack is damaged, pack it again")
        with open(folder / name, "rb") as f:
            if f.read(len(npy_header(dtype, shape))) != npy_header(dtype, shape):
                raise DataError(f"{folder / name} does not hold {np.dtype(dtype)} of shape {list(shape)}")
    return header


def load(folder: Path, *, split: str | None = None, size: int | None = None) -> MappedDataset:
    """Open a pack.

    Args:
        folder: the pack.
        split, size: must be what it was packed with, if given.

    Returns:
        The dataset, whose pictures are read when a batch asks for them.

    Raises:
        DataError: the pack is damaged, or of another split or size.
    """
    header = read_header(folder)
    if split not in (None, "all", header.split):
        raise DataError(
            f"{folder} was packed with split {header.split!r}, and split={split!r} was asked of it"
        )
    if size is not None and header.shape[2:] != [size, size]:
        raise DataError(
            f"{folder} holds pictures of {header.shape[3]} x {header.shape[2]} pixels, and size={size} was asked "
            "of it: leave size out, or pack the source at that size"
        )
    if digest_of_file(folder / "labels.npy") != header.labels:
        raise DataError(f"{folder / 'labels.npy'} has another checksum than its header: pack it again")
    # "c": pages are shared with other processes, and nothing that is written reaches the file.
    images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    return MappedDataset(
        folder.stem, torch.from_numpy(images), torch.from_numpy(labels), tuple(header.classes), header.levels
    )


def verify(folder: Path, *, progress: bool = True) -> Header:
    """Read a whole pack and compare every checksum.

    Raises:
        DataError: something differs; the message names the file, and the numbers of the pictures.
    """
    header = read_header(folder)
    for name in ("labels", "members"):
        path = folder / f"{name}.{'npy' if name == 'labels' else 'json'}"
        if not path.is_file() or digest_of_file(path) != getattr(header, name):
            raise DataError(f"{path} is missing or has another checksum than its header: pack it again")
    offset, row = len(npy_header(np.uint8, tuple(header.shape))), int(np.prod(header.shape[1:]))
    starts = range(0, header.shape[0], BLOCK)
    if len(starts) != len(header.images):
        raise DataError(f"{folder / 'pack.json'} has {len(header.images)} checksums for {len(starts)} blocks")

    def digest(start: int) -> str:
        with open(folder / "images.npy", "rb") as f:
            return digest_of_rows(f, offset, row, range(start, min(start + BLOCK, header.shape[0])))

    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        found = tqdm(
            pool.map(digest, starts),
            folder.name,
            len(starts),
            unit="block",
            disable=None if progress else True,
        )
        bad = [start for start, a, b in zip(starts, found, header.images, strict=True) if a != b]
    if bad:
        first = f"{bad[0]:,} to {min(bad[0] + BLOCK, header.shape[0]) - 1:,}"
        raise DataError(
            f"{folder / 'images.npy'}: {len(bad)} of {len(starts)} blocks have another checksum than their header, "
            f"the first with pictures {first}: pack it again"
        )
    return header


# --- Pieces of the format ----------------------------------------------------------------------------------------


def npy_header(dtype: type, shape: tuple[int, ...]) -> bytes:
    """The bytes before the numbers in a ``.npy`` file. Their length does not depend on the first dimension."""
    file = _Bytes()
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    )
    return bytes(file)


class _Bytes(bytearray):
    write = bytearray.extend


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_of_rows(f: BinaryIO, offset: int, row: int, numbers: range | list[int]) -> str:
    """SHA-256 of some rows of `row` bytes each, which begin at `offset`."""
    digest = hashlib.sha256()
    for first, count in _runs(numbers):
        f.seek(offset + first * row)
        digest.update(f.read(count * row))
    return digest.hexdigest()


def _runs(numbers: range | list[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring numbers as (first, how many)."""
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            yield first, last - first + 1
        first = last = number
    if first is not None:
        yield first, last - first + 1


def to_json(value: Any) -> bytes:
    """JSON that is the same whenever the value is."""
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode("ascii")
