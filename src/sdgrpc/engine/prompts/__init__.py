"""What of a server's own goes into prompts."""
