"""What the tests of all figure modules ask: results shaped like the committed ones, figures whose axes are labelled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def assert_shaped_alike(fresh: Mapping[str, Any], committed: Mapping[str, Any]) -> None:
    """A short run's result is JSON and has the entries of the committed one, whose code may have changed since."""
    json.dumps(fresh, allow_nan=False)
    assert set(fresh) == set(committed)
    for part in {"provenance", "summary", "settings"} & set(fresh):
        assert fresh[part].keys() == committed[part].keys(), part


def assert_drawn(figure: Figure) -> None:
    """A figure can be rendered, and each axis that shows has a label or shares one; colour bars need none."""
    shown = [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]
    assert shown
    assert all(_labelled(ax) for ax in shown)
    figure.canvas.draw()
    plt.close(figure)


def _labelled(ax: Axes) -> bool:
    return any(other.get_xlabel() for other in ax.get_shared_x_axes().get_siblings(ax))
