"""Probes that train beside an encoder without touching it."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_mi.utilities.labels import check_labels
from lightning_mi.utilities.numerics import upcast


@final
class OnlineLinearProbe(nn.Module):
    """A linear classifier on detached features, trained while the encoder trains.

    No gradient goes from it to the encoder. Features are normalized sample by sample (a layer norm without
    parameters), so nothing is estimated from a batch and several processes train the same probe as one would. Weights
    start at zero and draw no random number: the encoder's training is the same, bit for bit, with the probe and
    without it.

    Its accuracy lags behind a probe fitted on the finished features
    (:class:`~lightning_mi.metrics.LinearProbeAccuracy`), because the features move.

    Args:
        num_features: D, at least 2: the normalization leaves nothing of a single feature.
        num_classes: C, at least 2; labels run from 0 to C - 1.

    Raises:
        ValueError: A number is below 2.

    Source: the online linear evaluation of Chen et al. 2020 (SimCLR) and later self-supervised benchmarks.

    Example:
        >>> probe = OnlineLinearProbe(num_features=4, num_classes=10)
        >>> features = torch.randn(8, 4, requires_grad=True)
        >>> loss = probe.loss(features, torch.arange(8))
        >>> loss  # log 10, before any training
        tensor(2.3026, grad_fn=<NllLossBackward0>)
        >>> loss.backward()
        >>> features.grad is None
        True
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        for name, number in (("num_features", num_features), ("num_classes", num_classes)):
            if number < 2:
                raise ValueError(f"Got {name}={number}: a linear probe tells 2 or more classes by 2 or more features.")
        self.num_features = num_features
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.zeros(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Class logits of features: (N, D) to (N, C), without gradient to the features.

        Raises:
            ValueError: The features are not of shape (N, D).
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"OnlineLinearProbe(num_features={self.num_features}) got features of shape {tuple(features.shape)}: "
                f"it takes (N, {self.num_features}), the encoder's representation. Set num_features to its width, and "
                "let the encoder flatten what has more dimensions."
            )
        features = features.detach().to(self.weight.dtype)
        return F.linear(F.layer_norm(features, (self.num_features,)), self.weight, self.bias)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy of the predicted classes.

        Args:
            features: (N, D).
            labels: (N,) integers from 0 to C - 1.

        Returns:
            A scalar, nats.

        Raises:
            TypeError: The labels are not integers.
            ValueError: Features or labels have another shape, or a label is out of range.
        """
        self.check(labels, len(features))
        return F.cross_entropy(upcast(self(features)), labels.long())

    def check(self, labels: Tensor, num_samples: int) -> None:
        """Refuse labels that it cannot learn, with the errors of :meth:`loss`."""
        check_labels(labels, num_samples, "OnlineLinearProbe", self.num_classes)

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return f"num_features={self.num_features}, num_classes={self.num_classes}"


@contextlib.contextmanager
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Hide the gradients of parameters for a while, so that a norm over an optimizer's parameters leaves them out.

    Example:
        >>> parameter = nn.Parameter(torch.zeros(1))
        >>> parameter.grad = torch.ones(1)
        >>> with without_gradients([parameter]):
        ...     print(parameter.grad)
        None
        >>> parameter.grad
        tensor([1.])
    """
    hidden = [(parameter, parameter.grad) for parameter in parameters]
    for parameter, _ in hidden:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in hidden:
            parameter.grad = gradient


def clip_apart(
    probe: Sequence[nn.Parameter],
    module: L.LightningModule,
    optimizer: Optimizer,
    value: int | float | None,
    algorithm: str | None,
) -> None:
    """Clip a probe's gradients by themselves, and then the others: in one norm, it would shorten the encoder's steps.

    Args:
        probe: Its parameters, if there is one.
        module: What holds them and the others.
        optimizer: Of both.
        value: As Lightning gives it.
        algorithm: As Lightning gives it.
    """
    if not probe:
        module.clip_gradients(optimizer, value, algorithm)
        return
    own = {id(p) for p in probe}
    for hidden in (probe, [p for p in module.parameters() if id(p) not in own]):
        with without_gradients(hidden):
            module.clip_gradients(optimizer, value, algorithm)
