"""Several losses under the same conditions, and a verdict."""
