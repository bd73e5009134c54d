"""What a student learns from its teacher besides its logits."""
