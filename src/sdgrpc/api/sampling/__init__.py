"""The contract's Sampling: its defaults, its records, and what does not go together."""
