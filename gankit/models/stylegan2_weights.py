"""Networks of the public stylegan2-ada-pytorch, read into those of `gankit.models.stylegan2`.

    >>> state = read("ffhq.safetensors")
    >>> G = generator(state, "ffhq.safetensors", "G_ema")

The authors publish pickles, which hold code, and are not loaded here. `tools/stylegan2_to_safetensors.py` of this
repository, run where their code is at home, writes the tensors alone, under names such as
`G_ema.synthesis.b8.conv0.weight`. Their shapes say which network they are of; then every name must be there with the
expected shape, and nothing else.

Three things differ between the two:

- The kernel of a layer that doubles the side is a true convolution's there and flipped here.
- Fixed noise is a buffer of each layer there, and one buffer here.
- Their layers of half precision clamp at +-256, which weights in single precision do not need. Pictures agree where
  nothing is clamped.

The group of the minibatch deviation is in no tensor: it is 4 here, and the public networks for CIFAR-10 have 32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gankit.files import CheckpointError
from gankit.models.biggan_weights import check_names
from gankit.models.style_blocks import CUBIC, StyleGenerator
from gankit.models.style_blocks import Mapping as MappingNetwork
from gankit.models.stylegan2 import Discriminator2, Synthesis2, stylegan2

State = Mapping[str, Tensor]
Names = dict[str, tuple[str, Callable[[Tensor], Tensor]]]
"""Their name -> ours, and what becomes of the tensor."""

CONVERTER = "tools/stylegan2_to_safetensors.py"
"""In this project's repository."""
PARTS = ("G_ema", "G", "D")
ARCHITECTURES = {"resnet": "residual", "skip": "skip", "orig": "orig"}
"""Their names of the architectures -> ours."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file that the converter wrote, on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or is one of their pickles.
        ImportError: the package safetensors is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth"):
        raise CheckpointError(
            f"{path} is a pickle, which may hold code, and is not loaded: run {CONVERTER} of the gankit repository "
            "beside stylegan2-ada-pytorch, and give the .safetensors file that it writes"
        )
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ImportError('.safetensors files need a package: pip install "gankit[export]"') from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no whole .safetensors file ({error})") from error


def parts(state: State) -> list[str]:
    """Those of `PARTS` that a file holds."""
    return [part for part in PARTS if any(name.startswith(f"{part}.") for name in state)]


def generator(state: State, path: str | Path, part: str = "G_ema") -> StyleGenerator:
    """A generator of a file, in evaluation mode.

    Args:
        state: of `read`.
        path: of the file, for messages.
        part: "G_ema", the averaged one, or "G".

    Raises:
        CheckpointError: it is not there, or of another kind of network; every difference is listed.
    """
    own = _part(state, part, path)
    sizes = _sizes(own, path)
    G, _ = stylegan2(**sizes, d_architecture="orig", group=1)
    return _filled(G, own, generator_names(G), path)


def discriminator(state: State, path: str | Path, *, group: int = 4) -> Discriminator2:
    """The discriminator of a file, in evaluation mode.

    Args:
        state, path: as for `generator`.
        group: of the minibatch deviation.

    Raises:
        CheckpointError: as for `generator`.
    """
    own = _part(state, "D", path)
    sides = _resolutions(own, "", path)
    width, channels = _shape(own, f"b{sides[-1]}.fromrgb.weight", path)[:2]
    labels = own.get("mapping.embed.weight")
    _, D = stylegan2(
        (channels, sides[-1], sides[-1]),
        z_dim=1,
        width=width,
        max_width=_shape(own, "b4.conv.weight", path)[0],
        mapping=1,
        group=group,
        d_architecture=d_architecture(own, path),
        n_classes=0 if labels is None else labels.shape[1],
    )
    return _filled(D, own, discriminator_names(D), path)


def d_architecture(state: State, path: str | Path) -> str:
    """ "orig", "skip" or "residual", of the tensors of a discriminator."""
    last = _resolutions(state, "", path)[-1]
    if f"b{last}.skip.weight" in state:
        return "residual"
    return "skip" if "b4.fromrgb.weight" in state else "orig"


# --- Names --------------------------------------------------------------------------------------------------------


def generator_names(G: StyleGenerator) -> Names:
    """The names of a generator's tensors but for the noise, theirs and ours."""
    synthesis = G.synthesis
    names = _mapping("mapping", "mapping", G.mapping) | {"mapping.w_avg": _same("w_avg")}
    names["synthesis.b4.const"] = _same("synthesis.constant")
    names |= _styled("synthesis.b4.conv1", "synthesis.conv")
    for i, block in enumerate(synthesis.blocks):
        theirs, ours = f"synthesis.b{8 << i}", f"synthesis.blocks.{i}"
        names |= _styled(f"{theirs}.conv0", f"{ours}.conv0", up=True)
        names |= _styled(f"{theirs}.conv1", f"{ours}.conv1")
        if hasattr(block, "shortcut"):
            names[f"{theirs}.skip.weight"] = _same(f"{ours}.shortcut.weight")
    every = len(synthesis.to_rgb) > 1
    for i in range(len(synthesis.to_rgb)):
        theirs = f"synthesis.b{4 << (i if every else len(synthesis.blocks))}.torgb"
        names |= _affine(theirs, f"synthesis.to_rgb.{i}")
    return names


