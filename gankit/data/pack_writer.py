"""Writing packs: decode many pictures once, in several processes, so that training need not (`gankit.data.packs`).

A pack is written into a hidden folder beside its place, ``.NAME.partial``, and moved there when it is whole. That
folder keeps a plan (what is packed, and by which rule) and a line for each block of pictures that is done: started
again under the same plan, packing goes on with the blocks that are missing. The bytes do not depend on how often it
was interrupted, nor on the number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

import gankit
from gankit.data import archives, packs
from gankit.data.archives import DataError
from gankit.data.dataset import Dataset
from gankit.data.packs import BLOCK, Header
from gankit.files import replacing

Decode = Callable[[str], np.ndarray]
BLOCKS_PER_WORKER = 4
"""Fewer are done sooner than another process is started."""


@dataclass(frozen=True)
class Source:
    """Pictures that can be packed.

    Attributes:
        name: of the folder, archive or data set.
        split: the part of it, or None.
        size: side in pixels that was asked for, or None.
        members: a name for each picture, in order.
        labels: int64 ``[len(members)]``.
        classes: the name of each label.
        shape: ``(C, H, W)`` of every picture.
        decode: name -> uint8 picture of that H and W, or of one channel where C is 3.
        fingerprint: changes when the pictures do.
        levels: the value that is white.
        in_memory: True where `decode` cannot be sent to other processes and has no need of them.
    """

    name: str
    split: str | None
    size: int | None
    members: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    decode: Decode
    fingerprint: str
    levels: int = 255
    in_memory: bool = False


def from_files(
    path: Path, *, size: int | None = None, split: str | None = None, labelled: bool = True
) -> Source:
    """The pictures of a folder or of a zip file, see `gankit.data.archives.read_images`.

    Args:
        path: the folder or ``.zip`` file.
        size: side in pixels of the packed pictures; None keeps pictures that already share one size.
        split: the part to pack.
        labelled: False if folders are no classes: all pictures are then of one class.

    Raises:
        DataError: there are no pictures, or `size` is None and none can be decoded.
    """
    members = archives.select(path, archives.list_files(path), split, labelled=labelled)
    names = [archives.class_of(path, member) if labelled else path.stem for member in members]
    classes = tuple(sorted(set(names)))
    number = {name: label for label, name in enumerate(classes)}
    decode = archives.Decoder(path, size)
    return Source(
        path.name,
        split,
        size,
        members,
        np.array([number[name] for name in names], dtype=np.int64),
        classes,
        common_shape(decode, members),
        decode,
        archives.fingerprint(path, members),
    )


def common_shape(decode: archives.Decoder, members: Sequence[str]) -> tuple[int, int, int]:
    """``(C, H, W)`` of pictures that are cropped and resized to one size, or else all have that of the first one.

    Raises:
        DataError: they keep their size, and none can be decoded.
    """
    # Grey only if all pictures are, so this ends at the first one in colour.
    channels = 1 if all(map(decode.is_grey, members)) else 3
    if decode.size is not None:
        return channels, decode.size, decode.size
    attempts = map(decode.attempt, members)
    first = next((picture for picture in attempts if not isinstance(picture, DataError)), None)
    if first is None:
        why = archives.reason(decode.attempt(members[0]))
        raise DataError(f"{decode.path}: not one of {len(members):,} pictures can be decoded ({why})")
    return channels, *first.shape[1:]


def from_dataset(data: Dataset, *, size: int | None = None, split: str | None = None) -> Source:
    """The pictures of a data set in memory, such as torchvision's, already of that size.

    Raises:
        DataError: it holds points.
    """
    if data.images.ndim != 4:
        raise DataError(f"{data.name!r} is a set of points, and pictures are packed")
    images = data.images.numpy()
    return Source(
        data.name,
        split,
        size,
        [str(i) for i in range(len(data))],
        data.labels.numpy(),
        data.classes,
        images.shape[1:],
        lambda member: images[int(member)],
        hashlib.sha256(images.tobytes()).hexdigest(),
        data.levels,
        in_memory=True,
    )


def pack(
    source: Source,
    target: Path,
    *,
    workers: int | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Header:
    """Write a pack, or go on writing it.

    Args:
        source: what to pack.
        target: folder of the pack; if it is already there, and of this source, nothing is done.
        workers: processes that decode; None takes one for each core.
        strict: refuse a picture that cannot be decoded. Otherwise it is skipped, listed in the header, and its place
            is taken by one from the end.
        progress: show a bar.

    Returns:
        The pack's header.

    Raises:
        DataError: `target` is something else, a picture is refused, none can be decoded, sizes differ and none was
            asked for, or a process died.
        OSError: the disk is full or cannot be written.
    """
    partial = target.with_name(f".{target.name}.partial")
    if target.exists():
        header = _already_there(source, target)
        shutil.rmtree(partial, ignore_errors=True)
        return header
    workers = workers or len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
    with _locked(partial):
        job = _Job(source, partial)
        done = job.resume()
        if strict and (bad := [reason for _, skipped in done.values() for reason in skipped.values()]):
            raise DataError(f"{source.name}: {bad[0]}")
        _check_space(job)
        with tqdm(
            total=len(source.members), desc=target.name, unit="image", disable=None if progress else True
        ) as bar:
            bar.update(sum(len(job.block(start)) for start in done))
            for start, digest, skipped in _decode_missing(job, done, workers, strict):
                done[start] = (digest, skipped)
                job.write_down(start, digest, skipped)
                bar.update(len(job.block(start)))
        header = job.finish(done)
        os.rename(partial / "pack", target)
    shutil.rmtree(partial, ignore_errors=True)
    return header


# --- Pieces -------------------------------------------------------------------------------------------------------

# Number of a picture -> what is wrong with it.
Skipped = dict[int, str]
# First picture of a block -> digest of its good pictures, and the others.
Done = dict[int, tuple[str, Skipped]]


class _Job:
    """The files of a pack that is being written."""

    def __init__(self, source: Source, partial: Path) -> None:
        self.source, self.partial = source, partial
        self.n = len(source.members)
        self.images = partial / "pack" / "images.npy"
        self.offset = len(packs.npy_header(np.uint8, (self.n, *source.shape)))
        self.row = int(np.prod(source.shape))
        self.journal = partial / "done.jsonl"
        self.versions = {"gankit": gankit.__version__, "pillow": PIL.__version__}

    def block(self, start: int) -> range:
        """Numbers of the pictures of a block."""
        return range(start, min(start + BLOCK, self.n))

    def resume(self) -> Done:
        """Make the files, or find out what is done: the blocks whose bytes are still what the journal says."""
        source, done = self.source, {}
        about = (source.name, source.split, source.size, source.shape, source.classes, source.fingerprint)
        labels = hashlib.sha256(source.labels.tobytes()).hexdigest()
        plan = packs.to_json([packs.FORMAT, packs.RULE, BLOCK, about, labels, self.versions])
        kept = self.partial / "plan.json"
        if not kept.exists() or kept.read_bytes() != plan:
            shutil.rmtree(self.partial / "pack", ignore_errors=True)
            self.journal.unlink(missing_ok=True)
            with replacing(kept) as temporary:
                temporary.write_bytes(plan)
        self.images.parent.mkdir(exist_ok=True)
        with open(self.images, "r+b" if self.images.exists() else "w+b") as f:
            f.write(packs.npy_header(np.uint8, (self.n, *source.shape)))
            f.truncate(self.offset + self.n * self.row)  # what was cut or never written reads as zeros
            for line in self.journal.read_text("utf-8").splitlines() if self.journal.exists() else ():
                with contextlib.suppress(
                    ValueError, TypeError, AttributeError, LookupError
                ):  # one cut short, or no row
                    start, digest, skipped = json.loads(line)
                    skipped = {int(i): reason for i, reason in skipped.items()}
                    good = [i for i in self.block(start) if i not in skipped]
                    if packs.digest_of_rows(f, self.offset, self.row, good) == digest:
                        done[start] = (digest, skipped)
        return done

    def write_down(self, start: int, digest: str, skipped: Skipped) -> None:
        """Add a block to the journal."""
        with open(self.journal, "a", encoding="utf-8") as f:
            f.write(
                "\n" + json.dumps([start, digest, skipped])
            )  # "\n" first: it ends a line that a kill cut short

    def finish(self, done: Done) -> Header:
        """Close the gaps that skipped pictures left, and write labels, members and header.

        Only pictures past the new end move, and into gaps: done twice, it does the same.
        """
        source = self.source
        skipped = dict(sorted(item for _, bad in done.values() for item in bad.items()))
        n = self.n - len(skipped)
        if n == 0:
            first = f" ({next(iter(skipped.values()))})" if skipped else ""
            raise DataError(f"{source.name}: not one of {self.n:,} pictures can be decoded{first}")
        order = np.arange(n)
        gaps = [i for i in skipped if i < n]
        order[gaps] = [i for i in range(n, self.n) if i not in skipped]
        with open(self.images, "r+b") as f:
            for gap in gaps:
                f.seek(self.offset + int(order[gap]) * self.row)
                picture = f.read(self.row)
                f.seek(self.offset + gap * self.row)
                f.write(picture)
            f.seek(0)
            f.write(packs.npy_header(np.uint8, (n, *source.shape)))
            f.truncate(self.offset + n * self.row)
            f.flush()
            os.fsync(f.fileno())
            digests = []
            for start in range(0, n, BLOCK):
                rows = range(start, min(start + BLOCK, n))
                untouched = not done[start][1] and rows == self.block(start)
                digests.append(
                    done[start][0] if untouched else packs.digest_of_rows(f, self.offset, self.row, rows)
                )
        folder = self.images.parent
        np.save(folder / "labels.npy", source.labels[order])
        (folder / "members.json").write_bytes(packs.to_json([source.members[i] for i in order]))
        header = Header(
            source.name,
            source.split,
            source.size,
            packs.AS_THEY_ARE if source.size is None else packs.RULE,
            [n, *source.shape],
            source.levels,
            list(source.classes),
            list(skipped.values()),
            digests,
            packs.digest_of_file(folder / "labels.npy"),
            packs.digest_of_file(folder / "members.json"),
            self.versions,
        )
        (folder / "pack.json").write_bytes(packs.to_json(asdict(header)))
        return header


def _already_there(source: Source, target: Path) -> Header:
    """The header of a pack that was written before, if it is of the same source.

    Raises:
        DataError: it is not, or `target` is no pack.
    """
    if packs.is_pack(target):
        header = packs.read_header(target)
        n = header.shape[0] + len(header.skipped)
        theirs = (header.source, header.split, header.size, tuple(header.classes), n)
        if theirs == (source.name, source.split, source.size, source.classes, len(source.members)):
            return header
        about = f"a pack of {header.source} (split {header.split}, size {header.size})"
        raise DataError(f"{target} is {about}: remove that pack, or give another name")
    # It may hold originals, so that nobody is told to remove it.
    raise DataError(f"{target} exists and is no pack: give another name")


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Keep a second process from writing the same pack; the lock ends with the process that holds it."""
    partial.mkdir(parents=True, exist_ok=True)
    with open(partial / "lock", "w") as f:
        try:
            import fcntl

            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows has no such locks
            pass
        except BlockingIOError:
            raise DataError(f"another process is writing into {partial}") from None
        yield


