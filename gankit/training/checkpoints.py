"""The files of a run: checkpoints and the log. Written to a temporary name, then renamed; loading runs no code."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import platform
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gankit.files import CheckpointError, replacing
from gankit.version import __version__

BEST = "best.pt"
"""Name of the checkpoint of a run's best step (`Best`), which is kept beside the newest ones."""


_MAPPINGS = ("G", "D", "teacher", "g_opt", "d_opt", "states", "versions")
PARTS: dict[str, Callable[[Any], bool]] = {
    "step": lambda x: isinstance(x, int) and x >= 0,
    "seconds": lambda x: isinstance(x, int | float),
    "seeds": lambda x: isinstance(x, list) and len(x) > 0 and all(isinstance(seed, int) for seed in x),
    **dict.fromkeys(_MAPPINGS, lambda x: isinstance(x, dict)),
    "streams": lambda x: isinstance(x, dict) and _are_tensors(x.get("states")),
    "global_streams": lambda x: _are_tensors(x) and len(x) > 0,
    "data": lambda x: isinstance(x, dict) and x.keys() >= {"name", "shape", "classes", "checksum"},
    "history": lambda x: isinstance(rows := json.loads(x), list) and all(map(_is_row, rows)),
    "recipe": lambda x: isinstance(json.loads(x), dict | None),
}
"""What every checkpoint holds, and what tells that it may be that."""


def write(state: dict[str, Any], path: Path) -> None:
    """Save a checkpoint.

    Raises:
        OSError: if the disk is full or the folder cannot be written; `path` is left as it was.
    """
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # PyTorch's own writer reports a full disk by the latter
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        if "unexpected pos" in str(error):
            reason = "the disk took only a part of it; is it full?"
        kept = latest(path.parent)
        hint = f"; the earlier {kept.name} is kept" if kept else ""
        raise OSError(f"checkpoint {path} could not be written ({reason}){hint}") from error


def read(path: Path) -> dict[str, Any]:
    """Load a checkpoint written by `write`, as tensors and plain values only.

    Raises:
        CheckpointError: if it is missing, damaged, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # what torch.save writes; it has a checksum of every tensor
            if (member := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {member}")
        # Random states must stay on the CPU, and load_state_dict moves the rest by itself.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values and was not loaded"
        ) from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        others = [other for other in saved(path.parent) if other != path]
        hint = (
            f"; the earlier {others[-1].name} is kept: remove the damaged file to go on from it"
            if others
            else ""
        )
        raise CheckpointError(f"checkpoint {path} is truncated or damaged{hint}") from error
    if not isinstance(state, dict) or (missing := PARTS.keys() - state.keys()):
        lacks = f": it lacks {', '.join(sorted(missing))}" if isinstance(state, dict) else ""
        raise CheckpointError(f"{path} is no checkpoint of a run{lacks}")
    for part, is_good in PARTS.items():
        with loading(path, part):
            if not is_good(state[part]):
                raise ValueError(f"it is {str(state[part])[:60]!r}")
    return state


@contextlib.contextmanager
def loading(path: Path, part: str) -> Iterator[None]:
    """What goes wrong in this block is the fault of a part of the checkpoint, and is told as that.

    Raises:
        CheckpointError: naming the checkpoint and the part.
    """
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged, its {part!r} cannot be read: {error}") from error


def _are_tensors(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(one, torch.Tensor) for one in x)


def _is_row(x: Any) -> bool:
    return isinstance(x, dict) and isinstance(x.get("step"), int)


def read_row(line: str) -> dict[str, Any] | None:
    """A row of `log.jsonl`; None for a line that is none, as the last one of a killed run may be."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if _is_row(row) else None


def check_architecture(state: Mapping[str, Any], nets: Mapping[str, nn.Module], path: Path) -> None:
    """Refuse a checkpoint of another network, naming the first parameter that differs.

    Raises:
        CheckpointError: naming the file, the network and the parameter.
    """
    for name, net in nets.items():
        ours = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        theirs = {key: tuple(value.shape) for key, value in state[name].items()}
        for key, buffer in net.named_buffers():  # a buffer may change its shape during training
            if key in theirs and key in ours and ours[key] != theirs[key]:
                buffer.resize_(theirs[key])
                ours[key] = theirs[key]
        for key in dict.fromkeys([*ours, *theirs]):
            if ours.get(key) != theirs.get(key):
                raise CheckpointError(
                    f"{path} is of another architecture: {name}'s {key!r} has shape {theirs.get(key, 'none')} "
                    f"there and {ours.get(key, 'none')} here"
                )


def check_data(stored: Mapping[str, Any], here: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with other data than those of the run.

    Raises:
        CheckpointError: naming the checkpoint and what differs.
    """
    for name, value in here.items():
        if stored.get(name) != value and name != "name":
            what = (
                "samples or labels differ (checksum)"
                if name == "checksum"
                else f"{name} was {stored.get(name)!r}"
            )
            raise CheckpointError(
                f"{path} was trained on other data than {here['name']!r} is now: {what}, and is {value!r} here. "
                "Give the same data to go on, or start another run"
            )


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step goes."""
    return folder / f"checkpoint-{step:08d}.pt"


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-????????.pt"))


def latest(folder: str | Path) -> Path | None:
    """The newest checkpoint, or None."""
    found = saved(Path(folder))
    return found[-1] if found else None


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint that `path_of` named."""
    return int(path.stem.removeprefix("checkpoint-"))


def prune(folder: Path, keep: int, every: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints, and what a killed run left under temporary names.

    Those whose step is a multiple of `every` stay, and so does the best one (`Best`), which has a name of its own.
    """
    for path in saved(folder)[:-keep]:
        if every is None or step_of(path) % every:
            path.unlink(missing_ok=True)
    for path in (*folder.glob(".checkpoint-*.tmp"), *folder.glob(f".{BEST}.*.tmp")):
        path.unlink(missing_ok=True)


class Best:
    """`best.pt`: the checkpoint of the step at which a logged number was lowest so far.

    The file says itself how low that was, so a resumed run goes on comparing with it.

    Args:
        folder: of the run.
        name: of the number in the rows of the log.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.name = folder / BEST, name
        self.lowest = math.inf
        if self.path.exists():
            rows = json.loads(read(self.path)["history"])
            self.lowest = self._number(rows[-1]) if rows and name in rows[-1] else math.inf

    def improved(self, row: Mapping[str, Any]) -> bool:
        """Whether this row's number is the lowest so far, which it then is from now on.

        Of several replicas the median counts. What is NaN or infinite (in any replica, if NaN) is never the lowest.

        Raises:
            ValueError: if the row does not hold the number; the message lists what it holds.
        """
        if self.name not in row:
            raise ValueError(
                f"best must be a number that the callback returns, got {self.name!r}; logged are {', '.join(row)}"
            )
        number = self._number(row)
        if not number < self.lowest or math.isinf(number):
            return False
        self.lowest = number
        return True

    def _number(self, row: Mapping[str, Any]) -> float:
        return float(np.median(np.asarray(row[self.name], dtype=float)))


def versions() -> dict[str, str]:
    """What a result may depend on."""
    return {
        "gankit": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


class Log:
    """`log.jsonl`: one JSON object per row.

    Args:
        folder: of the run; made if need be.
        after: rows of later steps are dropped. A killed run may have logged past its last checkpoint, and
            will now do those steps again.
    """

    def __init__(self, folder: Path, after: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        rows = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                row = read_row(line)  # None for the line a kill cut short
                if row is not None and row["step"] <= after:
                    rows.append(row)
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")
