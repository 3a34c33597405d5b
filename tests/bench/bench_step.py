"""What a training step of the large networks spends its time on, and how far it is from the least it could take.

    python tests/bench/bench_step.py                        SNGAN-32, BigGAN-32 and StyleGAN2-32, some 20 minutes
    python tests/bench/bench_step.py sngan --leak 0.5       one of them, with LeakyEMA
    python tests/bench/bench_step.py --batch-size 8         quicker
    python tests/bench/bench_step.py stylegan2 --width 64   narrower

StyleGAN2 is that for CIFAR-10, without its lazy terms, which most steps do not have.

The floor of a step is its floating-point operations in matrix products and convolutions (counted by
`torch.utils.flop_counter`) over the rate of one large matrix product, which is measured between the steps of the
same run. Two ratios say how close the step comes: that of the step, and that of the convolutions alone, which shows
how much of the distance lies in PyTorch's convolutions and how much in everything else.

With one thread it is the processor time that counts, which other programs change least; with more it is wall-clock
time. Data are noise: no operation's time depends on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import gankit as gk
from gankit.data import Dataset

REQUIRED = 1.5
SIDE = 1536  # of the matrices whose product sets the rate
SHAPE = (3, 32, 32)
NETWORKS: dict[str, tuple[Callable[..., Any], int]] = {
    "sngan": (lambda width: gk.models.sngan(SHAPE, width=width), 5),
    "biggan": (lambda width: gk.models.biggan_cifar(SHAPE, 10, width=width or 64), 4),
    "stylegan2": (lambda width: gk.models.stylegan2_cifar(SHAPE, width=width or 512), 1),
}
"""Name -> (width -> (G, D), discriminator steps per generator step)."""
KINDS = {
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("addmm", "::mm", "bmm", "::linear"),
    "batch normalisation": ("batch_norm",),
    "optimiser": ("adam",),
    "teacher": ("foreach_lerp", "foreach_copy"),
}
"""What an operator belongs to, by a part of its name; the rest is element-wise or moves memory."""


def noise(n: int = 512, classes: int = 10) -> Dataset:
    """Random pictures with labels."""
    images = torch.randint(0, 256, (n, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("noise", images, torch.arange(n) % classes, tuple(map(str, range(classes))))


def trainer(name: str, width: int | None, batch_size: int, leak: float, **settings: Any) -> gk.Trainer:
    """The run whose step is measured."""
    make, n_dis = NETWORKS[name]
    G, D = make(width)
    return gk.Trainer(
        G, D, noise(), loss="hinge", batch_size=batch_size, n_dis=n_dis, leak=gk.Leak(leak) if leak else None,
        device="cpu", **settings,
    )  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begun = common.clock()
    work()
    return common.clock() - begun


def matmul_rate(repeats: int = 10) -> float:
    """Operations per second of a large float32 matrix product, the best of several."""
    a = torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / min(timed(lambda: a @ a) for _ in range(repeats))


def kind_of(operator: str) -> str:
    """The row of the table that an operator counts in."""
    found = (kind for kind, parts in KINDS.items() if any(part in operator for part in parts))
    return next(found, "element-wise, reductions, copies")


def measure(run: gk.Trainer, steps: int, bar: tqdm) -> dict[str, Any]:
    """Count, time and profile steps of a run."""
    counter = FlopCounterMode(display=False)
    with counter:  # the warm-up, too: allocations and the choice of kernels are no part of training
        run.step()
    bar.update()
    by_operator = counter.get_flop_counts()["Global"]
    convolutions = sum(n for operator, n in by_operator.items() if "conv" in str(operator))
    seconds, rates = [], [matmul_rate()]
    for _ in range(steps):
        seconds.append(timed(run.step))
        rates.append(matmul_rate())
        bar.update()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run.step()
    bar.update()
    # The floor takes the fastest product of the run: a lower bound that a busy moment does not lift.
    rate = max(rates)
    shares: defaultdict[str, float] = defaultdict(float)
    operators = sorted(
        ((event.self_cpu_time_total / 1e6, event.count, event.key) for event in profiler.key_averages()),
        reverse=True,
    )
    for took, _, operator in operators:
        shares[kind_of(operator)] += took
    total = sum(shares.values())
    return {
        "parameters": [sum(p.numel() for p in net.parameters()) for net in (run.G, run.D)],
        "operations": counter.get_total_flops(),
        "operations of convolutions": convolutions,
        "matrix products per second": rates,
        "floor": counter.get_total_flops() / rate,
        "seconds": seconds,
        "ratio": float(np.median(seconds)) * rate / counter.get_total_flops(),
        "convolutions over their floor": shares["convolutions"]
        / total
        * float(np.median(seconds))
        * rate
        / convolutions,
        "shares": {kind: took / total for kind, took in shares.items()},
        "operators": [
            {"name": operator, "calls": count, "share": took / total}
            for took, count, operator in operators[:12]
        ],
    }


def show(name: str, result: dict[str, Any]) -> None:
    g, d = result["parameters"]
    seconds, rates = result["seconds"], result["matrix products per second"]
    print(f"\n{name}: {g:,} and {d:,} parameters, {result['operations'] / 1e9:,.0f} GFLOP a step")
    print(f"  matrix product        {max(rates) / 1e9:.1f} GFLOP/s (lowest {min(rates) / 1e9:.1f})")
    print(f"  floor                 {result['floor']:.2f} s")
    print(f"  step                  {np.median(seconds):.2f} s [{min(seconds):.2f}, {max(seconds):.2f}]")
    verdict = "" if result["ratio"] <= REQUIRED else f" (above the {REQUIRED:g} that is asked for)"
    print(f"  step over floor       {result['ratio']:.2f}{verdict}")
    print(f"  convolutions alone    {result['convolutions over their floor']:.2f} times their floor")
    for kind, share in sorted(result["shares"].items(), key=lambda item: -item[1]):
        print(f"  {share:6.1%}  {kind}")
    print("  operators by their own time:")
    for row in result["operators"]:
        print(f"  {row['share']:6.1%}  {row['calls']:5} x {row['name']}")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"{' or '.join(NETWORKS)} (default: all)"
    )
    parser.add_argument("--width", type=int, help="filters (default: the papers')")
    parser.add_argument("--batch-size", type=int, default=64, help="samples of each kind (default: 64)")
    parser.add_argument("--leak", type=float, default=0.0, help="LeakyEMA's beta (default: 0)")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16 (default: float32)")
    parser.add_argument("--steps", type=int, default=2, help="timed steps (default: 2)")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(NETWORKS)}")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # as `Trainer.fit` does
    result: dict[str, Any] = {
        "machine": common.machine(arguments.threads, seconds=common.seconds_of(arguments.threads))
    }
    names = arguments.networks or list(NETWORKS)
    with tqdm(total=len(names) * (arguments.steps + 2), unit="step", leave=False) as bar:
        for name in names:
            run = trainer(
                name, arguments.width, arguments.batch_size, arguments.leak, precision=arguments.precision
            )
            result[name] = measure(run, arguments.steps, bar)
            bar.clear()
            show(name, result[name])
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
