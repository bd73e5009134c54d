"""The one training loop, and what keeps it going through kills, full memory and Ctrl-C."""
