"""Runs the cells of one notebook in a process of its own, and says of each how it ended.

What students hand in may loop for ever, end the interpreter, hide `abs` or print to stderr, and none of that may cost
more than the test that it belongs to. So every notebook runs in a forked process, and every test in a process forked
from that one, with a time limit that a bare `except` cannot catch: at its end the process is killed. A test runs on a
copy of the names: it leaves nothing behind, the built-in functions are Python's own, and so is what the given cells
defined. Whatever a test prints, to stderr too, does not count: it passes unless it raises.

They are forked from one server process (`python -m course.runner`), which imports PyTorch once for all notebooks of a
batch; no kernel is started.
"""

from __future__ import annotations

import ast
import atexit
import base64
import builtins
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 20.0  # seconds for one cell; the slowest right answer needs less than one
MEMORY = 4 * 2**30  # bytes beyond what the process holds when a notebook starts
LESS_PATIENT, SHORTEST = 4.0, 2.0  # after a test that hung: a part of the limit, but no fewer seconds
GRACE = 2.0  # seconds that the process has to report a test that it killed
LONGEST_OUTPUT = 20_000  # characters kept of what a cell prints


@dataclass(frozen=True)
class Step:
    """One code cell: its name, its code, and whether it is `given`, an `answer`, a `test` or of `other` kind."""

    name: str
    source: str
    kind: str = "other"


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        error: the exception's name, "" where there was none; "Timeout" and "Exit" where its process was ended.
        message: what the exception says.
        trace: its traceback, of the notebook's own lines.
        outputs: what it showed, as nbformat's dictionaries.
        seconds: that it took.
    """

    error: str = ""
    message: str = ""
    trace: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.error


def run(steps: Sequence[Step], limit: float = LIMIT, memory: int = MEMORY) -> dict[str, Outcome]:
    """Run the cells in order, as a reader would from top to bottom.

    Args:
        steps: the cells, each with another name.
        limit: seconds that one cell may take.
        memory: bytes that the notebook may take.

    Returns:
        How each ended, by name. A cell that does not end, or ends the process, is passed over: the others run as if
        it were not there.
    """
    reply = _ask({"steps": [vars(step) for step in steps], "limit": limit, "memory": memory})
    return {name: Outcome(**outcome) for name, outcome in reply.items()}


def peak() -> float:
    """Bytes that the largest notebook took so far, what it shares with the others included."""
    return _ask({"steps": None})["peak"]


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    if not (reply := server.stdout.readline()):
        _server.cache_clear()
        raise RuntimeError("the process that runs notebooks has ended; what it printed to stderr is above")
    return json.loads(reply)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process from which notebooks are forked: it has no threads, no GPU, and imports PyTorch once."""
    root = str(Path(__file__).resolve().parent.parent)
    own = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "GANKIT_SCALE": "quick", "TQDM_DISABLE": "1"}
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **own, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "course.runner"]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
    atexit.register(server.kill)
    return server


def serve() -> None:
    """Answer requests, one on each line of stdin, with a line on stdout, until stdin ends."""
    _prepare()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if request["steps"] is None:
            used = max(
                resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            )
            answers.write(json.dumps({"peak": used * (1 if sys.platform == "darwin" else 1024)}) + "\n")
            answers.flush()
            continue
        steps = [Step(**step) for step in request["steps"]]
        passed_over: dict[str, Outcome] = {}
        stopped: tuple[str, Outcome] | None = None
        while True:
            outcomes, stopped = _attempt(steps, passed_over, request["limit"], request["memory"])
            if stopped is None:
                break
            passed_over[stopped[0]] = stopped[1]
        answers.write(json.dumps({name: vars(outcome) for name, outcome in outcomes.items()}) + "\n")
        answers.flush()


