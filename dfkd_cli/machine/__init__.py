"""The machine of a run: device, precision, memory, files, and the processes that share the work."""