def discriminator_names(D: Discriminator2) -> Names:
    """The names of a discriminator's tensors, theirs and ours."""
    names: Names = {}
    last = 4 << len(D.blocks)
    for i in range(len(D.from_rgb)):
        names |= _plain(f"b{last >> i}.fromrgb", f"from_rgb.{i}")
    for i, block in enumerate(D.blocks):
        theirs, ours = f"b{last >> i}", f"blocks.{i}"
        names |= _plain(f"{theirs}.conv0", f"{ours}.conv0") | _plain(f"{theirs}.conv1", f"{ours}.conv1")
        if hasattr(block, "shortcut"):
            names[f"{theirs}.skip.weight"] = _same(f"{ours}.shortcut.weight")
    names |= _plain("b4.conv", "conv") | _plain("b4.fc", "hidden") | _plain("b4.out", "last")
    return names if D.mapping is None else names | _mapping("mapping", "mapping", D.mapping)


def noise_names(G: StyleGenerator) -> list[str]:
    """Their names of the fixed noise, in the order in which it lies here."""
    later = [
        f"synthesis.b{8 << i}.conv{j}.noise_const" for i in range(len(G.synthesis.blocks)) for j in range(2)
    ]
    return ["synthesis.b4.conv1.noise_const", *later]


def _same(ours: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    return ours, lambda x: x


def _plain(theirs: str, ours: str) -> Names:
    return {f"{theirs}.{part}": _same(f"{ours}.{part}") for part in ("weight", "bias")}


def _affine(theirs: str, ours: str, *, up: bool = False) -> Names:
    """A modulated convolution and its bias."""
    names = {f"{theirs}.affine.{part}": _same(f"{ours}.conv.affine.{part}") for part in ("weight", "bias")}
    names[f"{theirs}.weight"] = (f"{ours}.conv.weight", _flipped if up else lambda x: x)
    return names | {f"{theirs}.bias": _same(f"{ours}.bias")}


def _styled(theirs: str, ours: str, *, up: bool = False) -> Names:
    return _affine(theirs, ours, up=up) | {f"{theirs}.noise_strength": _same(f"{ours}.strength")}


def _mapping(theirs: str, ours: str, net: MappingNetwork) -> Names:
    names: Names = {}
    for i in range(len(net.layers)):
        names |= _plain(f"{theirs}.fc{i}", f"{ours}.layers.{i}")
    return names if net.embedding is None else names | _plain(f"{theirs}.embed", f"{ours}.embedding")


def _flipped(kernel: Tensor) -> Tensor:
    return kernel.flip(-2, -1)


# --- Networks of the right size -------------------------------------------------------------------------------------


def _part(state: State, part: str, path: str | Path) -> dict[str, Tensor]:
    """The tensors of one network, by their names in it, without the filters."""
    own = {name.removeprefix(f"{part}."): x for name, x in state.items() if name.startswith(f"{part}.")}
    if not own:
        there = ", ".join(parts(state)) or "none of " + ", ".join(PARTS)
        raise CheckpointError(f"{path} holds no {part}, it holds {there}")
    row = torch.tensor(CUBIC) / sum(CUBIC)
    for name in [name for name in own if name.endswith("resample_filter")]:
        kernel = own.pop(name)
        if kernel.shape != (4, 4) or not torch.allclose(kernel.float(), torch.outer(row, row)):
            raise CheckpointError(f"{path}: {part}.{name} is not the filter [1, 3, 3, 1] of StyleGAN2")
    return own


def _sizes(state: State, path: str | Path) -> dict[str, Any]:
    """Arguments of `stylegan2`, from the shapes of a generator."""
    sides = _resolutions(state, "synthesis.", path)
    last = f"synthesis.b{sides[-1]}"
    channels, width = _shape(state, f"{last}.torgb.weight", path)[:2]
    max_width, w_dim = _shape(state, "synthesis.b4.conv1.affine.weight", path)
    given = _shape(state, "mapping.fc0.weight", path)[1]
    embed = state.get("mapping.embed.weight")
    labelled = embed is not None and embed.ndim == 2
    g_architecture = "skip" if "synthesis.b4.torgb.weight" in state else "orig"
    if f"{last}.skip.weight" in state:
        g_architecture = "residual"
    return {
        "shape": (channels, sides[-1], sides[-1]),
        "z_dim": given - embed.shape[0] if labelled else given,
        "width": width,
        "w_dim": w_dim,
        "mapping": sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in state),
        "max_width": max_width,
        "g_architecture": g_architecture,
        "n_classes": embed.shape[1] if labelled else 0,
    }


