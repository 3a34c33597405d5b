"""Flags that several commands share, and the parser that says in one line what is wrong with them."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import NoReturn

Commands = argparse._SubParsersAction
"""What `add_subparsers` returns, to which each command adds itself."""


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; argparse would print every flag first."""

    flags: tuple[str, ...] = ()
    """Flags of all commands, to guess what a misspelt one means."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        near = [
            flag
            for word in unknown
            for flag in difflib.get_close_matches(word.partition("=")[0], self.flags, n=1)
        ]
        hint = f"did you mean {' '.join(near)}?" if near else f"`{self.prog} --help` lists what there is"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A whole number that PyTorch takes as a seed."""
    # PyTorch's CPU generator keeps 32 bits of a seed: larger ones would repeat the weights of smaller ones.
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**32 - 1}, got {text!r}")
    return int(text)


def common() -> Parser:
    """Where to compute, where datasets lie, and whether to show a bar."""
    common = Parser(add_help=False)
    common.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    common.add_argument(
        "--root",
        type=Path,
        help="folder of datasets and classifiers (default: $GANKIT_DATA, else a cache folder)",
    )
    common.add_argument("--quiet", action="store_true", help="no progress bar")
    return common


def reading() -> Parser:
    """Which samples of which run."""
    reading = Parser(add_help=False)
    reading.add_argument("folder", type=Path, help="folder of a run")
    which = reading.add_mutually_exclusive_group()
    which.add_argument(
        "--best", action="store_true", help="the checkpoint that `train --best` kept, not the newest"
    )
    which.add_argument(
        "--step", type=positive, help="the checkpoint of this step, which `train --keep-every` kept"
    )
    reading.add_argument(
        "--network",
        choices=("teacher", "generator"),
        default="teacher",
        help="averaged generator or the current one",
    )
    reading.add_argument("--sample-seed", type=seed, default=0, help="seed of z (default: %(default)s)")
    reading.add_argument("--truncation", type=float, help="largest |z| (default: none)")
    reading.add_argument(
        "--standing",
        type=positive,
        metavar="K",
        help="measure batch norm's statistics anew, over K batches of such z (default: those of training)",
    )
    return reading
