"""HeldOutCheckpoint and HeldOutEarlyStopping: model selection by a held-out estimate and its standard error."""

import math
from pathlib import Path
from typing import Any, final

import lightning.pytorch as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_mi.callbacks.significant_gain import SignificantGain
from lightning_mi.exceptions import MIWarning


@final
class HeldOutCheckpoint(ModelCheckpoint):
    r"""Lightning's ``ModelCheckpoint`` for the best checkpoint, replaced only by a *significantly* better one.

    The highest of many noisy values usually has a large positive error. This callback replaces the best checkpoint only
    if the new held-out value exceeds the best one by more than ``z`` standard errors of their difference,
    :math:`\sqrt{s_1^2 + s_2^2}`. The chosen value is at most that much below the highest, and it comes earlier.

    Choice of ``z``: if all epochs are validated on the same held-out samples, most of the noise is common to the values
    and cancels in the difference. The remaining noise is about a fifth of a standard error (measured on the digits),
    far below the margin at ``z = 1``: the highest of 50 such values of a constant is 0.45 standard errors too high, the
    chosen one 0. If each validation draws new samples, nothing cancels: the highest of 50 is 2.25 standard
    errors too high, the chosen one 1.77 at z = 1, 0.97 at z = 2 and 0.16 at z = 3.

    The value of the chosen checkpoint on the split used for the choice is still biased upwards. Report ``test/mi`` with
    ``test/mi_standard_error``, on samples that were not used for the choice: ``trainer.test(ckpt_path="best")``, or
    from another process ``lightning-mi test --config RECIPE --ckpt_path best``.

    Choice of ``monitor``: an estimate for which higher is better, such as ``val/mi`` (micro) of a lower bound. SMILE is
    not a lower bound; the callback raises an error for it. ``val/mi_plug_in`` exceeds the bound by the distance of the
    log-normalizer above its target: monitor it only if a regularizer holds the log-normalizer close to the target.
    ``val/mi_macro`` of the Donsker-Varadhan family rises with noise. Above H(Y), or another known ``ceiling``, a higher
    value is not better.

    The best value is in the checkpoint, so a resumed run continues the comparison, also in another folder. The sanity
    check is ignored. To resume where a run stopped, add Lightning's ``ModelCheckpoint()`` after this callback; it saves
    the newest state.

    Args:
        monitor: The metric; its standard error is logged as ``<monitor>_standard_error``.
        z: Standard errors of the difference that count as better; 0 is Lightning's rule.
        ceiling: Upper limit of the mutual information, such as H(Y); nats. A value above it by more than ``z`` of its
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
        MIWarning: The data module has no test split to report from.

    Source: Breiman et al. 1984, section 3.4.3 (one-standard-error rule); Hastie et al. 2009, section 7.10.

    Example:
        >>> from lightning.pytorch.callbacks import ModelCheckpoint
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[HeldOutCheckpoint(), ModelCheckpoint()])
    """

    def __init__(
        self,
        monitor: str = "val/mi",
        z: float = 1.0,
        *,
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
            # Checkpoints that other callbacks save at the end of the epoch then record this choice.
            save_on_train_epoch_end=False,
        )
        self._gain = SignificantGain(monitor, z, ceiling)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the bound; warn if the data module has no test split."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._gain.check_module(pl_module)
        data = getattr(trainer, "datamodule", None)
        if data is not None and not is_overridden("test_dataloader", data):
            rank_zero_warn(
                f"{type(data).__name__} has no test_dataloader: the value of the chosen checkpoint on the split used "
                "for the choice is biased upwards. Add a test split to report from.",
                category=MIWarning,
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the number of validation batches."""
        self._gain.check_validation(trainer)
        super().on_train_start(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check again: if the first validation is in a later epoch, the number of its batches is known only now."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._gain.check_validation(trainer)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the value and its standard error are logged. The sanity check's values are not compared."""
        self._gain.read(trainer)

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """True if the last value replaces the best one. Lightning calls it once after each validation."""
        value, error = self._gain.read(trainer)
        best = -math.inf if self.best_model_score is None else float(self.best_model_score)
        better = value - self._gain.margin(value, error) > best
        better = trainer.strategy.reduce_boolean_decision(better)
        if better:
            self._gain.best_error = error
        return better

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and the standard error of the best value."""
        return super().state_dict() | {"standard_error": self._gain.best_error}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, also if the run resumes in another folder, where Lightning would drop it."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})
        self._gain.best_error = state_dict["standard_error"]


@final
class HeldOutEarlyStopping(EarlyStopping):
    """Lightning's ``EarlyStopping``, where only a *significant* gain of the held-out value is an improvement.

    Training stops after ``patience`` validations without a value that exceeds the best one by more than ``z`` standard
    errors of their difference: the rule of :class:`HeldOutCheckpoint`, with the same choice of ``monitor``. Gains below
    the noise add up, since all are compared with the same best value. The sanity check is ignored. The state is in the
    checkpoint.

    Args:
        monitor: The metric; its standard error is logged as ``<monitor>_standard_error``.
        z: Standard errors of the difference that count as an improvement.
        ceiling: Upper limit of the mutual information; nats. A value above it by more than ``z`` of its standard
            errors is no improvement.
        patience: Validations without an improvement after which training stops.
        check_finite: Stop at once if the value is infinite or NaN.
        verbose: As in ``EarlyStopping``.

    Raises:
        ValueError: ``z`` is negative.
        MisconfigurationException: As in :class:`HeldOutCheckpoint`.

    Source: Breiman et al. 1984, section 3.4.3 (one-standard-error rule); Prechelt 1998.

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[HeldOutEarlyStopping(patience=5)])
    """

    def __init__(
        self,
        monitor: str = "val/mi",
        z: float = 1.0,
        *,
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
        """Check the bound."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._gain.check_module(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the number of validation batches."""
        self._gain.check_validation(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check again: if the first validation is in a later epoch, the number of its batches is known only now."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._gain.check_validation(trainer)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the value and its standard error are logged. The sanity check's values are not compared."""
        self._gain.read(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's check, with the margin of noise as minimum improvement."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value, error = self._gain.read(trainer)
        self.min_delta = self._gain.margin(value, error)
        best = self.best_score
        super().on_validation_end(trainer, pl_module)
        if self.best_score is not best:
            self._gain.best_error = error

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and the standard error of the best value."""
        return super().state_dict() | {"standard_error": self._gain.best_error}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value."""
        super().load_state_dict(state_dict)
        self._gain.best_error = state_dict["standard_error"]
