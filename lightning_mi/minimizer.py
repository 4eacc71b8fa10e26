"""MIMinimizer: a penalty on mutual information, with a critic that it trains itself; for any training loop."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast, final

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_mi.bounds import DV, AbstractBound, BoundTerms
from lightning_mi.critics import AbstractCritic
from lightning_mi.exceptions import NonFiniteBatchError
from lightning_mi.loss import MILoss, reported_terms
from lightning_mi.pairs import AbstractPairing
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.training.critic_lag import CriticLag
from lightning_mi.training.finite_checks import check_finite as check_views_finite
from lightning_mi.training.optimizer import plan
from lightning_mi.training.view_scale import warn_of_scale
from lightning_mi.utilities.checks import check_finite, check_whole
from lightning_mi.utilities.distributed import average_gradients_, broadcast_, raise_on_all_ranks
from lightning_mi.utilities.numerics import full_precision, upcast

__all__ = ["MIMinimizer", "MIMinimizerOutput"]

Weight = float | Callable[[int], float]


class MIMinimizerOutput(NamedTuple):
    """The output of :meth:`MIMinimizer.compute` on one batch.

    Attributes:
        penalty: weight * terms.value, the scalar to add to a loss, nats. Its gradient reaches the representations, and
            no parameter of the critic.
        terms: Terms of the bound on this batch, by the critic that has trained on it.
        terms_before: The same before the critic trained on it: no critic step has seen these samples, so that this
            is a held-out estimate for the representations of now. In evaluation mode equal to ``terms``.
    """

    penalty: Tensor
    terms: BoundTerms
    terms_before: BoundTerms


@final
class MIMinimizer(nn.Module):
    r"""A penalty on the mutual information of representations, with a critic that it trains itself.

    To minimize I(x; y), an encoder descends the estimate that a critic ascends. In training mode each call

    1. trains the critic for ``steps`` steps on the detached batch, with an optimizer of its own, and
    2. returns the weight times the estimate, whose gradient reaches the representations and not the critic.

    Add it to the loss of a model. Any bound can be minimized, and none is a limit of what is left: the estimate is
    below the truth while the critic lags behind the encoder, whatever the bound. With one critic step for each step of
    the encoder little is removed, with five nearly all (``lightning-mi bench minimize``). Read the remaining MI with a
    fresh critic, by :func:`lightning_mi.estimate` on held-out representations.

    The critic's optimizer is part of the state dict. Do not give the parameters of this module to another optimizer,
    and do not wrap it in ``DistributedDataParallel``: with several ranks it averages its gradients itself, and pairs
    run over the samples of all ranks. The critic trains in float32, outside of autocast.

    Args:
        critic: Computes the scores T(x, y).
        bound: The estimate; :class:`~lightning_mi.bounds.DV` by default.
        pairs: As for :class:`~lightning_mi.MILoss`.
        regularizer: Of the critic's training; it is no part of the penalty.
        weight: The factor of the estimate, at least 0, or a function that returns it for a number of batches, such as
            ``regularizers.LinearWarmup``. With a warm-up the critic learns first.
        steps: Training steps of the critic for each batch.
        optimizer: Creates the critic's optimizer; Adam with a learning rate of 1e-3 by default.
        check_every: Batches between two checks of whether the critic lags, which cost 80 critic steps each; None for no
            checks.

    Attributes:
        mi_loss: The :class:`~lightning_mi.MILoss` of the critic.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The weight is negative or not finite, or ``steps`` or ``check_every`` is below 1.
        NonFiniteBatchError: In training, a view holds NaN or an infinite value; nothing has changed.

    Warns:
        ViewScaleWarning: At the first batch, a view is far from unit scale: the critic does not learn from it.
        CriticLagWarning: In three checks in a row, a copy of the critic that trained longer on the last eight batches
            read more than 0.05 nats more of the next batch.

    Source: Cheng et al. 2020 (several steps of the estimator); Choi and Lee 2022 (regularizer).

    Example:
        >>> from lightning_mi import critics
        >>> encoder, head = nn.Linear(20, 8), nn.Linear(8, 1)
        >>> minimizer = MIMinimizer(critics.SeparableCritic(8, 2), weight=0.5)
        >>> optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()])  # not the minimizer's
        >>> for _ in range(3):
        ...     x, target, sensitive = torch.randn(64, 20), torch.randn(64, 1), torch.randn(64, 2)
        ...     z = encoder(x)
        ...     loss = nn.functional.mse_loss(head(z), target) + minimizer(z, sensitive)
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> minimizer.num_batches
        3
    """

    def __init__(
        self,
        critic: AbstractCritic,
        bound: AbstractBound | None = None,
        *,
        pairs: AbstractPairing | None = None,
        regularizer: AbstractRegularizer | None = None,
        weight: Weight = 1.0,
        steps: int = 5,
        optimizer: OptimizerCallable | None = None,
        check_every: int | None = 250,
    ) -> None:
        super().__init__()
        check_whole("steps", steps, 1)
        if check_every is not None:
            check_whole("check_every", check_every, 1)
        self._lag = CriticLag(check_every)
        self.weight = weight if callable(weight) else check_weight(weight)
        self.steps = steps
        self.mi_loss = MILoss(critic, DV() if bound is None else bound, pairs, regularizer)
        self.optimizer = cast("Optimizer", plan(optimizer, None, "epoch").make(list(self.mi_loss.parameters())))
        self.num_batches = 0
        self._synchronized = self._scale_checked = False
        self.view_names: tuple[str, ...] = ("x", "y")  # in messages

    @property
    def lag(self) -> float:
        """What a copy of the critic that trained longer read more at the last check, nats; NaN before a check."""
        return self._lag.value

    def forward(self, *views: Tensor) -> Tensor:
        """The penalty of one batch, a scalar, nats; arguments and errors as for :class:`~lightning_mi.MILoss`."""
        return self.compute(*views).penalty

    def compute(self, *views: Tensor) -> MIMinimizerOutput:
        """The penalty of one batch, with the estimates before and after the critic's steps."""
        before = None
        if self.training:
            detached = [view.detach() for view in views]
            self._check_finite(detached)
            if not self._scale_checked:
                self._scale_checked = True
                warn_of_scale(self.mi_loss.critic, detached)
            self._lag.update(detached, self.num_batches, lambda: self._compare(detached))
            before = self._train_critic(detached)
        with _frozen(self.mi_loss), _evaluation(self.mi_loss.bound):
            scores = self.mi_loss.score(*views)
            terms = self.mi_loss.bound(scores)
        penalty = self.weight_at(self.num_batches) * terms.value
        if self.training:
            self.num_batches += 1
        reported = BoundTerms(*(term.detach() for term in reported_terms(terms, scores)))
        return MIMinimizerOutput(penalty, reported, reported if before is None else before)

    def weight_at(self, num_batches: int) -> float:
        """The weight after a number of batches."""
        return check_weight(self.weight(num_batches)) if callable(self.weight) else self.weight

    def _check_finite(self, views: list[Tensor]) -> None:
        """Raise on all ranks if a view of one is not finite: the others would wait in the next collective."""
        problem = None
        try:
            check_views_finite(views, lambda: f"batch {self.num_batches} of MIMinimizer", names=self.view_names)
        except NonFiniteBatchError as error:
            problem = error
        raise_on_all_ranks(problem, views[0].device)

    def _compare(self, views: list[Tensor]) -> tuple[float, float]:
        """What the critic and a copy that trains longer read of a batch."""
        longer = copy.deepcopy(self)
        for batch in self._lag.schedule():
            longer._train_critic(batch, steps=1)
        values = []
        for minimizer in (self, longer):
            loss = minimizer.mi_loss
            with torch.no_grad(), _evaluation(loss):
                values.append(float(loss.bound(loss.score(*views)).value))
        return values[0], values[1]

    def _train_critic(self, views: list[Tensor], steps: int | None = None) -> BoundTerms:
        """Train the critic on a batch; return the terms before the first step."""
        parameters = list(self.mi_loss.parameters())
        if not self._synchronized:
            broadcast_([*parameters, *self.mi_loss.buffers()])
            self._synchronized = True
        views = [upcast(view) if view.is_floating_point() else view for view in views]
        first: BoundTerms | None = None
        with torch.enable_grad(), full_precision(views[0].device.type):
            for _ in range(self.steps if steps is None else steps):
                output = self.mi_loss.compute(*views)
                first = output.terms if first is None else first
                torch.autograd.backward([output.loss])
                average_gradients_(parameters)
                self.optimizer.step()
                self.optimizer.zero_grad()  # an optimizer of the model that has these parameters too skips them
        assert first is not None
        return BoundTerms(*(term.detach() for term in first))

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state and the number of batches, for ``state_dict``."""
        return {"optimizer": self.optimizer.state_dict(), "num_batches": self.num_batches}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the optimizer's state and the number of batches."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_batches = state["num_batches"]


def check_weight(weight: float) -> float:
    """Check the weight of a penalty.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative or not finite.

    Example:
        >>> check_weight(-1.0)
        Traceback (most recent call last):
        ValueError: Got weight=-1.0: a penalty has a weight of at least 0. To maximize mutual information use MILoss.
    """
    check_finite("weight", weight, "the factor of the estimate in the loss")
    if weight < 0:
        raise ValueError(
            f"Got weight={weight}: a penalty has a weight of at least 0. To maximize mutual information use MILoss."
        )
    return weight


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Context manager: parameters get no gradient from what is computed."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    """Context manager: evaluation mode, in which a bound updates no average."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
