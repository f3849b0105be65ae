"""Runs on disk: what is written, what is read, and what follows from it."""
