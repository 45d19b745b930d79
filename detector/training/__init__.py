"""A training run: its parts, the page of a step, what it says and saves."""
