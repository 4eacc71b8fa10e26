"""MIEnsemble: many estimators trained together on one stream of batches."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, final

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_mi._compat.lightning_logs import is_logged
from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.ensemble.groups import AbstractGroup, batch_of_member
from lightning_mi.ensemble.optimizer import make_optimizer
from lightning_mi.ensemble.output import EnsembleOutput
from lightning_mi.exceptions import MINumericalWarning
from lightning_mi.module import MIEstimationModule
from lightning_mi.training.epoch_metrics import StageMetrics, num_val_loaders
from lightning_mi.training.step import references
from lightning_mi.training.view_scale import warn_of_scale
from lightning_mi.utilities.checks import check_instance


@final
class MIEnsemble(L.LightningModule):
    """Many :class:`MIEstimationModule` trained on the same batches: several bounds, regularizers, seeds or critics.

    Each member trains as in a separate training, from its initialization, with its bound, regularizer and optimizer;
    its curves are those of a separate training up to rounding. Members exchange no gradient and no value. If one
    diverges, the others do not change: a warning names it, and its training continues, for any ``on_non_finite``.

    Members with the same architecture of critic (separable, bilinear or inner-product critics; any critic on
    independent marginal pairs) score a batch in one ``torch.vmap`` pass of stacked parameters, and identical bounds
    compute their terms in one. Other members, such as joint critics on all pairs, whose vmapped pass would be slower,
    take their steps one after the other and share the training loop and the data.

    Each logged training step has ``<name>/train/mi`` and so on, the names of a separate training, in all loggers and in
    ``trainer.callback_metrics``. Averages over a training epoch are not computed. Validation and test log each
    member's metrics as ``<name>/val/mi`` and so on. Callbacks find an :class:`EnsembleOutput` as the entry
    ``"ensemble"`` of a training step's outputs. After training, ``members[name]`` is a module like any other.

    Args:
        members: The estimators by name. Their optimizers have one class of ``torch.optim`` with an elementwise update;
            the settings may differ.
        batched: Vmap members where that is faster. Rounding errors then differ: the curves are equal to 1e-5, unless an
            exploding training amplifies the difference. False takes all steps one after the other; each member is then
            bitwise equal to a separate training.
        separate_batches: Each member trains on its own batch, such as a bootstrap sample or the training folds of a
            cross-validation: the entries of a batch have shape (members, N, ...).

    Raises:
        TypeError: ``members`` is not a mapping, or a member is not an ``MIEstimationModule``.
        ValueError: There is no member, two share a part, or one has a probe or a scheduler.

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

    def __init__(
        self, members: Mapping[str, MIEstimationModule], *, batched: bool = True, separate_batches: bool = False
    ) -> None:
        super().__init__()
        _check_members(members)
        self.batched = batched
        self.separate_batches = separate_batches
        # Manual optimization: groups run backward one after the other, and clipping would mix the members' norms.
        self.automatic_optimization = False
        self._names = tuple(members)
        self.estimators = nn.ModuleList(members.values())  # not a ModuleDict: names may contain dots
        self._groups: list[tuple[AbstractGroup, list[int]]] = []
        self._places: tuple[tuple[int, int], ...] = ()  # group and index in the group, by member
        self._order = torch.empty(0)  # from the order of the groups to that of the members
        self._warned: set[str] = set()
        self._scale_pending = False

    @property
    def members(self) -> dict[str, MIEstimationModule]:
        """The estimators by name, in the order of the constructor's argument."""
        return dict(zip(self._names, self._ordered, strict=True))

    @property
    def _ordered(self) -> list[MIEstimationModule]:
        return [member for member in self.estimators if isinstance(member, MIEstimationModule)]

    def setup(self, stage: str) -> None:
        """Set the members' trainer.

        Raises:
            RuntimeError: The world size is above 1.
        """
        if self.trainer.world_size > 1:
            raise RuntimeError(
                f"Got world size {self.trainer.world_size}: an ensemble trains on one rank and one device. Use "
                "`Trainer(devices=1)`, and several ensembles in separate trainings, or train each member separately."
            )
        self._warned = set()
        for member in self._ordered:
            member.trainer = self.trainer

    def on_fit_start(self) -> None:
        """Pass the data module to the members' pairings."""
        for member in self._ordered:
            member.pairs.prepare(getattr(self.trainer, "datamodule", None))

    def configure_optimizers(self) -> Optimizer:
        """One optimizer with the parameters and settings of the members' optimizers.

        Raises:
            ValueError: The members' optimizers have several classes, or one whose update is not elementwise.
        """
        optimizer, self._groups = make_optimizer(self._ordered, self.batched, self.separate_batches)
        places = {member: (g, i) for g, (_, indices) in enumerate(self._groups) for i, member in enumerate(indices)}
        self._places = tuple(places[member] for member in range(len(self._names)))
        self._order = torch.tensor([member for _, indices in self._groups for member in indices]).argsort()
        return optimizer

    def on_train_start(self) -> None:
        """Schedule the check of the views' scale for the first step."""
        self._scale_pending = True

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """A step of every member; callbacks find an :class:`EnsembleOutput` in its outputs."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, Optimizer)
        self._calibrate(batch)
        self._check_scale(batch)
        for member in self._ordered:
            member.mi_loss.set_num_batches(batches_done(self.trainer))
        optimizer.zero_grad()
        output = self._step(batch, self.manual_backward)
        optimizer.step()
        if is_logged(self.trainer):
            self._log_step(output)
        return {"loss": output.losses.sum(), "ensemble": output}

    @torch.no_grad()
    def compute(self, batch: Any) -> EnsembleOutput:
        """The outputs of all members on a batch, without gradient; during training, such as from a callback."""
        return self._step(batch, lambda loss: None)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update every member's validation metrics."""
        self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update every member's test metrics."""
        self._evaluate(batch, "test", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the members' validation metrics."""
        self._log_metrics("val", num_val_loaders(self.trainer))

    def on_test_epoch_end(self) -> None:
        """Log the members' test metrics."""
        self._log_metrics("test", len(self.trainer.num_test_batches))

    def teardown(self, stage: str) -> None:
        """Detach the members from the trainer and the groups."""
        self._groups = []
        for member in self._ordered:
            member.trainer = None

    def _step(self, batch: Any, backward: Callable[[Tensor], Any]) -> EnsembleOutput:
        steps = [group.step(self._batch_of(batch, indices), backward) for group, indices in self._groups]
        readings = torch.cat([step.readings for step in steps])[self._order]
        return EnsembleOutput(self._names, readings, tuple(step.output for step in steps), self._places)

    @torch.no_grad()
    def _calibrate(self, batch: Any) -> None:
        """Calibrate critics in a separate step: calibration is not possible under vmap."""
        for index, member in enumerate(self._ordered):
            if getattr(member.critic, "needs_calibration", False):
                with member.pairs.uncounted():
                    member.step(self._batch_of(batch, index))

    def _check_scale(self, batch: Any) -> None:
        """At the first step, warn once of views far from unit scale, if a critic has no encoder."""
        if not self._scale_pending:
            return
        self._scale_pending = False
        for index, member in enumerate(self._ordered):
            unencoded = not member.encoders and type(member).encode is MIEstimationModule.encode
            if unencoded and warn_of_scale(member.critic, member.unpack_batch(self._batch_of(batch, index))):
                return

    def _batch_of(self, batch: Any, index: int | list[int]) -> Any:
        return batch_of_member(batch, index) if self.separate_batches else batch

    def _log_step(self, output: EnsembleOutput) -> None:
        metrics: dict[str, float] = {}
        for name, member in zip(output.names, self._ordered, strict=True):
            step = output.member(name)
            logs = step.logs(None, count_pairs=member.pairs.takes_labels)
            logs |= references(self.trainer, member, member.bound, step.scores)
            metrics |= {f"{name}/train/{key}": float(torch.as_tensor(value).detach()) for key, value in logs.items()}
            if not math.isfinite(metrics[f"{name}/train/loss"]) and name not in self._warned:
                self._warned.add(name)
                warnings.warn(
                    f"The loss of member {name} is not finite since step {self.global_step - 1} or before. Its "
                    "parameters are lost; those of the other members do not change.",
                    MINumericalWarning,
                    stacklevel=2,
                )
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.global_step - 1)
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})

    def _evaluate(self, batch: Any, stage: str, loader: int) -> None:
        """Update each member's metrics and log its means, like an evaluation step of MIEstimationModule."""
        for index, (name, member) in enumerate(self.members.items()):
            metrics: StageMetrics = getattr(member, f"{stage}_metrics")
            output = member.step(self._batch_of(batch, index))
            metrics.update(output, member.critic, member.pairs, None, loader)
            # A batch without marginal pairs has no loss: it has no weight in the mean.
            has_loss = output.scores.num_marginal > 0
            loss = output.loss if has_loss else torch.zeros_like(output.loss)
            means: dict[str, Tensor | float] = {"loss": loss}
            means |= references(self.trainer, member, member.bound, output.scores)
            logs = {f"{name}/{stage}/{key}": value for key, value in means.items()}
            self.log_dict(logs, on_epoch=True, batch_size=output.scores.num_joint if has_loss else 0)

    def _log_metrics(self, stage: str, num_loaders: int) -> None:
        for member_name, member in self.members.items():
            metrics: StageMetrics = getattr(member, f"{stage}_metrics")
            for key, metric in metrics.named(num_loaders).items():
                name = f"{member_name}/{key}"
                self.log(name, metric, metric_attribute=name, add_dataloader_idx=False)


def _check_members(members: Mapping[str, MIEstimationModule]) -> None:
    check_instance("members", members, Mapping, '{"DV": MIEstimationModule(...)}')
    if not members:
        raise ValueError("Got no members: an ensemble has one or more, by name. Write MIEnsemble({'DV': module}).")
    for name, member in members.items():
        if not isinstance(member, MIEstimationModule):
            raise TypeError(
                f"Got a {type(member).__name__} as member {name!r}: members are MIEstimationModules. Write "
                f"{{{name!r}: MIEstimationModule(critic, bound)}}."
            )
        unsupported = {"probe": member.probe, "scheduler": member._optimizers.scheduler}
        for part, value in (unsupported | {"momentum encoder": member.momentum_encoder}).items():
            if value is not None:
                raise ValueError(
                    f"Got member {name!r} with a {part}: an ensemble supports none. Omit the {part}, or train this "
                    "member separately."
                )
    parts = [part for member in members.values() for part in member.modules()]
    if len(set(map(id, parts))) < len(parts):
        raise ValueError("Got members that share a part: create a critic, bound, pairing and encoder for each.")
