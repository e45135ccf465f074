"""Which replica draws a job, simulated: the router that serves against simpler rules."""
