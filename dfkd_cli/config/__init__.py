"""Values of a recipe, checked against dataclasses."""
