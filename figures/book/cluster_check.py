"""Is the plan of `figures.book.cluster` right where it can be checked: two processes on two CPU cores?

Two processes that know nothing of each other train a small SNGAN on 32 x 32 pixels, each with half of a minibatch: that
says how many operations a second a core reaches while the other one is busy, too. Two that work together measure how
long they take to add messages of two sizes, which gives latency and bandwidth of the exchange. From these, `plan`
predicts a step of the joint run; then its step is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from matplotlib.figure import Figure

import gankit as gk
from figures.book.cluster import Machine, count, plan, step_flops
from figures.provenance import command_line, rounded, stamp
from gankit import processes
from gankit.data import Dataset
from gankit.plotting import use_style

SHAPE = (3, 32, 32)
N_DIS = 2
MESSAGES = (2_048, 8_000_000)
"""Bytes of the two messages by which the exchange is measured: batch norm's, and a small network's gradient."""


def trainer(width: int, batch: int) -> gk.Trainer:
    """A run on random pictures; how fast it goes does not depend on what they show."""
    images = torch.randint(
        0, 256, (512, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    data = Dataset("random pictures", images, torch.zeros(512, dtype=torch.int64), ("all",))
    G, D = gk.models.sngan(SHAPE, width=width, seed=0)
    return gk.Trainer(G, D, data, loss="hinge", batch_size=batch, n_dis=N_DIS, device="cpu")


def seconds_of(action: Any, repeats: int) -> float:
    """Median time of an action that is the same every time, after one that does not count."""
    action()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def work(width: int, batch: int, repeats: int) -> dict[str, Any]:
    """What a process measures; alone, or together with the others that `torchrun` started.

    Returns:
        "step_s", and of several processes "messages_s", the times of `MESSAGES`.
    """
    torch.set_num_threads(1)
    with processes.joined():
        run = trainer(width, batch)
        measured: dict[str, Any] = {"step_s": seconds_of(run.step, repeats)}
        if processes.world_size() > 1:
            buffers = [torch.zeros(size // 4) for size in MESSAGES]
            measured["messages_s"] = [
                seconds_of(lambda b=b: dist.all_reduce(b), 5 * repeats) for b in buffers
            ]
    return measured


def start(n: int, out: Path, *arguments: int) -> subprocess.Popen:
    """`work` in n new processes, which will write to `out` what the first of them measured."""
    launcher = [sys.executable]
    if n > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    return subprocess.Popen(
        [*launcher, "-m", "figures.book.cluster_check", "--work", *map(str, arguments), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )


def measured(groups: Sequence[int], *arguments: int) -> list[dict[str, Any]]:
    """What groups of so many processes measure, all at the same time.

    Raises:
        subprocess.CalledProcessError: if one of them fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.json" for i in range(len(groups))]
        started = [start(n, out, *arguments) for n, out in zip(groups, files, strict=True)]
        for one in started:
            if one.wait():
                raise subprocess.CalledProcessError(one.returncode, one.args)
        return [json.loads(out.read_text(encoding="utf-8")) for out in files]


def compute(width: int = 64, batch: int = 32, repeats: int = 7) -> dict[str, Any]:
    """Measure two processes apart, predict them together, measure them together.

    Args:
        width: filters of the networks next to the picture.
        batch: images of each kind in the joint minibatch, an even number.
        repeats: timed steps, of which the median counts.

    Returns:
        "counts", "machine" (as measured), "apart" and "together" (as measured), "predicted" (`plan`), "ratio" (the
        predicted step over the measured one), "provenance".
    """
    begun = time.perf_counter()
    counts = count(*gk.models.sngan(SHAPE, width=width, seed=0), SHAPE)
    apart = [one["step_s"] for one in measured((1, 1), width, batch // 2, repeats)]
    (together,) = measured((2,), width, batch, repeats)
    # A ring of two: size / bandwidth + 2 latency.
    small, large = together["messages_s"]
    bandwidth = (MESSAGES[1] - MESSAGES[0]) / max(large - small, 1e-9)
    machine = Machine(
        devices=2,
        per_node=2,
        flops=step_flops(counts, batch // 2, N_DIS) / max(apart),
        link=bandwidth,
        network=bandwidth,
        latency=max(0.0, small - MESSAGES[0] / bandwidth) / 2,
    )
    predicted = plan(counts, machine, batch=batch, n_dis=N_DIS)
    return {
        "width": width,
        "batch": batch,
        "n_dis": N_DIS,
        "counts": asdict(counts),
        "machine": {key: v if isinstance(v, int) else rounded(v) for key, v in asdict(machine).items()},
        "apart": {"step_s": rounded(apart)},
        "together": {key: rounded(values) for key, values in together.items()},
        "predicted": {key: rounded(value) for key, value in predicted.items()},
        "ratio": rounded(predicted["step_s"] / together["step_s"], 3),
        "provenance": stamp(time.perf_counter() - begun, packages=("torch",)),
    }


def draw(result: dict[str, Any]) -> Figure:
    """The step of two processes apart, and together as predicted and as measured."""
    use_style()
    figure, ax = plt.subplots(figsize=(6, 1.8))
    bars = {
        "apart": max(result["apart"]["step_s"]),
        "together, predicted": result["predicted"]["step_s"],
        "together, measured": result["together"]["step_s"],
    }
    ax.barh(list(bars), list(bars.values()), color=["#999999", "#56B4E9", "#0072B2"])
    ax.set_xlabel("seconds of a step")
    ax.invert_yaxis()
    return figure


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        *numbers, path = sys.argv[2:]
        found = work(*map(int, numbers))
        if int(os.environ.get("RANK", "0")) == 0:
            Path(path).write_text(json.dumps(found), encoding="utf-8")
    else:
        command_line(compute, draw)