def _prepare() -> None:
    """Import what assignments import, and what that imports when it is first used."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    import torch

    import gankit as gk

    for name in (
        "matplotlib.pyplot",
        "scipy.linalg",
        "scipy.optimize",
        "scipy.spatial.distance",
        "scipy.stats",
        "sympy",
    ):
        importlib.import_module(name)
    torch.set_num_threads(1)
    torch.testing.assert_close(torch.ones(1), torch.ones(1))
    np.testing.assert_allclose(1.0, 1.0)
    gk.data.load("digits")
    gk.data.load("ring")
    gk.models.mlp((2,))
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    gk.SGD(0.1).build([parameter]).step()  # the first step of an optimiser imports for a second
    gc.freeze()  # the collector would copy all of this into every forked process


def _attempt(
    steps: Sequence[Step], passed_over: Mapping[str, Outcome], limit: float, memory: int
) -> tuple[dict[str, Outcome], tuple[str, Outcome] | None]:
    """One process that runs all cells but those passed over; also the cell at which it stopped, if it did."""
    outcomes = dict(passed_over)
    due = [step for step in steps if step.name not in passed_over]
    pid, reader = _fork(lambda send: _run_cells(due, send, limit, memory), own_group=True)
    try:
        messages = _messages(reader, limit + GRACE)
        for step in due:
            message = next(messages, None)
            if message is None:
                return outcomes, (step.name, _killed(limit))
            if not message:
                return outcomes, (step.name, _ended())
            outcomes[step.name] = Outcome(**message)
    finally:
        _kill(pid)
        os.close(reader)
    return outcomes, None


def _killed(limit: float) -> Outcome:
    return Outcome("Timeout", f"it did not end within {limit:g} s", seconds=limit)


def _ended() -> Outcome:
    return Outcome("Exit", "it ended the interpreter, or took more memory than there is")


def _fork(work: Any, own_group: bool = False) -> tuple[int, int]:
    """Start `work(send)` in a forked process; return its id and where its messages can be read.

    With a group of its own it can be killed together with every process that it starts.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        os.close(writer)
        return pid, reader
    try:
        if own_group:
            os.setpgid(0, 0)
        os.close(reader)

        def send(message: dict[str, Any]) -> None:
            data = memoryview(json.dumps(message).encode() + b"\n")
            while data:
                data = data[os.write(writer, data) :]

        work(send)
    finally:
        os._exit(0)


def _messages(reader: int, patience: float) -> Iterator[dict[str, Any] | None]:
    """What a process sends, line by line; None where it is silent for too long, {} where it has ended."""
    buffer = b""
    while True:
        deadline = time.monotonic() + patience
        while b"\n" not in buffer:
            ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                yield None
                return
            if not (chunk := os.read(reader, 1 << 16)):
                yield {}
                return
            buffer += chunk
        line, _, buffer = buffer.partition(b"\n")
        try:
            yield json.loads(line)
        except ValueError:
            yield {}
            return


