"""LoRA factors kept on the device, and sets multiplied from them into weights at fixed addresses."""
