"""How a UNet is called: as it is, with compiled blocks, or as a recorded graph of the device's work."""
