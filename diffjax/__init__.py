"""Classify images with a pretrained diffusion model, in JAX."""
