"""Students: built, initialised, saved, listed."""
