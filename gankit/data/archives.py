"""Folders and zip files of class folders of images, decoded to one uint8 array.

`read_images` is what `gankit.data.load` calls for a path. The class of an image is the name of the folder
that holds it, so ``cats/001.png`` and ``train/cats/001.png`` are both of class ``cats``. Nothing is unpacked:
members of a zip file are decoded from memory.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, ImageOps
from tqdm import tqdm


class DataError(ValueError):
    """Data that is missing, damaged or asked for wrongly; the message is one sentence that says why."""


class SkippedPictures(UserWarning):
    """Some pictures of a folder or archive cannot be decoded; the message counts and names them."""


READ_SUFFIXES = frozenset(
    {
        ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".mpo",
        ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""What a picture's name ends with that Pillow reads; those of recent formats not in every build of it."""
IMAGE_SUFFIXES = READ_SUFFIXES | {
    ".arw", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2",
    ".svg",
}  # fmt: skip
"""What any picture's name ends with: those that cannot be read are skipped by name, and not without a word."""
MAX_BYTES = 2**28
"""The longest file that is taken for a picture; a small archive can promise any length."""
LISTED = 10
"""How many of the skipped pictures are named in a warning."""
LMDB = "data.mdb"
"""The file of an lmdb database, which lies in a folder of its own (`gankit.data.lsun`)."""
SPLIT_FOLDERS = frozenset({"train", "test", "val", "valid", "validation"})
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"})


