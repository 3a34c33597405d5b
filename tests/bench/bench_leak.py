"""What LeakyEMA costs: its share of a training step, and the update of the average by itself.

    python tests/bench/bench_leak.py                    SNGAN-32 at the paper's width, batches of 16; BigGAN-128
    python tests/bench/bench_leak.py --batch-size 64    the paper's batch, four times as long
    python tests/bench/bench_leak.py update             the update alone, some seconds

Part `step`: a step with and without a leak of beta = 0.5, n_dis = 5. All products of a step grow with the batch alike,
so its size does not change the shares. Beside the measured share stands the one that the count of floating-point
operations predicts: n_dis times beta N forward passes of the generator, over all of a step. A third run generates the
teacher's samples in bfloat16 (`Leak(precision=...)`) and is else in float32.

Part `update`: `Teacher.update` of the generator of BigGAN-128 against two loops over `state_dict`, the one of the
BigGAN authors' PyTorch programme (average = decay average + (1 - decay) current, by a copy) and one in place.

Alternatives take turns, and medians of the turns' ratios count. With one thread it is the processor time that is
measured, which other programs change least; with more it is wall-clock time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import common
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import gankit as gk
from gankit.data import Dataset
from gankit.training.average import Teacher

BETA, N_DIS = 0.5, 5
SHARE, FASTER = 0.10, 3.0
"""What is asked for: the most that LeakyEMA may add to a step, the least that the update is faster than a loop."""


def in_turns(alternatives: dict[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each alternative, turn by turn; a first turn warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in tqdm(range(repeats + 1), unit="turn", leave=False):
        for name, work in alternatives.items():
            begun = common.clock()
            work()
            seconds[name].append(common.clock() - begun)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def spread(values: np.ndarray, form: str = ".2f") -> str:
    return f"{np.median(values):{form}} [{values.min():{form}}, {values.max():{form}}]"


def operations(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def step(width: int | None, batch_size: int, repeats: int) -> dict[str, object]:
    """Steps of SNGAN-32 with and without a leak."""
    images = torch.randint(
        0, 256, (512, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    data = Dataset("noise", images, torch.zeros(512, dtype=torch.int64), ("noise",))

    def run(leak: gk.Leak | None) -> gk.Trainer:
        G, D = gk.models.sngan((3, 32, 32), width=width)
        settings = {"loss": "hinge", "batch_size": batch_size, "n_dis": N_DIS, "device": "cpu"}
        return gk.Trainer(G, D, data, leak=leak, **settings)

    plain, leaky, rounded = run(None), run(gk.Leak(BETA)), run(gk.Leak(BETA, precision="bfloat16"))
    counted = {"plain": operations(plain.step), "leaky": operations(leaky.step)}
    alternatives = {
        "plain": plain.step,
        "leaky": leaky.step,
        "rounded": rounded.step,
        "update": lambda: plain.teacher.update(plain.G, 1),
    }
    seconds = in_turns(alternatives, repeats)
    shares = {name: seconds[name] / seconds["plain"] - 1 for name in ("leaky", "rounded")}
    predicted = counted["leaky"] / counted["plain"] - 1
    print(f"\nSNGAN-32, batch {batch_size}, beta {BETA:g}, n_dis {N_DIS}")
    print(f"  plain step            {spread(seconds['plain'])} s, {counted['plain'] / 1e9:,.0f} GFLOP")
    print(f"  with the leak         {spread(seconds['leaky'])} s, {counted['leaky'] / 1e9:,.0f} GFLOP")
    print(f"  counted operations    {predicted:.1%}")
    for name, what in {"leaky": "the leak adds        ", "rounded": "teacher in bfloat16  "}.items():
        verdict = "" if np.median(shares[name]) <= SHARE else f"  (above the {SHARE:.0%} that are asked for)"
        print(f"  {what} {spread(shares[name], '.1%')}{verdict}")
    print(f"  update of the average {spread(seconds['update'] / seconds['plain'], '.2%')} of a plain step")
    return {
        "batch_size": batch_size,
        "seconds": {name: list(values) for name, values in seconds.items()},
        "operations": counted,
        "shares": {name: float(np.median(share)) for name, share in shares.items()},
        "predicted share": predicted,
    }


def update(repeats: int) -> dict[str, object]:
    """The average of BigGAN-128's generator."""
    G, _ = gk.models.biggan((3, 128, 128), 1000, d_width=1)
    teacher = Teacher(G, gk.EMA(0.999), 256)
    average = copy.deepcopy(G).state_dict()

    @torch.no_grad()
    def authors(decay: float = 0.999) -> None:
        for key, value in G.state_dict().items():
            average[key].copy_(average[key] * decay + value * (1 - decay))

    @torch.no_grad()
    def in_place(decay: float = 0.999) -> None:
        for key, value in G.state_dict().items():
            if value.is_floating_point():
                average[key].mul_(decay).add_(value, alpha=1 - decay)

    alternatives = {"ours": lambda: teacher.update(G, 1), "the authors' loop": authors, "in place": in_place}
    seconds = in_turns(alternatives, repeats)
    parameters = nn.utils.parameters_to_vector(G.parameters()).numel()
    print(f"\nAverage of BigGAN-128's generator, {parameters:,} parameters in {len(average)} entries")
    for name, values in seconds.items():
        print(f"  {name:20} {spread(1e3 * values, '.0f')} ms")
    ratios = {name: seconds[name] / seconds["ours"] for name in list(seconds)[1:]}
    for name, values in ratios.items():
        verdict = "" if np.median(values) >= FASTER else f"  (below the {FASTER:g} that is asked for)"
        print(f"  ours is {spread(values)} times faster than {name}{verdict}")
    return {
        "seconds": {n: list(v) for n, v in seconds.items()},
        "ratios": {n: float(np.median(v)) for n, v in ratios.items()},
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="step or update (default: both)")
    parser.add_argument("--width", type=int, help="filters of the generator (default: the paper's 256)")
    parser.add_argument("--batch-size", type=int, default=16, help="samples of each kind (default: 16)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="turns of the steps; five times as many updates (default: 3)"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {"step", "update"}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from step, update")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # as `Trainer.fit` does
    result: dict[str, object] = {
        "machine": common.machine(arguments.threads, seconds=common.seconds_of(arguments.threads))
    }
    parts = arguments.parts or ("step", "update")
    if "step" in parts:
        result["step"] = step(arguments.width, arguments.batch_size, arguments.repeats)
    if "update" in parts:
        result["update"] = update(5 * arguments.repeats)
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
