"""Recipes: every setting with its type, range and default, from YAML and overrides. Imports no torch."""

from workbench.recipe.recipe import Recipe, differences

__all__ = ["Recipe", "differences"]
