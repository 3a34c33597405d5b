"""What the benchmarks share: their flags, the clock, and what the machine was when they ran."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def parser(description: str | None, threads: str = "threads") -> argparse.ArgumentParser:
    """A command line with `--threads`, of which `threads` says what they do, and `--out`; a benchmark adds its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help=f"{threads} (default: 1)")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    return parser


def clock() -> float:
    """Processor time of all threads where there is one, wall-clock time otherwise."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def machine(threads: int, **more: object) -> dict[str, object]:
    """What the numbers depend on beside the program, printed as one line.

    Args:
        threads: of the work that is timed.
        more: what else a benchmark says, such as what its seconds are.
    """
    facts = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load before": round(os.getloadavg()[0], 2),
        "torch": str(torch.__version__),
        **more,
    }
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    return facts


def seconds_of(threads: int) -> str:
    """Of which time the seconds of `clock` are, in words."""
    return "of processor time" if threads == 1 else "by the clock"


def write(result: Mapping[str, Any], out: Path | None) -> None:
    """Write the numbers as JSON, if a file was named."""
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
