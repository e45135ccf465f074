"""The original layout of checkpoints, in one file: what it holds, and how its model was published."""
