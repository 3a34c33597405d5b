"""Runs as named records, what they compute, and the folders that they leave."""

from gankit.recipes.opening import open_run
from gankit.recipes.recipe import MODELS, Networks, Recipe, from_dict
from gankit.recipes.records import register
from gankit.recipes.table import RecipeTable, UnknownRecipe, recipes

__all__ = [
    "MODELS",
    "Networks",
    "Recipe",
    "RecipeTable",
    "UnknownRecipe",
    "from_dict",
    "open_run",
    "recipes",
    "register",
]
