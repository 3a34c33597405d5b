"""`gankit evaluate`: measure a run against real data."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gankit import data, metrics, processes
from gankit.commands import flags, runs, spaces
from gankit.data import Dataset
from gankit.training import Trainer, checkpoints, curves

EVALUATING = """\
metrics ({default}):
{metrics}

feature spaces: `classifier` is the book's own for digits, MNIST and CIFAR-10, trained and cached at first use, or the
one in --weights, which `gankit classifier` trained on other pictures; `inception` the 2015 Inception network (`pip
install "gankit[metrics]"`; its weights are read from --weights, or from the cache of torch-fidelity, and fetched only
with --download); `pixels` the images or points themselves; `auto` the classifier of digits and MNIST, and else the
pixels. A distance is named after its space, and only Inception's is an FID.

Scores compare only if they were measured alike: the protocol is printed below the table and stored with each score.
The error is the standard error over other samples of the same network; seeds differ by more.

Several GPUs or processes share the work and give the same scores:
  torchrun --nproc-per-node 8 -m gankit evaluate runs/a -n 50000
"""


def add(commands: flags.Commands) -> None:
    """The flags of `evaluate`."""
    about = "\n".join(f"  {name:17} {metric.about}" for name, metric in metrics.METRICS.items())
    command = commands.add_parser(
        "evaluate",
        parents=[flags.common(), flags.reading()],
        help="measure a run",
        description="Measure samples of a run against real data: one pass over the samples for all metrics.",
        epilog=EVALUATING.format(
            metrics=about,
            default="by default mode statistics of mixtures, class statistics of digits, and fd",
        ),
    )
    command.add_argument(
        "-n", "--n", type=flags.positive, default=5_000, help="number of samples (default: %(default)s)"
    )
    command.add_argument(
        "--curve",
        action="store_true",
        help="measure every checkpoint in the folder (`train --keep-every`): a learning curve for `gankit plot`",
    )
    command.add_argument("--metrics", nargs="+", metavar="NAME", help="what to measure, see below")
    spaces.add(command)
    command.add_argument(
        "--download", action="store_true", help="fetch the Inception weights if they are missing"
    )
    command.add_argument(
        "--split", help="part of the data to compare with (default: what the run was trained on)"
    )
    command.add_argument(
        "--n-real",
        type=flags.positive,
        help="compare with a random choice of so many real images (default: all, or "
        f"{spaces.PIXEL_REFERENCES:,} for pixels)",
    )
    command.add_argument("--k", type=flags.positive, default=5, help="neighbours (default: %(default)s)")
    command.add_argument(
        "--splits", type=flags.positive, default=10, help="parts of the IS (default: %(default)s)"
    )
    command.add_argument(
        "--pairs", type=flags.positive, default=200, help="pairs of MS-SSIM (default: %(default)s)"
    )
    command.add_argument(
        "--no-errors", action="store_true", help="estimate no standard errors, which is faster"
    )
    command.add_argument(
        "--to",
        type=Path,
        help=f"the JSON file to write (default: FOLDER/evaluation.json, or FOLDER/{curves.CURVE})",
    )
    command.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print a table of metrics and write them as JSON; processes that torchrun started share the work."""
    if arguments.curve and (arguments.best or arguments.step is not None):
        raise ValueError("--curve measures every kept checkpoint: leave --best and --step out")
    device = arguments.device = runs.own_device(arguments.device)
    with processes.joined(device):
        run = runs.opened(arguments)
        data, split = _reference(run, arguments)
        space = spaces.of_run(run, data, arguments)
        n_real = spaces.n_real(space, data, arguments.n_real)
        options = {name: getattr(arguments, name) for name in ("k", "splits", "pairs")}
        # What cannot be measured is refused now, and not after all real images were looked at.
        asked = metrics.choose(arguments.metrics, data, space, arguments.n, **options)
        known = metrics.Reference(data, space, split)
        if any(metric.real for metric in asked.values()):
            known = metrics.reference(
                data, space, n=n_real, split=split, device=device, progress=not arguments.quiet
            )
        found = {}
        for path in checkpoints.saved(arguments.folder) if arguments.curve else [None]:
            if path is not None:
                run.load(path)
            found[run.steps] = (
                run.images,
                metrics.evaluate(
                    runs.sampler(run, arguments),
                    known,
                    list(asked),
                    n=arguments.n,
                    **options,
                    errors=not arguments.no_errors,
                    progress=not arguments.quiet,
                ),
            )
        if processes.rank() > 0:
            return
    n_real = min(n_real, len(data))
    last = found[run.steps][1]
    result = {
        "recipe": run.recipe["name"],
        "network": arguments.network,
        "samples": arguments.n,
        "reference": {"data": data.name, "images": n_real, "split": split, "classes": data.n_classes},
        "sample_seed": arguments.sample_seed,
        "standing": arguments.standing,
        "seeds": list(run.seeds),
        "protocols": {name: dataclasses.asdict(score.protocol) for name, score in last.items()},
        "versions": checkpoints.versions(),
    }
    what = f"{arguments.network}, {arguments.n:,} samples against {n_real:,} of {data.name}"
    if arguments.curve:
        target = arguments.to or arguments.folder / curves.CURVE
        result |= _curve(found)
        head = f"{len(found)} checkpoints"
        table = metrics.table({f"step {step:,}": scores for step, (_, scores) in found.items()})
    else:
        target = arguments.to or arguments.folder / "evaluation.json"
        result |= {"step": run.steps, "images": run.images} | _values(last)
        head, table = f"step {run.steps:,}", str(last)
    runs.write_json(target, result)
    print(f"{run.recipe['name']}, {head}, {what}")
    print(table)
    print(f"written to {target}")


def _values(scores: metrics.Scores) -> dict[str, dict[str, Any]]:
    """Values and errors by name, for JSON."""
    return {
        "scores": {name: score.value.tolist() for name, score in scores.items()},
        "errors": {name: None if s.error is None else s.error.tolist() for name, s in scores.items()},
    }


def _curve(found: Mapping[int, tuple[int, metrics.Scores]]) -> dict[str, Any]:
    """The same of several steps: lists of them, with the steps and the real images seen."""
    each = [_values(scores) for _, scores in found.values()]
    return {
        "steps": list(found),
        "images": [images for images, _ in found.values()],
        **{part: {name: [row[part][name] for row in each] for name in each[0][part]} for part in each[0]},
    }


def _reference(run: Trainer, arguments: argparse.Namespace) -> tuple[Dataset, str]:
    """What is compared with, and the name of its split: what the run was trained on, if nothing is said."""
    name = run.recipe["data"]
    if arguments.split is None:
        # What `gankit.data.load` gives by default: all digits, all of a folder, and else training data.
        return run.data, "all" if name not in data.NAMES or name.endswith("digits") else "train"
    return data.load(
        name, root=arguments.root, size=run.recipe["size"], split=arguments.split
    ), arguments.split
