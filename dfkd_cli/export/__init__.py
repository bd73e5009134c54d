"""Exports networks as files for other programs, and compares these files with the network."""
