"""Sample-weighting paper, figures 1 and 8: distance and class divergence during training, six costs.

At quick scale on the digits; with --setting mnist-fc4 or mnist-conv4 on the paper's data and networks. The distance is
a Frechet distance in the features of this book's classifiers, not the paper's FID, so curves compare with each
other and only their order compares with the paper.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures.mm_nsat import coverage
from figures.mm_nsat.runs import PAPER_COSTS
from figures.provenance import command_line

VARIANTS = PAPER_COSTS
STYLES = {"mm-beta2": {"color": "#8B6BB1"}}


def compute(**options: Any) -> dict[str, Any]:
    """Train the six costs (arguments and result: `coverage.compute`)."""
    return coverage.compute(VARIANTS, **options)


def draw(result: dict[str, Any]) -> Figure:
    """Distance and class divergence during training (`coverage.draw`), of the costs that the result holds."""
    return coverage.draw(result, {name: VARIANTS[name] for name in result["names"]}, STYLES)


if __name__ == "__main__":
    command_line(compute, draw, coverage.compute)