def _resolutions(state: State, prefix: str, path: str | Path) -> list[int]:
    """Sides of the blocks, 4, 8, ... in order."""
    found = {int(m[1]) for name in state if (m := re.match(rf"{re.escape(prefix)}b(\d+)\.", name))}
    sides = sorted(found)
    if len(sides) < 2 or sides != [4 << i for i in range(len(sides))]:
        raise CheckpointError(f"{path} has blocks of sides {sides}, and StyleGAN2's go 4, 8, 16, ...")
    return sides


def _shape(state: State, name: str, path: str | Path) -> tuple[int, ...]:
    """The shape of a matrix or of a kernel."""
    if name not in state or state[name].ndim < 2:
        there = "missing" if name not in state else f"of shape {list(state[name].shape)}"
        raise CheckpointError(f"{path} is not of this kind of network: {name} is {there}")
    return tuple(state[name].shape)


def _filled(net: nn.Module, state: State, names: Names, path: str | Path) -> Any:
    """The network with the numbers of a file, after a check of every name and shape."""
    own = net.state_dict()
    expected = {theirs: tuple(own[ours].shape) for theirs, (ours, _) in names.items()}
    noise = noise_names(net) if isinstance(net, StyleGenerator) else []
    for name, side in zip(noise, _noise_sizes(net), strict=True):
        expected[name] = (side, side)
    check_names(state, expected, path)
    values = {ours: change(state[theirs].float()) for theirs, (ours, change) in names.items()}
    if noise:
        values["synthesis.fixed_noise"] = torch.cat([state[name].float().flatten() for name in noise])
    net.load_state_dict(values)
    return net.eval()


def _noise_sizes(net: nn.Module) -> list[int]:
    return net.synthesis.noise_sizes if isinstance(getattr(net, "synthesis", None), Synthesis2) else []
