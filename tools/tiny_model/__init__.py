"""What trains the embedded model and its LoRAs: `python -m tools.tiny_model all --out DIR`."""
