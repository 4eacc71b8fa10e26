"""MIEnsemble: many estimators trained on one stream of batches, in the time of a few."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from lightning_mi._compat import batches_done, is_logged
from lightning_mi.bounds import BoundTerms
from lightning_mi.ensemble.groups import AbstractGroup
from lightning_mi.ensemble.vmap_group import grouped
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.epoch_metrics import StageMetrics, num_val_loaders
from lightning_mi.training.step import StepOutput, references
from lightning_mi.training.view_scale import warn_of_scale
from lightning_mi.utilities.checks import check_instance

# Whose step moves each number by what that number's own gradients were: stacked, the members train as they would apart.
_ELEMENTWISE = (
    *(optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.NAdam, optim.RAdam, optim.RMSprop),
    *(optim.Adagrad, optim.Adadelta, optim.ASGD, optim.Rprop),
)


@final
@dataclass(frozen=True)
class EnsembleOutput:
    """What a batch gave, for all members of an ensemble.

    Attributes:
        names: Of the M members.
        readings: (M, 7), nats, without gradient: in each row the five :class:`BoundTerms`, the penalty (0 without a
            regularizer) and the loss.
    """

    names: tuple[str, ...]
    readings: Tensor
    _outputs: tuple[Callable[[int], StepOutput], ...]
    _places: tuple[tuple[int, int], ...]

    @property
    def terms(self) -> BoundTerms:
        """The terms of all members, (M,) each."""
        return BoundTerms(*self.readings[:, :5].unbind(dim=1))

    @property
    def losses(self) -> Tensor:
        """(M,) the losses."""
        return self.readings[:, -1]

    def member(self, name: str) -> StepOutput:
        """All that one member made of the batch, its scores included."""
        group, index = self._places[self.names.index(name)]
        return self._outputs[group](index)


@final
class MIEnsemble(L.LightningModule):
    """Many :class:`MIEstimationModule` trained on the same batches: losses, regularizers, seeds, sizes of a critic.

    Each trains as it would alone, from its own initialization and by its own bound, regularizer and optimizer, and its
    curves are those of a training of its own up to rounding: no gradient and no number passes between members, so one
    that diverges leaves the others as they are; it is named in a warning and goes on, whatever its ``on_non_finite``.

    What is shared is the work around them. Members with critics alike (a separable, bilinear or inner-product one; any
    critic on independent marginal pairs) score a batch in one pass of stacked parameters, and bounds alike read it in
    one. Others, such as joint critics on all pairs, whose batched pass would be slower, take their steps one after the
    other, and share the loop and the data.

    Each step logged by the trainer has ``<name>/train/mi`` and so on, what a member would log by itself, for all its
    loggers and in ``trainer.callback_metrics``; averages over a training epoch are not kept. Validation and test log
    each member's metrics as ``<name>/val/mi`` and so on. Callbacks find an :class:`EnsembleOutput` as the entry
    ``"ensemble"`` of a training step's outputs. After training, ``members[name]`` is a module like any other.

    Args:
        members: The estimators by name. Optimizers are of one class for all, of those in ``torch.optim`` that treat
            each number by itself; their settings may differ.
        batched: Batch members where that is faster. Their numbers are then rounded in another order: the same curves
            to 1e-5, until a training that explodes makes rounding itself visible. Without, all take their steps one
            after the other, and each has bit for bit what it would have alone.

    Raises:
        TypeError: ``members`` is not a mapping, or a member is no ``MIEstimationModule``.
        ValueError: There is no member, or one twice, or one has a probe or a scheduler.

    Example:
        >>> from lightning_mi import MIEstimationModule, bounds, critics
        >>> from lightning_mi.data import GaussianDataModule
        >>> ensemble = MIEnsemble({
        ...     f"{bound.__name__}-{seed}": MIEstimationModule(critics.SeparableCritic(20, 20, hidden=(32,)), bound())
        ...     for bound in (bounds.DV, bounds.NWJ) for seed in range(3)
        ... })
        >>> trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        ...     enable_progress_bar=False, enable_model_summary=False)
        >>> trainer.fit(ensemble, GaussianDataModule(steps_per_mi=10), ckpt_path=None)
        >>> ensemble.members["NWJ-2"].step((torch.randn(64, 20), torch.randn(64, 20))).terms.value.shape
        torch.Size([])
    """

    def __init__(self, members: Mapping[str, MIEstimationModule], batched: bool = True) -> None:
        super().__init__()
        _check(members)
        self.batched = batched
        # Not automatic: members' gradients are made one group after the other, and clipping would mix their norms.
        self.automatic_optimization = False
        self._names = tuple(members)
        self.estimators = nn.ModuleList(members.values())  # not by name: a key of a checkpoint has no dot in it
        self._groups: list[tuple[AbstractGroup, list[int]]] = []
        self._places: tuple[tuple[int, int], ...] = ()
        self._order = torch.empty(0)
        self._told: set[str] = set()
        self._scale_pending = False

    @property
    def members(self) -> dict[str, MIEstimationModule]:
        """The estimators by name, in the order in which they were given."""
        return dict(zip(self._names, self._in_order(), strict=True))

    def setup(self, stage: str) -> None:
        """Let members know the trainer.

        Raises:
            RuntimeError: There are several processes.
        """
        if self.trainer.world_size > 1:
            raise RuntimeError(
                f"Got {self.trainer.world_size} processes: an ensemble trains in one, on one device. Use "
                "`Trainer(devices=1)`, and several ensembles in trainings of their own, or train its members apart."
            )
        self._told = set()
        for member in self._in_order():
            member.trainer = self.trainer

    def on_fit_start(self) -> None:
        """Give the members' pairings what they need to know of the data."""
        for member in self._in_order():
            member.pairs.prepare(getattr(self.trainer, "datamodule", None))

    def configure_optimizers(self) -> Optimizer:
        """One optimizer, of what each member's own would train, with its settings.

        Raises:
            ValueError: The members' optimizers are of different classes, or mix numbers.
        """
        found = [member.configure_optimizers() for member in self._in_order()]
        optimizers = [optimizer for optimizer in found if isinstance(optimizer, Optimizer)]
        kinds = list(dict.fromkeys(type(optimizer) for optimizer in optimizers))
        if len(kinds) > 1 or not issubclass(kinds[0], _ELEMENTWISE):
            raise ValueError(
                f"Got optimizers {', '.join(kind.__name__ for kind in kinds)}: members of an ensemble share one class, "
                "of those in torch.optim that treat each number by itself, such as SGD, Adam or AdamW. Train members "
                "with another one in an ensemble, or a training, of their own."
            )
        own = [optimizer.param_groups for optimizer in optimizers]
        self._groups = grouped(self._in_order(), own, self.batched)
        groups = [
            parameters
            for group, places in self._groups
            for parameters in group.parameter_groups([own[place] for place in places])
        ]
        located = {place: (g, i) for g, (_, places) in enumerate(self._groups) for i, place in enumerate(places)}
        self._places = tuple(located[place] for place in range(len(own)))
        self._order = torch.tensor([place for _, places in self._groups for place in places]).argsort()
        made: Optimizer = kinds[0](_merged(groups))
        return made

    def on_train_start(self) -> None:
        """Let the first step check the scale of the views."""
        self._scale_pending = True

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """A step of every member; callbacks find an :class:`EnsembleOutput` in its outputs."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, optim.Optimizer)
        self._calibrate(batch)
        if self._scale_pending:
            self._scale_pending = False
            self._check_scale(batch)
        for member in self._in_order():
            if member.regularizer is not None and callable(member.regularizer.weight):
                member.regularizer.step = batches_done(self.trainer)
        optimizer.zero_grad()
        read = [group.step(batch, self.manual_backward) for group, _ in self._groups]
        optimizer.step()
        readings = torch.cat([readings for readings, _ in read])[self._order]
        output = EnsembleOutput(self._names, readings, tuple(output for _, output in read), self._places)
        if is_logged(self.trainer):
            self._log(output)
        return {"loss": output.losses.sum(), "ensemble": output}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Every member reads its held-out estimate."""
        self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Every member reads its estimate on the test set."""
        self._evaluate(batch, "test", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the members' held-out metrics."""
        self._log_metrics("val", num_val_loaders(self.trainer))

    def on_test_epoch_end(self) -> None:
        """Log the members' metrics of the test set."""
        self._log_metrics("test", len(self.trainer.num_test_batches))

    def teardown(self, stage: str) -> None:
        """Leave the members as modules of their own."""
        self._groups = []
        for member in self._in_order():
            member.trainer = None

    def _in_order(self) -> list[MIEstimationModule]:
        return [member for member in self.estimators if isinstance(member, MIEstimationModule)]

    @torch.no_grad()
    def _calibrate(self, batch: Any) -> None:
        for member in self._in_order():
            if getattr(member.critic, "needs_calibration", False):
                with member.pairs.uncounted():
                    member.step(batch)

    def _check_scale(self, batch: Any) -> None:
        """Warn once of views that a critic reads as they are and that are far from unit scale."""
        for member in self._in_order():
            as_they_are = not member.encoders and type(member).encode is MIEstimationModule.encode
            if as_they_are and warn_of_scale(member.critic, member.unpack_batch(batch)):
                return

    def _log(self, output: EnsembleOutput) -> None:
        metrics: dict[str, float] = {}
        for name, member in zip(output.names, self._in_order(), strict=True):
            own = output.member(name)
            logs = own.logs(None, count_pairs=member.pairs.takes_labels)
            logs |= references(self.trainer, member, member.bound, own.scores)
            metrics |= {f"{name}/train/{key}": float(torch.as_tensor(value).detach()) for key, value in logs.items()}
            if not math.isfinite(metrics[f"{name}/train/loss"]) and name not in self._told:
                self._told.add(name)
                warnings.warn(
                    f"The loss of member {name} is not finite since step {self.global_step - 1} or before. Its "
                    "numbers are lost, those of the other members are not touched.",
                    MINumericalWarning,
                    stacklevel=2,
                )
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.global_step - 1)
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})

    def _evaluate(self, batch: Any, stage: str, loader: int) -> None:
        for member in self._in_order():
            metrics: StageMetrics = getattr(member, f"{stage}_metrics")
            metrics.update(member.step(batch), member.critic, member.pairs, None, loader)

    def _log_metrics(self, stage: str, num_loaders: int) -> None:
        for member_name, member in self.members.items():
            metrics: StageMetrics = getattr(member, f"{stage}_metrics")
            for key, metric in metrics.named(num_loaders).items():
                name = f"{member_name}/{key}"
                self.log(name, metric, metric_attribute=name, add_dataloader_idx=False)


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One group for each settings: what a fused optimizer takes in one call."""
    merged: list[dict[str, Any]] = []
    for group in groups:
        for other in merged:
            if {**other, "params": None} == {**group, "params": None}:
                other["params"] += group["params"]
                break
        else:
            merged.append({**group, "params": [*group["params"]]})
    return merged


def _check(members: Mapping[str, MIEstimationModule]) -> None:
    check_instance("members", members, Mapping, '{"DV": MIEstimationModule(...)}')
    if not members:
        raise ValueError("Got no members: an ensemble trains one or more modules, given by name.")
    for name, member in members.items():
        if not isinstance(member, MIEstimationModule):
            raise TypeError(
                f"Got a {type(member).__name__} as member {name!r}: members are MIEstimationModules. Write "
                f"{{{name!r}: MIEstimationModule(critic, bound)}}."
            )
        for part, found in (("probe", member.probe), ("scheduler", member._optimizers.scheduler)):
            if found is not None:
                raise ValueError(
                    f"Got member {name!r} with a {part}: an ensemble has none. Leave it out, or train it apart."
                )
    if len({id(part) for member in members.values() for part in member.modules()}) < sum(
        1 for member in members.values() for _ in member.modules()
    ):
        raise ValueError("Got members with a part in common: each has its own critic, bound and encoder.")
