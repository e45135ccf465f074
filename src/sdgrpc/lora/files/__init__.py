"""From bytes to finite tensors, and from pickles to safetensors."""
