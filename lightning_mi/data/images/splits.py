"""Check class labels, and split datasets with each class in proportion."""

from typing import Any

import torch
from torch import Tensor

from lightning_mi.utilities.labels import NEGATIVE_LABEL


def check_labels(values: Any) -> Tensor:
    """Convert labels to a tensor and check that they are whole numbers from 0, one for each sample.

    Args:
        values: A tensor, an array or a list of N labels.

    Returns:
        (N,) int64.

    Raises:
        TypeError: If the labels are not integers.
        ValueError: If there are no labels, their shape is not (N,), or one is negative.

    Example:
        >>> check_labels([2, 0, 1])
        tensor([2, 0, 1])
        >>> check_labels([0.5, 1.0])
        Traceback (most recent call last):
        TypeError: Got labels of torch.float32: ...
    """
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Got labels that are not numbers ({error}): give each sample the index of its class, from 0."
        ) from error
    if labels.numel() == 0:
        raise ValueError("Got an empty dataset: check its folder, or how it was filtered.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f"Got labels of {labels.dtype}: H(Y) is the entropy of discrete classes. Convert labels to whole numbers "
            "from 0."
        )
    if labels.ndim != 1:
        raise ValueError(f"Got labels of shape {tuple(labels.shape)}: each sample has one label, so give (N,).")
    labels = labels.long()
    if labels.min() < 0:
        raise ValueError(f"Got label {int(labels.min())} in the dataset: {NEGATIVE_LABEL}")
    return labels


def members_by_class(labels: Tensor) -> dict[int, Tensor]:
    """Indices of the samples of each non-empty class, in ascending order, for labels (N,).

    Example:
        >>> members_by_class(torch.tensor([2, 0, 2]))
        {0: tensor([1]), 2: tensor([0, 2])}
    """
    present = torch.bincount(labels).nonzero().flatten().tolist()
    return {label: (labels == label).nonzero().flatten() for label in present}


def split_by_class(labels: Tensor, fraction: float, generator: torch.Generator, name: str) -> tuple[Tensor, Tensor]:
    """Hold out a fraction of each class, at least one sample of it.

    Args:
        labels: (N,) int64.
        fraction: Fraction of each class, between 0 and 1.
        generator: Generator of the choice.
        name: Name of the held-out part, for the error message.

    Returns:
        The indices of both parts, the held-out one second, each in ascending order.

    Raises:
        ValueError: If a class has too few samples to be in both parts.

    Example:
        >>> train, held_out = split_by_class(torch.tensor([0, 0, 0, 1, 1, 1]), 1 / 3, torch.Generator(), "val_fraction")
        >>> len(train), len(held_out)
        (4, 2)
    """
    remaining, held_out = [], []
    classes = members_by_class(labels)
    for label, members in classes.items():
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            of_class = f" of class {label}" if len(classes) > 1 else ""
            raise ValueError(
                f"Got {len(members)} sample(s){of_class}: {name} holds out {count} of them and leaves none for "
                "training. Add samples, or choose a smaller fraction (0 holds out none)."
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        held_out.append(shuffled[:count])
        remaining.append(shuffled[count:])
    return torch.cat(remaining).sort().values, torch.cat(held_out).sort().values


def subsample_by_class(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` samples with each class in proportion, in ascending order; all if there are fewer.

    Example:
        >>> chosen = subsample_by_class(torch.tensor([0] * 30 + [1] * 10), 8, torch.Generator())
        >>> (chosen < 30).sum(), (chosen >= 30).sum()
        (tensor(6), tensor(2))
    """
    positions = torch.empty(len(labels), dtype=torch.float64)
    for members in members_by_class(labels).values():
        # Spread each class evenly over [0, 1] in random order; the first samples then have all classes in proportion.
        order = torch.randperm(len(members), generator=generator)
        positions[members] = (order.double() + 0.5) / len(members)
    return positions.argsort(stable=True)[:count].sort().values
