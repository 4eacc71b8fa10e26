"""Numerics, collectives, files, processes and argument checks: what every other package builds on."""
