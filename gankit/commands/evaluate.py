"""`gankit evaluate`: measure a run against real data."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from gankit import checkpoints, data, distributed, metrics
from gankit.commands import flags, runs, spaces
from gankit.data import Dataset
from gankit.training import Trainer

EVALUATING = """\
metrics ({default}):
{metrics}

feature spaces: `classifier` is the book's own for digits and MNIST, trained and cached at first use; `inception`
the 2015 Inception network (`pip install "gankit[metrics]"`; its weights are read from --weights, or from the cache of
torch-fidelity, and fetched only with --download); `pixels` the images or points themselves; `auto` the classifier
where there is one and else the pixels. A distance is named after its space, and only Inception's is an FID.

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
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "-n", "--n", type=flags.positive, default=5_000, help="number of samples (default: %(default)s)"
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
    command.add_argument("--to", type=Path, help="the JSON file to write (default: FOLDER/evaluation.json)")
    command.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print a table of metrics and write them as JSON; processes that torchrun started share the work."""
    device = arguments.device = runs.own_device(arguments.device)
    with distributed.processes(device):
        run = runs.load_run(arguments)
        reference, split = _reference(run, arguments)
        space = spaces.of_run(run, reference, arguments)
        n_real = spaces.n_real(space, reference, arguments.n_real)
        scores = metrics.evaluate(
            runs.sampler(run, arguments),
            reference,
            arguments.metrics,
            space,
            n=arguments.n,
            n_real=n_real,
            split=split,
            k=arguments.k,
            splits=arguments.splits,
            pairs=arguments.pairs,
            errors=not arguments.no_errors,
            progress=not arguments.quiet,
        )
        if distributed.rank() > 0:
            return
    n_real = min(n_real, len(reference))
    result = {
        "recipe": run.recipe["name"],
        "step": run.steps,
        "images": run.images,
        "network": arguments.network,
        "samples": arguments.n,
        "reference": {
            "data": reference.name,
            "images": n_real,
            "split": split,
            "classes": reference.n_classes,
        },
        "sample_seed": arguments.sample_seed,
        "standing": arguments.standing,
        "seeds": list(run.seeds),
        "scores": {name: score.value.tolist() for name, score in scores.items()},
        "errors": {name: None if s.error is None else s.error.tolist() for name, s in scores.items()},
        "protocols": {name: dataclasses.asdict(score.protocol) for name, score in scores.items()},
        "versions": checkpoints.versions(),
    }
    target = arguments.to or arguments.folder / "evaluation.json"
    runs.write_json(target, result)
    print(
        f"{run.recipe['name']}, step {run.steps:,}, {arguments.network}, {arguments.n:,} samples against "
        f"{n_real:,} of {reference.name}"
    )
    print(scores)
    print(f"written to {target}")


def _reference(run: Trainer, arguments: argparse.Namespace) -> tuple[Dataset, str]:
    """What is compared with, and the name of its split: what the run was trained on, if nothing is said."""
    name = run.recipe["data"]
    if arguments.split is None:
        # What `gankit.data.load` gives by default: all digits, all of a folder, and else training data.
        return run.data, "all" if name not in data.NAMES or name.endswith("digits") else "train"
    return data.load(
        name, root=arguments.root, size=run.recipe["size"], split=arguments.split
    ), arguments.split
