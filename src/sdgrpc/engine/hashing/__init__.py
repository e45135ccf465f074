"""Hashes of the models that are served, by which other tools know them. No torch here."""
