"""Runs as named records, and what they compute."""

from gankit.recipes.recipe import MODELS, Recipe, from_dict
from gankit.recipes.table import RecipeTable, UnknownRecipe, recipes

__all__ = ["MODELS", "Recipe", "RecipeTable", "UnknownRecipe", "from_dict", "recipes"]
