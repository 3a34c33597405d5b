"""Sample-weighting paper, figure 16: flatter and steeper scaling factors (appendix O, equations 28 to 34).

"add" variants add a constant to the weight, which makes it flatter; "exp" variants raise it to a power, which makes it
flatter (1/2) or steeper (2). All are rescaled to the size of NS. The paper's text does not print its constants: 0.1
and 1 are our choice. Equation 31 is taken with the sign that gives the weight which equation 30 asks for. Protocol
and settings: `figures.mm_nsat.coverage`.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.mm_nsat import coverage
from figures.mm_nsat.runs import PAPER_COSTS, Variant

SUFFIXES = ("exp-2", "", "exp-0.5", "add-0.1", "add-1")
"""From the steepest weight to the flattest; "" is the cost itself."""


def _names(base: str) -> list[str]:
    return [f"{base}-{suffix}" if suffix else base for suffix in SUFFIXES]


VARIANTS = {
    name: Variant(name, name.replace(base, PAPER_COSTS[base].label))
    for base, names in (("ns", _names("ns")), ("mm-nsat", _names("mm-nsat")[::-1]))
    for name in names
}
"""In the order in which the paper expects them, from the weight that falls most steeply to the one that rises so."""

_BLUES = ("#08306B", "#0072B2", "#4292C6", "#7FB8DC", "#B5D4E9")
_GREENS = ("#003D2E", "#009E73", "#3FBF95", "#85D6B9", "#BCE8D6")
_DASHES = {"exp-2": (0, (3, 1)), "": "-", "exp-0.5": (0, (3, 1, 1, 1)), "add-0.1": (0, (1, 1)), "add-1": ":"}
STYLES = {
    name: {"color": color, "ls": _DASHES[suffix]}
    for base, colors in (("ns", _BLUES), ("mm-nsat", _GREENS))
    for name, suffix, color in zip(_names(base), SUFFIXES, colors, strict=True)
}
"""Shades of the colours of NS and MM-nsat, darker for steeper weights."""


def compute(**options: Any) -> dict[str, Any]:
    """Train the ten costs (arguments and result: `coverage.compute`)."""
    return coverage.compute(VARIANTS, **options)


def draw(result: dict[str, Any]) -> Figure:
    """Distance and class divergence during training (`coverage.draw`), of the costs that the result holds."""
    return coverage.draw(result, {name: VARIANTS[name] for name in result["names"]}, STYLES)


if __name__ == "__main__":
    coverage.main(VARIANTS, draw, "mm_nsat/fig16_scaling_factors", str(__doc__))
