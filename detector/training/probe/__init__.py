"""What a run records of its own training."""
