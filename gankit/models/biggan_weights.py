"""BigGAN checkpoints of its authors' PyTorch code, read into the networks of `gankit.models.biggan`.

    >>> G = load_generator("138k/G_ema.pth")             # ImageNet, 128 x 128, 70 million weights
    >>> D = load_discriminator("138k/D.pth")
    >>> as_its_authors_evaluate(G)(z, labels)

The files are `state_dict`s of github.com/ajbrock/BigGAN-PyTorch. Their sizes say which network they are of: the number
of blocks gives the side of the pictures, some dimensions give ch, the length of z and the number of classes. Then every
name must be there with the expected shape, and nothing else. Only tensors are read: a file with code in it is refused.

*Spectral normalisation.* Both sides divide a weight by the product of its matrix with the vectors of one power
iteration, from a stored vector (`u0` there, `u` here). In training the two agree exactly. In evaluation the authors'
code does the same, without storing the result; `gankit.models.spectral` computes the singular value afresh.
`sigma_shortfall` says how far the two are apart. In an averaged generator (`G_ema.pth`) they can differ most, because
the authors' average takes in u0, too, and an average of directions is not the direction of the averaged weights.
`as_its_authors_evaluate` gives a network by their rule, with which their published numbers were measured. Their `sv0`,
the last singular value of training, is needed for neither. Their `SN_eps` only keeps a vector of zeros from being
divided by its length, as PyTorch's default does here.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gankit.files import CheckpointError
from gankit.models import biggan, biggan_cifar
from gankit.models.biggan import BIGGAN, CHUNK, HierarchicalGenerator
from gankit.models.blocks import (
    ConditionalBatchNorm2d,
    ConditionalDiscriminator,
    ConditionalGenerator,
    Projection,
    ResBlock,
    SelfAttention,
    UpBlock,
)
from gankit.models.spectral import SNConv2d, SNEmbedding, SNLinear, leading_vectors, power_iteration

State = Mapping[str, Tensor]
SIDES = {4: 32, 5: 64, 6: 128, 7: 256}
"""Blocks of a discriminator -> side of its pictures."""
LISTED = 8
"""How many of the differences a message names."""


def load_generator(path: str | Path) -> ConditionalGenerator | HierarchicalGenerator:
    """A generator, `G.pth` or `G_ema.pth`, in evaluation mode on the CPU.

    Returns:
        With a shared embedding and hierarchical latents the network of `gankit.models.biggan`, else that of
        `gankit.models.biggan_cifar`. It is called as `G(z, labels)`.

    Raises:
        CheckpointError: the file is missing or damaged, holds more than tensors, or is of another network; every
            name that is missing, left over or of another shape is listed.
    """
    state = read(path)
    with torch.device("meta"):  # shapes without numbers: the file has those
        G = _generator_for(state, path)
    return _assign(G, state, generator_names(G), path)


def load_discriminator(path: str | Path) -> ConditionalDiscriminator:
    """A discriminator, `D.pth`, in evaluation mode on the CPU; called as `D(x, labels)`.

    Raises:
        CheckpointError: as for `load_generator`.
    """
    state = read(path)
    with torch.device("meta"):
        D = _discriminator_for(state, path)
    return _assign(D, state, discriminator_names(D), path)


def as_its_authors_evaluate(net: nn.Module) -> nn.Module:
    """A copy whose weights are divided, once and for all, by the singular values that the authors' code would compute.

    Args:
        net: an imported network.

    Returns:
        The network with plain layers; it gives what their code gives in evaluation mode.
    """
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, SNConv2d | SNLinear | SNEmbedding):
                setattr(module, name, _plain(layer))
    return net.eval()


def sigma_shortfall(net: nn.Module) -> float:
    """By how much the singular values of the authors' rule fall short of the exact ones, the largest share of a layer.

    Both rules give the same network where this is 0.
    """
    shares = [0.0]
    for layer in net.modules():
        if isinstance(layer, SNConv2d | SNLinear | SNEmbedding):
            w = layer.weight.detach().flatten(1)
            u, v = leading_vectors(w)
            shares.append(float(1 - _sigma(layer) / torch.dot(u, w @ v)))
    return max(shares)


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        CheckpointError: it is missing or damaged, or holds anything but tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors, code perhaps, and was not loaded") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({type(error).__name__})") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path} is no state_dict: it does not hold tensors by name")
    return dict(state)


# --- Names --------------------------------------------------------------------------------------------------------
#
# (their name, our name, their shape where it differs from ours); our name is None for what is not needed.

Name = tuple[str, str | None, tuple[int, ...] | None]


def generator_names(G: ConditionalGenerator | HierarchicalGenerator) -> list[Name]:
    """The names of a generator's parameters and buffers, theirs and ours."""
    names: list[Name] = []
    layers, prefix = G, ""
    if isinstance(G, HierarchicalGenerator):
        names += [("shared.weight", "embedding.weight", None)]
        layers, prefix = G.layers, "layers."
    block = -1
    for number, layer in layers.named_children():
        ours = prefix + number
        if isinstance(layer, UpBlock):
            block += 1
            theirs = f"blocks.{block}.0"
            for a, b in (("conv1", "conv1"), ("conv2", "conv2"), ("conv_sc", "shortcut")):
                names += _layer(f"{theirs}.{a}", f"{ours}.{b}", getattr(layer, b))
            for a, b in (("bn1", "norm1"), ("bn2", "norm2")):
                names += _conditional_norm(f"{theirs}.{a}", f"{ours}.{b}", getattr(layer, b))
        elif isinstance(layer, SelfAttention):
            names += _attention(f"blocks.{block}.1", ours, layer)
        elif isinstance(layer, nn.BatchNorm2d):
            names += [
                ("output_layer.0.gain", f"{ours}.weight", None),
                ("output_layer.0.bias", f"{ours}.bias", None),
            ]
            names += _statistics("output_layer.0", ours)
        elif isinstance(layer, SNConv2d):
            names += _layer("output_layer.2", ours, layer)
        elif isinstance(layer, SNLinear):
            names += _layer("linear", ours, layer)
    return names


