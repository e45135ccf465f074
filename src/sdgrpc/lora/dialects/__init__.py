"""What keys and configurations of LoRA files mean: every dialect becomes an `Adapter`."""
