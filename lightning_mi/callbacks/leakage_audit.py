"""LeakageAudit: the mutual information that representations still have, by fresh critics after training."""

from typing import Any, final, get_args

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lightning_mi.callbacks.mi_penalty import MIPenalty
from lightning_mi.callbacks.watch.collector import named_rows
from lightning_mi.callbacks.watch.label_probe import ProbeAccuracy, cross_validated_accuracy
from lightning_mi.callbacks.watch.layers import LayerRecorder, Reduction, find_layers
from lightning_mi.callbacks.watch.samples import evenly_spaced, gather_rows
from lightning_mi.callbacks.watch.sources import Step, parse_source
from lightning_mi.estimation.options import Budget
from lightning_mi.estimation.result import MIEstimate
from lightning_mi.estimation.two_arrays import estimate
from lightning_mi.utilities.checks import check_choice, check_whole
from lightning_mi.utilities.distributed import gather_objects


@final
class LeakageAudit(L.Callback):
    """Estimates, in ``trainer.test`` and ``trainer.validate``, the MI of two variables of any module by fresh critics.

    It is the counterpart of :class:`~lightning_mi.callbacks.MIPenalty`, whose critic lags behind the module, so that
    its estimate is too low. The audit collects the variables of all samples and ranks, and passes them to
    :func:`lightning_mi.estimate`, whose critics have never been minimized against. During ``fit`` it does nothing.

    Logs ``leakage/X/Y``, the estimate in nats; ``leakage/X/Y_lower``, its lower confidence limit: at least so much is
    left; and ``leakage/X/Y_p_value`` of a test of independence. For labels y, also ``leakage/X/Y_accuracy``, the
    cross-validated accuracy of the better of two classifiers of x, and ``leakage/X/Y_chance``, the frequency of the
    most frequent label. All of it is printed, with the findings and, if there is one, the estimate of the penalty of
    the same variables.

    Args:
        x: The path of a layer (``"encoder"``), an entry of the batch (``"batch.0"``), or of what a step returns
            (``"outputs.z"``).
        y: The same. One-dimensional integers are labels.
        budget: Of the estimate.
        num_samples: Samples at most, evenly spaced over those of all ranks.
        reduction: How a layer's output becomes one row for each sample, as in
            :class:`~lightning_mi.callbacks.InformationPlane`.

    Attributes:
        result: The last :class:`~lightning_mi.MIEstimate`; None before.
        probe: Accuracy and chance of the last audit of labels y; otherwise None.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``num_samples`` is below 50, or the budget is unknown.
        WatchError: As in :class:`~lightning_mi.callbacks.MIPenalty`.
        EstimateInputError: There are fewer than 50 samples, or values that are not finite.

    Source: Choi and Lee 2022; Donsker and Varadhan 1983 (see :func:`lightning_mi.estimate`).

    Example:
        >>> audit = LeakageAudit("encoder", "batch.sensitive")
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[audit])
    """

    def __init__(
        self,
        x: str,
        y: str,
        *,
        budget: Budget = "standard",
        num_samples: int = 5000,
        reduction: Reduction = "mean",
    ) -> None:
        check_whole("num_samples", num_samples, 50)
        check_choice("budget", budget, get_args(Budget))
        self._sources = [parse_source(x), parse_source(y)]
        self._budget, self._num_samples, self._reduction = budget, num_samples, reduction
        self._recorder = LayerRecorder({})
        self._steps: list[dict[str, Tensor]] = []
        self.result: MIEstimate | None = None
        self.probe: ProbeAccuracy | None = None

    @property
    def name(self) -> str:
        """``X/Y``, for the logs."""
        return "/".join(source.name for source in self._sources)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the layers."""
        layers = find_layers(pl_module, [str(source.key) for source in self._sources if source.kind == "layer"])
        self._recorder = LayerRecorder(layers, self._reduction)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the layers."""
        self._steps = []
        self._recorder.attach()

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Drop what layers computed before the step."""
        self._recorder.clear()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Store the rows of a step."""
        rows = named_rows(self._sources, Step(self._recorder.take(), batch, outputs))
        self._steps.append({name: values.cpu() for name, values in rows.items()})

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Estimate, log and print."""
        self._recorder.detach()
        steps, self._steps = self._steps, []
        if not steps or trainer.fast_dev_run:  # type: ignore[attr-defined]  # one batch is too few to estimate
            return
        joined = {name: torch.cat([step[name] for step in steps]) for name in steps[0]}
        rows = gather_rows({name: values.to(pl_module.device) for name, values in joined.items()})
        x, y = (evenly_spaced(rows[source.name], self._num_samples).cpu() for source in self._sources)
        outcome = gather_objects(self._estimate(x, y) if trainer.is_global_zero else None)[0]
        if isinstance(outcome, Exception):
            raise outcome
        self.result, self.probe = outcome
        values = {"": self.result.mi, "_lower": self.result.lower, "_p_value": self.result.p_value}
        values |= {} if self.probe is None else {f"_{name}": value for name, value in self.probe._asdict().items()}
        for end, value in values.items():
            pl_module.log(f"leakage/{self.name}{end}", value)
        rank_zero_info(self._report(trainer, self.result))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same in ``trainer.validate``."""
        if self._is_validating(trainer):
            self.on_test_start(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """The same in ``trainer.validate``."""
        if self._is_validating(trainer):
            self._recorder.clear()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same in ``trainer.validate``."""
        if self._is_validating(trainer):
            self.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same in ``trainer.validate``."""
        if self._is_validating(trainer):
            self.on_test_epoch_end(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the hooks."""
        self._recorder.detach()

    def _is_validating(self, trainer: L.Trainer) -> bool:
        return trainer.state.fn == "validate"

    def _estimate(self, x: Tensor, y: Tensor) -> tuple[MIEstimate, ProbeAccuracy | None] | Exception:
        discrete = {name: True for name, rows in (("x", x), ("y", y)) if not rows.is_floating_point()}
        try:
            with torch.inference_mode(False), torch.enable_grad():
                result = estimate(x.clone(), y.clone(), discrete=discrete, budget=self._budget)
            if y.is_floating_point():
                return result, None
            return result, cross_validated_accuracy(x.reshape(len(x), -1).numpy(), y.numpy())
        except Exception as error:  # raised on every rank: none waits for another
            return error

    def _report(self, trainer: L.Trainer, result: MIEstimate) -> str:
        lines = [f"Leakage {self.name}: {result}"]
        lines += [f"  {finding.code}: {finding.text}" for finding in result.findings]
        if self.probe is not None:
            lines.append(f"  a classifier is right for {self.probe.accuracy:.1%}, chance is {self.probe.chance:.1%}")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MIPenalty) and callback.name == self.name:
                lines.append(
                    f"  the penalty's critic estimated {callback.estimate:.3f} nats on the last training batches"
                )
        return "\n".join(lines)
