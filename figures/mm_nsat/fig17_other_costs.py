"""Sample-weighting paper, figure 17 (and figure 1): hinge and least squares beside NS and MM-nsat.

Both change the discriminator's cost as well, and nothing else: networks and optimisers are those of the other two.
Protocol and settings: `figures.mm_nsat.coverage`.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.mm_nsat import coverage
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line

VARIANTS = {
    "ns": PAPER_COSTS["ns"],
    "mm-nsat": PAPER_COSTS["mm-nsat"],
    "hinge": Variant("hinge", "hinge"),
    "ls": Variant("ls", "LS"),
}


def compute(**options: Any) -> dict[str, Any]:
    """Train the four costs (arguments and result: `coverage.compute`)."""
    return coverage.compute(VARIANTS, **options)


def draw(result: dict[str, Any]) -> Figure:
    """Distance and class divergence during training (`coverage.draw`), of the costs that the result holds."""
    return coverage.draw(result, {name: VARIANTS[name] for name in result["names"]})


if __name__ == "__main__":
    command_line(compute, draw, coverage.compute)
