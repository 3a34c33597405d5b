"""What every figure module shares: where its numbers come from, where they go, and its command line."""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from gankit.files import replacing

RESULTS = Path(__file__).parent / "results"
"""Committed results, one JSON file per figure module: ``<paper>/<module>.json``."""


def device_name() -> str:
    """The processor in words, and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU: {name}, {cores} cores"


def stamp(
    wall_time: float,
    seeds: Sequence[int] = (),
    packages: Sequence[str] = ("numpy", "scipy", "sympy"),
    device: str | None = None,
) -> dict[str, Any]:
    """Where a result comes from.

    Args:
        wall_time: seconds the computation took.
        seeds: the seeds used; empty where nothing is random.
        packages: whose versions matter.
        device: in words; None for this machine's processor.

    Returns:
        "seeds", "versions", "device", "wall_time_s" and "date" (ISO 8601), ready for JSON.
    """
    return {
        "seeds": [int(seed) for seed in seeds],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": device or device_name(),
        "wall_time_s": round(wall_time, 3),
        "date": datetime.date.today().isoformat(),
    }


def rounded(values: np.ndarray | Sequence[float] | float, digits: int = 5) -> Any:
    """Numbers for JSON: nested lists, `digits` significant digits, None for infinities and missing values.

    Args:
        values: a number or an array of any shape.
        digits: significant digits kept, >= 1.
    """
    if np.ndim(values) > 0:
        return [rounded(value, digits) for value in np.asarray(values)]
    value = float(values)
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def spread(values: np.ndarray, digits: int = 5) -> dict[str, Any]:
    """Median, quartiles and extremes of one number over seeds.

    Args:
        values: ``[S]``.
        digits: significant digits kept.

    Returns:
        "median", "q25", "q75", "min" and "max"; None where that is infinite.
    """
    # "lower" picks one of the seeds' own values: between a number and infinity there is no middle.
    names = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    method = "linear" if np.isfinite(values).all() else "higher"
    return {name: rounded(np.quantile(values, q, method=method), digits) for name, q in names.items()}


def save(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON, under a temporary name first: a file of this name is always a whole one.

    Raises:
        ValueError: a number in the result is infinite or missing, which JSON cannot say.
    """
    try:
        text = json.dumps(result, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise ValueError(
            f"the result for {path.name} holds inf or nan: pass its numbers through rounded()"
        ) from error
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load(name: str) -> dict[str, Any]:
    """A committed result.

    Args:
        name: path below `RESULTS` without its ending, such as "leakyema/fig11_real_parts".

    Raises:
        FileNotFoundError: there is none; the message names those that exist.
    """
    path = RESULTS / f"{name}.json"
    if not path.exists():
        known = sorted(str(p.relative_to(RESULTS).with_suffix("")) for p in RESULTS.rglob("*.json"))
        raise FileNotFoundError(f"no result '{name}'; there are {known}")
    return json.loads(path.read_text(encoding="utf-8"))


def options_of(
    compute: Callable[..., Any], more: Callable[..., Any] | None = None
) -> dict[str, tuple[type, Any, str]]:
    """Numbers and words that a function takes by name: name -> (type, default, what its docstring says of it).

    Args:
        compute: with defaults, and an "Args" section that explains them.
        more: the function to which `compute` hands what it does not name itself, if there is one.
    """
    functions = [compute] if more is None else [compute, more]
    told: dict[str, str] = {}
    found: dict[str, tuple[Any, Any]] = {}
    for function in functions:
        told = _arguments(inspect.getdoc(function) or "") | told
        for name, parameter in inspect.signature(function).parameters.items():
            # Lists, runs and whatever else a shell cannot say are left to those who call from Python.
            kind = {"int | None": int, "str | None": str, "float | None": float}.get(
                str(parameter.annotation)
            )
            kind = kind if parameter.default is None else type(parameter.default)
            if kind in (int, float, str):
                found.setdefault(name, (kind, parameter.default))
    return {name: (kind, default, told.get(name, "")) for name, (kind, default) in found.items()}


def _arguments(doc: str) -> dict[str, str]:
    """Name -> explanation, from the "Args" section of a docstring; "as for" another function is none."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    told = {}
    for entry in re.finditer(
        r"^    (\w[\w, ]*): (.*?)(?=^    \w|\Z)", section[1] if section else "", re.M | re.S
    ):
        text = " ".join(entry[2].split()).rstrip(".")
        if not re.match(r"(as (for|in)|see) `", text):
            told |= dict.fromkeys(entry[1].split(", "), text)
    return told


def command_line(
    compute: Callable[..., dict[str, Any]],
    draw: Callable[[dict[str, Any]], Figure],
    more: Callable[..., Any] | None = None,
    *,
    threads: int | None = None,
    arguments: Sequence[str] | None = None,
) -> Path:
    """Run a figure module from a shell: compute, write the result, draw it if asked to.

    The module's docstring begins ``--help``, and `compute`'s signature and docstring say the rest (`options_of`). The
    result goes below runs/figures by default, under the name that it has below `RESULTS` when it is committed.

    Args:
        compute: called with the options by name.
        draw: called with the result.
        more: to whom `compute` hands its other options.
        threads: CPU threads of PyTorch, which then also treats denormal numbers as zero, as it does in training; None
            leaves both as they are.
        arguments: the command line; None for that of the process.

    Returns:
        The path of the result.
    """
    file = Path(inspect.getfile(compute)).with_suffix("")
    name = "/".join(file.parts[-2:])
    options = options_of(compute, more)
    parser = argparse.ArgumentParser(
        description=inspect.getmodule(compute).__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, (kind, default, explanation) in options.items():
        shown = "" if default in ("", None) else f" (default: {default})"
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            type=kind,
            default=default,
            help=(explanation + shown).replace("%", "%%"),
        )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/figures") / f"{name}.json",
        help=f"where the numbers go, as JSON (default: %(default)s; committed: figures/results/{name}.json)",
    )
    parser.add_argument(
        "--picture", type=Path, help="where to draw them: .png, .svg or .pdf (default: nowhere)"
    )
    chosen = parser.parse_args(arguments)
    if threads is not None:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
    result = compute(**{option: getattr(chosen, option) for option in options})
    save(result, chosen.out)
    print(f"wrote {chosen.out} ({result['provenance']['wall_time_s']} s)")
    if chosen.picture is not None:
        with replacing(chosen.picture) as temporary:
            draw(result).savefig(temporary, format=chosen.picture.suffix[1:])
        print(f"drew {chosen.picture}")
    return chosen.out
