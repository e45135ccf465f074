"""LoRA sets: what they change, fused once and kept."""
