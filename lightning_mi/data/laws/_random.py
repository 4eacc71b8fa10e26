"""NumPy's generator, for the distributions that torch does not draw from a generator."""

import numpy as np
import torch


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator, seeded with numbers that are drawn from a torch generator.

    Example:
        >>> first, second = (numpy_generator(torch.Generator().manual_seed(0)).random() for _ in range(2))
        >>> first == second
        True
    """
    return np.random.default_rng(torch.randint(2**32, (4,), generator=generator).tolist())
