"""The way from an image to a decision: the classifier and all that it says."""
