"""The rules of pictures and masks together."""
