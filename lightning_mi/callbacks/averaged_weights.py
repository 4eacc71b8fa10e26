"""AveragedWeights: read the estimate with an exponential moving average of the weights."""

import math
from typing import Any, TypeVar, final

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_mi._compat.lightning_loops import averaged_module
from lightning_mi.bounds import AbstractBound, BoundTerms
from lightning_mi.exceptions import NonFiniteBatchError
from lightning_mi.loss import reported_terms
from lightning_mi.module import MIEstimationModule
from lightning_mi.utilities.checks import check_number
from lightning_mi.utilities.numerics import disable_finite_checks

_Count = TypeVar("_Count", float, Tensor)


@final
class AveragedWeights(WeightAveraging):
    r"""Reads the estimate with an exponential moving average of the weights, which training does not change.

    .. math:: \bar\theta \leftarrow d_t \bar\theta + (1 - d_t) \theta, \quad
        d_t = \min\left(d, \frac{1 + t}{10 + t}\right)

    after the t-th optimizer step. A critic that follows noisy gradients is wrong by much of their noise; the average is
    not. On a stream of new samples, each training batch is read before the update with it, so that the estimate is that
    of samples that the weights have not seen.

    Logs ``train/averaged_mi``, ``train/averaged_mi_plug_in`` and ``train/averaged_log_normalizer`` at each step, nats:
    the batch read with the averaged weights in evaluation mode, with the pairs of training. If the bound has one
    log-normalizer :math:`\ell` for the batch, also ``train/averaged_mi_normalized``, the *normalized* estimate:

    .. math:: \hat I_t = E_P[T] - L_t, \quad e^{L_t} = d_t \, e^{L_{t-1}} + (1 - d_t) \, e^{\ell_t}

    It is the value of DV with the log-normalizer of about 1 / (1 - d) batches. The noise of the weights lowers the
    level of T, and averaged weights keep this level without the noise; the subtraction corrects it.

    Lightning's ``WeightAveraging`` does the rest: validation runs with the average, checkpoints contain it as the
    module's weights (``test``, ``predict`` and ``load_from_checkpoint`` read it) beside those of training, with which a
    resumed fit continues, and after the fit the module has it.

    The cost is a forward pass for each batch, and a copy of the weights.

    Args:
        decay: d, at least 0 and below 1. Large values average over more steps, 1 / (1 - d) of them.
        device: The device of the average; that of the module by default.

    Attributes:
        terms: The terms of the last training batch, nats; None before any.
        normalized: The normalized plug-in estimate of the last training batch, nats; NaN if the bound has none.

    Raises:
        ValueError: The decay is out of range.
        TypeError: At the start of a fit: the module is not an :class:`~lightning_mi.MIEstimationModule`.

    Source: Polyak and Juditsky 1992 (averaged weights); Donsker and Varadhan 1983 (normalized estimate); Belghazi et
    al. 2018 (moving average of the mean exponential).

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=[AveragedWeights(decay=0.995)])
    """

    def __init__(self, decay: float = 0.995, device: torch.device | str | int | None = None) -> None:
        check_number("decay", decay, "the fraction of the average that each step keeps")
        if not 0 <= decay < 1:
            raise ValueError(f"Got decay={decay}: it is at least 0 and below 1, such as 0.995.")
        super().__init__(device, avg_fn=self._average)
        self.decay = decay
        self.terms: BoundTerms | None = None
        self.normalized = torch.tensor(math.nan)
        self._level: Tensor | None = None  # L_t
        self._num_batches = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the module; see :class:`AveragedWeights` for the errors."""
        if not isinstance(pl_module, MIEstimationModule):
            raise TypeError(
                f"Got a module of type {type(pl_module).__name__}: AveragedWeights reads the estimate of an "
                "MIEstimationModule. For other modules use Lightning's EMAWeightAveraging."
            )
        super().setup(trainer, pl_module, stage)
        self.terms = self._level = None
        self._num_batches = 0

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the batch with the averaged weights, and log the estimate."""
        averaged = averaged_module(self)
        assert isinstance(averaged, MIEstimationModule)
        averaged.eval()
        averaged.pairs.train(pl_module.training)  # pairs over all ranks, as in training
        # `setup` copies before Lightning converts to the precision of the training.
        trainer.precision_plugin.convert_module(averaged).to(pl_module.device)
        cuda = pl_module.device.type == "cuda"
        with isolate_rng(include_cuda=cuda), disable_finite_checks(), trainer.precision_plugin.forward_context():
            try:
                output = averaged.step(batch)
                self.terms = reported_terms(output.terms, output.scores)
            except NonFiniteBatchError:  # NaN: without a value Lightning logs an earlier one
                self.terms = BoundTerms(*torch.full((5,), math.nan, device=pl_module.device))
        self._normalize(averaged)
        plug_in = averaged.bound.plug_in(self.terms.joint_term, averaged.target)
        logs = {"mi": self.terms.value, "mi_plug_in": plug_in, "log_normalizer": self.terms.log_normalizer}
        if _has_level(averaged.bound):
            logs["mi_normalized"] = self.normalized
        pl_module.log_dict({f"train/averaged_{name}": value for name, value in logs.items()}, on_step=True)

    def state_dict(self) -> dict[str, Any]:
        """The log-normalizer over batches, beside the state of Lightning's callback."""
        level = None if self._level is None else float(self._level)
        return super().state_dict() | {"level": level, "num_batches": self._num_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        super().load_state_dict(state_dict)
        self._level = None if state_dict["level"] is None else torch.tensor(state_dict["level"])
        self._num_batches = state_dict["num_batches"]

    def _normalize(self, averaged: MIEstimationModule) -> None:
        """Update the log-normalizer over batches, and the estimate."""
        assert self.terms is not None
        current = self.terms.log_normalizer
        if not _has_level(averaged.bound):
            self.normalized = torch.full_like(current, math.nan)
            return
        if self._level is None:
            self._level = current
        previous, decay = self._level.to(current), min(self.decay, _warm_up(self._num_batches))
        level = torch.logaddexp(previous + math.log(decay), current + math.log1p(-decay)) if decay else current
        # A batch that is not finite is skipped, without a host-device sync.
        self._level = level.where(torch.isfinite(level), previous.where(torch.isfinite(previous), current))
        self._num_batches += 1
        self.normalized = averaged.bound.plug_in(self.terms.joint_term) - self._level

    def _average(self, averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():  # counts and flags
            return current
        warm_up = _warm_up(torch.as_tensor(num_averaged, device=averaged.device))  # a tensor: no host-device sync
        return torch.lerp(current, averaged, warm_up.to(averaged.dtype).clamp(max=self.decay))


def _warm_up(count: _Count) -> _Count:
    """The decay that is reached after a number of steps."""
    return (1 + count) / (10 + count)


def _has_level(bound: AbstractBound) -> bool:
    """Whether the log-normalizer is one number for the batch, log E_Q[e^T] up to a constant."""
    return not (bound.normalized_by_row or bound.needs_log_density)
