"""Commands and parts of them that look inside a server."""
