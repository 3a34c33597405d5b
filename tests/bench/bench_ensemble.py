"""How much faster S seeds train side by side than one after another, and where that stops.

    python tests/bench/bench_ensemble.py                 two settings, then a table over widths and replicas
    python tests/bench/bench_ensemble.py --no-table      the two settings alone

Every time is that of the same `Trainer.fit`. What is compared is measured in turns, so that a machine that is busy
for a while slows both sides alike; the median over the turns counts, and its spread is printed beside it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import common
import numpy as np
import torch
from tqdm import tqdm

import gankit as gk
from gankit.recipes import Recipe, recipes

REQUIRED = 4.0
SETTINGS = {"ring": recipes["ns-ring"], "digits": recipes["ns-digits"]}
WIDTHS = (32, 64, 128, 256, 512)
REPLICAS = (1, 2, 4, 8, 16, 32, 64)  # a single seed makes a plain run, with which the others compare


@dataclass(frozen=True)
class Spread:
    """Several measurements of one quantity."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{min(self.values):.2f}, {max(self.values):.2f}]"


def seconds_per_step(run: gk.Trainer, steps: int) -> float:
    """Wall-clock time of a generator step, averaged over `steps` of them."""
    begun = time.perf_counter()
    run.fit(steps, log_every=steps, progress=False)
    return (time.perf_counter() - begun) / steps


def compare(recipe: Recipe, replicas: int, steps: int, repeats: int, bar: tqdm) -> dict[str, Spread]:
    """Time `replicas` seeds side by side and one after another, all of them, in turns."""
    together = recipe.build(range(replicas), device="cpu")
    alone = [recipe.build([seed], device="cpu") for seed in range(replicas)]
    for run in (together, alone[0]):  # allocations and caches of the first steps are no part of training
        run.fit(10, log_every=10, progress=False)
    side_by_side, in_turn = [], []
    for _ in range(repeats):
        side_by_side.append(seconds_per_step(together, steps))
        in_turn.append(sum(seconds_per_step(run, steps) for run in alone))
        bar.update()
    ratios = tuple(b / a for a, b in zip(side_by_side, in_turn, strict=True))
    return {
        "ratio": Spread(ratios),
        "ms per step, side by side": Spread(tuple(1e3 * s for s in side_by_side)),
        "ms per step, one after another": Spread(tuple(1e3 * s for s in in_turn)),
    }


def relative_cost(recipe: Recipe, seconds: float, repeats: int, bar: tqdm) -> dict[int, Spread]:
    """Time per replica and step, as a share of that of a plain run; the plain run is measured in every turn."""
    runs = {s: recipe.build(range(s), device="cpu") for s in REPLICAS}
    steps = {s: max(1, round(seconds / seconds_per_step(run, 3))) for s, run in runs.items()}
    shares: dict[int, list[float]] = {s: [] for s in REPLICAS}
    for _ in range(repeats):
        times = {}
        for s, run in runs.items():
            times[s] = seconds_per_step(run, steps[s])
            bar.update()
        for s in REPLICAS:
            shares[s].append(times[s] / s / times[1])
    return {s: Spread(tuple(values)) for s, values in shares.items()}


def main() -> None:
    parser = common.parser(__doc__, "threads of wide networks; narrow ones train on one")
    parser.add_argument("--replicas", type=int, default=20, help="seeds of the two settings (default: 20)")
    parser.add_argument(
        "--steps", type=int, default=100, help="steps of each run and turn in the two settings (default: 100)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of each comparison (default: 5)")
    parser.add_argument("--no-table", action="store_true", help="leave out the table")
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="time of each cell of the table and turn (default: 0.3)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, object] = {"machine": common.machine(arguments.threads)}
    with tqdm(total=len(SETTINGS) * arguments.repeats, desc="settings", unit="turn", leave=False) as bar:
        settings = {
            name: compare(recipe, arguments.replicas, arguments.steps, arguments.repeats, bar)
            for name, recipe in SETTINGS.items()
        }
    print(f"\n{arguments.replicas} replicas side by side against one after another, median [min, max]:")
    for name, numbers in settings.items():
        ratio = numbers.pop("ratio")
        verdict = "" if ratio.median >= REQUIRED else f"  (below the {REQUIRED:g} that is asked for)"
        print(f"  {name:7} {ratio} times faster{verdict}")
        for what, spread in numbers.items():
            print(f"          {spread} {what}")
        result[name] = {"ratio": ratio.values} | {what: spread.values for what, spread in numbers.items()}

    if not arguments.no_table:
        turns = len(WIDTHS) * len(REPLICAS) * arguments.repeats
        with tqdm(total=turns, desc="table", unit="cell", leave=False) as bar:
            table = {
                width: relative_cost(
                    SETTINGS["digits"].changed({"width": width}), arguments.seconds, arguments.repeats, bar
                )
                for width in WIDTHS
            }
        print(
            "\nTime per replica and step relative to a plain run, digits, batch 32 (batching pays below 1):"
        )
        print("  width" + "".join(f"  S = {s:<4}" for s in REPLICAS))
        for width, row in table.items():
            print(f"  {width:5}" + "".join(f"  {row[s].median:<8.2f}" for s in REPLICAS))
        result["relative cost"] = {w: {s: row[s].values for s in row} for w, row in table.items()}

    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
