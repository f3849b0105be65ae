"""What diffusion classifiers are compared with."""
