"""The machine of a run: device, precision, memory, files."""
