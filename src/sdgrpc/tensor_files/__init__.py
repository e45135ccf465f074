"""Files of tensors, as bytes."""
