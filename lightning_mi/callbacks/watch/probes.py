"""Probes: a classifier head for labels and a critic for numbers, fitted to early stopping."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mi.bounds import DV
from lightning_mi.callbacks.watch.discriminant import Discriminant, linear_discriminants
from lightning_mi.critics import SeparableCritic
from lightning_mi.critics.gaussian_copula import GaussianCopulaCritic
from lightning_mi.encoders import MLP
from lightning_mi.loss import MILoss
from lightning_mi.metrics.moments import Estimate
from lightning_mi.pairs import AllPairs
from lightning_mi.regularizers import Squared
from lightning_mi.utilities.numerics import disable_finite_checks, upcast

_BATCH = 256
_MAX_EPOCHS, _PATIENCE, _MIN_IMPROVEMENT = 200, 3, 1e-3  # epochs; nats
_MARGIN = 0.05  # nats; both are near 0 on what an overfitted network learned, and the head generalizes better
_STOP_FRACTION = 0.15  # of the rows: they choose when to stop
_P = TypeVar("_P", bound="AbstractProbe")

Rows = tuple[Tensor, Tensor]


class AbstractProbe(nn.Module, ABC):
    """A small network that estimates the MI of rows x and y."""

    lr: ClassVar[float]
    weight_decay: ClassVar[float]

    def start(self, fitted: Rows, stop: Rows) -> None:
        """Hook before the fit, with the rows to fit to and those that will choose when to stop."""

    @abstractmethod
    def finish(self, fitted: Rows, stop: Rows) -> None:
        """Hook after the fit, with the rows that were fitted to and those that chose when to stop."""

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What is minimized, a scalar, nats."""

    @abstractmethod
    def read(self, x: Tensor, y: Tensor) -> Estimate:
        """The estimate of I(x; y) from rows that the probe was not fitted to, and its standard error, nats."""


@final
class LabelProbe(AbstractProbe):
    r"""I(x; label) by a classifier head: the entropy of the labels minus the head's cross entropy.

    .. math:: I = H(Y) - E[-\log p(y | x)]

    H(Y) is that of the read labels, so only the head is estimated. The value is a lower bound of I(x; Y) up to noise.
    With few samples of many features a network overfits before it has learned much. So a shrunken linear discriminant
    replaces the head, if its cross entropy is lower by 0.05 nats on the rows that chose when to stop.

    Args:
        x_dim: D.
        num_classes: C.
        hidden: Width of the hidden layer; 0 for a linear head.

    Source: Barber and Agakov 2003; Choi and Lee 2022; Friedman 1989 (discriminant).

    Example:
        >>> x, labels = torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)
        >>> probe = fit_probe(LabelProbe(3, 3, hidden=8), x, labels)
        >>> probe.read(x, labels).value  # at most log 3 = 1.0986
        tensor(1.1)
    """

    lr = 1e-2
    weight_decay = 0.1

    def __init__(self, x_dim: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.head = MLP(x_dim, [hidden] if hidden else [], out_dim=num_classes)
        self._num_classes = num_classes
        self._discriminant: Discriminant | None = None

    @torch.no_grad()
    def finish(self, fitted: Rows, stop: Rows) -> None:
        """Choose between the head and the discriminants."""
        candidates = linear_discriminants(*fitted, num_classes=self._num_classes)
        losses = torch.stack([F.cross_entropy(candidate(stop[0]), stop[1]) for candidate in candidates])
        if losses.min() < self.loss(*stop) - _MARGIN:
            self._discriminant = candidates[int(losses.argmin())]

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) logits of (N, D)."""
        logits: Tensor = self.head(x) if self._discriminant is None else self._discriminant(x)
        return logits

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross entropy of labels (N,)."""
        return F.cross_entropy(self.logits(x), y)

    @torch.no_grad()
    def read(self, x: Tensor, y: Tensor) -> Estimate:
        """H(Y) - cross entropy, with the standard error over samples."""
        logits = upcast(self.logits(x))
        law = torch.bincount(y, minlength=logits.shape[1]).to(logits.dtype) / len(y)
        pointwise = F.nll_loss(law.log().expand_as(logits), y, reduction="none")
        pointwise = pointwise - F.cross_entropy(logits, y, reduction="none")
        return Estimate(pointwise.mean(), pointwise.std() / len(y) ** 0.5)


