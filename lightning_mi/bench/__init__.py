"""Benchmarks: a grid of trainings or estimations, run in parallel, resumed, tabulated and drawn."""
