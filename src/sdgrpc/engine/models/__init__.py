"""The models that an engine serves: which are in memory, who uses them, how they get there and begin."""
