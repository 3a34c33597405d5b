"""`gankit recipes`: the named runs, or every field of one."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gankit
from gankit.commands import flags

if TYPE_CHECKING:
    from gankit.recipes import Recipe

COUNTS = Path(gankit.__file__).parent / "recipes" / "counts.json"
"""What `gankit.recipes.operations` counted; to count it all again takes a quarter of a minute."""


def add(commands: flags.Commands) -> None:
    """The flags of `recipes`."""
    command = commands.add_parser("recipes", help="list the recipes, or show one")
    command.add_argument("recipe", nargs="?", help="name of a recipe")
    command.set_defaults(run=list_recipes)


def list_recipes(arguments: argparse.Namespace) -> None:
    """List the recipes with what they cost, or show every field of one."""
    known = json.loads(COUNTS.read_text("utf-8"))
    if arguments.recipe is not None:
        from gankit.recipes import recipes

        _show(recipes[arguments.recipe], known)
        return
    rows = known["recipes"]
    width = max(map(len, rows))
    print(f"{'recipe':{width}}  {'paper':22}  {'data':15}  {'steps':>9}  {'PFLOP':>9}  {'hours':>6}")
    for name, row in rows.items():
        hours = f"{row['hours']:,.1f}" if row["hours"] >= 0.05 else "< 0.1"
        print(
            f"{name:{width}}  {row['paper'] or '-':22}  {row['data']:15}  {row['steps']:>9,}  "
            f"{_short(row['total'] / 1e15):>9}  {hours:>6}"
        )
    print(
        f"\nPFLOP: operations of all steps, counted, in 10^15. Hours: an estimate for {known['estimate']}.\n"
        "`gankit recipes NAME` says what a recipe is and shows its values. Pictures of your own: "
        "`gankit train own --data FOLDER --size 64`."
    )


def _show(recipe: Recipe, known: dict[str, Any]) -> None:
    from gankit.recipes.recipe import value

    row = known["recipes"][recipe.name]
    costs = (
        f"Cost: {_short(row['step'] / 1e9)} GFLOP per step and {_short(row['total'] / 1e15)} PFLOP in all, counted; "
        f"{row['hours']:,.1f} hours, an estimate for {known['estimate']}."
    )
    for paragraph in (f"{recipe.name}: {recipe.about}", costs):
        print(textwrap.fill(paragraph, 110, break_on_hyphens=False), end="\n\n")
    for field in flags.fields():
        if (text := value(recipe, field.name)) != "none":
            print(f"  {field.names[0]:20} {text:14} {field.help}")


def _short(number: float) -> str:
    """Three digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
