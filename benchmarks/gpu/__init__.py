"""What a GPU gains: steps, LoRA sets, previews and a trace, beside diffusers on the same weights."""
