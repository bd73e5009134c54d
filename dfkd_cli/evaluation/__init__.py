"""Measures networks: accuracy, agreement, latency."""
