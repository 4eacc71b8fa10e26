"""MIPenalty: minimize the mutual information of two variables of any LightningModule while it trains."""

import copy
import math
from collections.abc import Callable
from typing import Any, final

import lightning.pytorch as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks.watch.layers import LayerRecorder, Reduction, find_layers
from lightning_mi.callbacks.watch.sources import Source, Step, parse_source
from lightning_mi.critics import AbstractCritic, SeparableCritic
from lightning_mi.exceptions import WatchError
from lightning_mi.minimizer import MIMinimizer, Weight, check_weight
from lightning_mi.regularizers import AbstractRegularizer
from lightning_mi.utilities.checks import check_whole

_WINDOW = 100  # batches


@final
class MIPenalty(L.Callback):
    """Adds weight * I(x; y) to the training loss of any module, by a critic that it trains itself.

    Use it to remove information: a sensitive attribute, a nuisance, the identity of a speaker. For each batch, the
    critic trains ``steps`` steps on detached representations; then the penalty's gradient reaches the module
    (:class:`~lightning_mi.MIMinimizer`). The loss that the module logs stays its own.

    **The penalty's estimate is no evidence.** It is below the truth while the critic lags behind the module. Report
    the remaining MI with :class:`~lightning_mi.callbacks.LeakageAudit`. A warning is given if a longer training would
    improve the critic.

    The gradient is right with gradient accumulation, mixed precision and several ranks: pairs run over the samples of
    all ranks. The critic and its optimizer are in the checkpoint, and are no part of the module.

    Logs, at each step, ``penalty/X/Y``, the estimate on a batch before the critic has trained on it, nats;
    ``penalty/X/Y_lag``, how much more a critic reads that trained longer, after the first check; and
    ``penalty/X/Y_weight``.

    Args:
        x: The path of a layer (``"encoder"``), or an entry of the batch (``"batch.0"``).
        y: The same. One-dimensional integers are labels, and need ``num_classes``.
        weight: The factor of the estimate, at least 0, or a function that returns it for a number of batches, such as
            ``regularizers.LinearWarmup``. With a warm-up the critic learns first.
        steps: Training steps of the critic for each batch. With one step, the critic lags with every bound.
        bound: The estimate; :class:`~lightning_mi.bounds.DV` by default.
        regularizer: Of the critic's training; it is no part of the penalty.
        critic: Creates the critic from the numbers of features of x and y; a separable critic by default.
        num_classes: The number of labels, if y are labels.
        reduction: How a layer's output becomes one row for each sample, as in
            :class:`~lightning_mi.callbacks.InformationPlane`.
        optimizer: Creates the critic's optimizer; Adam with a learning rate of 1e-3 by default.
        check_every: Batches between two checks of the critic's lag, as for :class:`~lightning_mi.MIMinimizer`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The weight is negative or not finite, or another number is below 1.
        MisconfigurationException: At the start of fit, the module optimizes manually.
        WatchError: At the start of fit, a layer does not exist; at the first step, a layer runs twice, does not run or
            returns no tensor, an entry is missing, labels have no ``num_classes``, or the loss or both variables do not
            depend on the module's parameters.
        NonFiniteBatchError: A variable holds NaN or an infinite value.

    Warns:
        CriticLagWarning: In three checks in a row, the critic lags by more than 0.05 nats.

    Source: Cheng et al. 2020 (several steps of the estimator); Choi and Lee 2022 (regularizer).

    Example:
        >>> penalty = MIPenalty("encoder", "batch.sensitive", weight=0.5)
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[penalty])
    """

    def __init__(
        self,
        x: str,
        y: str,
        *,
        weight: Weight = 1.0,
        steps: int = 5,
        bound: AbstractBound | None = None,
        regularizer: AbstractRegularizer | None = None,
        critic: Callable[[int, int], AbstractCritic] | None = None,
        num_classes: int | None = None,
        reduction: Reduction = "mean",
        optimizer: OptimizerCallable | None = None,
        check_every: int | None = 250,
    ) -> None:
        self._sources = parse_source(x), parse_source(y)
        for source in self._sources:
            if source.kind == "outputs":
                raise ValueError(
                    f"Got {source.name!r}: the loss is complete before a step returns its outputs. Name a layer, or an "
                    "entry of the batch."
                )
        if x == y:
            raise ValueError(f"Got {x!r} twice: a penalty is on the mutual information of two variables.")
        if num_classes is not None:
            check_whole("num_classes", num_classes, 1)
        self._weight = weight if callable(weight) else check_weight(weight)
        self._options: dict[str, Any] = {"bound": bound, "regularizer": regularizer, "optimizer": optimizer}
        self._options |= {"steps": steps, "check_every": check_every}
        self._critic = critic or _default_critic
        self._num_classes, self._reduction = num_classes, reduction
        self._make((1, 1))  # checks the arguments
        self._recorder = LayerRecorder({})
        self._minimizer: MIMinimizer | None = None
        self._loaded: dict[str, Any] | None = None
        self._batch: Any = None
        self._recent: list[Tensor] = []
        self._reset()

    @property
    def name(self) -> str:
        """The log name, and the key of :class:`~lightning_mi.callbacks.LeakageAudit`: ``X/Y``."""
        return "/".join(source.name for source in self._sources)

    @property
    def state_key(self) -> str:
        """The key in the checkpoint, which depends on the variables: a trainer may have several penalties."""
        return f"MIPenalty{self.name}"

    @property
    def minimizer(self) -> MIMinimizer | None:
        """The critic with its optimizer; None before the first batch."""
        return self._minimizer

    @property
    def estimate(self) -> float:
        """Mean estimate of the last 100 batches, each before the critic trained on it, nats; NaN before any batch."""
        return float(torch.stack(self._recent).mean()) if self._recent else math.nan

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the layers; reset the state, before Lightning loads a checkpoint."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"Got {type(pl_module).__name__} with manual optimization: MIPenalty does not know to which loss it "
                "belongs. Add MIMinimizer(critic)(x, y) to that loss in training_step."
            )
        self._reset()
        layers = find_layers(pl_module, [str(source.key) for source in self._sources if source.kind == "layer"])
        self._recorder = LayerRecorder(layers, self._reduction, detach=False)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record the layers of this step."""
        self._batch = batch
        self._recorder.attach()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Add the penalty to the loss, in place, times the factors that Lightning has applied to the loss."""
        if not loss.requires_grad:
            raise WatchError(
                "Got a training loss without a gradient: the module would train on the penalty alone. Return a loss "
                "that depends on its parameters."
            )
        step = Step(self._recorder.take(), self._batch, None)
        if self._minimizer is None:
            self._check_labels(step)
        x, y = (self._rows(source, step) for source in self._sources)
        if len(x) != len(y):
            names = [source.name for source in self._sources]
            raise WatchError(
                f"Got {len(x)} rows of {names[0]} and {len(y)} of {names[1]} in one step: each sample has one of each."
            )
        if not (x.requires_grad or y.requires_grad):
            raise WatchError(
                f"Got {self.name} without a gradient: neither depends on parameters that train. Name a trained layer."
            )
        minimizer = self._ready((x.shape[1], y.shape[1]), x.device)
        output = minimizer.compute(x, y)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        penalty = output.penalty / trainer.accumulate_grad_batches
        loss.add_((penalty if scaler is None else scaler.scale(penalty)).to(loss.dtype))
        before = output.terms_before.value
        self._recent = [*self._recent[1 - _WINDOW :], before]
        weight = minimizer.weight_at(minimizer.num_batches - 1)
        for end, value in (("", before), ("_lag", minimizer.lag), ("_weight", weight)):
            if end != "_lag" or not math.isnan(minimizer.lag):
                pl_module.log(f"penalty/{self.name}{end}", value, batch_size=len(x))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remove the hooks."""
        self._recorder.detach()
        self._batch = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the hooks."""
        self._recorder.detach()

    def state_dict(self) -> dict[str, Any]:
        """The critic, its optimizer and the last estimates."""
        if self._minimizer is None:
            return {}
        recent = [float(value) for value in self._recent]
        return {"dims": self._dims, "minimizer": self._minimizer.state_dict(), "recent": recent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._loaded = state_dict or None
        if state_dict:
            self._recent = list(map(torch.tensor, state_dict["recent"]))

    def _reset(self) -> None:
        self._minimizer, self._loaded, self._batch = None, None, None
        self._dims, self._recent = (0, 0), []

    def _check_labels(self, step: Step) -> None:
        if self._num_classes is not None and all(source.rows(step).is_floating_point() for source in self._sources):
            raise WatchError(
                f"Got num_classes={self._num_classes}, and {self.name} without labels: both are floating-point. Write "
                ".long() for labels, or leave num_classes out."
            )

    def _rows(self, source: Source, step: Step) -> Tensor:
        """(N, D) float32 of a step; labels as one-hot rows."""
        rows = source.rows(step)
        if rows.is_floating_point():
            return rows
        if self._num_classes is None:
            raise WatchError(
                f"Got labels for {source.name}: their number is unknown. Pass num_classes=, such as "
                f"num_classes={int(rows.max()) + 1}."
            )
        if len(rows) and (highest := int(rows.max())) >= self._num_classes:
            raise WatchError(f"Got the label {highest} for {source.name}, and num_classes={self._num_classes}.")
        return one_hot(rows, self._num_classes).float()

    def _make(self, dims: tuple[int, int]) -> MIMinimizer:
        options = copy.deepcopy(self._options)
        minimizer = MIMinimizer(self._critic(*dims), weight=self._weight, **options)
        minimizer.view_names = tuple(source.name for source in self._sources)
        return minimizer

    def _ready(self, dims: tuple[int, int], device: torch.device) -> MIMinimizer:
        """The minimizer, created at the first batch, with the state of a checkpoint if there is one."""
        if self._minimizer is None:
            with isolate_rng():
                minimizer = self._make(dims).to(device)
            if self._loaded is not None:
                if tuple(self._loaded["dims"]) != dims:
                    raise WatchError(
                        f"Got {self.name} with {dims[0]} and {dims[1]} features, and {tuple(self._loaded['dims'])} in "
                        "the checkpoint: the critic does not fit. Resume with the same layers."
                    )
                minimizer.load_state_dict(self._loaded["minimizer"])
                self._loaded = None
            self._minimizer, self._dims = minimizer, dims
        return self._minimizer


def _default_critic(x_dim: int, y_dim: int) -> AbstractCritic:
    return SeparableCritic(x_dim, y_dim, hidden=(64, 64), embed_dim=16)
