"""The user's unlabelled pictures: read once, scored by the teacher, the best of them kept."""
