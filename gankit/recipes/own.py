"""Recipes that are no row of a paper: for pictures of one's own, and from a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gankit.models.resnet import SNGAN
from gankit.recipes.recipe import Networks, Recipe, from_dict
from gankit.recipes.table import recipes
from gankit.training.average import EMA
from gankit.training.optimisers import Adam

OWN = "own"
"""Name of the recipe for one's own pictures, which depends on them."""


def for_pictures(data: str, shape: tuple[int, ...], n_classes: int, size: int | None = None) -> Recipe:
    """A recipe for pictures of this shape, conditional where there is more than one class.

    The networks are SNGAN's residual ones for the size, with the class-wise normalisation and the projection
    discriminator of Miyato and Koyama 2018 where there are classes; cost and rates are those of SAGAN (hinge, 1e-4 for
    G and 4e-4 for D, one step of each). They were not tuned to any data set.

    Args:
        data: folder, .zip or pack, as in `gankit.data.load`.
        shape: of a picture, (C, S, S).
        n_classes: of the data.
        size: side to which pictures are resized; None for as they are.

    Raises:
        ValueError: there are no networks for that size.
    """
    side = shape[-1] if len(shape) == 3 and shape[1] == shape[2] else None
    if side not in SNGAN:
        raise ValueError(
            f"recipe {OWN!r} has networks for square pictures of {', '.join(map(str, SNGAN))} pixels, got shape "
            f"{tuple(shape)}: give one of these as --size"
        )
    conditional = n_classes > 1
    family = "projection-gan" if conditional else "sngan"
    about = f"pictures of one's own at {side} pixels{', by class' if conditional else ''}"
    return Recipe(
        OWN, about, data=data, size=size, networks=Networks(family, z_dim=128, width=128 if side <= 32 else 64),
        loss="hinge", steps=50_000, batch_size=64, g_optimizer=Adam(1e-4, 0.0, 0.9), d_optimizer=Adam(4e-4, 0.0, 0.9),
        ema=EMA(0.999),
    )  # fmt: skip


def from_file(path: Path) -> tuple[Recipe, dict[str, Any], tuple[int, ...] | None]:
    """What a file says of a run: the recipe that it starts from, changes to it, and the seeds, if any.

    A `.json` file is the recipe.json of a run. A `.toml` file names a recipe and what is changed, as flags do:

        recipe = "mm-nsat-digits"
        steps = 10_000
        networks.width = 128

    Raises:
        ValueError: the file is missing or damaged, or names no recipe.
    """
    try:
        if path.suffix == ".json":
            recipe, seeds = from_dict(json.loads(path.read_text("utf-8")))
            return recipe, {}, seeds
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no recipe: {error}") from error
    if "recipe" not in values:
        raise ValueError(f'{path} must name a recipe to start from, recipe = "mm-nsat-digits" for example')
    changes = _dotted({name: value for name, value in values.items() if name != "recipe"})
    return recipes[values["recipe"]], {"name": path.stem} | changes, None


def _dotted(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Tables within tables as one, with dotted names."""
    found = {}
    for name, value in values.items():
        found |= _dotted(value, f"{at}{name}.") if isinstance(value, Mapping) else {at + name: value}
    return found
