"""Doors that are not gRPC."""
