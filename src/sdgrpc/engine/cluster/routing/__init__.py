"""Which replica draws a job."""
