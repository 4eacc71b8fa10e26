"""Properties of the law of batches that a data module declares, and the cross-entropy of laws of labels.

The declarations are :class:`~lightning_mi.utilities.protocols.HasTrueMI`, ``HasClassCounts`` and ``HasExchangeable``.
"""

import torch
from torch import Tensor

from lightning_mi.utilities.protocols import HasClassCounts, HasExchangeable, HasTrueMI


def known_mi(data: object) -> float | None:
    """I(x; y) of the first two entries of a batch, nats; None if the data module does not declare it.

    Example:
        >>> known_mi(object()) is None
        True
    """
    value = data.true_mi() if isinstance(data, HasTrueMI) else None
    return None if value is None else float(value)


def known_counts(data: object, split: str | None = None) -> Tensor | None:
    """(C,) float64, the number of samples of each class in a split (by default the current one); None if unknown.

    Example:
        >>> known_counts(object()) is None
        True
    """
    return data.class_counts(split).double().cpu() if isinstance(data, HasClassCounts) else None


def is_exchangeable(data: object) -> bool:
    """Whether the data module declares that (x, y) and (y, x) have the same law.

    Example:
        >>> is_exchangeable(object())
        False
    """
    return isinstance(data, HasExchangeable) and bool(data.exchangeable)


def cross_entropy(p: Tensor, q: Tensor) -> float:
    """-sum_c p(c) log q(c), nats; infinite if q(c) = 0 and p(c) > 0 for a label c. With q = p it is the entropy.

    Args:
        p: (C,) probabilities.
        q: (C,) probabilities.

    Example:
        >>> law = torch.tensor([0.5, 0.5, 0.0])
        >>> cross_entropy(law, law)
        0.6931
    """
    return 0.0 - float(torch.special.xlogy(p.double(), q.double()).sum())  # 0.0 - x is never -0.0
