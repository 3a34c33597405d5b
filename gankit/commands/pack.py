"""`gankit pack` and `gankit verify`: pictures decoded once, in one memory-mapped array."""

from __future__ import annotations

import argparse
from pathlib import Path

from gankit import data
from gankit.commands import flags
from gankit.data import lsun, pack_writer, packs

LISTED = 10
"""How many of the skipped pictures are printed; the header lists all."""


def add(commands: flags.Commands) -> None:
    """The flags of `pack` and of `verify`."""
    command = commands.add_parser(
        "pack",
        help="decode pictures once, for training at the speed of memory",
        description="Decode a folder, a .zip file, an lmdb folder of LSUN or a torchvision set once, into one "
        "memory-mapped array that `--data DST` reads. Killed and started again, it goes on where it was and ends with "
        "the same bytes. "
        f"Pictures are brought to --size by {packs.RULE}.",
    )
    command.add_argument(
        "source", metavar="SRC", help="folder or .zip of class folders, lmdb folder, or name of a data set"
    )
    command.add_argument("target", metavar="DST", type=Path, help="folder to write")
    command.add_argument(
        "--size", type=flags.positive, help="side in pixels (default: they all have one size)"
    )
    command.add_argument("--split", help="part to pack, such as train")
    command.add_argument(
        "--unlabelled", action="store_true", help="folders are no classes: one class for all pictures"
    )
    command.add_argument(
        "--strict", action="store_true", help="refuse a damaged picture instead of skipping it"
    )
    command.add_argument("--workers", type=flags.positive, help="processes (default: one for each core)")
    command.add_argument(
        "--root", type=Path, help="folder of datasets (default: $GANKIT_DATA, else a cache folder)"
    )
    command.add_argument("--download", action="store_true", help="fetch a torchvision set if it is missing")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=pack)

    command = commands.add_parser("verify", help="read a whole pack and compare its checksums")
    command.add_argument("folder", type=Path, help="folder of a pack")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=verify)


def pack(arguments: argparse.Namespace) -> None:
    """Write a pack, or go on writing it."""
    size, split = arguments.size, arguments.split
    if arguments.source in data.NAMES:
        if arguments.unlabelled:
            raise ValueError(f"--unlabelled is about folders, and {arguments.source} has classes of its own")
        loaded = data.load(
            arguments.source, root=arguments.root, size=size, split=split, download=arguments.download
        )
        source = pack_writer.from_dataset(loaded, size=size, split=split)
    else:
        path = data.find(arguments.source, arguments.root)
        if arguments.target.resolve() == path.resolve():
            raise ValueError(f"DST must be a new folder, and {arguments.target} is SRC: give another name")
        if lsun.is_lmdb(path):
            if split is not None:
                raise ValueError(
                    f"--split is about folders, and {path} is one part: give the folder of the other"
                )
            source = lsun.from_lmdb(path, size=size, progress=not arguments.quiet)
        else:
            source = pack_writer.from_files(path, size=size, split=split, labelled=not arguments.unlabelled)
    header = pack_writer.pack(
        source,
        arguments.target,
        workers=arguments.workers,
        strict=arguments.strict,
        progress=not arguments.quiet,
    )
    for reason in header.skipped[:LISTED]:
        print(f"skipped: {reason}")
    if len(header.skipped) > LISTED:
        print(f"skipped: {len(header.skipped) - LISTED:,} more, see {arguments.target / 'pack.json'}")
    print(f"{arguments.target}: {_in_words(header)}, {len(header.skipped):,} skipped")


def verify(arguments: argparse.Namespace) -> None:
    """Compare every checksum of a pack."""
    header = packs.verify(arguments.folder, progress=not arguments.quiet)
    print(f"{arguments.folder}: {_in_words(header)}, every checksum is right")


def _in_words(header: packs.Header) -> str:
    n, *shape = header.shape
    return f"{n:,} pictures of {' x '.join(map(str, shape))} in {len(header.classes):,} classes"
