"""Images and labels on disk."""
