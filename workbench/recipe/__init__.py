"""Recipes: every setting with its type, range and default, from YAML and overrides. Imports no torch."""

from workbench.recipe.flat_settings import differences, lasting_settings
from workbench.recipe.recipe import Recipe

__all__ = ["Recipe", "differences", "lasting_settings"]
