"""Jobs that wait: who is let in, whose turn it is, which begins next, and how far each is."""
