"""What augmentation costs: its share of a step of SNGAN-32.

    python tests/bench/bench_augment.py                  width 64, batches of 16
    python tests/bench/bench_augment.py --width 256      the paper's width, ten times as long

A step of SNGAN-32 (n_dis 1) is timed alone, and beside it all that an augmentation does in one: forwards on real and
generated images in D's step, forwards and back in G's. Their ratio is the share. ADA's p is 1: everything
happens.
Alternatives take turns, and the median of the turns' ratios counts. The pipeline's work does not depend on the width of
the networks: the narrower they are, the larger its share.
"""

from __future__ import annotations

from collections.abc import Callable

import common
import numpy as np
import torch

import gankit as gk
from gankit.data import Dataset
from gankit.game.augment import ADA, DiffAugment
from gankit.game.play import Augment

SHARES = {"ADA": 0.10, "DiffAugment": 0.05}
"""What is asked for: the most that each may cost."""
SHAPE = (3, 32, 32)


def trainer(width: int, batch_size: int) -> gk.Trainer:
    pixels = torch.randint(
        0, 256, (512, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    data = Dataset("noise", pixels, torch.zeros(512, dtype=torch.int64), ("noise",))
    return gk.Trainer(
        *gk.models.sngan(SHAPE, width=width), data, loss="hinge", batch_size=batch_size, device="cpu"
    )


def of_a_step(augment: Augment, batch_size: int) -> Callable[[], None]:
    """All that an augmentation computes in one step of D and one of G."""
    streams = gk.Streams((0,), (), "cpu")
    both, made = torch.rand(2 * batch_size, *SHAPE), torch.rand(batch_size, *SHAPE, requires_grad=True)

    def work() -> None:
        augment(both, streams, {})
        torch.autograd.grad(augment(made, streams, {}).sum(), made)

    return work


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--width", type=int, default=64, help="filters next to the image (default: 64)")
    parser.add_argument("--batch-size", type=int, default=16, help="images of each kind (default: 16)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    facts = common.machine(arguments.threads, seconds=common.seconds_of(arguments.threads))
    n = arguments.batch_size
    run = trainer(arguments.width, n)
    pipelines = {"ADA": of_a_step(ADA(p=1.0), n), "DiffAugment": of_a_step(DiffAugment(), n)}
    alternatives: dict[str, Callable[[], object]] = {"step": run.step, **pipelines}
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(arguments.repeats + 1):
        for name, work in alternatives.items():
            begun = common.clock()
            work()
            if turn:  # the first one warms up
                seconds[name].append(common.clock() - begun)
    steps = np.array(seconds["step"])
    print(f"SNGAN-32, width {arguments.width}, batch {n}: {np.median(steps):.3f} s a step")
    shares = {}
    for name, most in SHARES.items():
        share = np.array(seconds[name]) / steps
        shares[name] = float(np.median(share))
        verdict = "" if shares[name] <= most else f"  (above the {most:.0%} that are asked for)"
        print(f"  {name:12} {shares[name]:.1%} [{share.min():.1%}, {share.max():.1%}]{verdict}")
    common.write({"machine": facts, "seconds": seconds, "shares": shares}, arguments.out)


if __name__ == "__main__":
    main()
