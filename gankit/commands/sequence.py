"""`gankit sequence`: GANs one after another, each on the real images that the others left out."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gankit.classifiers import weights as weighing
from gankit.commands import flags, spaces
from gankit.files import replacing, write_json
from gankit.models.sampling import Sampler
from gankit.models.sampling import logits as logits_of
from gankit.models.union import Union
from gankit.recipes import Recipe, opening, recipes
from gankit.training import Trainer, checkpoints

METHODS = ("none", *weighing.METHODS, "D")
WEIGHTS = "weights.npy"
"""Beside a GAN's checkpoints: how often it saw each real image, float64 ``[N]``."""

ABOUT = """\
Train several GANs of one recipe, one after another, in OUT/1, OUT/2, ... Each
real image is drawn for the next one by its distance to what the GANs before
it make (Algorithm 1 of Slim 2020; --method), or by the density ratio that
their discriminators see (D). `none` weighs nothing: GANs that differ by their
seed. The same command goes on where it stopped.

  gankit sequence incremental-biggan-cifar10 --method B --gans 3 --out runs/b
  gankit classify --from runs/b/1 --from runs/b/2 --from runs/b/3 --filter
"""


def add(commands: flags.Commands) -> None:
    """The flags of `sequence`."""
    command = commands.add_parser(
        "sequence",
        parents=[flags.common()],
        help="train GANs that complete each other",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("recipe", help="name of a recipe (`gankit recipes` lists them)")
    command.add_argument("--out", type=Path, required=True, help="folder of the runs")
    command.add_argument(
        "--method", choices=METHODS, default="B", help="of the weights (default: %(default)s)"
    )
    command.add_argument("--gans", type=flags.positive, default=2, help="how many (default: %(default)s)")
    command.add_argument(
        "--steps", type=flags.positive, help="generator steps of each (default: the recipe's)"
    )
    command.add_argument(
        "--seed", type=flags.seed, default=0, help="of the first; the others have the next ones"
    )
    command.add_argument(
        "-n", type=flags.positive, help="generated images to measure from (default: as many as real)"
    )
    command.add_argument(
        "--save-every", type=flags.positive, default=500, help="steps (default: %(default)s)"
    )
    command.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    spaces.add(command)
    command.set_defaults(run=sequence)


def sequence(arguments: argparse.Namespace) -> None:
    """Train GANs one after another."""
    recipe = recipes[arguments.recipe]
    if arguments.steps is not None:
        recipe = dataclasses.replace(recipe, steps=arguments.steps)
    members: list[Trainer] = []
    weights: list[Tensor] = []
    for k in range(1, arguments.gans + 1):
        folder = arguments.out / str(k)
        run = recipe.build(
            (arguments.seed + k - 1,),
            root=arguments.root,
            download=arguments.download,
            device=arguments.device,
        )
        weights.append(_weights(folder / WEIGHTS, run, members, weights, arguments))
        run.data = run.data.with_weights(weights[-1])
        _train(run, recipe, folder, arguments)
        members.append(run)
        size = float(weighing.effective_sample_size(weights[-1])) / len(run.data)
        print(f"{folder}: step {run.steps:,}, trained on an effective {size:.0%} of {len(run.data):,} images")


def _train(run: Trainer, recipe: Recipe, folder: Path, arguments: argparse.Namespace) -> None:
    found = checkpoints.latest(folder)
    if found is not None:
        opening.check_same_run(found, recipe, (run.seeds[0],))
        run.load(found)
    if run.steps < recipe.steps:
        write_json(folder / "recipe.json", run.recipe)
        run.fit(
            recipe.steps - run.steps,
            out=folder,
            save_every=arguments.save_every,
            progress=not arguments.quiet,
        )


def _weights(
    path: Path, run: Trainer, members: list[Trainer], used: list[Tensor], arguments: argparse.Namespace
) -> Tensor:
    """How often the next GAN draws each real image, from the file or measured and kept."""
    if path.exists():
        kept = torch.from_numpy(np.load(path, allow_pickle=False))
        if kept.shape != (len(run.data),):
            raise ValueError(
                f"{path} holds {kept.numel()} weights for {len(run.data)} images; give another --out"
            )
        return kept.to(run.data.device)
    if not members or arguments.method == "none":
        found = torch.ones(len(run.data), dtype=torch.float64, device=run.data.device)
    elif arguments.method == "D":
        found = _by_ratio(run, members, used)
    else:
        found = _by_distance(run, members, arguments)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, found.cpu().numpy())
    return found


def _groups(run: Trainer) -> Tensor:
    """Labels within which images are compared; an unconditional generator has a single class."""
    return run.data.labels if getattr(run.G, "n_classes", 0) else torch.zeros_like(run.data.labels)


@torch.no_grad()
def _by_distance(run: Trainer, members: list[Trainer], arguments: argparse.Namespace) -> Tensor:
    space = spaces.of_run(run, run.data, arguments).to(run.device)
    G, labels = Union([member.teacher.net for member in members]), _groups(run)
    parts = Sampler(G, seed=len(members)).batches(arguments.n or len(run.data))
    fake = [
        (space(images), torch.zeros(len(images), dtype=torch.int64) if y is None else y)
        for images, y in parts
    ]
    rows = torch.arange(len(run.data), device=run.data.device).split(1_000)
    real = torch.cat([space(run.data.batch(index)[0]) for index in rows])
    features, asked = (torch.cat(of).to(real.device) for of in zip(*fake, strict=True))
    distances = weighing.class_distances(real, labels, features, asked)
    w = weighing.transform(weighing.by_range(distances, labels), labels, arguments.method)
    return weighing.balance(w, labels)


@torch.no_grad()
def _by_ratio(run: Trainer, members: list[Trainer], used: list[Tensor]) -> Tensor:
    ratios = []
    for member, w in zip(members, used, strict=True):
        rows = torch.arange(len(run.data), device=run.data.device).split(1_000)
        logits = torch.cat([logits_of(member.D, *run.data.batch(index)).double() for index in rows])
        # D tells q from the *weighted* images: q over p is their share times what it says.
        ratios.append(w / w.mean() * logits.neg().clamp_max(20).exp())
    wanted = weighing.density_ratio_weights(torch.stack(ratios).mean(0), len(members) + 1)
    return weighing.balance(wanted.clamp_min(1e-3), _groups(run))
