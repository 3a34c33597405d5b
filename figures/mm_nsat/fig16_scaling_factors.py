"""Sample-weighting paper, figure 16: flatter and steeper scaling factors (appendix O, equations 28 to 34).

"add" variants add a constant to the weight, which makes it flatter; "exp" variants raise it to a power, which makes it
flatter (1/2) or steeper (2). All are rescaled to the size of NS. The paper's text does not print its constants: 0.1
and 1 are our choice. Equation 31 is taken with the sign that gives the weight which equation 30 asks for. Protocol
and settings: `figures.mm_nsat.coverage`.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

import gankit as gk
from figures.mm_nsat import coverage
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line

SUFFIXES = ("exp-2", "", "exp-0.5", "add-0.1", "add-1")
"""Of both families; "" is the cost itself."""


def _names(base: str) -> list[str]:
    return [f"{base}-{suffix}" if suffix else base for suffix in SUFFIXES]


VARIANTS = {
    name: Variant(name, name.replace(base, PAPER_COSTS[base].label))
    for base, names in (("ns", _names("ns")), ("mm-nsat", _names("mm-nsat")[::-1]))
    for name in names
}


def preference(name: str) -> float:
    """The weight of a sample with score s = 0.9 over that of one with s = 0.1, in one minibatch.

    Below 1 the cost listens to samples that D rejects, above 1 to those that it believes.
    """
    good, bad = gk.losses[name].g_weight(torch.tensor([0.9, 0.1], dtype=torch.float64).logit())
    return float(good / bad)


ORDER = tuple(sorted(VARIANTS, key=preference))
"""In which the paper's argument expects the costs, from the most class divergence to the least."""

_SHADES = {  # dark for a steep weight, light for a flat one
    "ns": {
        "exp-2": "#08306B",
        "": "#0072B2",
        "add-0.1": "#4292C6",
        "exp-0.5": "#7FB8DC",
        "add-1": "#B5D4E9",
    },
    "mm-nsat": {
        "exp-2": "#003D2E",
        "": "#009E73",
        "add-0.1": "#3FBF95",
        "exp-0.5": "#85D6B9",
        "add-1": "#BCE8D6",
    },
}
_DASHES = {"exp-2": (0, (3, 1)), "": "-", "exp-0.5": (0, (3, 1, 1, 1)), "add-0.1": (0, (1, 1)), "add-1": ":"}
STYLES = {
    name: {"color": shades[suffix], "ls": _DASHES[suffix]}
    for base, shades in _SHADES.items()
    for name, suffix in zip(_names(base), SUFFIXES, strict=True)
}
"""Shades of the colours of NS and MM-nsat."""


def compute(**options: Any) -> dict[str, Any]:
    """Train the ten costs (arguments and result: `coverage.compute`).

    "order" is `coverage.order` of those that were trained, from the first to the last of `ORDER`.
    """
    result = coverage.compute(VARIANTS, **options)
    return result | {"order": coverage.order(result, [name for name in ORDER if name in result["names"]])}


def draw(result: dict[str, Any]) -> Figure:
    """Distance and class divergence during training (`coverage.draw`), of the costs that the result holds, in
    `ORDER`."""
    return coverage.draw(result, {name: VARIANTS[name] for name in ORDER if name in result["names"]}, STYLES)


if __name__ == "__main__":
    command_line(compute, draw, coverage.compute)
