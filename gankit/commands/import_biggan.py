"""`gankit import-biggan`: a checkpoint of the BigGAN authors' PyTorch code becomes a run."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import nn

from gankit.commands import flags
from gankit.files import write_json
from gankit.models import biggan_weights
from gankit.models.blocks import HierarchicalGenerator
from gankit.recipes import Recipe, recipes
from gankit.recipes.opening import blank_pictures
from gankit.training import checkpoints

PUBLIC = 138_000
"""Steps of the public checkpoint for ImageNet at 128 x 128, with which table 4 of the LeakyEMA paper compares."""


def add(commands: flags.Commands) -> None:
    """The flags of `import-biggan`."""
    command = commands.add_parser(
        "import-biggan",
        help="read a checkpoint of BigGAN-PyTorch",
        description="Read a checkpoint of the BigGAN authors' PyTorch code (github.com/ajbrock/BigGAN-PyTorch) and "
        "write it as a run, which `gankit sample`, `evaluate` and `train` take. FILE is a folder that holds G_ema.pth, "
        "G.pth and D.pth, or one of the generators alone. An averaged generator becomes the teacher, and a generator "
        "that is missing is taken from the other. A discriminator that is missing starts anew.",
    )
    command.add_argument(
        "file", metavar="FILE", type=Path, help="folder with G_ema.pth, or a generator's file"
    )
    command.add_argument("out", metavar="OUT", type=Path, help="folder of the run to write")
    command.add_argument(
        "--step",
        type=flags.positive,
        help=f"generator steps it was trained for (default: {PUBLIC:,} at 128 pixels, else the recipe's)",
    )
    command.add_argument("--data", help="dataset of the run (default: the recipe's)")
    command.set_defaults(run=import_biggan)


def import_biggan(arguments: argparse.Namespace) -> None:
    """Write a run with the networks of a BigGAN-PyTorch checkpoint."""
    if checkpoints.latest(arguments.out) is not None:
        raise ValueError(f"{arguments.out} already holds a run; give another folder")
    average, current, critic = _files(arguments.file)
    teacher = biggan_weights.load_generator(average)
    G = teacher if current == average else biggan_weights.load_generator(current)
    recipe = _recipe(teacher)
    if arguments.data is not None:
        recipe = dataclasses.replace(recipe, data=arguments.data)
    if critic is not None:
        D: nn.Module = biggan_weights.load_discriminator(critic)
    else:
        _, D = recipe.networks(teacher.shape, 0, teacher.n_classes)
    blank = blank_pictures(teacher.shape, tuple(map(str, range(teacher.n_classes))))
    run = recipe.trainer(G, D, blank, device="cpu")
    _check_layers(run.teacher.net, recipe, teacher)
    run.teacher.net.load_state_dict(teacher.state_dict())
    run.steps = arguments.step or (PUBLIC if recipe.size == 128 else recipe.steps)
    target = checkpoints.path_of(arguments.out, run.steps)
    run.save(target)
    write_json(arguments.out / "recipe.json", run.recipe)
    shortfall = biggan_weights.sigma_shortfall(teacher)
    print(f"{average}: {_size(teacher)} weights, {teacher.n_classes:,} classes at {teacher.shape[-1]} pixels")
    print(
        f"in evaluation, singular values by its authors' rule fall short of the exact ones by at most "
        f"{shortfall:.2%}; these networks use the exact ones"
    )
    if critic is None:
        print("there is no D.pth: the discriminator starts anew")
    print(f"{target}: written as step {run.steps:,} of {recipe.name}, on data {recipe.data}")


def _files(path: Path) -> tuple[Path, Path, Path | None]:
    """The averaged generator, the current one and the discriminator."""
    if not path.is_dir():
        return path, path, None
    found = [path / f"{name}.pth" for name in ("G_ema", "G", "D")]
    generators = [file for file in found[:2] if file.is_file()]
    if not generators:
        raise checkpoints.CheckpointError(f"{path} holds neither G_ema.pth nor G.pth")
    return generators[0], generators[-1], found[2] if found[2].is_file() else None


def _recipe(G: nn.Module) -> Recipe:
    """The recipe whose networks have these sizes."""
    side = G.shape[-1]
    if isinstance(G, HierarchicalGenerator):
        base = recipes["biggan-imagenet128" if side != 32 else "incremental-biggan-cifar10"]
        y_dim = G.embedding.embedding_dim
        width = _width(G, {32: 4, 64: 2}.get(side, 1))
    else:
        base, y_dim, width = recipes["biggan-cifar10"], None, _width(G, 4)
    if side not in (32, 128):
        base = dataclasses.replace(base, name=f"biggan-imagenet{side}", data=f"imagenet{side}", size=side)
    return base.changed({"z_dim": G.z_dim, "width": width, "y_dim": y_dim})


def _width(G: nn.Module, multiple: int) -> int:
    """ch, from the filters of the last convolution."""
    last = [layer for layer in G.modules() if isinstance(layer, nn.Conv2d)][-1]
    return last.in_channels // multiple


def _check_layers(net: nn.Module, recipe: Recipe, G: nn.Module) -> None:
    """Refuse what a recipe cannot rebuild, such as attention at another place."""
    with torch.device("meta"):
        rebuilt, _ = recipe.networks(G.shape, 0, G.n_classes)
    ours, theirs = ({k: v.shape for k, v in n.state_dict().items()} for n in (rebuilt, net))
    if ours != theirs:
        raise ValueError(
            "a recipe cannot describe this network (attention elsewhere, perhaps); "
            "gankit.models.biggan_weights.load_generator reads it"
        )


def _size(G: nn.Module) -> str:
    return f"{sum(p.numel() for p in G.parameters()):,}"
