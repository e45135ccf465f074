"""What stands in prompts, judged."""
