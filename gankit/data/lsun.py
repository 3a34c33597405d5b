"""LSUN as it is downloaded: folders of one lmdb database each, whose values are encoded pictures.

LSUN's download scripts unpack ``church_outdoor_train_lmdb/`` with ``data.mdb`` and ``lock.mdb``, which
`torchvision.datasets.LSUN` reads, too. The keys are hexadecimal digests, in the order in which lmdb sorts them; the
values are WebP files. A folder holds one part of one category, so that all its pictures are of one class.

`gankit pack church_outdoor_train_lmdb DST --size 128` decodes them as it does any other files. The package `lmdb` is
needed for that alone: ``pip install "gankit[lsun]"``.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np
from tqdm import tqdm

from gankit.data import archives, pack_writer
from gankit.data.archives import DataError

if TYPE_CHECKING:
    import lmdb

# lmdb refuses to open a database twice in one process; it is closed with the last one who reads it.
_environments: WeakValueDictionary[str, lmdb.Environment] = WeakValueDictionary()
_opening = threading.Lock()


def is_lmdb(path: Path) -> bool:
    """Whether a path is a folder that holds an lmdb database."""
    return (path / archives.LMDB).is_file()


def from_lmdb(path: Path, *, size: int | None = None, progress: bool = True) -> pack_writer.Source:
    """The pictures of an lmdb database, by their keys.

    A key becomes a name byte by byte (Latin-1), so that a hexadecimal key is its own name. Listing reads no picture,
    and the fingerprint has none in it: it is made of the keys, the number of the last transaction, and size and date
    of the file.

    Args:
        path: the folder.
        size: side in pixels of the packed pictures; None keeps pictures that already share one size.
        progress: show a bar if listing takes more than two seconds.

    Raises:
        DataError: the package `lmdb` is missing, there is no database, it is damaged or empty, or `size` is None and
            no picture can be decoded.
    """
    name = path.absolute().name
    members, fingerprint = _list(path, progress)
    decode = archives.Decoder(path, size, Values(path))
    return pack_writer.Source(
        name,
        None,
        size,
        members,
        np.zeros(len(members), dtype=np.int64),
        (name,),
        pack_writer.common_shape(decode, members),
        decode,
        fingerprint,
    )


class Values:
    """Reads the values of an lmdb database by the names of their keys (`archives.Files`).

    The database is opened at the first value that is asked for, once in each process.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._environment = path, None

    def __reduce__(self) -> tuple[type[Values], tuple[Path]]:
        return Values, (self.path,)

    def read(self, member: str) -> bytes:
        """The value of a key.

        Raises:
            KeyError: there is none.
            DataError: as for `from_lmdb`.
            lmdb.Error: the database is damaged at this place.
        """
        if self._environment is None:
            self._environment = _open(self.path)
        with self._environment.begin() as transaction:
            value = transaction.get(member.encode("latin-1"))
        if value is None:
            raise KeyError(member)
        return value

    def close(self) -> None:
        """Leave the database, which is closed when nobody else in this process reads it."""
        self._environment = None


def _list(path: Path, progress: bool) -> tuple[list[str], str]:
    """Names of all keys, in lmdb's order, and the fingerprint."""
    environment = _open(path)
    import lmdb

    about = (path / archives.LMDB).stat()
    digest = hashlib.sha256(
        repr((about.st_size, about.st_mtime_ns, environment.info()["last_txnid"])).encode()
    )
    members: list[str] = []
    try:
        entries = environment.stat()["entries"]
        with environment.begin() as transaction:
            keys = tqdm(
                transaction.cursor().iternext(
                    values=False
                ),  # with their values, it would read the whole file
                f"keys of {path.name}",
                entries,
                unit="key",
                disable=None if progress else True,
                delay=2,
            )
            for key in keys:
                members.append(key.decode("latin-1"))
                digest.update(struct.pack("<H", len(key)) + key)
    except lmdb.Error as error:
        raise DataError(f"{path / archives.LMDB} is damaged ({error}): get it again") from error
    if len(members) != entries:
        raise DataError(
            f"{path / archives.LMDB} is damaged: it has {len(members):,} keys and counts {entries:,}: get it again"
        )
    if not members:
        raise DataError(f"{path / archives.LMDB} is empty: there is no picture in it")
    return members, digest.hexdigest()


def _open(path: Path) -> lmdb.Environment:
    """The database of a folder, which this process may have opened already."""
    try:
        import lmdb
    except ImportError:
        raise DataError(
            f'{path} is an lmdb folder: `pip install "gankit[lsun]"` installs what reads it'
        ) from None
    real, file = os.path.realpath(path), path / archives.LMDB
    with _opening:
        if (environment := _environments.get(real)) is not None:
            return environment
        if not file.is_file():
            raise DataError(f"{path} is no lmdb folder: there is no {file}")
        try:
            # Without a lock, nothing is written, so that a folder that is read-only can be read.
            environment = lmdb.open(real, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"{file} cannot be opened as an lmdb database ({error})") from error
        # The file is mapped: to read past its end would end the process.
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if (found := file.stat().st_size) < needed:
            environment.close()
            raise DataError(
                f"{file} has {found:,} bytes instead of {needed:,}: it was cut short, get it again"
            )
        _environments[real] = environment
        return environment
