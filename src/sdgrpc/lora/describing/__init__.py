"""What a LoRA file is, for the catalog and the command line."""
