"""Recipes: found, read, checked, changed by --set and written with all values. Only `recipe.py` imports torch."""
