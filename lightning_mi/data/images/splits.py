"""Class labels: checked, counted, and split so that every part has each class in proportion."""

from typing import Any

import torch
from torch import Tensor

from lightning_mi.utilities.labels import NEGATIVE_LABEL


def check_labels(values: Any) -> Tensor:
    """Turn labels into a tensor: whole numbers from 0, one a sample.

    Args:
        values: A tensor, an array or a list of N labels.

    Returns:
        (N,) int64.

    Raises:
        TypeError: The labels are not integers.
        ValueError: There are none, they are not of shape (N,), or one is negative.

    Example:
        >>> check_labels([2, 0, 1])
        tensor([2, 0, 1])
        >>> check_labels([0.5, 1.0])
        Traceback (most recent call last):
        TypeError: Labels are torch.float32, but classes are counted...
    """
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Labels could not be read as numbers ({error}). Give each sample the index of its class, from 0."
        ) from error
    if labels.numel() == 0:
        raise ValueError("The dataset is empty: there is no label in it. Check its folder, or how it was filtered.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f"Labels are {labels.dtype}, but classes are counted, and H(Y) is that of a discrete label. Convert them "
            "to whole numbers from 0."
        )
    if labels.ndim != 1:
        raise ValueError(f"Labels have shape {tuple(labels.shape)}, but each sample has one label: give (N,).")
    labels = labels.long()
    if labels.min() < 0:
        raise ValueError(f"Got label {int(labels.min())} in the dataset: {NEGATIVE_LABEL}")
    return labels


def entropy(frequencies: Tensor) -> float:
    """H(Y) of a law on C classes, in nats; (C,) probabilities.

    Example:
        >>> entropy(torch.tensor([0.5, 0.0, 0.5]))
        0.6931
    """
    return -float(torch.special.xlogy(frequencies.double(), frequencies.double()).sum())


def members_by_class(labels: Tensor) -> dict[int, Tensor]:
    """The samples of each class that has any, in ascending order: (N,) integers to a tensor of indices a class.

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
        fraction: Of each class, between 0 and 1.
        generator: Chooses the samples.
        name: What asked for the split, for the message.

    Returns:
        The indices kept and those held out, each in ascending order.

    Raises:
        ValueError: A class has too few samples to be in both parts.

    Example:
        >>> kept, held_out = split_by_class(torch.tensor([0, 0, 0, 1, 1, 1]), 1 / 3, torch.Generator(), "val_fraction")
        >>> len(kept), len(held_out)
        (4, 2)
    """
    kept, held_out = [], []
    for label, members in members_by_class(labels).items():
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            raise ValueError(
                f"Class {label} has {len(members)} sample(s), of which {name} holds out {count} and leaves none to "
                "train on. Give the class more samples, or choose a smaller fraction (0 holds out none)."
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        held_out.append(shuffled[:count])
        kept.append(shuffled[count:])
    return torch.cat(kept).sort().values, torch.cat(held_out).sort().values


def take_by_class(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose ``count`` samples, each class in proportion: their indices in ascending order; all if there are fewer.

    Example:
        >>> taken = take_by_class(torch.tensor([0] * 30 + [1] * 10), 8, torch.Generator())
        >>> (taken < 30).sum(), (taken >= 30).sum()
        (tensor(6), tensor(2))
    """
    places = torch.empty(len(labels), dtype=torch.float64)
    for members in members_by_class(labels).values():
        # Each class spread evenly, in random order, over the line from 0 to 1: a stretch of it has all in proportion.
        order = torch.randperm(len(members), generator=generator)
        places[members] = (order.double() + 0.5) / len(members)
    return places.argsort(stable=True)[:count].sort().values