def _kill(pid: int) -> None:
    for stop in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            stop(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


# --- inside the forked process -------------------------------------------------------------------


def _run_cells(steps: Sequence[Step], send: Any, limit: float, memory: int) -> None:
    _limit_memory(memory)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # stdin holds the server's next requests
        os.dup2(silence, stream)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names: dict[str, Any] = {"__name__": "__main__", "get_ipython": _NoMagic}
        given: dict[str, Any] = {}
        for step in steps:
            before = dict(names)
            outcome = _run_test(step, names, given, limit) if step.kind == "test" else _execute(step, names)
            if step.kind == "given":
                given.update({name: x for name, x in names.items() if before.get(name, before) is not x})
            if outcome.error == "Timeout":  # what hung once hangs in every test: do not wait as long again
                limit = max(limit / LESS_PATIENT, min(limit, SHORTEST))
            send(vars(outcome))


def _limit_memory(memory: int) -> None:
    pages = (
        int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    )
    if pages is not None:  # elsewhere there is no telling how much of the address space is taken already
        most = pages * resource.getpagesize() + memory
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _run_test(step: Step, names: Mapping[str, Any], given: Mapping[str, Any], limit: float) -> Outcome:
    """A test in a process of its own, on names that no answer can have hidden."""
    own = {
        name: value for name, value in names.items() if name.startswith("__") or not hasattr(builtins, name)
    }
    pid, reader = _fork(lambda send: send(vars(_execute(step, {**own, **given}))))
    try:
        message = next(_messages(reader, limit), None)
    finally:
        _kill(pid)
        os.close(reader)
    return _killed(limit) if message is None else _ended() if not message else Outcome(**message)


class _NoMagic:
    """Stands for IPython's shell: `%matplotlib inline` and `!pip install` are read and do nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _execute(step: Step, names: dict[str, Any]) -> Outcome:
    printed, outputs, error, started = io.StringIO(), [], None, time.perf_counter()
    filename = f"<{step.name}>"
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            body, last = _parse(step, filename)
            exec(compile(body, filename, "exec", optimize=0), names)  # asserts stay, whatever -O says
            if last is not None and (value := eval(compile(last, filename, "eval"), names)) is not None:
                outputs = [_shown(value)]
        except (KeyboardInterrupt, SystemExit) as exit_:
            error = Outcome("Exit", f"it ended the interpreter: {type(exit_).__name__}")
        except BaseException as raised:
            error = Outcome(type(raised).__name__, _message(raised), _trace(raised, filename, step.source))
        pictures = [] if step.kind == "test" else _pictures()
    if step.kind == "test":
        outputs = []
    elif text := printed.getvalue()[:LONGEST_OUTPUT]:
        outputs.insert(0, {"output_type": "stream", "name": "stdout", "text": text})
    how = error or Outcome()
    return Outcome(how.error, how.message, how.trace, outputs + pictures, time.perf_counter() - started)


def _parse(step: Step, filename: str) -> tuple[ast.Module, ast.Expression | None]:
    """The code of a cell, and its last expression, whose value a notebook would show."""
    try:
        tree = ast.parse(step.source, filename)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        tree = ast.parse(TransformerManager().transform_cell(step.source), filename)
    if step.kind != "test" and tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body.pop()
        return tree, ast.Expression(last.value)
    return tree, None


def _shown(value: Any) -> dict[str, Any]:
    try:
        text = repr(value)[:LONGEST_OUTPUT]
    except Exception as error:
        text = f"<its repr raises {type(error).__name__}>"
    return {
        "output_type": "execute_result",
        "data": {"text/plain": text},
        "metadata": {},
        "execution_count": None,
    }


def _message(raised: BaseException) -> str:
    try:
        return str(raised)[:LONGEST_OUTPUT]
    except Exception:
        return ""


def _trace(raised: BaseException, filename: str, source: str) -> str:
    """The frames of the notebook's cells, without those of this file."""
    frames = [f for f in traceback.extract_tb(raised.__traceback__) if f.filename.startswith("<")]
    lines = []
    for frame in frames:
        text = source.splitlines()[frame.lineno - 1] if frame.filename == filename and frame.lineno else ""
        lines.append(f"{frame.filename[1:-1]}, line {frame.lineno}, in {frame.name}: {text.strip()}")
    return "\n".join([*lines, f"{type(raised).__name__}: {_message(raised)}"])


def _pictures() -> list[dict[str, Any]]:
    """The figures that are open, as a notebook would show them, and closed after."""
    import matplotlib.pyplot as plt

    shown = []
    for number in plt.get_fignums():
        buffer = io.BytesIO()
        with contextlib.suppress(Exception):
            plt.figure(number).savefig(buffer, format="png", dpi=60, bbox_inches="tight")
            data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
            shown.append({"output_type": "display_data", "data": data, "metadata": {}})
    with contextlib.suppress(Exception):
        plt.close("all")
    return shown


if __name__ == "__main__":
    serve()
