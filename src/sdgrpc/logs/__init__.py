"""How the log is written, and what signals change of it while a server runs."""
