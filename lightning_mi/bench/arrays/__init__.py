"""The benchmark of `estimate`: laws with known MI, this package's estimate and other methods."""
