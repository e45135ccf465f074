"""The peers, each a process in an environment of its own that is told on standard input what to draw."""
