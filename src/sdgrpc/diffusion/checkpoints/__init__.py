"""Models on disk: opened, checked, and read into place."""
