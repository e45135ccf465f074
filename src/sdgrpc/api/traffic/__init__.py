"""What a call may hold: a place in the queue, bytes that came, bytes that are not taken, time."""
