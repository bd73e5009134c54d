"""Archives as trainable modules of ordinary layers, and these modules as data."""
