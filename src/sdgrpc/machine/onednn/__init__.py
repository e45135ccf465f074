"""What oneDNN computes on CPUs: convolutions, linear layers, attention."""
