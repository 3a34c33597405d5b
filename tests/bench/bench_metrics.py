"""How fast the metrics are, beside other programs that compute the same numbers.

    python tests/bench/bench_metrics.py                      all comparisons, some 25 minutes on one core
    python tests/bench/bench_metrics.py frechet kernel       these alone
    python tests/bench/bench_metrics.py large                precision and recall of 50,000 samples, once

What is compared:

    inception    Inception Score of 50,000 and 5,000 samples: `inception_score` of the softmax of logits against
                 torch-fidelity's
    small        Frechet distance in 256 dimensions, of full rank and of rank 64, from statistics and from features,
                 against torchmetrics and torch-fidelity
    intra        Frechet distance inside ten classes of 3,072 pixels, 400 samples against 10,000, with its error
    frechet      from statistics, d = 2048: `frechet_from_stats` against the matrix square root of early FID programs
                 (scipy's `sqrtm`) and the eigenvalues of the product (torchmetrics' own function); then from features
    kernel       10,000 samples of each set: `kernel_distance` over all pairs against torch-fidelity's over 100
                 subsets of 1,000
    neighbours   10,000 samples of each set, d = 64 and 2048: `prdc` against the package of that name, with peak memory
    large        50,000 samples of each set, d = 2048: time and peak memory of `prdc`

Measurements run in processes of their own, on as many cores as threads (the package prdc starts eight, which then share
them). Alternatives take turns, so that a machine that is busy for a while slows all alike. With one thread it is the
processor time that counts, which other programs change least; with more it is wall-clock time. Medians over the turns
count, and their spread is printed beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import common
import numpy as np
import torch

Turn = dict[str, float]
REQUIRED = {"sqrtm": 10.0, "torchmetrics": 5.0, "prdc, d = 64": 4.0, "prdc, d = 2048": 8.0}
"""How many times faster ours is asked to be."""
MEMORY = 0.5
"""Share of the peak memory of the package prdc that ours may take."""


# Data


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    """Independent features, float32 ``[n, d]``: the hardest case for neighbours, since all distances are alike."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def relu(n: int, d: int, seed: int) -> torch.Tensor:
    """Features like those of a network: 64 causes, two layers of random weights, a little noise, none below 0."""
    fixed, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    first, second = torch.randn(64, 512, generator=fixed) / 8, torch.randn(512, d, generator=fixed) / 22
    x = torch.relu(torch.randn(n, 64, generator=generator) @ first) @ second
    return torch.relu_(x.add_(torch.randn(n, d, generator=generator), alpha=0.1))


DATA = {"normal": normal, "relu": relu}


