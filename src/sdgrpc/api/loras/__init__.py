"""The rules of a request's LoRAs that need to know the model."""
