"""What is published: the wheel, and what it may be installed beside."""
