"""Runs as named records, what they compute, and the folders that they leave."""

from gankit.recipes.opening import open_run
from gankit.recipes.recipe import MODELS, Networks, Recipe, from_dict
from gankit.recipes.records import register
from gankit.recipes.saved import Saved, load
from gankit.recipes.table import RecipeTable, UnknownRecipe, recipes

__all__ = [
    "MODELS",
    "Networks",
    "Recipe",
    "RecipeTable",
    "Saved",
    "UnknownRecipe",
    "from_dict",
    "load",
    "open_run",
    "recipes",
    "register",
]
