"""Recipes: found, read, checked, changed by --set and written back. Only `recipe.py` imports torch."""
