"""Recipes: every setting with its type, range and default, from YAML and overrides. Imports no torch."""

from workbench.recipe.recipe import Recipe, differences, lasting_settings

__all__ = ["Recipe", "differences", "lasting_settings"]
