"""Measure what each chapter takes while nbval runs it; `build.py times` prints that beside its card."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

MEASURED = Path(__file__).resolve().parent.parent / ".build" / "nbval.json"
seconds: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the cells of a notebook, the start of its kernel included."""
    file = Path(report.nodeid.partition("::")[0])
    if file.suffix == ".ipynb":
        seconds[file.stem] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Under xdist every worker ends a session too; the controller alone has heard of all the cells.
    if seconds and not hasattr(session.config, "workerinput"):
        MEASURED.parent.mkdir(exist_ok=True)
        temporary = MEASURED.with_suffix(".tmp")
        temporary.write_text(json.dumps({name: round(taken, 1) for name, taken in sorted(seconds.items())}))
        temporary.replace(MEASURED)