@final
class CriticProbe(AbstractProbe):
    """I(x; y) by InfoNCE, with the critic of a Gaussian plus a separable one.

    The log-ratio of the Gaussian is known in closed form, so that training adds only what it does not describe. A
    separable critic alone reads 1.4 nats of 2, of 2,048 samples of two Gaussian columns; with it, 2.0. The regularized
    Donsker-Varadhan bound trains it. InfoNCE reads it, because it is a lower bound on few samples too, at most log n;
    Donsker-Varadhan reads 69 of 32 nats of 2,000 samples, whose marginal pairs miss the tail of the ratio.

    Scores are read between the lowest and the highest of the rows that chose when to stop: a clipped critic is a
    critic, and single pairs far from those rows would carry a whole mean.

    Args:
        x_dim: Dx.
        y_dim: Dy.
        hidden: Width of the hidden layer of both networks.

    Source: Choi and Lee 2022; Hotelling 1936 (canonical correlations); van den Oord et al. 2018 (InfoNCE).

    Example:
        >>> probe = CriticProbe(x_dim=3, y_dim=2, hidden=8)
        >>> probe.read(torch.randn(100, 3), torch.randn(100, 2)).value.shape
        torch.Size([])
    """

    lr = 5e-3
    weight_decay = 0.5

    def __init__(self, x_dim: int, y_dim: int, hidden: int) -> None:
        super().__init__()
        residual = SeparableCritic(x_dim, y_dim, hidden=[hidden] if hidden else [])
        self._critic = GaussianCopulaCritic(x_dim, y_dim, residual=residual)
        # Each rank fits other probes: no pairs over ranks.
        self.mi_loss = MILoss(self._critic, DV(), AllPairs(gather=False), Squared(weight=0.1))
        self._range = -math.inf, math.inf

    def start(self, fitted: Rows, stop: Rows) -> None:
        """Fit the Gaussian."""
        self._critic.fit(fitted, stop)

    @torch.no_grad()
    def finish(self, fitted: Rows, stop: Rows) -> None:
        """Set the range of the scores."""
        low, high = self._critic.pairwise(*stop).aminmax()
        self._range = float(low), float(high)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of all pairs of the rows."""
        loss: Tensor = self.mi_loss(x, y)
        return loss

    @torch.no_grad()
    def read(self, x: Tensor, y: Tensor) -> Estimate:
        """InfoNCE over all n rows, at most log n; its standard error counts a row as a sample and as a candidate."""
        n = len(x)
        terms, weights = [], torch.zeros(n, dtype=torch.float64).to(x.device)
        for start in range(0, n, _BATCH):
            scores = upcast(self._critic.pairwise(x[start : start + _BATCH], y)).double().clamp(*self._range)
            log_weights = scores.log_softmax(dim=1)
            terms.append(log_weights.diagonal(start) + math.log(n))
            weights += log_weights.exp().sum(dim=0)
        values = torch.cat(terms)
        return Estimate(values.mean(), (values - weights).std() / n**0.5)


def fit_probe(probe: _P, x: Tensor, y: Tensor) -> _P:
    """Fit a probe until its loss on a part of the rows does not improve; return it at its best epoch.

    Draws from torch's global generator of the CPU.

    Args:
        probe: Changed in place.
        x: (N, Dx), N at least 2.
        y: (N, Dy), or labels (N,).
    """
    order = torch.randperm(len(x)).to(x.device)
    num_stop = max(1, round(_STOP_FRACTION * len(x)))
    train = order[num_stop:]
    fitted, stop = ((x[rows], y[rows]) for rows in (train, order[:num_stop]))
    probe.start(fitted, stop)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=probe.lr, weight_decay=probe.weight_decay, fused=True)
    with disable_finite_checks():
        best, best_state, waited = _loss(probe, stop), _copied(probe), 0
        for _ in range(_MAX_EPOCHS):
            probe.train()
            shuffled = train[torch.randperm(len(train)).to(x.device)]
            for start in range(0, len(shuffled), _BATCH):
                rows = shuffled[start : start + _BATCH]
                optimizer.zero_grad()
                probe.loss(x[rows], y[rows]).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
            loss = _loss(probe, stop)
            if loss < best - _MIN_IMPROVEMENT:
                best, best_state, waited = loss, _copied(probe), 0
            else:
                waited += 1
            if waited >= _PATIENCE:
                break
    probe.load_state_dict(best_state)
    probe.finish(fitted, stop)
    return probe


@torch.no_grad()
def _loss(probe: AbstractProbe, rows: Rows) -> float:
    """The loss of rows in evaluation mode, which the probe keeps."""
    probe.eval()
    return float(probe.loss(*rows))


def _copied(probe: AbstractProbe) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in probe.state_dict().items()}
