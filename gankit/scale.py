"""Quick or full: one switch, the environment variable GANKIT_SCALE, read when a value is asked for.

>>> from gankit.scale import scale
>>> steps = scale(quick=600, full=50_000)
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def current_scale() -> str:
    """`"quick"` (the default: two CPU cores, embedded data, no network) or `"full"`.

    Raises:
        ValueError: if GANKIT_SCALE is set to anything else.
    """
    value = os.environ.get("GANKIT_SCALE", "quick")
    if value not in ("quick", "full"):
        raise ValueError(f"GANKIT_SCALE must be quick or full, got {value!r}")
    return value


def scale(*, quick: T, full: T) -> T:
    """The value that belongs to the current scale."""
    return full if current_scale() == "full" else quick
