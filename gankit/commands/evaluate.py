"""`gankit evaluate`: measure a run against real data."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gankit import data, metrics, processes
from gankit.commands import flags, runs, spaces
from gankit.data import Dataset
from gankit.files import write_json
from gankit.training import Trainer, checkpoints, curves

SAMPLES = 5_000
"""How many samples are drawn of a run if nothing is said."""

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

Pictures that another program made are measured by the same rules:
  gankit evaluate --images samples/ --data cifar10 --features inception

What was computed of the real images is kept in the cache ($GANKIT_CACHE), and read where data, space and number agree.

Several GPUs or processes share the work and give the same scores:
  torchrun --nproc-per-node 8 -m gankit evaluate runs/a -n 50000
"""


def add(commands: flags.Commands) -> None:
    """The flags of `evaluate`."""
    reading = flags.reading()
    (folder,) = (action for action in reading._actions if action.dest == "folder")
    folder.nargs, folder.required = "?", False  # --images stands for it
    about = "\n".join(f"  {name:17} {metric.about}" for name, metric in metrics.METRICS.items())
    command = commands.add_parser(
        "evaluate",
        parents=[flags.common(), reading],
        help="measure a run",
        description="Measure samples of a run against real data: one pass over the samples for all metrics.",
        epilog=EVALUATING.format(
            metrics=about,
            default="by default mode statistics of mixtures, class statistics of digits, and fd",
        ),
    )
    command.add_argument(
        "-n", "--n", type=flags.positive, help=f"number of samples (default: {SAMPLES:,}, or all --images)"
    )
    command.add_argument(
        "--images", type=Path, metavar="FOLDER", help="measure the pictures of a folder or .zip, not a run"
    )
    command.add_argument("--data", metavar="NAME", help="what --images are compared with: a data set or path")
    command.add_argument("--size", type=flags.positive, help="side in pixels of both, with --images")
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
    if (arguments.folder is None) == (arguments.images is None):
        raise ValueError("give the folder of a run, or --images FOLDER with --data NAME")
    if arguments.curve and (arguments.best or arguments.step is not None):
        raise ValueError("--curve measures every kept checkpoint: leave --best and --step out")
    device = arguments.device = runs.own_device(arguments.device)
    with processes.joined(device):
        if arguments.images is not None:
            _evaluate_images(arguments)
        else:
            _evaluate_run(arguments)


def _evaluate_run(arguments: argparse.Namespace) -> None:
    run = runs.opened(arguments)
    real, split = _reference(run, arguments)
    space = spaces.of_run(run, real, arguments)
    n = arguments.n or SAMPLES
    asked, known = _known(real, space, split, n, arguments)
    n_real = min(spaces.n_real(space, real, arguments.n_real), len(real))
    about = {
        "recipe": run.recipe["name"],
        "network": arguments.network,
        "samples": n,
        "reference": {"data": real.name, "images": n_real, "split": split, "classes": real.n_classes},
        "sample_seed": arguments.sample_seed,
        "standing": arguments.standing,
        "seeds": list(run.seeds),
        "versions": checkpoints.versions(),
    }

    def measure() -> metrics.Scores:
        return _measure(runs.sampler(run, arguments), known(), asked, n, arguments)

    what = f"{arguments.network}, {n:,} samples against {n_real:,} of {real.name}"
    if arguments.curve:
        target = arguments.to or arguments.folder / curves.CURVE
        asked_for = {"metrics": list(asked), "space": space.name, "rule": space.rule, **_options(arguments)}
        about["asked"] = asked_for | {"errors": not arguments.no_errors, "truncation": arguments.truncation}
        found = _curve(run, measure, about, target, arguments)
        head = f"{len(found)} checkpoints"
        table = metrics.table({f"step {step:,}": row.scores for step, row in found.items()})
        result = None
    else:
        target = arguments.to or arguments.folder / "evaluation.json"
        scores = measure()
        head, table = f"step {run.steps:,}", str(scores)
        result = about | _protocols(scores) | {"step": run.steps, "images": run.images} | _values(scores)
    if processes.rank() > 0:
        return
    # First of all: what was measured is not lost where it cannot be written.
    print(f"{run.recipe['name']}, {head}, {what}\n{table}", flush=True)
    if result is not None:
        write_json(target, result)
    print(f"written to {target}")


def _evaluate_images(arguments: argparse.Namespace) -> None:
    """Score pictures of a folder, whoever made them."""
    if arguments.data is None:
        raise ValueError("--images needs --data NAME, a data set or a path, to compare with")
    if arguments.curve or arguments.best or arguments.step is not None:
        raise ValueError("--images is no run: leave --curve, --best and --step out")
    real = data.load(arguments.data, root=arguments.root, split=arguments.split, size=arguments.size)
    if len(real.shape) != 3:
        raise ValueError(f"--images are pictures, and {real.name!r} holds points")
    side = real.shape[1] if real.shape[1] == real.shape[2] else None
    made = data.load(arguments.images, size=side, n=arguments.n)
    if made.shape != real.shape:
        raise ValueError(
            f"--images must have the shape of {real.name!r}, {list(real.shape)}, got {list(made.shape)}"
        )
    space = spaces.of_data(arguments.data, real, arguments)
    split = arguments.split or _default_split(arguments.data)
    asked, known = _known(real, space, split, len(made), arguments)
    pictures = made.normalise(made.images.to(arguments.device))
    # Folders that are called like the classes of the reference are the labels that the generator was asked for.
    labels = made.labels.to(arguments.device) if made.classes == real.classes else None
    scores = _measure(lambda n: (pictures, labels), known(), asked, len(made), arguments)
    if processes.rank() > 0:
        return
    print(f"{made.name}, {len(made):,} images\n{scores}", flush=True)
    if arguments.to is not None:
        about = {"pictures": str(arguments.images), "samples": len(made), "versions": checkpoints.versions()}
        write_json(arguments.to, about | _protocols(scores) | _values(scores))
        print(f"written to {arguments.to}")


