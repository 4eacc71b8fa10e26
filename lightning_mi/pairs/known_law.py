"""What a data module states about the law of its batches, and the information of laws of labels.

A data module may have, and a pairing combines (:meth:`AbstractPairing.true_value`):

- ``true_mi() -> float | None``: I(x; y) of the first two entries of a batch, nats, at the training step and in the
  split in force. None, or no such method, where it is not known.
- ``class_counts(split=None) -> Tensor``: (C,) int64, the samples of each class in a split (``"train"``, ``"val"``,
  ``"test"``), by default the one in force.
- ``exchangeable -> bool``: (x, y) and (y, x) have the same law. False by default.
"""

import torch
from torch import Tensor


def known_mi(data: object) -> float | None:
    """I(x; y) of the first two entries of a batch, nats; None where the data module does not know it.

    Example:
        >>> known_mi(object()) is None
        True
    """
    true_mi = getattr(data, "true_mi", None)
    value = None if true_mi is None else true_mi()
    return None if value is None else float(value)


def known_counts(data: object, split: str | None = None) -> Tensor | None:
    """(C,) float64, the samples of each class in a split, by default the one in force; None where they are not known.

    Example:
        >>> known_counts(object()) is None
        True
    """
    class_counts = getattr(data, "class_counts", None)
    return None if class_counts is None else class_counts(split).double().cpu()


def cross_entropy(p: Tensor, q: Tensor) -> float:
    """-sum_c p(c) log q(c), nats; infinite where q leaves out a label that occurs. The entropy of p where q is p.

    Args:
        p: (C,) probabilities.
        q: (C,) probabilities.

    Example:
        >>> law = torch.tensor([0.5, 0.5, 0.0])
        >>> cross_entropy(law, law)
        0.6931
    """
    return 0.0 - float(torch.special.xlogy(p.double(), q.double()).sum())  # 0.0 - gives 0.0 and not -0.0
