"""`gankit train`: train a recipe, or go on with a run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch

from gankit import data, metrics, processes
from gankit.commands import flags, runs, spaces
from gankit.data import Dataset
from gankit.recipes import Recipe, opening, operations, recipes
from gankit.recipes.own import OWN, for_pictures, from_file
from gankit.training import Trainer, checkpoints
from gankit.training.listeners import Listener, Pictures, TensorBoard

DISTANCES = tuple(name for name, metric in metrics.METRICS.items() if metric.less_is_better)


def add(commands: flags.Commands) -> None:
    """The flags of `train`: its own, and one for each field of a recipe."""
    command = commands.add_parser(
        "train",
        parents=[flags.common()],
        add_help=False,
        usage="gankit train RECIPE [--out FOLDER] [--seed N ...] [--FIELD X ...]",
        help="train a recipe",
        description="Train a recipe. If --out already holds that run, training goes on from its last checkpoint, "
        "and on a CPU ends with exactly the parameters of an uninterrupted run.",
        epilog="Any field of the recipe can be changed with its flag (`none` unsets one whose value is None); "
        "`gankit train NAME --help` shows their values. `torchrun --nproc-per-node P -m gankit train NAME` shares each "
        "minibatch out among P processes, and the result is that of one.",
    )
    command.add_argument(
        "-h", "--help", action=_Help, nargs=0, help="show this, after the name of a recipe with its values"
    )
    command.add_argument(
        "recipe",
        help="name of a recipe (`gankit recipes` lists them); `own` for --data of one's own; a .toml file (recipe = "
        '"NAME" and changes); or the recipe.json of a run',
    )
    command.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="RUN",
        help="begin with the networks of another run (its newest checkpoint), with new optimisers and at step 0",
    )
    command.add_argument("--out", type=Path, help="folder of the run (default: runs/RECIPE-seedN)")
    command.add_argument(
        "--seed",
        type=flags.seed,
        nargs="+",
        help="seed; several train side by side (default: 0)",
    )
    command.add_argument(
        "--log-every",
        type=flags.positive,
        default=50,
        metavar="STEPS",
        help="steps between rows of log.jsonl (default: %(default)s)",
    )
    command.add_argument(
        "--save-every",
        type=flags.positive,
        default=500,
        metavar="STEPS",
        help="steps between checkpoints, of which the newest two are kept (default: %(default)s)",
    )
    command.add_argument(
        "--keep-every",
        type=flags.positive,
        metavar="STEPS",
        help="steps between checkpoints that are kept for good, for `gankit evaluate --curve` (default: none are)",
    )
    command.add_argument(
        "--pictures-every",
        type=flags.positive,
        metavar="STEPS",
        help="steps between two grids of samples from the same z, in the folder `pictures` of the run (default: none)",
    )
    command.add_argument(
        "--tensorboard",
        action="store_true",
        help="log to TensorBoard too, in the folder `tensorboard` of the run, with pictures as often as above "
        '(`tensorboard --logdir FOLDER`; pip install "gankit[tensorboard]")',
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="take three steps, say what the run would cost in operations, time and memory, and write nothing",
    )
    command.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    best = command.add_argument_group("the best checkpoint")
    best.add_argument(
        "--best",
        choices=DISTANCES,
        help="measure the averaged generator while it trains, log that, and keep the checkpoint at which it was "
        f"lowest as {checkpoints.BEST}",
    )
    best.add_argument(
        "--best-every",
        type=flags.positive,
        default=1_000,
        metavar="STEPS",
        help="steps between two measurements (default: %(default)s)",
    )
    best.add_argument(
        "--best-n", type=flags.positive, default=5_000, help="samples of each (default: %(default)s)"
    )
    spaces.add(best)
    flags.add_fields(command)
    command.set_defaults(run=train)


class _Help(argparse.Action):
    """Print the help, with the values of the recipe that was named before."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        if namespace.recipe is not None:
            try:
                is_own = namespace.recipe == OWN
                named = for_pictures("FOLDER", (3, 64, 64), 1, 64) if is_own else recipes[namespace.recipe]
            except KeyError as error:
                parser.error(str(error))
            parser.description = f"{named.name}: {named.about}"
            flags.show_values(parser, named)
        parser.print_help()
        parser.exit()


