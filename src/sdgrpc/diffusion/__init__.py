"""Models, prompts, denoising and previews, on top of diffusers."""
