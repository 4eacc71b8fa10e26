"""Scores of joint and marginal pairs, and how their reductions are computed: dense, tiled, over ranks."""
