"""`gankit recipes`: the named runs, or every field of one."""

from __future__ import annotations

import argparse

from gankit.commands import flags
from gankit.commands.train import fields
from gankit.recipes import recipes


def add(commands: flags.Commands) -> None:
    """The flags of `recipes`."""
    command = commands.add_parser("recipes", help="list the recipes, or show one")
    command.add_argument("recipe", nargs="?", help="name of a recipe")
    command.set_defaults(run=list_recipes)


def list_recipes(arguments: argparse.Namespace) -> None:
    """List the recipes, or show every field of one."""
    if arguments.recipe is None:
        width = max(map(len, recipes))
        for recipe in recipes.values():
            print(f"{recipe.name:{width}}  {recipe.data:8} {recipe.steps:>8,} steps  {recipe.about}")
        return
    recipe = recipes[arguments.recipe]
    print(f"{recipe.name}: {recipe.about}\n")
    for f in fields():
        print(f"  {f.name:12} {getattr(recipe, f.name)!s:10} {f.metadata['help']}")
