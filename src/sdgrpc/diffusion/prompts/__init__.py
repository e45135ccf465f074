"""From a prompt's syntax to what the UNet attends to."""
