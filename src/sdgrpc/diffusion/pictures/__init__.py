"""Between pictures and latents: the VAE, masks, previews."""
