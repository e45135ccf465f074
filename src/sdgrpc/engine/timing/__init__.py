"""How fast the engine is: measured calls, and what they say of jobs to come."""
