"""Freeze-D: a discriminator that is fine-tuned keeps its lower blocks as they are.

Source: Mo, Cho and Shin 2020, "Freeze the discriminator: a simple baseline for fine-tuning GANs".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from gankit.models.ensemble import Ensemble, layers_of


def blocks(D: nn.Module) -> list[str]:
    """Names of D's blocks with weights, that nearest the image first: its direct parts, in their order."""
    plain = D.template if isinstance(D, Ensemble) else D
    return [name for name, part in plain.named_children() if any(True for _ in part.parameters())]


def freeze(D: nn.Module, n: int) -> None:
    """Keep the n blocks of D nearest the image as they are, in place.

    Their parameters take no gradient (G still gets one through them), and what they remember beside parameters stays
    too: they are in evaluation from now on, so that neither the vectors of spectral normalisation nor batch
    normalisation's statistics move.

    Args:
        D: a discriminator whose direct parts are its blocks, in order (all of `gankit.models`), or an ensemble of such.
        n: number of blocks, at least 0; one at least must be left to learn. 3 in the paper for SNGAN.

    Raises:
        ValueError: n is out of range.
    """
    names = blocks(D)
    if not 0 <= n < max(1, len(names)):
        raise ValueError(f"freeze_d must lie in 0..{len(names) - 1}, for a D of {len(names)} blocks, got {n}")
    frozen = names[:n]
    for name, parameter in D.named_parameters():
        # A stacked network says "net.stacked.0/weight" or "net.0.weight" of what is "0.weight" in each replica.
        own = name
        if isinstance(D, Ensemble):
            own = name.removeprefix("net.").removeprefix("stacked.").replace("/", ".")
        if own.partition(".")[0] in frozen:
            parameter.requires_grad_(False)
    for part in _parts(D, frozen):
        for module in part.modules():
            module.eval()
            module.train = partial(_stay, module)  # type: ignore[method-assign]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """What `module.train(mode)` does to a frozen part: nothing."""
    return module


def _parts(D: nn.Module, names: list[str]) -> Iterator[nn.Module]:
    """The modules of these names that compute, also those that an ensemble runs."""
    for module in layers_of(D):
        children = dict(module.named_children())
        if set(names) <= children.keys() and names:
            yield from (children[name] for name in names)
            return
