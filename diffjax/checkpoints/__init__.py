"""Names → files, files → arrays, arrays → models."""
