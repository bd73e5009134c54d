"""Measurements of networks: accuracy, agreement with a teacher, and speed."""
