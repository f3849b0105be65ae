"""Training of small diffusion models, and their export to the diffusers layout."""
