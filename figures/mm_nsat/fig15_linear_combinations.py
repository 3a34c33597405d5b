"""Sample-weighting paper, figure 15: linear combinations of NS with MM and with MM-nsat (equation 24).

The weight of a sample is (1 - a)(1 - s) + a s with MM, so that at a = 1/2 all samples weigh the same, and with
MM-nsat the second term is multiplied by R. Protocol and settings: `figures.mm_nsat.coverage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from figures.mm_nsat import coverage
from figures.mm_nsat.runs import PAPER_COSTS, Variant
from figures.provenance import command_line
from gankit.plotting import color_of

SHARES = (0.25, 0.5, 0.75)

VARIANTS = {
    "ns": PAPER_COSTS["ns"],
    **{f"ns+mm({a:g})": Variant(f"ns+mm({a:g})", f"NS+MM({a:g})") for a in SHARES},
    **{f"ns+mm-nsat({a:g})": Variant(f"ns+mm-nsat({a:g})", f"NS+MM-nsat({a:g})") for a in SHARES},
    "mm-nsat": PAPER_COSTS["mm-nsat"],
}
"""Labels name the share a of the second cost; that of NS is 1 - a."""


def mixed(name: str, other: str, share: float) -> str:
    """The colour of a mixture lies between those of its parts."""
    pairs = zip(to_rgb(color_of(name)), to_rgb(color_of(other)), strict=True)
    return to_hex(tuple((1 - share) * x + share * y for x, y in pairs))


_DASHES = {0.25: (0, (1, 1)), 0.5: (0, (4, 1.5)), 0.75: (0, (6, 1, 1, 1))}
STYLES = {
    f"ns+{other}({a:g})": {"color": mixed("ns", other, a), "ls": _DASHES[a]}
    for other in ("mm", "mm-nsat")
    for a in SHARES
}


def compute(**options: Any) -> dict[str, Any]:
    """Train the eight costs (arguments and result: `coverage.compute`).

    Where all of them are trained, the result has "order" as well: for both families, `coverage.order` from NS over the
    mixtures to the other cost's end, MM-nsat.
    """
    result = coverage.compute(VARIANTS, **options)
    return result | orders(result)


def orders(result: Mapping[str, Any]) -> dict[str, Any]:
    """ "order" of a result that holds all costs; nothing of one that does not."""
    if set(result["names"]) != set(VARIANTS):
        return {}
    return {
        "order": {
            other: coverage.order(result, ["ns", *(f"ns+{other}({a:g})" for a in SHARES), "mm-nsat"])
            for other in ("mm", "mm-nsat")
        }
    }


def draw(result: dict[str, Any]) -> Figure:
    """Distance and class divergence during training (`coverage.draw`), of the costs that the result holds.

    Besides the eight, the result may hold any cost of `PAPER_COSTS`, the other end of a family say.
    """
    variants = PAPER_COSTS | VARIANTS
    return coverage.draw(result, {name: variants[name] for name in result["names"]}, STYLES)


if __name__ == "__main__":
    command_line(compute, draw, coverage.compute)