def discriminator_names(D: ConditionalDiscriminator) -> list[Name]:
    """The names of a discriminator's parameters and buffers, theirs and ours."""
    names: list[Name] = []
    block = -1
    for ours, layer in D.named_children():
        if isinstance(layer, ResBlock):
            block += 1
            for a, b in (("conv1", "conv1"), ("conv2", "conv2"), ("conv_sc", "shortcut")):
                if not isinstance(getattr(layer, b), nn.Identity):
                    names += _layer(f"blocks.{block}.0.{a}", f"{ours}.{b}", getattr(layer, b))
        elif isinstance(layer, SelfAttention):
            names += _attention(f"blocks.{block}.1", ours, layer)
        elif isinstance(layer, Projection):
            names += _layer("linear", f"{ours}.psi", layer.psi) + _layer("embed", f"{ours}.V", layer.V)
    return names


def _layer(theirs: str, ours: str, layer: nn.Module) -> list[Name]:
    """A convolution, a linear layer or an embedding, spectrally normalised or not."""
    names: list[Name] = [(f"{theirs}.weight", f"{ours}.weight", None)]
    if getattr(layer, "bias", None) is not None:
        names += [(f"{theirs}.bias", f"{ours}.bias", None)]
    if isinstance(layer, SNConv2d | SNLinear | SNEmbedding):
        names += [(f"{theirs}.u0", f"{ours}.u", (1, len(layer.u))), (f"{theirs}.sv0", None, (1,))]
    return names


def _conditional_norm(theirs: str, ours: str, norm: ConditionalBatchNorm2d) -> list[Name]:
    gain, bias = (
        _layer(f"{theirs}.{part}", f"{ours}.{part}", getattr(norm, part)) for part in ("gain", "bias")
    )
    return [*gain, *bias, *_statistics(theirs, f"{ours}.norm")]


def _statistics(theirs: str, ours: str) -> list[Name]:
    return [(f"{theirs}.stored_{kind}", f"{ours}.running_{kind}", None) for kind in ("mean", "var")]


def _attention(theirs: str, ours: str, attention: SelfAttention) -> list[Name]:
    names: list[Name] = [(f"{theirs}.gamma", f"{ours}.gamma", None)]
    for a, b in (("theta", "g"), ("phi", "f"), ("g", "h"), ("o", "v")):
        names += _layer(f"{theirs}.{a}", f"{ours}.{b}", getattr(attention, b))
    return names


# --- Networks of the right size -------------------------------------------------------------------------------------


