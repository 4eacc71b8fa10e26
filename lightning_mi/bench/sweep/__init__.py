"""Sweeps: one's own grid, of any recipe and any keys."""
