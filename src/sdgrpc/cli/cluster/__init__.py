"""Replicas behind a running server."""
