"""LoRA files at rest: folders, hashes, parsed files, uploads."""
