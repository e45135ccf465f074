"""Jobs that outlive their connection, on the command line."""
