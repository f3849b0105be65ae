"""The grid of errors: samples, jitted tiles, device placement."""