def two_sets(data: str, n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and generated features that differ a little."""
    return DATA[data](n, d, 1), DATA[data](n, d, 2).mul_(0.98).add_(0.02)


# What one process measures. Each function returns seconds of its alternatives, turn by turn.


def in_turns(alternatives: dict[str, Callable[[], object]], repeats: int) -> list[Turn]:
    turns = []
    for _ in range(repeats):
        turn = {}
        for name, compute in alternatives.items():
            begun = common.clock()
            with contextlib.redirect_stdout(io.StringIO()):
                compute()
            turn[name] = common.clock() - begun
        turns.append(turn)
    return turns


def frechet(repeats: int) -> dict[str, list[Turn]]:
    from scipy.linalg import sqrtm
    from torchmetrics.image.fid import _compute_fid

    from gankit.metrics.frechet import FrechetStats, frechet_distance, frechet_from_stats

    def by_sqrtm(a: FrechetStats, b: FrechetStats) -> float:
        root = sqrtm(a.cov.numpy() @ b.cov.numpy())
        return (
            (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()
        ).item() - 2 * root.real.trace()

    def fresh(stats: FrechetStats) -> FrechetStats:
        return FrechetStats(stats.n, stats.mean, stats.scatter)

    def covariance_and_eigenvalues(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        moments = [(z.mean(0), z.T.cov()) for z in (x.double(), y.double())]
        return _compute_fid(*moments[0], *moments[1])

    result = {}
    for data in DATA:
        x, y = two_sets(data, 10_000, 2048)
        a, b = FrechetStats.from_features(x), FrechetStats.from_features(y)
        values = [
            frechet_from_stats(a, b).item(),
            by_sqrtm(a, b),
            _compute_fid(a.mean, a.cov, b.mean, b.cov).item(),
        ]
        assert np.allclose(values, values[0], rtol=1e-6), values
        result[f"from statistics, {data}"] = in_turns(
            {
                "ours": lambda a=a, b=b: frechet_from_stats(fresh(a), fresh(b)),
                "ours, reference kept": lambda a=a, b=b: frechet_from_stats(fresh(a), b),
                "torchmetrics": lambda a=a, b=b: _compute_fid(a.mean, a.cov, b.mean, b.cov),
                "sqrtm": lambda a=a, b=b: by_sqrtm(a, b),
            },
            repeats,
        )
        result[f"from 10,000 features, {data}"] = in_turns(
            {
                "ours": lambda x=x, y=y: frechet_distance(x, y),
                "torchmetrics": lambda x=x, y=y: covariance_and_eigenvalues(x, y),
            },
            repeats,
        )
    x, y = x[:1000], y[:1000]
    result["from 1,000 features, relu"] = in_turns(
        {"ours": lambda: frechet_distance(x, y), "torchmetrics": lambda: covariance_and_eigenvalues(x, y)},
        repeats,
    )
    return result


def small(repeats: int) -> dict[str, list[Turn]]:
    from torch_fidelity import metric_fid
    from torchmetrics.image.fid import _compute_fid

    from gankit.metrics.frechet import FrechetStats, frechet_distance, frechet_from_stats

    result = {}
    for n in (5_000, 10_000):
        for rank in (64, 256):
            axes = torch.randn(rank, 256, generator=torch.Generator().manual_seed(0))
            x, y = (normal(n, rank, seed) @ axes * scale for seed, scale in ((1, 1.0), (2, 0.98)))
            a, b = FrechetStats.from_features(x), FrechetStats.from_features(y)
            known = [{"mu": s.mean.numpy(), "sigma": s.cov.numpy()} for s in (a, b)]

            def by_torchmetrics(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                moments = [(z.mean(0), z.T.cov()) for z in (x.double(), y.double())]
                return _compute_fid(*moments[0], *moments[1])

            def by_fidelity(x: torch.Tensor = x, y: torch.Tensor = y) -> dict[str, float]:
                made = (metric_fid.fid_features_to_statistics(z) for z in (x, y))
                return metric_fid.fid_statistics_to_metric(*made, verbose=False)

            result[f"from {n:,} features, d = 256, rank {rank}"] = in_turns(
                {
                    "ours": lambda x=x, y=y: frechet_distance(x, y),
                    "torchmetrics": by_torchmetrics,
                    "torch-fidelity": by_fidelity,
                },
                3 * repeats,
            )
            result[f"from statistics of {n:,}, d = 256, rank {rank}"] = in_turns(
                {
                    "ours": lambda a=a, b=b: frechet_from_stats(
                        *(FrechetStats(s.n, s.mean, s.scatter) for s in (a, b))
                    ),
                    "torchmetrics": lambda a=a, b=b: _compute_fid(a.mean, a.cov, b.mean, b.cov),
                    "torch-fidelity": lambda known=known: metric_fid.fid_statistics_to_metric(
                        *known, verbose=False
                    ),
                },
                3 * repeats,
            )
    return result


def inception(repeats: int) -> dict[str, list[Turn]]:
    from torch_fidelity.metric_isc import isc_features_to_metric

    from gankit.metrics.entropies import inception_score

    result = {}
    for n, classes in ((50_000, 1008), (50_000, 10), (5_000, 1008)):
        logits = 3 * normal(n, classes, 1)
        result[f"{n:,} samples, {classes:,} classes"] = in_turns(
            {
                "ours": lambda logits=logits: inception_score(logits.softmax(-1)),
                "torch-fidelity": lambda logits=logits: isc_features_to_metric(logits, shuffle=False),
            },
            repeats,
        )
    return result


def intra(repeats: int) -> dict[str, list[Turn]]:
    from gankit.metrics.frechet import frechet_distance
    from gankit.metrics.modes import intra_class
    from gankit.metrics.uncertainty import frechet_error

    real, fake = relu(10_000, 3072, 1), relu(400, 3072, 2)
    labels = torch.arange(10_000) % 10, torch.arange(400) % 10

    def inside(metric: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> object:
        return intra_class(metric, real, labels[0], fake, labels[1])

    alternatives = {
        "ours, distance": lambda: inside(frechet_distance),
        "ours, its error": lambda: inside(lambda r, f: frechet_error(f, r)),
    }
    return {"ten classes of 3,072 pixels, 400 samples": in_turns(alternatives, repeats)}


def kernel(repeats: int) -> dict[str, list[Turn]]:
    from torch_fidelity.metric_kid import kid_features_to_metric

    from gankit.metrics.kernel import kernel_distance

    result = {}
    for d in (64, 2048):
        x, y = two_sets("normal", 10_000, d)
        result[f"10,000 samples, d = {d}"] = in_turns(
            {
                "ours": lambda x=x, y=y: kernel_distance(x, y),
                "torch-fidelity, 100 subsets": lambda x=x, y=y: kid_features_to_metric(
                    x, y, kid_subsets=100, kid_subset_size=1000, verbose=False
                ),
            },
            repeats,
        )
    return result


def peak_megabytes() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def kernel_memory() -> Turn:
    from gankit.metrics.kernel import kernel_distance

    x, y = two_sets("normal", 10_000, 64)
    kernel_distance(x[:100], y[:100])
    before = peak_megabytes()
    kernel_distance(x, y)
    return {"beyond the features": peak_megabytes() - before, "max_bytes": 2**26 / 1e6}


def neighbours(who: str, data: str, n: int, d: int) -> Turn:
    x, y = two_sets(data, n, d)
    before = peak_megabytes()
    if who == "ours":
        from gankit.metrics.neighbours import prdc

        compute = lambda: {name: float(value) for name, value in prdc(x, y, 5).items()}  # noqa: E731
    else:
        from prdc import compute_prdc

        compute = lambda: {name: float(v) for name, v in compute_prdc(x.numpy(), y.numpy(), 5).items()}  # noqa: E731
    wall, begun = time.perf_counter(), common.clock()
    with contextlib.redirect_stdout(io.StringIO()):
        values = compute()
    seconds, wall = common.clock() - begun, time.perf_counter() - wall
    return {"seconds": seconds, "wall": wall, "features": before, "peak": peak_megabytes()} | values


# The process that starts the others and prints


def run(threads: int, call: str, **arguments: object) -> dict:
    """Call one of the functions above in a process of its own, on as many cores as threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | {name: str(threads) for name in names}
    command = [sys.executable, __file__, "--call", json.dumps([threads, call, arguments])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{call} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(threads: int, call: str, arguments: dict) -> None:
    """What a process started by `run` does."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    torch.set_num_threads(threads)
    functions = {f.__name__: f for f in (frechet, small, inception, intra, kernel, kernel_memory, neighbours)}
    print(json.dumps(functions[call](**arguments)))


def spread(values: list[float]) -> str:
    return f"{np.median(values):7.3g} [{min(values):.3g}, {max(values):.3g}]"


def verdict(ratio: float, required: float | None) -> str:
    return "" if required is None or ratio >= required else f"  (below the {required:g} that is asked for)"


def show_turns(title: str, turns: list[Turn], required: dict[str, float]) -> None:
    """One line for each alternative; each of the others is compared with each of ours."""
    print(f"\n{title}")
    for name in turns[0]:
        print(f"  {name:30} {spread([turn[name] for turn in turns])} s")
    for peer in (name for name in turns[0] if not name.startswith("ours")):
        for ours in (name for name in turns[0] if name.startswith("ours")):
            ratios = [turn[peer] / turn[ours] for turn in turns]
            note = verdict(float(np.median(ratios)), required.get(peer))
            print(f"  {ours} is {spread(ratios).strip()} times faster than {peer}{note}", flush=True)


def show_neighbours(threads: int, repeats: int) -> dict[str, list[dict[str, Turn]]]:
    result = {}
    for data, d in (("normal", 64), ("normal", 2048), ("relu", 2048)):
        turns = []
        for _ in range(repeats):
            who = ("ours", "prdc")
            turns.append({w: run(threads, "neighbours", who=w, data=data, n=10_000, d=d) for w in who})
        title = f"precision, recall, density, coverage: 10,000 samples, d = {d}, {data}"
        seconds = [{w: turn[w]["seconds"] for w in turn} for turn in turns]
        show_turns(title, seconds, {"prdc": REQUIRED[f"prdc, d = {d}"]})
        ours, peer = (float(np.median([turn[w]["peak"] for turn in turns])) for w in ("ours", "prdc"))
        note = "" if ours <= MEMORY * peer else f"  (above the {MEMORY:g} that is asked for)"
        print(f"  peak memory {ours:.0f} MB against {peer:.0f} MB: {ours / peer:.2f} of it{note}")
        for name in ("precision", "recall", "density", "coverage"):
            a, b = (turns[0][w][name] for w in ("ours", "prdc"))
            print(f"  {name:10} {a:.5f}   prdc {b:.5f}", flush=True)
        result[title] = turns
    return result


def main() -> None:
    parser = common.parser(__doc__, "threads of every alternative")
    choices = ("inception", "small", "intra", "frechet", "kernel", "neighbours", "large")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(choices)} (default: all but large)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each comparison (default: 3)")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        return answer(*json.loads(arguments.call))
    if unknown := set(arguments.parts) - set(choices):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(choices)}")
    parts = arguments.parts or choices[:-1]
    seconds = common.seconds_of(arguments.threads)
    machine = common.machine(arguments.threads, seconds=seconds, numpy=np.__version__)
    result: dict[str, object] = {"machine": machine}
    for part in ("inception", "small", "intra"):
        if part in parts:
            result[part] = run(arguments.threads, part, repeats=arguments.repeats)
            for title, turns in result[part].items():
                peers = ("torchmetrics", "torch-fidelity")
                show_turns(f"{part}: {title}", turns, dict.fromkeys(peers, 1.0))
    if "frechet" in parts:
        result["frechet"] = run(arguments.threads, "frechet", repeats=arguments.repeats)
        for title, turns in result["frechet"].items():
            show_turns(f"Frechet distance {title}", turns, REQUIRED if "statistics" in title else {})
    if "kernel" in parts:
        result["kernel"] = run(arguments.threads, "kernel", repeats=arguments.repeats)
        for title, turns in result["kernel"].items():
            show_turns(f"kernel distance, {title}", turns, {})
        result["kernel memory"] = memory = run(arguments.threads, "kernel_memory")
        print(f"  memory in MB: {', '.join(f'{value:.0f} {name}' for name, value in memory.items())}")
    if "neighbours" in parts:
        result["neighbours"] = show_neighbours(arguments.threads, arguments.repeats)
    if "large" in parts:
        result["large"] = large = run(
            arguments.threads, "neighbours", who="ours", data="normal", n=50_000, d=2048
        )
        print("\nprecision, recall, density, coverage: 50,000 samples, d = 2048")
        print(f"  {large['seconds']:.0f} s, {large['wall']:.0f} s by the clock")
        print(
            f"  peak memory {large['peak']:.0f} MB, of which {large['features']:.0f} MB with the features alone"
        )
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
