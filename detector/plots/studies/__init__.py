"""Figures of what was measured over several runs."""
