"""Replicas behind this door: how many, and which leave."""