def train(arguments: argparse.Namespace) -> None:
    """Train a recipe, or go on with the run that is already in the folder; processes of torchrun share its batches."""
    recipe, seeds, pictures = _asked(arguments)
    out = arguments.out or Path("runs") / f"{recipe.name}-seed{'-'.join(map(str, seeds))}"
    if out.is_file():
        raise ValueError(f"--out must be a folder, and {out} is a file")
    with processes.joined(device := runs.own_device(arguments.device)):
        found = _newest(out)
        if found is not None:
            opening.check_same_run(found, recipe, seeds)
        run = recipe.build(
            seeds, root=arguments.root, download=arguments.download, device=device, data=pictures
        )
        say = print if processes.rank() == 0 else lambda line: None
        if found is not None:
            run.load(found, same_data=not opening.is_imported(found))
            say(f"{out}: going on from step {run.steps:,}")
        elif arguments.source is not None:
            source = opening.find_checkpoint(arguments.source)
            run.start_from(source)
            say(f"{out}: beginning with the networks of {source}")
        elif recipe.freeze_d:
            raise ValueError(
                f"--freeze-d {recipe.freeze_d} keeps weights that were trained before: give the run as --from"
            )
        left = recipe.steps - run.steps
        if left <= 0:
            say(f"{out}: the run is already at step {run.steps:,}; give a larger --steps to go on")
            return
        if arguments.dry_run:
            say(_tried(run, recipe, left))
            return
        listening = _listeners(out, arguments) if processes.rank() == 0 else []
        watched = {} if arguments.best is None else _watched(run, arguments)
        run.fit(
            left,
            out=out,
            **watched,
            log_every=arguments.log_every,
            save_every=arguments.save_every,
            keep_every=arguments.keep_every,
            listeners=listening,
            progress=not arguments.quiet,
        )
        say(f"{out}: step {run.steps:,}, checkpoint-{run.steps:08d}.pt, log log.jsonl")


def _listeners(out: Path, arguments: argparse.Namespace) -> list[Listener]:
    """What the flags ask to be told of the run."""
    every = arguments.pictures_every
    pictures = [Pictures(out / "pictures", every)] if every is not None else []
    return pictures + (
        [TensorBoard(out / "tensorboard", pictures_every=every)] if arguments.tensorboard else []
    )


def _tried(run: Trainer, recipe: Recipe, left: int) -> str:
    """What a run costs, in words: counted operations, and the time and memory of three steps here."""
    run.step()  # the first one also allocates and plans
    begun = time.perf_counter()
    seen = [run.step() for _ in range(2)][-1]
    costs = {name: seen[name].mean().item() for name in ("d_loss", "g_loss")}  # waits for the device
    seconds = (time.perf_counter() - begun) / 2
    sized = recipe if recipe.data in data.NAMES else dataclasses.replace(recipe, size=run.data.shape[-1])
    step = operations.of_recipe(sized).step * max(1, len(run.seeds))
    G, D = (sum(p.numel() for p in net.parameters()) for net in (run.G, run.D))
    return (
        f"{recipe.name} on {len(run.data):,} samples {list(run.data.shape)} of {run.data.n_classes:,} classes, on "
        f"{run.device}\nweights: G {G:,}, D {D:,}\nstep: {step / 1e9:.3g} GFLOP, counted; {seconds:.3g} s here\n"
        f"memory: {_memory(run.device)}\n"
        f"costs after three steps: D {costs['d_loss']:.4g}, G {costs['g_loss']:.4g}\n"
        f"{left:,} steps would take {left * seconds / 3600:.3g} hours; nothing was written"
    )


def _memory(device: torch.device) -> str:
    """The most that this process has had so far, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB of the GPU at the most"
    try:
        import resource
    except ImportError:  # Windows
        return "not known on this system"
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on a Mac, kibibytes elsewhere
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB of this process at the most"


def _asked(arguments: argparse.Namespace) -> tuple[Recipe, tuple[int, ...], Dataset | None]:
    """The recipe that was asked for with its changes, the seeds, and the data if they had to be read for that."""
    seeds = None if arguments.seed is None else tuple(arguments.seed)
    if Path(arguments.recipe).suffix in (".toml", ".json"):
        named, changes, stored = from_file(Path(arguments.recipe))
        return flags.changed(named.changed(changes), arguments), seeds or stored or (0,), None
    if arguments.recipe != OWN:
        return flags.changed(recipes[arguments.recipe], arguments), seeds or (0,), None
    given = flags.given(arguments)
    if "data" not in given:
        raise ValueError(
            "recipe 'own' needs --data, a folder or .zip of pictures or what `gankit pack` wrote"
        )
    size = given.get("size")
    pictures = data.load(given["data"], root=arguments.root, size=size, download=arguments.download)
    named = for_pictures(given["data"], pictures.shape, pictures.n_classes, size)
    return flags.changed(named, arguments), seeds or (0,), pictures


def _newest(out: Path) -> Path | None:
    """The checkpoint to go on from, or None; all processes must find the same.

    Raises:
        Disagreement: they do not, because machines have folders of that name which they do not share.
    """
    found = checkpoints.latest(out)
    processes.agree(
        {"the newest checkpoint": "none" if found is None else found.name},
        f"Give all machines an --out that they share, or copy the {out} with the newest checkpoint to each of them",
    )
    return found


def _watched(run: Trainer, arguments: argparse.Namespace) -> dict[str, Any]:
    """What `Trainer.fit` needs to keep the best checkpoint."""
    space = spaces.of_run(run, run.data, arguments)
    metric = metrics.METRICS[arguments.best]
    known = metrics.reference(
        run.data, space, n=spaces.n_real(space, run.data), device=run.device, progress=not arguments.quiet
    )
    return {
        "callback": metrics.watch(known, [arguments.best], n=arguments.best_n),
        "callback_every": arguments.best_every,
        "best": metric.title_in(space),
    }
