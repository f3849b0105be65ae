"""What a run leaves behind for people: plots and tables."""
