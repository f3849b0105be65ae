"""What a run leaves behind for people: pictures."""
