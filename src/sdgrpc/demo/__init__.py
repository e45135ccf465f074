"""The demonstration: a real server process, drawn on over gRPC, and a contact sheet of the result."""
