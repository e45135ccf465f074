"""What is known of each call, whoever answers it, and who is told when it ends."""