def _check_space(job: _Job) -> None:
    free = shutil.disk_usage(job.partial).free
    written = getattr(job.images.stat(), "st_blocks", 0) * 512  # of a sparse file, only what it holds
    if (needed := job.n * job.row - written) > free:
        have, need = (tqdm.format_sizeof(n, "B") for n in (free, needed))
        raise DataError(
            f"{job.partial.parent} has {have} free, and the pack needs {need} more: {needed - free:,} bytes too few"
        )


def _decode_missing(job: _Job, done: Done, workers: int, strict: bool) -> Iterator[tuple[int, str, Skipped]]:
    """Decode the blocks that are not done, as they become ready: first picture, digest, skipped pictures."""
    source = job.source
    missing = [start for start in range(0, job.n, BLOCK) if start not in done]

    def arguments(start: int) -> tuple[Any, ...]:
        members = source.members[start : start + BLOCK]
        return start, members, source.shape, str(job.images), job.offset + start * job.row, strict

    workers = min(workers, len(missing) // BLOCKS_PER_WORKER)
    if source.in_memory or workers <= 1:
        for start in missing:
            yield start, *_write_block(source.decode, *arguments(start))
        return
    # Not forked: a fork of a process with threads, such as PyTorch's, can wait for ever.
    pool: Executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_set_decoder, initargs=(source.decode,)
    )
    try:
        futures: dict[Future[tuple[str, Skipped]], int] = {
            pool.submit(_write_block_of_worker, *arguments(start)): start for start in missing
        }
        for future in as_completed(futures):
            yield futures.pop(future), *future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes pictures died, perhaps for want of memory; the same command goes on, and "
            "--workers asks for fewer"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_decoder: Decode | None = None