def _known(
    real: Dataset, space: metrics.FeatureSpace, split: str, n: int, arguments: argparse.Namespace
) -> tuple[dict[str, metrics.Metric], Callable[[], metrics.Reference]]:
    """The metrics that are asked for, and the reference, which is measured when it is first called for."""
    # What cannot be measured is refused now, and not after all real images were looked at.
    asked = metrics.choose(arguments.metrics, real, space, n, **_options(arguments))

    @functools.cache
    def known() -> metrics.Reference:
        if not any(metric.real for metric in asked.values()):
            return metrics.Reference(real, space, split)
        return metrics.reference(
            real,
            space,
            n=spaces.n_real(space, real, arguments.n_real),
            split=split,
            device=arguments.device,
            progress=not arguments.quiet,
            cache=data.cache_root(arguments.root) / "references",
        )

    return asked, known


def _options(arguments: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(arguments, name) for name in ("k", "splits", "pairs")}


def _measure(
    sampler: Any,
    known: metrics.Reference,
    asked: Mapping[str, metrics.Metric],
    n: int,
    arguments: argparse.Namespace,
) -> metrics.Scores:
    return metrics.evaluate(
        sampler,
        known,
        list(asked),
        n=n,
        **_options(arguments),
        errors=not arguments.no_errors,
        progress=not arguments.quiet,
    )


def _protocols(scores: metrics.Scores) -> dict[str, Any]:
    return {"protocols": {name: dataclasses.asdict(score.protocol) for name, score in scores.items()}}


def _values(scores: metrics.Scores) -> dict[str, dict[str, Any]]:
    """Values and errors by name, for JSON."""
    return {
        "scores": {name: score.value.tolist() for name, score in scores.items()},
        "errors": {name: None if s.error is None else s.error.tolist() for name, s in scores.items()},
    }


# --- Curves -------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What was measured of one checkpoint: real images seen, size and date of its file, and the scores."""

    images: int
    stamp: list[int]
    scores: metrics.Scores


def _curve(
    run: Trainer,
    measure: Callable[[], metrics.Scores],
    about: dict[str, Any],
    target: Path,
    arguments: argparse.Namespace,
) -> dict[int, Row]:
    """The rows of all kept checkpoints by step; each is said and written before the next, and none measured twice."""
    paths = {checkpoints.step_of(path): path for path in checkpoints.saved(arguments.folder)}
    stamps = {step: [(s := path.stat()).st_size, s.st_mtime_ns] for step, path in paths.items()}
    done = _read_rows(target, about)
    rows = {step: row for step, row in done.items() if stamps.get(step) == row.stamp}
    processes.agree({"the steps that were measured before": sorted(rows)})
    for step, path in paths.items():
        if step in rows:
            continue
        run.load(path)
        rows[step] = Row(run.images, stamps[step], measure())
        rows = dict(sorted(rows.items()))
        if processes.rank() == 0:
            said = ", ".join(f"{name} {score}" for name, score in rows[step].scores.items())
            print(f"step {step:,}: {said}", flush=True)
            write_json(target, about | _columns(rows))
    return rows


def _columns(rows: Mapping[int, Row]) -> dict[str, Any]:
    """Rows as lists of them, for JSON: steps, real images seen, values and errors."""
    each = [_values(row.scores) for row in rows.values()]
    last = next(reversed(rows.values())).scores
    return {
        **_protocols(last),
        "units": {name: score.unit for name, score in last.items()},
        "steps": list(rows),
        "stamps": [row.stamp for row in rows.values()],
        "images": [row.images for row in rows.values()],
        **{part: {name: [row[part][name] for row in each] for name in each[0][part]} for part in each[0]},
    }


def _read_rows(target: Path, about: Mapping[str, Any]) -> dict[int, Row]:
    """The rows of a file that `_curve` wrote when asked for the same; none if there is no such file."""
    try:
        stored = json.loads(target.read_text())
        if any(stored[name] != value for name, value in about.items()):
            return {}
        rows = {}
        for i, step in enumerate(stored["steps"]):
            scores = metrics.Scores()
            for name, values in stored["scores"].items():
                error = stored["errors"][name][i]
                scores[name] = metrics.Score(
                    torch.tensor(values[i], dtype=torch.float64),
                    None if error is None else torch.tensor(error, dtype=torch.float64),
                    metrics.Protocol(**stored["protocols"][name]),
                    stored["units"][name],
                )
            rows[step] = Row(stored["images"][i], stored["stamps"][i], scores)
        return rows
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


# --- The reference ------------------------------------------------------------------------------------------------


def _default_split(name: str) -> str:
    """What `gankit.data.load` gives by default: all digits, all of a folder, and else training data."""
    return "all" if name not in data.NAMES or name.endswith("digits") else "train"


def _reference(run: Trainer, arguments: argparse.Namespace) -> tuple[Dataset, str]:
    """What is compared with, and the name of its split: what the run was trained on, if nothing is said."""
    name = run.recipe["data"]
    if arguments.split is None:
        return run.data, _default_split(name)
    return data.load(
        name, root=arguments.root, size=run.recipe["size"], split=arguments.split
    ), arguments.split
