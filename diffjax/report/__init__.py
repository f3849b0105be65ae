"""What people look at: comparisons, pages and pictures."""
