"""The commands that draw: what they take, what a picture adds, the call shown while it runs."""
