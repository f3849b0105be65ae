"""The networks, one readable file each; every one maps a single image."""
