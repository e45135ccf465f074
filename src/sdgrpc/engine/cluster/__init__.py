"""Many engines behind one door."""
