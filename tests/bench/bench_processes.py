"""What two processes on one run lose to waiting, against two that know nothing of each other.

    python tests/bench/bench_processes.py                 SNGAN-32 with 48 filters, batches of 32: some 4 minutes
    python tests/bench/bench_processes.py --rounds 10     surer

Three numbers of seconds a step, with one thread for each process, taken in turns: one process with the whole batch;
two processes, each with half of it, that train as one would (`torchrun`, gloo); and two independent processes with
half of it each, which is what the machine gives at best. The share that counts is the last over the second. Steps are
timed by the clock: waiting is what is asked about. So the machine must have two cores with nothing else to do.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import common
import numpy as np
import torch
from bench_step import noise
from tqdm import tqdm

import gankit as gk
from gankit import processes

REQUIRED = 0.85
KINDS = {"one": (1, 1), "joint": (2, 1), "independent": (2, 2)}
"""Name -> (processes, parts that the batch is divided into by hand)."""


def work(width: int, batch_size: int, n_dis: int, steps: int) -> None:
    """Train, and print the median seconds of a step."""
    torch.set_num_threads(1)
    with processes.joined():
        G, D = gk.models.sngan((3, 32, 32), width=width)
        run = gk.Trainer(G, D, noise(), loss="hinge", batch_size=batch_size, n_dis=n_dis, device="cpu")
        seconds = []
        for i in range(steps + 2):  # two to warm up
            begun = time.perf_counter()
            run.step()
            if i >= 2:
                seconds.append(time.perf_counter() - begun)
    print(float(np.median(seconds)))


def measure(kind: str, width: int, batch_size: int, n_dis: int, steps: int) -> float:
    """Seconds of a step, the mean over the processes."""
    number, parts = KINDS[kind]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = [width, batch_size // parts, n_dis, steps]
    command = [sys.executable, __file__, "--worker", *map(str, sizes)]
    started = []
    for rank in range(number):
        names = {"WORLD_SIZE": number // parts, "RANK": rank // parts, "LOCAL_RANK": rank}
        around = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        told = os.environ | {name: str(value) for name, value in (names | around).items()}
        started.append(subprocess.Popen(command, env=told, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"a process of {kind!r} failed")
    return float(np.mean([float(text.split()[-1]) for text in printed]))


def main() -> None:
    parser = common.parser(__doc__, "of each process; 1 always")
    parser.add_argument("--width", type=int, default=48, help="filters (default: 48)")
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes (default: 32)")
    parser.add_argument(
        "--n-dis", type=int, default=5, help="discriminator steps of a generator step (default: 5)"
    )
    parser.add_argument("--steps", type=int, default=6, help="timed in a round (default: 6)")
    parser.add_argument("--rounds", type=int, default=5, help="of the three kinds (default: 5)")
    parser.add_argument("--worker", type=int, nargs=4, metavar="N", help="used by the benchmark itself")
    args = parser.parse_args()
    if args.worker:
        work(*args.worker)
        return
    facts = common.machine(1, seconds="by the clock")
    rounds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    silent = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    with tqdm(total=args.rounds * len(KINDS), unit="part", disable=silent) as bar:
        for _ in range(args.rounds):
            for kind in KINDS:
                rounds[kind].append(measure(kind, args.width, args.batch_size, args.n_dis, args.steps))
                bar.update()
    table = {kind: np.array(values) for kind, values in rounds.items()}
    shares = table["independent"] / table["joint"]
    for kind, values in table.items():
        print(f"{kind:12} {np.median(values):.3f} s a step [{values.min():.3f}, {values.max():.3f}]")
    low, middle, high = np.quantile(shares, [0, 0.5, 1])
    print(f"share of what two cores give: {middle:.2f} [{low:.2f}, {high:.2f}], required {REQUIRED}")
    print(f"one process over two: {np.median(table['one'] / table['joint']):.2f} times")
    result: dict[str, Any] = {"machine": facts, "seconds": rounds, "share": shares.tolist()}
    common.write(result, args.out)


if __name__ == "__main__":
    main()
