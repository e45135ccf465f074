"""The LoRA library: files of every dialect -> adapters -> fused overlays. Usable alone."""
