"""OnlineLinearProbe: a linear classifier that trains together with an encoder and does not change it."""

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
    """A linear classifier on detached features that trains together with the encoder.

    The encoder gets no gradient from it. Features are normalized per sample (a layer norm without parameters), which
    needs no batch statistics: the probe is the same on any number of ranks. Weights start at zero and draw no random
    number: the encoder's training is bitwise equal with and without the probe.

    Its accuracy lags behind that of a probe fitted on the final features
    (:class:`~lightning_mi.metrics.LinearProbeAccuracy`), because the features change.

    Args:
        num_features: D, at least 2: layer norm maps a single feature to 0.
        num_classes: C, at least 2; labels run from 0 to C - 1.

    Raises:
        ValueError: A number is below 2.

    Source: Chen et al. 2020 (linear evaluation).

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
                raise ValueError(f"Got {name}={number}: a linear probe needs at least 2 features and 2 classes.")
        self.num_features = num_features
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.zeros(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Class logits of features, (N, D) to (N, C); no gradient flows to the features.

        Raises:
            ValueError: The features are not of shape (N, D).
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"Got features of shape {tuple(features.shape)}: OnlineLinearProbe(num_features={self.num_features}) "
                f"takes (N, {self.num_features}). Set num_features to the width of the encoder's representation, and "
                "flatten further dimensions in the encoder."
            )
        features = features.detach().to(self.weight.dtype)
        return F.linear(F.layer_norm(features, (self.num_features,)), self.weight, self.bias)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy of the class logits.

        Args:
            features: (N, D).
            labels: (N,) integers from 0 to C - 1.

        Returns:
            A scalar, nats.

        Raises:
            TypeError: The labels are not integers.
            ValueError: Features or labels have the wrong shape, or a label is out of range.
        """
        self.check(labels, len(features))
        return F.cross_entropy(upcast(self(features)), labels.long())

    def check(self, labels: Tensor, num_samples: int) -> None:
        """Check labels; raises the errors of :meth:`loss`."""
        check_labels(labels, num_samples, "OnlineLinearProbe", self.num_classes)

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        return f"num_features={self.num_features}, num_classes={self.num_classes}"


@contextlib.contextmanager
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Context manager: hides the gradients of parameters, so that a norm over all gradients excludes them.

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


def clip_separately(
    probe: Sequence[nn.Parameter],
    module: L.LightningModule,
    optimizer: Optimizer,
    value: int | float | None,
    algorithm: str | None,
) -> None:
    """Clip the gradients of the probe and those of all other parameters in two norms.

    In one norm, the probe would shorten the encoder's steps.

    Args:
        probe: Parameters of the probe; may be empty.
        module: The module with all parameters.
        optimizer: The optimizer of all parameters.
        value: Lightning's ``gradient_clip_val``.
        algorithm: Lightning's ``gradient_clip_algorithm``.
    """
    if not probe:
        module.clip_gradients(optimizer, value, algorithm)
        return
    probe_ids = {id(p) for p in probe}
    for hidden in (probe, [p for p in module.parameters() if id(p) not in probe_ids]):
        with without_gradients(hidden):
            module.clip_gradients(optimizer, value, algorithm)
