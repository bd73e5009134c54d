"""Images and labels in files: reading them, and writing a grid of images."""
