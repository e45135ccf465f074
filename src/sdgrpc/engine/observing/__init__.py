"""Who watches the engine is told here what happens in it: for metrics, logs and traces."""
