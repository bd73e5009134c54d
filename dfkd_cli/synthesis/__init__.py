"""Synthetic images: the generator, what its images have to please, and the stores that keep them."""
