"""The base models' names and shapes, and where an adapter's modules go."""
