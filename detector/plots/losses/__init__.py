"""Figures of losses as functions."""
