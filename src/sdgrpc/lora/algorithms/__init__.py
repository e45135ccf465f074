"""The formulas of LoRA algorithms, their sizes and norms."""
