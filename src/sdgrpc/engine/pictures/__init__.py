"""What the engine makes of latents beside finished pictures."""
