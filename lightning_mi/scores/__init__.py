"""Scores of joint and marginal pairs, and their reductions: dense, tiled, over ranks."""
