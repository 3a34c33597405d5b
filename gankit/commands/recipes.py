"""`gankit recipes`: the named runs, or every field of one."""

from __future__ import annotations

import argparse
import textwrap

from gankit.commands import flags
from gankit.recipes import Recipe, operations, recipes
from gankit.recipes import recipe as settings

ESTIMATE = (
    f"{operations.GPU} at an assumed {operations.RATE / 1e12:.0f} TFLOP/s, and at least "
    f"{1000 * operations.LAUNCH:g} ms per pass of a network"
)


def add(commands: flags.Commands) -> None:
    """The flags of `recipes`."""
    command = commands.add_parser("recipes", help="list the recipes, or show one")
    command.add_argument("recipe", nargs="?", help="name of a recipe")
    command.set_defaults(run=list_recipes)


def list_recipes(arguments: argparse.Namespace) -> None:
    """List the recipes with what they cost, or show every field of one."""
    if arguments.recipe is not None:
        _show(recipes[arguments.recipe])
        return
    width = max(map(len, recipes))
    print(f"{'recipe':{width}}  {'paper':22}  {'data':15}  {'steps':>9}  {'PFLOP':>9}  {'hours':>6}")
    for recipe in recipes.values():
        counted = operations.of_recipe(recipe)  # takes a moment for a large network, so each line is flushed
        hours = f"{counted.hours:,.1f}" if counted.hours >= 0.05 else "< 0.1"
        print(
            f"{recipe.name:{width}}  {recipe.paper or '-':22}  {recipe.data:15}  {recipe.steps:>9,}  "
            f"{_short(counted.total / 1e15):>9}  {hours:>6}",
            flush=True,
        )
    print(
        f"\nPFLOP: operations of all steps, counted, in 10^15. Hours: an estimate for {ESTIMATE}.\n"
        "`gankit recipes NAME` says what a recipe is and shows its values."
    )


def _show(recipe: Recipe) -> None:
    counted = operations.of_recipe(recipe)
    costs = (
        f"Cost: {_short(counted.step / 1e9)} GFLOP per step and {_short(counted.total / 1e15)} PFLOP in all, counted; "
        f"{counted.hours:,.1f} hours, an estimate for {ESTIMATE}."
    )
    for paragraph in (f"{recipe.name}: {recipe.about}", costs):
        print(textwrap.fill(paragraph, 110, break_on_hyphens=False), end="\n\n")
    for field in flags.fields():
        if (value := settings.value(recipe, field.name)) != "none":
            print(f"  {field.names[0]:20} {value:14} {field.help}")


def _short(number: float) -> str:
    """Three digits at least."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
