"""Folders and zip files of class folders of images, decoded to one uint8 array.

`read_images` is what `gankit.data.load` calls for a path. The class of an image is the name of the folder
that holds it, so ``cats/001.png`` and ``train/cats/001.png`` are both of class ``cats``. Nothing is unpacked:
members of a zip file are decoded from memory.
"""

import io
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm


class DataError(ValueError):
    """Data that is missing, damaged or asked for wrongly; the message is one sentence that says why."""


IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
SPLIT_FOLDERS = frozenset({"train", "test", "val", "valid", "validation"})
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"})


def read_images(
    path: str | Path, *, split: str | None = None, size: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Decode every image of a folder or a zip file.

    Images are grey (one channel) when all files are, and RGB otherwise; an alpha channel is dropped. Hidden
    files, ``__MACOSX``, members whose path leaves the archive and files that are not images (by their suffix)
    are ignored. Images come in the order of their sorted paths.

    Args:
        path: a folder, or a ``.zip`` file.
        split: keep only the images under a folder of this name (``"train"``, say); ``"all"`` keeps all, and
            so does None, except that it refuses a tree that divides itself into several splits.
        size: side in pixels: centre crop to a square, then Lanczos resampling (antialiased). None keeps the
            images as they are and asks that they share one size.

    Returns:
        images uint8 ``[N, C, H, W]``, labels int64 ``[N]``, and the class names in sorted order.

    Raises:
        DataError: the path is neither a folder nor a readable zip file, it holds no image (of that split), an
            image cannot be decoded (the message names it), or sizes differ and `size` is None.
    """
    path = Path(path)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise DataError(f"size must be a positive number of pixels or None, got {size!r}")
    if path.is_dir():
        members = _folder_members(path)
        return _decode_all(path, members, lambda member: (path / member).read_bytes(), split, size)
    if not path.is_file():
        raise DataError(f"there is no folder or .zip file at {path}")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path} is not a readable .zip file ({error}); give a folder or a .zip file"
        ) from error
    with archive:
        members = [info.filename for info in archive.infolist() if not info.is_dir()]
        return _decode_all(path, members, archive.read, split, size)


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
    return safe and PurePosixPath(member).suffix.lower() in IMAGE_SUFFIXES


def _class_of(path: Path, member: str) -> str:
    # Images that lie in no class folder form one class, named after the folder or archive.
    return PurePosixPath(member).parent.name or path.stem


def _select(path: Path, members: list[str], split: str | None) -> list[str]:
    """The sorted image members of one split, after checks of the tree."""
    images = sorted(member for member in members if _is_image(member))
    if not images:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
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
    parents = [PurePosixPath(member).parent for member in images]
    ancestors = {ancestor for parent in set(parents) for ancestor in parent.parents}
    for member, parent in zip(images, parents, strict=True):
        if parent in ancestors:
            raise DataError(
                f"{path} holds {member} beside class folders: move it into a class folder or away"
            )
    return images


def _decode_all(
    path: Path, members: list[str], read: Callable[[str], bytes], split: str | None, size: int | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    members = _select(path, members, split)
    classes = tuple(sorted({_class_of(path, member) for member in members}))
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[_class_of(path, member)] for member in members], dtype=np.int64)

    decoded: list[np.ndarray] = []
    # PIL releases the interpreter lock while it decodes, so threads are enough.
    pool = ThreadPoolExecutor()
    try:
        jobs = pool.map(lambda member: _decode(path, member, read, size), members)
        bar = tqdm(jobs, total=len(members), desc=path.name, unit="image", disable=None, delay=2)
        for member, image in zip(members, bar, strict=True):
            decoded.append(image)
            if image.shape[1:] != decoded[0].shape[1:]:
                raise DataError(
                    f"{path} holds images of several sizes ({members[0]} is {_size(decoded[0])}, {member} is "
                    f"{_size(image)}): give size= to crop and resize them to one"
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, nothing more is decoded

    channels = max(image.shape[0] for image in decoded)
    images = np.empty((len(decoded), channels, *decoded[0].shape[1:]), dtype=np.uint8)
    for index, image in enumerate(decoded):
        images[index] = image  # a grey image among RGB ones is repeated over the channels
        decoded[index] = None  # frees it: the array and the list are never both whole
    return images, labels, classes


def _decode(path: Path, member: str, read: Callable[[str], bytes], size: int | None) -> np.ndarray:
    """One image as uint8 ``[C, H, W]``, C = 1 for grey files and 3 for the rest."""
    try:
        with Image.open(io.BytesIO(read(member))) as image:
            mode = image.mode
            if mode in _GREY_MODES | _COLOUR_MODES:
                image = image.convert("L" if mode in _GREY_MODES else "RGB")
                pixels = np.asarray(image if size is None else resize(image, size))
                return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except Exception as error:  # decoders and zip raise a dozen unrelated types on damaged bytes
        raise DataError(f"{path}: cannot decode {member} ({type(error).__name__}: {error})") from error
    # 16-bit and float files: PIL's conversion would clip them at 255 without a word.
    raise DataError(f"{path}: {member} has pixels of mode {mode!r}; convert it to 8 bits per channel")


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


def _size(image: np.ndarray) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"