def read_images(
    path: str | Path, *, split: str | None = None, size: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Decode every image of a folder or a zip file.

    Images are grey (one channel) when all files are, and RGB otherwise; an alpha channel is dropped, and a rotation
    that EXIF asks for is made. Hidden files, ``__MACOSX``, members whose path leaves the archive and files that are
    not images (by their suffix) are ignored. Images that cannot be decoded are skipped, as `gankit pack` skips them,
    and a `SkippedPictures` warning counts and names them. Images come in the order of their sorted paths.

    Args:
        path: a folder, or a ``.zip`` file.
        split: keep only the images under a folder of this name (``"train"``, say); ``"all"`` keeps all, and
            so does None, except that it refuses a tree that divides itself into several splits.
        size: side in pixels: centre crop to a square, then Lanczos resampling (antialiased). None keeps the
            images as they are and asks that they share one size.

    Returns:
        images uint8 ``[N, C, H, W]``, labels int64 ``[N]``, and the class names in sorted order.

    Raises:
        DataError: the path is neither a folder nor a readable zip file, it holds no image (of that split), none
            can be decoded, or sizes differ and `size` is None.
    """
    path = Path(path)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise DataError(f"size must be a positive number of pixels or None, got {size!r}")
    members = select(path, list_files(path), split)
    classes = tuple(sorted({class_of(path, member) for member in members}))
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[class_of(path, member)] for member in members], dtype=np.int64)

    decoder = Decoder(path, size)
    decoded: list[np.ndarray] = []
    kept, skipped = [], []
    # PIL releases the interpreter lock while it decodes, so threads are enough.
    pool = ThreadPoolExecutor()
    try:
        jobs = pool.map(decoder.attempt, members)
        bar = tqdm(jobs, total=len(members), desc=path.name, unit="image", disable=None, delay=2)
        for index, image in enumerate(bar):
            if isinstance(image, DataError):
                skipped.append(reason(image))
                continue
            decoded.append(image)
            kept.append(index)
            if image.shape[1:] != decoded[0].shape[1:]:
                raise DataError(
                    f"{path} holds images of several sizes ({members[kept[0]]} is {in_words(decoded[0])}, "
                    f"{members[index]} is {in_words(image)}): give size= to crop and resize them to one"
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, nothing more is decoded
        decoder.close()
    if not decoded:
        raise DataError(f"{path}: not one of {len(members):,} pictures can be decoded ({skipped[0]})")
    if skipped:
        lines = [f"{path}: {len(skipped):,} of {len(members):,} pictures were skipped", *skipped[:LISTED]]
        if len(skipped) > LISTED:
            lines.append(f"and {len(skipped) - LISTED:,} more")
        warnings.warn("\n  ".join(lines), SkippedPictures, stacklevel=2)

    channels = max(image.shape[0] for image in decoded)
    images = np.empty((len(decoded), channels, *decoded[0].shape[1:]), dtype=np.uint8)
    for index, image in enumerate(decoded):
        images[index] = image  # a grey image among RGB ones is repeated over the channels
        decoded[index] = None  # frees it: the array and the list are never both whole
    return images, labels[kept], classes


def reason(error: DataError) -> str:
    """What `Decoder` says of a picture, without the path of the folder, which differs between machines."""
    return str(error).partition(": ")[2]


def list_files(path: Path) -> list[str]:
    """Names of all files in a folder or a zip file, as `Decoder` takes them.

    Raises:
        DataError: the path is neither a folder nor a readable zip file.
    """
    if path.is_dir():
        return _folder_members(path)
    with _open_zip(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def fingerprint(path: Path, members: Sequence[str]) -> str:
    """A digest of the members' names, sizes and dates (in a zip file, checksums): it changes when a file does."""
    if path.is_dir():
        stamps = (_stamp(path / member) for member in members)
    else:
        with _open_zip(path) as archive:
            infos = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
        stamps = (infos[member] for member in members)
    digest = hashlib.sha256()
    for member, stamp in zip(members, stamps, strict=True):
        digest.update(repr((member, *stamp)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Size and date; of a link that leads nowhere, two numbers that no file has."""
    try:
        about = path.stat()
    except OSError:
        return -1, -1
    return about.st_size, about.st_mtime_ns


def _open_zip(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise DataError(f"there is no folder or .zip file at {path}")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path} is not a readable .zip file ({error}); give a folder or a .zip file"
        ) from error


def _folder_members(folder: Path) -> list[str]:
    """Paths of all files below `folder`, relative to it; links to folders are followed, cycles are not."""
    members, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        members += [(Path(parent) / file).relative_to(folder).as_posix() for file in files]
    return members


def _is_image(member: str) -> bool:
    parts = PurePosixPath(member).parts
    safe = not member.startswith("/") and not any(
        part.startswith(".") or part == "__MACOSX" for part in parts
    )
    return safe and _suffix(member) in IMAGE_SUFFIXES


def _suffix(member: str) -> str:
    return PurePosixPath(member).suffix.lower()


def class_of(path: Path, member: str) -> str:
    """The class of an image: the name of its folder."""
    # Images that lie in no class folder form one class, named after the folder or archive.
    return PurePosixPath(member).parent.name or path.stem


def select(path: Path, members: Sequence[str], split: str | None, *, labelled: bool = True) -> list[str]:
    """The sorted image members of one split, after checks of the tree.

    Args:
        path: the folder or zip file, for messages.
        members: its files.
        split: see `read_images`.
        labelled: False for folders that are no classes, in which images may lie at any depth.

    Raises:
        DataError: there is no image, several splits and no choice, or images beside class folders.
    """
    images = sorted(member for member in members if _is_image(member))
    if not images:
        if databases := sorted(member for member in members if PurePosixPath(member).name == LMDB):
            raise DataError(_is_lmdb_in_words(path, PurePosixPath(databases[0]).parent))
        kinds = ", ".join(sorted(READ_SUFFIXES))
        raise DataError(f"{path} holds no image: expected class folders of files that end in {kinds}")
    # The last folder is the class, so a split is named by one of the folders above it.
    above = {member: PurePosixPath(member).parts[:-2] for member in images}
    splits = sorted(SPLIT_FOLDERS.intersection(*[set().union(*above.values())]))
    if split is None and len(splits) > 1:
        raise DataError(
            f"{path} holds the splits {', '.join(splits)}: choose one with split=, or split='all'"
        )
    if split is not None and split != "all":
        images = [member for member in images if split in above[member]]
        if not images:
            found = f"its splits are {', '.join(splits)}" if splits else "it is not divided into splits"
            raise DataError(f"{path} has no images under a folder named {split!r}: {found}")
    if not labelled:
        return images
    parents = [PurePosixPath(member).parent for member in images]
    ancestors = {ancestor for parent in set(parents) for ancestor in parent.parents}
    for member, parent in zip(images, parents, strict=True):
        if parent in ancestors:
            raise DataError(
                f"{path} holds {member} beside class folders: move it into a class folder or away"
            )
    return images


def _is_lmdb_in_words(path: Path, folder: PurePosixPath) -> str:
    """What to do with a path below which there is an lmdb database, and no image."""
    if not path.is_dir():
        return f"{path} holds the lmdb folder {folder}: unpack it, and give the folder to `gankit pack`"
    return (
        f"{path / folder} is an lmdb folder, as LSUN's are: write `gankit pack {path / folder} DST --size 128`, "
        "and load DST"
    )


class Files(Protocol):
    """What reads the members of a folder or an archive, from several threads; other processes open it on their own."""

    def read(self, member: str) -> bytes:
        """The bytes of a member."""

    def close(self) -> None:
        """Close the archive."""


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, member: str) -> bytes:
        about = (self.path / member).stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{self.path}: {member} is no regular file")
        _check_length(self.path, member, about.st_size)
        return (self.path / member).read_bytes()

    def close(self) -> None:
        pass


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path, self._archive = path, _open_zip(path)

    def __reduce__(self) -> tuple[type[_Zip], tuple[Path]]:
        return _Zip, (self.path,)

    def read(self, member: str) -> bytes:
        info = self._archive.getinfo(member)
        # What zipfile unpacks ends at the length that the archive states, so a stated length is a limit.
        _check_length(self.path, member, info.file_size)
        return self._archive.read(info)

    def close(self) -> None:
        self._archive.close()


def _check_length(path: Path, member: str, n: int) -> None:
    if n > MAX_BYTES:
        raise DataError(
            f"{path}: {member} has {tqdm.format_sizeof(n, 'B')}, and a picture may have "
            f"{tqdm.format_sizeof(MAX_BYTES, 'B')} at most"
        )


class Decoder:
    """Decodes images of a folder or an archive: name of a member -> uint8 ``[C, H, W]``, C = 1 for grey files, else 3.

    It can be called from several threads, and sent to other processes.

    Args:
        path: a folder, or a ``.zip`` file.
        size: side in pixels for `resize`, or None to keep images as they are.
        files: what reads the members, where `path` is something else.
    """

    def __init__(self, path: Path, size: int | None, files: Files | None = None) -> None:
        self.path, self.size = path, size
        self._files = files or (_Folder(path) if path.is_dir() else _Zip(path))

    def __call__(self, member: str) -> np.ndarray:
        """One image.

        Raises:
            DataError: it cannot be decoded, or has more than 8 bits per channel.
        """
        try:
            with self._open(member) as image:
                mode = image.mode
                if _orientation(image) != 1:
                    image = ImageOps.exif_transpose(image)
                if mode in _GREY_MODES | _COLOUR_MODES:
                    image = image.convert("L" if mode in _GREY_MODES else "RGB")
                    pixels = np.asarray(image if self.size is None else resize(image, self.size))
                    return (
                        pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
                    )
        except DataError:
            raise
        except Exception as error:  # decoders and archives raise a dozen unrelated types on damaged bytes
            # PIL names the buffer, whose address differs every time, and the system the whole path.
            about = getattr(error, "strerror", None) or str(error).partition(" <_io")[0]
            remedy = "" if _suffix(member) in READ_SUFFIXES else "; save it as .png or .jpg"
            raise DataError(
                f"{self.path}: cannot decode {member} ({type(error).__name__}: {about}){remedy}"
            ) from error
        # 16-bit and float files: PIL's conversion would clip them at 255 without a word.
        raise DataError(
            f"{self.path}: {member} has pixels of mode {mode!r}; convert it to 8 bits per channel"
        )

    def attempt(self, member: str) -> np.ndarray | DataError:
        """The same, with the error given back instead of raised."""
        try:
            return self(member)
        except DataError as error:
            return error

    def is_grey(self, member: str) -> bool:
        """Whether an image has one channel, by its header alone; True where there is none to be read."""
        try:
            with self._open(member) as image:
                return image.mode in _GREY_MODES
        except Exception:  # as above; what cannot be opened decides nothing
            return True

    def close(self) -> None:
        """Close the archive."""
        self._files.close()

    def _open(self, member: str) -> Image.Image:
        return Image.open(io.BytesIO(self._files.read(member)))


def _orientation(image: Image.Image) -> int:
    """How the camera was held, 1 for upright; 1 also where EXIF is damaged, as viewers have it."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of damaged EXIF, as many types as of damaged pictures
        return 1


def resize(image: Image.Image, size: int) -> Image.Image:
    """Centre crop to a square, then (antialiased) Lanczos resampling to ``size x size`` pixels.

    Args:
        image: 8-bit image of any width and height.
        size: side of the result in pixels.

    Returns:
        The image itself when it already has that size.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if (width, height) != (side, side):
        image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), Image.Resampling.LANCZOS)


def in_words(image: np.ndarray) -> str:
    """Width and height of an image ``[C, H, W]``."""
    return f"{image.shape[2]} x {image.shape[1]}"
