"""Jobs that outlive their connection, and calls that outlive their server."""
