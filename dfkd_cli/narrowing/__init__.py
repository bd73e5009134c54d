"""Students made from the teacher: which channels go, how they fade out during training, and how they are removed."""
