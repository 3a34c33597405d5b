"""`gankit export`: the generator of a run, for programs that do not have gankit."""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gankit.commands import flags
from gankit.files import replacing
from gankit.models.growing import Growing
from gankit.recipes import records
from gankit.recipes.saved import Saved, load
from gankit.training import checkpoints

ABOUT = """\
Write the generator of a run for other programs. --to says how:

  NAME.safetensors  its weights, with what they are as JSON under the key `gankit` of the header
  NAME.pt2          the network itself, for `torch.export.load` or ahead-of-time compilers; gankit is not needed to
                    run it. It is loaded again and must give the same samples before the file appears.
"""


def add(commands: flags.Commands) -> None:
    """The flags of `export`."""
    command = commands.add_parser("export", help="write the generator for other programs", description=ABOUT)
    command.add_argument("folder", type=Path, help="folder of a run")
    command.add_argument("--to", type=Path, required=True, metavar="FILE", help="what to write, see above")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the checkpoint that `train --best` kept")
    which.add_argument("--step", type=flags.positive, help="the checkpoint of this step")
    command.add_argument(
        "--network",
        choices=("teacher", "generator"),
        default="teacher",
        help="averaged generator or the current one (default: %(default)s)",
    )
    command.set_defaults(run=export)


def export(arguments: argparse.Namespace) -> None:
    """Write the generator in the format that the file's name asks for."""
    target = arguments.to
    writers = {".safetensors": write_weights, ".pt2": write_program}
    if target.suffix not in writers:
        raise ValueError(f"--to must name a .safetensors or .pt2 file, got {target}")
    saved = load(arguments.folder, step=arguments.step, best=arguments.best, device="cpu")
    if len(saved.seeds) > 1:
        raise ValueError(
            f"{arguments.folder} holds {len(saved.seeds)} seeds side by side: train one alone to export it"
        )
    net = saved.teacher if arguments.network == "teacher" else saved.G
    writers[target.suffix](net, about(saved, net, arguments.network), target)
    print(
        f"{target}: {arguments.network} at step {saved.step:,}, {sum(p.numel() for p in net.parameters()):,} weights"
    )


def about(saved: Saved, net: nn.Module, network: str) -> dict[str, Any]:
    """What another program needs to know of the network, as plain values."""
    return {
        "network": network,
        "step": saved.step,
        "z_dim": net.z_dim,
        "n_classes": getattr(net, "n_classes", 0),
        "noise_dim": getattr(net, "noise_dim", 0),
        "shape": list(saved.shape),
        "range": [-1, 1] if len(saved.shape) == 3 else None,
        "classes": list(saved.classes),
        "recipe": records.plain(saved.recipe),
        "versions": checkpoints.versions(),
    }


def write_weights(net: nn.Module, facts: dict[str, Any], target: Path) -> None:
    """Write parameters and buffers as safetensors.

    Raises:
        ImportError: the package safetensors is missing.
    """
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise ImportError('.safetensors files need a package: pip install "gankit[export]"') from None
    state = {name: x.detach().contiguous() for name, x in net.state_dict().items()}
    with replacing(target) as temporary:
        save_file(state, temporary, metadata={"gankit": json.dumps(facts)})


def write_program(net: nn.Module, facts: dict[str, Any], target: Path) -> None:
    """Write the network as a program of `torch.export`, for any number of samples.

    Raises:
        ValueError: what was written gives other samples than the network.
    """
    net, example = settled(net), inputs(net, 2, 0)
    with (
        torch.no_grad()
    ):  # spectral normalisation has a part without gradients, which cannot be stored as such
        program = torch.export.export(net, example, dynamic_shapes=dynamic_shapes(net, example))
    with replacing(target) as temporary:
        with open(temporary, "wb") as f, warnings.catch_warnings():
            # PyTorch says so of weights in another memory format, which are written all the same.
            warnings.filterwarnings("ignore", "No complete tensor found in the group", UserWarning)
            torch.export.save(program, f, extra_files={"gankit.json": json.dumps(facts)})
        with open(temporary, "rb") as f:
            again = torch.export.load(f).module()
        for n, seed in ((1, 1), (5, 2)):
            given = inputs(net, n, seed)
            with torch.no_grad():
                ours, theirs = net(*given), again(*given)
            if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
                worst = float((ours - theirs).abs().max())
                raise ValueError(
                    f"the exported network differs from its original by {worst:.2g}; nothing was written"
                )


def settled(net: nn.Module) -> nn.Module:
    """The network, or a copy that can grow no more: a program has the layers of one stage."""
    if not any(isinstance(module, Growing) for module in net.modules()):
        return net
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, Growing):
            module.now = partial(tuple, module.now())
    return net


def dynamic_shapes(net: nn.Module, example: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """The first dimension of each argument is the number of samples; those of a `*given` are a tuple of their own."""
    batch = torch.export.Dim("n", min=1)
    each = tuple({0: batch} for _ in example)
    kinds = [parameter.kind for parameter in inspect.signature(net.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return each
    at = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*each[:at], each[at:])


def inputs(net: nn.Module, n: int, seed: int) -> tuple[Tensor, ...]:
    """What `net` is called with for n samples: z, and labels and noise where it takes them."""
    generator = torch.Generator().manual_seed(seed)
    given = [torch.randn(n, net.z_dim, generator=generator)]
    if n_classes := getattr(net, "n_classes", 0):
        given.append(torch.randint(n_classes, (n,), generator=generator))
    if noise_dim := getattr(net, "noise_dim", 0):
        given.append(torch.randn(n, noise_dim, generator=generator))
    return tuple(given)
