"""The computer a run uses: device, precision, memory, files."""
