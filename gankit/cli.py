"""The command line: `gankit recipes`, `train`, `sample`, `evaluate`, `classifier`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import io
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

import gankit
from gankit import checkpoints, classifier, data, distributed, metrics, plotting
from gankit.checkpoints import CheckpointError
from gankit.data import Dataset
from gankit.metrics import FeatureSpace, features
from gankit.recipes import Recipe, from_dict, recipes
from gankit.sampling import Sampler
from gankit.training import Diverged, Trainer, pick_device

EXAMPLES = """\
examples:
  gankit recipes                                       what can be trained
  gankit train mm-nsat-digits --out runs/a             train; goes on where it stopped if runs/a exists
  gankit train ns-ring --seed 0 1 2 3 --out runs/b     four seeds side by side
  gankit sample runs/a                                 write a grid of samples, runs/a/samples.png
  gankit evaluate runs/a                               print a table, write runs/a/evaluation.json
  gankit evaluate runs/a -n 50000 --features inception --metrics fd is        FID and IS
"""

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

PIXEL_REFERENCES = 10_000
"""How many real images pixels are compared with if nothing is said, drawn at random."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 when all went well, 2 for input that cannot be used, 1 for a run that failed. What
        went wrong is said in one line on stderr.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        arguments.run(arguments)
    except Diverged as error:
        print(f"gankit: {error}", file=sys.stderr)
        return 1
    except (ValueError, CheckpointError, OSError, ImportError) as error:
        print(f"gankit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gankit: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except (RuntimeError, MemoryError) as error:
        # PyTorch has a type of its own for a full GPU, and none for a full main memory.
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
        print("gankit: out of memory; a smaller --batch-size, --width or -n needs less", file=sys.stderr)
        return 1
    return 0


# --- Commands -------------------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> None:
    """Train a recipe, or go on with the run that is already in the folder."""
    recipe = recipes[arguments.recipe]
    given = {f.name: getattr(arguments, f.name) for f in _fields() if hasattr(arguments, f.name)}
    recipe = dataclasses.replace(recipe, **given)
    seeds = tuple(arguments.seed)
    out = arguments.out or Path("runs") / f"{recipe.name}-seed{'-'.join(map(str, seeds))}"
    if out.is_file():
        raise ValueError(f"--out must be a folder, and {out} is a file")
    found = checkpoints.latest(out)
    if found is not None:
        _check_same_run(found, recipe, seeds)
    run = recipe.build(seeds, root=arguments.root, download=arguments.download, device=arguments.device)
    if found is not None:
        run.load(found)
        print(f"{out}: going on from step {run.steps:,}")
    left = recipe.steps - run.steps
    if left <= 0:
        print(f"{out}: the run is already at step {run.steps:,}; give a larger --steps to go on")
        return
    _write_json(out / "recipe.json", run.recipe)
    run.fit(
        left,
        out=out,
        log_every=arguments.log_every,
        save_every=arguments.save_every,
        progress=not arguments.quiet,
    )
    print(f"{out}: step {run.steps:,}, checkpoint {checkpoints.latest(out).name}, log log.jsonl")


def sample(arguments: argparse.Namespace) -> None:
    """Write a grid of samples as a PNG."""
    run = _load_run(arguments)
    target = arguments.to or arguments.folder / "samples.png"
    if target.suffix.lower() != ".png":
        raise ValueError(f"--to must name a .png file, got {target}")
    are_points = len(run.data.shape) == 1
    n = arguments.n or (2_000 if are_points else 64)
    samples = _sampler(run, arguments)(n)
    if are_points:
        picture = _scatter(samples, run)
    else:
        rows = samples if run.lead else samples[None]
        tiles = [_rgb(plotting.tile(images, pad=2)) for images in rows]
        picture = np.concatenate(tiles, axis=1)
        zoom = max(1, 512 // picture.shape[0])
        picture = picture.repeat(zoom, 0).repeat(zoom, 1)
    with checkpoints.replacing(target) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    print(f"{target}: {n} samples of {_network(run, arguments)}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print a table of metrics and write them as JSON; processes that torchrun started share the work."""
    device = arguments.device = _own_device(arguments.device)
    with distributed.processes(device):
        run = _load_run(arguments)
        reference, split = _reference(run, arguments)
        space = _space(run, reference, arguments)
        # A Frechet distance of pixels costs the number of images times d^2.
        n_real = arguments.n_real or (PIXEL_REFERENCES if space.name == "pixels" else len(reference))
        scores = metrics.evaluate(
            _sampler(run, arguments),
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
        "seeds": list(run.seeds),
        "scores": {name: score.value.tolist() for name, score in scores.items()},
        "errors": {name: None if s.error is None else s.error.tolist() for name, s in scores.items()},
        "protocols": {name: dataclasses.asdict(score.protocol) for name, score in scores.items()},
        "versions": checkpoints.versions(),
    }
    target = arguments.to or arguments.folder / "evaluation.json"
    _write_json(target, result)
    print(
        f"{run.recipe['name']}, step {run.steps:,}, {arguments.network}, {arguments.n:,} samples against "
        f"{n_real:,} of {reference.name}"
    )
    print(scores)
    print(f"written to {target}")


def list_recipes(arguments: argparse.Namespace) -> None:
    """List the recipes, or show every field of one."""
    if arguments.recipe is None:
        width = max(map(len, recipes))
        for recipe in recipes.values():
            print(f"{recipe.name:{width}}  {recipe.data:8} {recipe.steps:>8,} steps  {recipe.about}")
        return
    recipe = recipes[arguments.recipe]
    print(f"{recipe.name}: {recipe.about}\n")
    for f in _fields():
        print(f"  {f.name:12} {getattr(recipe, f.name)!s:10} {f.metadata['help']}")


def train_classifier(arguments: argparse.Namespace) -> None:
    """Train a classifier and keep it in the cache."""
    judge = classifier.train_and_cache(
        arguments.name,
        root=arguments.root,
        device=pick_device(arguments.device),
        progress=not arguments.quiet,
        download=arguments.download,
    )
    print(f"{arguments.name}: test accuracy {judge.test_accuracy:.2%}")


# --- Pieces ---------------------------------------------------------------------------------------------------


def _load_run(arguments: argparse.Namespace) -> Trainer:
    """The run in a folder, at its newest checkpoint."""
    found = checkpoints.latest(arguments.folder)
    if found is None:
        runs = sorted({str(path.parent) for path in arguments.folder.glob("*/checkpoint-*.pt")})
        hint = f"did you mean {' or '.join(runs[:3])}?" if runs else "`gankit train ... --out` writes one"
        raise CheckpointError(f"there is no checkpoint in {arguments.folder}; {hint}")
    recipe, seeds = _stored_recipe(found)
    return recipe.build(seeds, root=arguments.root, device=arguments.device).load(found)


def _own_device(device: str) -> torch.device:
    """The device of this process: of several that torchrun started, each has a GPU of its own."""
    found = pick_device(device)
    if found.type == "cuda" and found.index is None and "LOCAL_RANK" in os.environ:
        found = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(found)
    return found


def _reference(run: Trainer, arguments: argparse.Namespace) -> tuple[Dataset, str]:
    """What is compared with, and the name of its split: what the run was trained on, if nothing is said."""
    name = run.recipe["data"]
    if arguments.split is None:
        # What `gankit.data.load` gives by default: all digits, all of a folder, and else training data.
        return run.data, "all" if name not in data.NAMES or name.endswith("digits") else "train"
    return data.load(
        name, root=arguments.root, size=run.recipe["size"], split=arguments.split
    ), arguments.split


def _space(run: Trainer, reference: Dataset, arguments: argparse.Namespace) -> FeatureSpace:
    """The feature space that `--features` names."""
    name = run.recipe["data"]  # not the name of the data: a folder may be called digits, too
    kind = arguments.features
    if kind == "inception":
        return features.inception(arguments.weights, download=arguments.download)
    if kind == "classifier" or (kind == "auto" and name.removeprefix("stacked-") in classifier.RECIPES):
        _train_missing_classifier(name.removeprefix("stacked-"), run, arguments)
        return features.classifier(name, root=arguments.root)
    return features.pixels(reference)


def _train_missing_classifier(name: str, run: Trainer, arguments: argparse.Namespace) -> None:
    if distributed.rank() == 0 and not classifier.cache_path(name, arguments.root).exists():
        print(f"training the {name} classifier, once", file=sys.stderr)
        classifier.train_and_cache(name, arguments.root, run.device, progress=not arguments.quiet)
    distributed.gather(torch.zeros(1, device=run.device))  # the others wait here until it is there


def _stored_recipe(checkpoint: Path) -> tuple[Recipe, tuple[int, ...]]:
    """The recipe and the seeds of the run that wrote a checkpoint."""
    stored = json.loads(checkpoints.read(checkpoint)["recipe"])
    if stored is None:
        raise CheckpointError(
            f"{checkpoint} was written by a Trainer without a recipe, so its networks are not known"
        )
    return from_dict(stored)


def _check_same_run(checkpoint: Path, recipe: Recipe, seeds: tuple[int, ...]) -> None:
    """Refuse to go on with a run under other settings; only `steps` may change."""
    # The checkpoint says what it is; recipe.json lies beside it for people to read.
    stored, stored_seeds = _stored_recipe(checkpoint)
    differing = [
        f"{f.name} {getattr(stored, f.name)!r}"
        for f in dataclasses.fields(Recipe)
        if f.name not in ("steps", "about") and getattr(stored, f.name) != getattr(recipe, f.name)
    ]
    if stored_seeds != seeds:
        differing.append(f"seed {' '.join(map(str, stored_seeds))}")
    if differing:
        raise ValueError(
            f"{checkpoint} is of a run with {', '.join(differing)}; give the same to go on, or another --out"
        )


def _network(run: Trainer, arguments: argparse.Namespace) -> str:
    """What was sampled, in words; says so where the average is too young to be of use."""
    if arguments.network == "generator":
        return f"the generator at step {run.steps:,}"
    text = f"the averaged generator (teacher) at step {run.steps:,}"
    # After 2 / (1 - alpha) steps the initial weights still count for exp(-2), 14 %.
    if run.steps < 2 / (1 - run.teacher.alpha):
        text += "; it still remembers its initial weights, and --network generator may look better"
    return text


def _sampler(run: Trainer, arguments: argparse.Namespace) -> Sampler:
    network = run.teacher.net if arguments.network == "teacher" else run.G
    return Sampler(network, arguments.sample_seed, truncation=arguments.truncation)


def _scatter(samples: torch.Tensor, run: Trainer) -> np.ndarray:
    """Generated points over real ones, one panel per replica, as an RGB array."""
    import matplotlib.pyplot as plt

    rows = samples if run.lead else samples[None]
    figure, axes = plt.subplots(1, len(rows), figsize=(4 * len(rows), 4), squeeze=False, layout="constrained")
    for ax, generated, seed in zip(axes[0], rows, run.seeds, strict=True):
        plotting.points(ax, run.data.images[:5000], generated, title=f"seed {seed}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _write_json(path: Path, value: Any) -> None:
    with checkpoints.replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def _fields() -> list[dataclasses.Field]:
    """The fields of a recipe that have a flag."""
    return [f for f in dataclasses.fields(Recipe) if "help" in f.metadata]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    # PyTorch's CPU generator keeps 32 bits of a seed: larger ones would repeat the weights of smaller ones.
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**32 - 1}, got {text!r}")
    return int(text)


def _type_of(f: dataclasses.Field) -> Callable[[str], Any]:
    """What reads a field's flag: the field's type, where `none` unsets a field that may be unset."""
    annotation = typing.get_type_hints(Recipe)[f.name]
    kinds = typing.get_args(annotation)
    if not kinds:
        return annotation
    (kind,) = (k for k in kinds if k is not type(None))

    def read(text: str) -> Any:
        return None if text == "none" else kind(text)

    read.__name__ = kind.__name__  # argparse says "invalid int value"
    return read


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; argparse would print every flag first."""

    flags: tuple[str, ...] = ()
    """Flags of all commands, to guess what a misspelt one means."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        near = [
            flag
            for word in unknown
            for flag in difflib.get_close_matches(word.partition("=")[0], self.flags, n=1)
        ]
        hint = f"did you mean {' '.join(near)}?" if near else f"`{self.prog} --help` lists what there is"
        self.exit(2, f"{self.prog}: error: {message}; {hint}\n")


def _parser() -> argparse.ArgumentParser:
    style = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = _Parser(prog="gankit", description="Train, sample and evaluate GANs.", epilog=EXAMPLES, **style)
    parser.add_argument("--version", action="version", version=f"gankit {gankit.__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")

    common = _Parser(add_help=False)
    common.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    common.add_argument(
        "--root",
        type=Path,
        help="folder of datasets and classifiers (default: $GANKIT_DATA, else a cache folder)",
    )
    common.add_argument("--quiet", action="store_true", help="no progress bar")

    command = commands.add_parser(
        "train",
        parents=[common],
        help="train a recipe",
        description="Train a recipe. If --out already holds that run, training goes on from its last checkpoint, "
        "and on a CPU ends with exactly the parameters of an uninterrupted run.",
        epilog="Any field of the recipe can be changed with its flag (`none` unsets one whose value is None); "
        "`gankit recipes NAME` shows their values.",
    )
    command.add_argument("recipe", help="name of a recipe (`gankit recipes` lists them)")
    command.add_argument("--out", type=Path, help="folder of the run (default: runs/RECIPE-seedN)")
    command.add_argument(
        "--seed", type=_seed, nargs="+", default=[0], help="seed; several train side by side (default: 0)"
    )
    command.add_argument(
        "--log-every",
        type=_positive,
        default=50,
        metavar="STEPS",
        help="steps between rows of log.jsonl (default: %(default)s)",
    )
    command.add_argument(
        "--save-every",
        type=_positive,
        default=500,
        metavar="STEPS",
        help="steps between checkpoints (default: %(default)s)",
    )
    command.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    fields = command.add_argument_group("fields of the recipe")
    for f in _fields():
        fields.add_argument(
            f"--{f.name.replace('_', '-')}",
            type=_type_of(f),
            metavar="X",
            default=argparse.SUPPRESS,
            help=f.metadata["help"],
        )
    command.set_defaults(run=train)

    reading = _Parser(add_help=False)
    reading.add_argument("folder", type=Path, help="folder of a run")
    reading.add_argument(
        "--network",
        choices=("teacher", "generator"),
        default="teacher",
        help="averaged generator or the current one",
    )
    reading.add_argument("--sample-seed", type=_seed, default=0, help="seed of z (default: %(default)s)")
    reading.add_argument("--truncation", type=float, help="largest |z| (default: none)")

    command = commands.add_parser("sample", parents=[common, reading], help="write a grid of samples")
    command.add_argument("-n", type=_positive, help="number of samples (default: 64 images or 2,000 points)")
    command.add_argument("--to", type=Path, help="the PNG to write (default: FOLDER/samples.png)")
    command.set_defaults(run=sample)

    about = "\n".join(f"  {name:17} {metric.about}" for name, metric in metrics.METRICS.items())
    command = commands.add_parser(
        "evaluate",
        parents=[common, reading],
        help="measure a run",
        description="Measure samples of a run against real data: one pass over the samples for all metrics.",
        epilog=EVALUATING.format(
            metrics=about,
            default="by default mode statistics of mixtures, class statistics of digits, and fd",
        ),
        **style,
    )
    command.add_argument(
        "-n", "--n", type=_positive, default=5_000, help="number of samples (default: %(default)s)"
    )
    command.add_argument("--metrics", nargs="+", metavar="NAME", help="what to measure, see below")
    command.add_argument(
        "--features",
        choices=("auto", "pixels", "classifier", "inception"),
        default="auto",
        help="space to compare in, see below (default: %(default)s)",
    )
    command.add_argument("--weights", type=Path, help="file of the Inception weights")
    command.add_argument(
        "--download", action="store_true", help="fetch the Inception weights if they are missing"
    )
    command.add_argument(
        "--split", help="part of the data to compare with (default: what the run was trained on)"
    )
    command.add_argument(
        "--n-real",
        type=_positive,
        help=f"compare with a random choice of so many real images (default: all, or {PIXEL_REFERENCES:,} for pixels)",
    )
    command.add_argument("--k", type=_positive, default=5, help="neighbours (default: %(default)s)")
    command.add_argument(
        "--splits", type=_positive, default=10, help="parts of the IS (default: %(default)s)"
    )
    command.add_argument(
        "--pairs", type=_positive, default=200, help="pairs of MS-SSIM (default: %(default)s)"
    )
    command.add_argument(
        "--no-errors", action="store_true", help="estimate no standard errors, which is faster"
    )
    command.add_argument("--to", type=Path, help="the JSON file to write (default: FOLDER/evaluation.json)")
    command.set_defaults(run=evaluate)

    command = commands.add_parser("recipes", help="list the recipes, or show one")
    command.add_argument("recipe", nargs="?", help="name of a recipe")
    command.set_defaults(run=list_recipes)

    command = commands.add_parser(
        "classifier", parents=[common], help="train the classifier that evaluation uses"
    )
    command.add_argument("name", help="digits or mnist")
    command.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    command.set_defaults(run=train_classifier)
    usages = "".join(command.format_usage() for command in commands.choices.values())
    parser.flags = tuple(sorted(set(re.findall(r"--[a-z0-9-]+", usages))))
    return parser


if __name__ == "__main__":
    sys.exit(main())
