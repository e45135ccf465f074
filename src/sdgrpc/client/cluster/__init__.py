"""Replicas behind a server: drained, scaled."""
