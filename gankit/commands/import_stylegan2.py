"""`gankit import-stylegan2`: weights of stylegan2-ada-pytorch become a run."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from torch import nn

from gankit.commands import flags
from gankit.files import write_json
from gankit.models import stylegan2_weights
from gankit.models.style_blocks import StyleGenerator
from gankit.recipes import Networks, Recipe, recipes
from gankit.recipes.opening import blank_pictures
from gankit.training import checkpoints

BATCH = 32
"""Real images of each kind in a step, by which --images become steps."""


def add(commands: flags.Commands) -> None:
    """The flags of `import-stylegan2`."""
    command = commands.add_parser(
        "import-stylegan2",
        help="read weights of stylegan2-ada-pytorch",
        description="Read weights of the public stylegan2-ada-pytorch and write them as a run, which `gankit sample`, "
        "`evaluate` and `train` take. FILE is what tools/stylegan2_to_safetensors.py of the gankit repository wrote: "
        "the published files are pickles, which may hold code, and are not loaded. The averaged generator becomes the "
        "teacher, and a generator that is missing is taken from the other. A discriminator that is missing starts "
        "anew.",
    )
    command.add_argument("file", metavar="FILE", type=Path, help="a .safetensors file")
    command.add_argument("out", metavar="OUT", type=Path, help="folder of the run to write")
    command.add_argument(
        "--images",
        type=flags.positive,
        default=25_000_000,
        help="real images it was trained on (default: %(default)s, as those for FFHQ)",
    )
    command.add_argument(
        "--group",
        type=flags.positive,
        default=None,
        help="samples whose deviation D sees, which no tensor says (default: 32 for the networks of CIFAR-10, else 4)",
    )
    command.add_argument("--data", help="dataset of the run (default: ffhq and its pixels, or cifar10)")
    command.set_defaults(run=import_stylegan2)


def import_stylegan2(arguments: argparse.Namespace) -> None:
    """Write a run with the networks of a file."""
    if checkpoints.latest(arguments.out) is not None:
        raise ValueError(f"{arguments.out} already holds a run; give another folder")
    path = arguments.file
    state = stylegan2_weights.read(path)
    there = stylegan2_weights.parts(state)
    average = "G_ema" if "G_ema" in there else "G"
    teacher = stylegan2_weights.generator(state, path, average)
    G = stylegan2_weights.generator(state, path, "G") if "G" in there else teacher
    tuned = len(teacher.mapping.layers) == 2  # the CIFAR-10 networks alone have so few
    group = arguments.group or (32 if tuned else 4)
    D = stylegan2_weights.discriminator(state, path, group=group) if "D" in there else None
    recipe = _recipe(teacher, tuned, group, arguments.data, arguments.images)
    n_classes = teacher.n_classes
    ours = recipe.networks(teacher.shape, 0, n_classes)
    for name, net, own in (("generator", teacher, ours[0]), ("discriminator", D, ours[1])):
        if net is not None:
            _check_layers(name, net, own)
    blank = blank_pictures(teacher.shape, tuple(map(str, range(n_classes or 1))))
    run = recipe.trainer(ours[0], ours[1], blank, device="cpu")
    run.G.load_state_dict(G.state_dict())
    run.teacher.net.load_state_dict(teacher.state_dict())
    if D is not None:
        run.D.load_state_dict(D.state_dict())
    run.steps = recipe.steps
    target = checkpoints.path_of(arguments.out, run.steps)
    run.save(target)
    write_json(arguments.out / "recipe.json", run.recipe)
    classes = f", {n_classes:,} classes" if n_classes else ""
    print(f"{path}: {_size(teacher)} weights of G{classes} at {teacher.shape[-1]} pixels")
    if D is None:
        print("there is no D: the discriminator starts anew")
    print(f"{target}: written as step {run.steps:,} of {recipe.name}, on data {recipe.data}")


def _recipe(G: StyleGenerator, tuned: bool, group: int, data: str | None, images: int) -> Recipe:
    """The recipe whose networks have these sizes."""
    side = G.shape[-1]
    base = recipes["stylegan2-cifar10" if tuned else "stylegan2-ffhq1024"]
    width, max_width = (G.synthesis.to_rgb[-1].conv.weight.shape[1], G.synthesis.constant.shape[0])
    sizes = {"z_dim": G.z_dim, "w_dim": G.synthesis.w_dim, "width": width, "max_width": max_width}
    if not tuned:
        sizes |= {"mapping": len(G.mapping.layers), "group": group}
    networks = Networks(base.networks.family, **sizes, conditional=bool(G.n_classes))
    return dataclasses.replace(
        base,
        name=f"stylegan2-imported{side}",
        about=f"{base.about}; weights of stylegan2-ada-pytorch",
        data=data or ("cifar10" if tuned else f"ffhq{side}"),
        size=side,
        networks=networks,
        steps=max(1, images // BATCH),
        batch_size=BATCH,
    )


def _check_layers(name: str, net: nn.Module, rebuilt: nn.Module) -> None:
    """Refuse what a recipe cannot rebuild, such as a residual generator."""
    ours, theirs = ({k: v.shape for k, v in one.state_dict().items()} for one in (rebuilt, net))
    if ours != theirs:
        raise ValueError(
            f"a recipe cannot describe this {name} (another architecture, perhaps); "
            f"gankit.models.stylegan2_weights.{name} reads it"
        )


def _size(net: nn.Module) -> str:
    return f"{sum(p.numel() for p in net.parameters()):,}"
