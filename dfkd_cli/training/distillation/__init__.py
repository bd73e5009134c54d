"""Losses of student and generator, and heads and projections that are trained beside the student."""
