"""Numerics, collectives, files, processes and argument checks for all other packages."""
