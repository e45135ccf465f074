"""What crosses from a replica's process to the front door's: events, observations, failures."""
