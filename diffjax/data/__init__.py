"""Pictures, prompts and data sets, as numpy arrays; no JAX."""
