"""Atomic writes, safe loading and exact resume of checkpoints."""
