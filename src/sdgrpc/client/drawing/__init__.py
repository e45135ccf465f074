"""The three calls that draw, as jobs and as plans."""
