"""Benchmarks: a grid of trainings, run in parallel, resumed, tabulated and drawn."""
