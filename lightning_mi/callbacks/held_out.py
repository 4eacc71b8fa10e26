"""Choice of the checkpoint, and early stopping, by a held-out estimate with its standard error."""

import math
from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_mi.callbacks.significant_gain import SignificantGain


@final
class HeldOutCheckpoint(ModelCheckpoint):
    r"""Lightning's ``ModelCheckpoint`` for the best checkpoint, replaced only by one that is *significantly* better.

    The highest of many noisy readings is mostly the luckiest. Here a checkpoint is replaced where the new held-out
    value exceeds the kept one by more than ``z`` standard errors of their difference, :math:`\sqrt{s_1^2 + s_2^2}`.
    What is kept is at most that much below the best that was seen, and it is the earlier one.

    Which ``z``: readings of all epochs on the same held-out samples share most of their luck, which cancels in the
    difference. What remains is a jitter of about a fifth of a standard error (measured on the digits), far below the
    margin at ``z = 1``: the highest of 50 such readings of a constant is 0.45 standard errors too high, the kept one
    0. Where each validation draws new samples, nothing cancels: the highest of 50 is 2.25 standard errors too high,
    the kept one 1.77 at z = 1, 0.97 at z = 2 and 0.16 at z = 3.

    The value of the chosen checkpoint on the split that chose it still reads high. Report ``test/mi`` with
    ``test/mi_standard_error``, of samples that chose nothing: ``trainer.test(ckpt_path="best")``, or from another
    process ``lightning-mi test --config RECIPE --ckpt_path best``.

    Which estimate is monitored must be one whose highest value is its best. ``val/mi`` (micro) of a lower bound is.
    SMILE's is not, and is refused. ``val/mi_plug_in`` exceeds the bound by what the log-normalizer lies above its
    target, so choose by it only where it is held tightly; ``val/mi_macro`` of the Donsker-Varadhan family rises with
    noise. No value above H(Y), or above another ``ceiling`` that is known, is better for being higher.

    The kept reading is in the checkpoint, so a resumed run goes on comparing with it, from another folder too. The
    sanity check does not count. To resume where a run stopped, add Lightning's ``ModelCheckpoint()`` after this one,
    which keeps the newest state.

    Args:
        monitor: What is compared; its standard error is logged as ``<monitor>_standard_error``.
        z: How many standard errors of the difference count as better; 0 is Lightning's rule.
        ceiling: What the mutual information cannot exceed, as H(Y); nats. A value above it by more than ``z`` of its
            standard errors is never chosen.
        dirpath: As in ``ModelCheckpoint``.
        filename: As in ``ModelCheckpoint``.
        save_weights_only: As in ``ModelCheckpoint``.
        verbose: As in ``ModelCheckpoint``.

    Raises:
        ValueError: ``z`` is negative.
        MisconfigurationException: At the start of a fit: the bound is not a lower bound, there are fewer than two
            validation batches, or (in the sanity check) the value or its standard error is not logged.

    Warns:
        UserWarning: The data module has no test split, so nothing is left to report from.

    Source: The one-standard-error rule of Breiman et al. 1984, section 3.4.3; Hastie et al. 2009, section 7.10.

    Example:
        >>> from lightning.pytorch.callbacks import ModelCheckpoint
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[HeldOutCheckpoint(), ModelCheckpoint()])
    """

    def __init__(
        self,
        monitor: str = "val/mi",
        z: float = 1.0,
        ceiling: float | None = None,
        dirpath: str | Path | None = None,
        filename: str = "held_out-{epoch}-{step}",
        save_weights_only: bool = False,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            mode="max",
            save_weights_only=save_weights_only,
            verbose=verbose,
            # Before what other checkpoints save at the end of the epoch, which then know what was chosen.
            save_on_train_epoch_end=False,
        )
        self._gain = SignificantGain(monitor, z, ceiling)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check what is chosen by, and what is reported from."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._gain.check_module(pl_module)
        data = getattr(trainer, "datamodule", None)
        if data is not None and not is_overridden("test_dataloader", data):
            rank_zero_warn(
                f"{type(data).__name__} has no test_dataloader: the value of the chosen checkpoint on the split that "
                "chose it reads high, and no other split is left to report from."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that something is held out."""
        self._gain.check_validation(trainer)
        super().on_train_start(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check it here where the batches were not loaded at the start: the first validation is in a later epoch."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._gain.check_validation(trainer)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the value and its standard error are logged; they do not count."""
        self._gain.read(trainer)

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Whether the last reading replaces the kept one; Lightning asks once after each validation, and then saves."""
        value, error = self._gain.read(trainer)
        kept = -math.inf if self.best_model_score is None else float(self.best_model_score)
        better = value - self._gain.margin(value, error) > kept
        better = trainer.strategy.reduce_boolean_decision(better)
        if better:
            self._gain.kept_error = error
        return better

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, and the standard error of the kept reading."""
        return super().state_dict() | {"standard_error": self._gain.kept_error}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the kept reading, also where the run goes on in another folder: Lightning would forget it."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})
        self._gain.kept_error = state_dict["standard_error"]


@final
class HeldOutEarlyStopping(EarlyStopping):
    """Lightning's ``EarlyStopping`` that takes only a *significant* gain of the held-out value for an improvement.

    Training stops after ``patience`` validations without a value that exceeds the best one by more than ``z`` standard
    errors of their difference: the rule of :class:`HeldOutCheckpoint`, which says what may be monitored. Gains too
    small to tell from noise add up, since the best one stays what is compared with. The sanity check does not count,
    and the state is in the checkpoint.

    Args:
        monitor: What is compared; its standard error is logged as ``<monitor>_standard_error``.
        z: How many standard errors of the difference count as an improvement.
        ceiling: What the mutual information cannot exceed; nats. A value above it by more than ``z`` of its standard
            errors is no improvement.
        patience: Validations without an improvement after which training stops.
        check_finite: Stop at once where the value is infinite or not a number.
        verbose: As in ``EarlyStopping``.

    Raises:
        ValueError: ``z`` is negative.
        MisconfigurationException: As in :class:`HeldOutCheckpoint`.

    Source: The one-standard-error rule of Breiman et al. 1984, section 3.4.3; Prechelt 1998.

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[HeldOutEarlyStopping(patience=5)])
    """

    def __init__(
        self,
        monitor: str = "val/mi",
        z: float = 1.0,
        ceiling: float | None = None,
        patience: int = 10,
        check_finite: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            monitor,
            patience=patience,
            mode="max",
            check_finite=check_finite,
            verbose=verbose,
            check_on_train_epoch_end=False,
        )
        self._gain = SignificantGain(monitor, z, ceiling)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check what is judged by."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._gain.check_module(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that something is held out."""
        self._gain.check_validation(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check it here where the batches were not loaded at the start: the first validation is in a later epoch."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._gain.check_validation(trainer)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the value and its standard error are logged; they do not count."""
        self._gain.read(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let Lightning judge, with the margin of noise as its least improvement."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value, error = self._gain.read(trainer)
        self.min_delta = self._gain.margin(value, error)
        best = self.best_score
        super().on_validation_end(trainer, pl_module)
        if self.best_score is not best:
            self._gain.kept_error = error

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, and the standard error of the best reading."""
        return super().state_dict() | {"standard_error": self._gain.kept_error}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best reading."""
        super().load_state_dict(state_dict)
        self._gain.kept_error = state_dict["standard_error"]
