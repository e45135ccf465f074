"""What keeps an engine from looking healthy when it is not: watched calls, and the end of all jobs."""