"""In a process that decodes, what it decodes with: made once, because opening a large zip file takes seconds."""


def _set_decoder(decode: Decode) -> None:
    global _decoder
    _decoder = decode
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, and one of them answers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A pool's processes wait for work for ever if the one that made them is killed.
    multiprocessing.parent_process().join()
    os._exit(1)


def _write_block_of_worker(*arguments: Any) -> tuple[str, Skipped]:
    return _write_block(_decoder, *arguments)


def _write_block(
    decode: Decode,
    start: int,
    members: Sequence[str],
    shape: tuple[int, int, int],
    path: str,
    offset: int,
    strict: bool,
) -> tuple[str, Skipped]:
    """Decode neighbouring pictures and write them where they belong.

    Returns:
        SHA-256 of the good ones, and what is wrong with the others.
    """
    rows, skipped = np.zeros((len(members), *shape), dtype=np.uint8), {}
    for i, member in enumerate(members):
        try:
            picture = decode(member)
        except DataError as error:
            if strict:
                raise
            skipped[start + i] = archives.reason(error)
            continue
        if picture.shape[1:] != shape[1:]:
            raise DataError(
                f"{member} is {archives.in_words(picture)} and others are {shape[2]} x {shape[1]}: "
                "give a size to crop and resize them to one"
            )
        rows[i] = picture
    # Written, not mapped: a full disk is then an error, and would be a dead process.
    with open(path, "r+b", buffering=0) as f:
        f.seek(offset)
        with io.BufferedWriter(f) as buffered:
            buffered.write(rows.data)
    good = [i for i in range(len(members)) if start + i not in skipped]
    return hashlib.sha256(rows[good].data).hexdigest(), skipped
