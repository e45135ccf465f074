"""Kept jobs of all front doors of one Ray: a named, detached actor, and how a front door asks it."""