def _generator_for(state: State, path: str | Path) -> ConditionalGenerator | HierarchicalGenerator:
    needed = ("linear.weight", "output_layer.2.weight", "blocks.0.0.bn1.gain.weight")
    z, last, classes = _sizes(state, needed, path, (0, 1), (1, 1), (2, 0))
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    shape = (3, 4 * 2**blocks, 4 * 2**blocks)
    plan = BIGGAN.get(shape[-1])
    if plan is None or blocks < 3:
        raise CheckpointError(
            f"{path} has {blocks} blocks, and BigGAN's generators have 3 to 6 (32 to 256 pixels)"
        )
    width = max(last // plan.up[-1], 1)
    attention = _attends(state, lambda block: 4 * 2 ** (block + 1))
    if "shared.weight" in state:
        classes, y_dim = state["shared.weight"].shape
        G, _ = biggan(
            shape, classes, z * (1 + blocks), width, d_width=1, y_dim=y_dim, attention=attention, seed=0
        )
    else:
        G, _ = biggan_cifar(shape, classes, z, width, d_width=1, attention=attention, seed=0)
    return G


def _discriminator_for(state: State, path: str | Path) -> ConditionalDiscriminator:
    needed = ("blocks.0.0.conv1.weight", "embed.weight")
    width, classes = _sizes(state, needed, path, (0, 0), (1, 0))
    blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    if blocks not in SIDES:
        raise CheckpointError(
            f"{path} has {blocks} blocks, and BigGAN's discriminators have 4 to 7 (32 to 256 pixels)"
        )
    side = SIDES[blocks]
    width = max(width // BIGGAN[side].down[0], 1)
    attention = _attends(state, lambda block: side // 2 ** (block + 1))
    places = 1 + len(BIGGAN[side].up)
    _, D = biggan((3, side, side), classes, CHUNK * places, 1, d_width=width, attention=attention, seed=0)
    return D


def _sizes(state: State, needed: tuple[str, ...], path: str | Path, *which: tuple[int, int]) -> list[int]:
    """Dimensions of the tensors that say how large a network is."""
    missing = [name for name in needed if name not in state]
    if missing:
        raise CheckpointError(f"{path} is not of this kind of network: it lacks {', '.join(missing)}")
    flat = [name for name in needed if state[name].ndim < 2]
    if flat:
        raise CheckpointError(f"{path}: {flat[0]} has shape {list(state[flat[0]].shape)}, and is no matrix")
    return [state[needed[i]].shape[dim] for i, dim in which]


def _attends(state: State, side_after: Callable[[int], int]) -> int:
    """Side of the feature map that attends to itself; 0 for none."""
    blocks = [
        int(key.split(".")[1]) for key in state if key.startswith("blocks.") and key.endswith(".1.gamma")
    ]
    return side_after(blocks[0]) if blocks else 0


def check_names(state: State, expected: Mapping[str, tuple[int, ...]], path: str | Path) -> None:
    """Refuse a file whose names and shapes are not the expected ones.

    Raises:
        CheckpointError: naming what is missing, left over or of another shape.
    """
    wrong = [
        f"{key} is missing (expected {list(shape)})" for key, shape in expected.items() if key not in state
    ]
    wrong += [
        f"{key} {list(value.shape)} is left over" for key, value in state.items() if key not in expected
    ]
    wrong += [
        f"{key} has shape {list(state[key].shape)} (expected {list(shape)})"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    if wrong:
        more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise CheckpointError(f"{path} is not of this network: {'; '.join(wrong[:LISTED])}{more}")


def _assign(net: nn.Module, state: State, names: list[Name], path: str | Path) -> Any:
    """Give a network without numbers those of a file, after a check of every name and shape."""
    own = net.state_dict()
    expected = {
        theirs: tuple(own[ours].shape) if shape is None and ours is not None else shape
        for theirs, ours, shape in names
    }
    check_names(state, expected, path)
    values = {
        ours: state[theirs].to(torch.float32).reshape(own[ours].shape).clone()
        for theirs, ours, _ in names
        if ours is not None
    }
    # PyTorch counts batches for a cumulative average, which neither side uses.
    values |= {key: torch.zeros((), dtype=torch.int64) for key in own if key.endswith("num_batches_tracked")}
    net.load_state_dict(values, assign=True)
    for p in net.parameters():
        p.requires_grad_(True)
    return net.eval()


# --- Their spectral normalisation ------------------------------------------------------------------------------------


def _sigma(layer: SNConv2d | SNLinear | SNEmbedding) -> Tensor:
    """What `SN.W_` of their `layers.py` divides by: u W v, with u and v one power iteration on from the stored u."""
    w = layer.weight.detach().flatten(1)
    u, v = power_iteration(w, layer.u)
    return torch.dot(u, w @ v)


def _plain(layer: SNConv2d | SNLinear | SNEmbedding) -> nn.Module:
    """The layer without normalisation, its weight divided."""
    weight, bias = (layer.weight / _sigma(layer)).detach(), getattr(layer, "bias", None)
    with torch.device("meta"):
        if isinstance(layer, SNConv2d):
            plain: nn.Module = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                padding=layer.padding,
                bias=bias is not None,
            )
        elif isinstance(layer, SNLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=bias is not None)
        else:
            plain = nn.Embedding(layer.num_embeddings, layer.embedding_dim)
    values = {"weight": weight} | ({} if bias is None else {"bias": bias.detach()})
    plain.load_state_dict(values, assign=True)
    return plain
