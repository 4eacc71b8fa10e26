"""CalibratedCritic: a learnable scale and offset on another critic's scores."""

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi._compat.torch_names import tensor_version
from lightning_mi.critics.base import AbstractCritic
from lightning_mi.scores.tiles import AbstractTiles, with_affine
from lightning_mi.utilities.checks import check_instance, check_number
from lightning_mi.utilities.distributed import all_reduce_mean_, standard_deviation


@final
class CalibratedCritic(AbstractCritic):
    """Another critic's scores, times a learnable scale, plus a learnable offset, both initialized from the first batch.

    The offset lets training move the log-normalizer without changing the features. :meth:`calibrate` initializes it so
    that the log-normalizer is at its target, and the scale so that marginal scores have unit standard deviation.
    ``MIEstimationModule`` calls it on the first training batch.

    Args:
        critic: The critic to wrap.
        offset: Learn an offset.
        scale: Learn a positive scale.
        offset_unit: Change of the offset, in nats, if its parameter changes by 1. Adam changes a parameter by about the
            learning rate in each step: at 1e-3 and a unit of 1, one nat takes 1000 steps. For plain SGD, whose steps
            grow with the square of the unit, choose 1.

    Raises:
        TypeError: ``critic`` is not a critic.
        ValueError: Both ``offset`` and ``scale`` are False, or the unit is not positive.

    Example:
        >>> from lightning_mi.critics import InnerProductCritic
        >>> critic, x = CalibratedCritic(InnerProductCritic()), torch.randn(8, 2)
        >>> scores = lambda: critic.pairwise(x, x).flatten()
        >>> critic.calibrate(scores, lambda: scores().logsumexp(0), target=5.0)
        >>> scores().logsumexp(0)
        tensor(5.0000, grad_fn=<LogsumexpBackward0>)
    """

    calibrated: Tensor

    def __init__(
        self, critic: AbstractCritic, *, offset: bool = True, scale: bool = False, offset_unit: float = 30.0
    ) -> None:
        super().__init__()
        check_instance("critic", critic, AbstractCritic, "critics.InnerProductCritic()")
        if not (offset or scale):
            raise ValueError("Got offset=False and scale=False: there is nothing to calibrate. Use the critic itself.")
        check_number("offset_unit", offset_unit, "nats")
        if not 0 < offset_unit < math.inf:
            raise ValueError(f"Got offset_unit={offset_unit}: it is a positive number of nats. 30 suits Adam, 1 SGD.")
        self.critic = critic
        self.offset_unit = offset_unit
        self.offset = nn.Parameter(torch.zeros(())) if offset else None
        self.log_scale = nn.Parameter(torch.zeros(())) if scale else None
        self.register_buffer("calibrated", torch.tensor(False))
        self._version_read: tuple[int, int] | None = None  # of the buffer, when _needs_calibration was read from it
        self._needs_calibration = True

    @property
    def needs_calibration(self) -> bool:
        """True if scale and offset are not yet initialized, also after a state dict was loaded.

        It is the negation of the buffer ``calibrated``. Reading the buffer needs a host-device sync, so it is read only
        after a write to it.
        """
        version = tensor_version(self.calibrated)
        current = None if version is None else (id(self.calibrated), version)
        if current is None or current != self._version_read:
            self._needs_calibration, self._version_read = not bool(self.calibrated), current
        return self._needs_calibration

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        return with_affine(self.critic.paired(x, y), *self._scale_and_offset())

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return with_affine(self.critic.pairwise(x, y), *self._scale_and_offset())

    def tiles(self, x: Tensor, y: Tensor) -> AbstractTiles | None:
        """The tiles of the wrapped critic, if it has any, with scale and offset."""
        tiles = self.critic.tiles(x, y)
        return None if tiles is None else tiles.affine(*self._scale_and_offset())

    @torch.no_grad()
    def calibrate(
        self, marginal_scores: Callable[[], Tensor], log_normalizer: Callable[[], Tensor], target: float = 0.0
    ) -> None:
        """Initialize scale and offset from a batch, once; skipped if they would not be finite.

        The result is the same on every rank: the scale from the scores of all ranks, the offset from the mean of their
        log-normalizers. Every rank must call it.

        Args:
            marginal_scores: Returns this critic's scores of the batch's marginal pairs, (K,).
            log_normalizer: Returns the bound's log-normalizer with this critic on the batch, a scalar in nats.
            target: The log-normalizer after calibration, nats.
        """
        if not self.needs_calibration:
            return
        parameters = [parameter for parameter in (self.log_scale, self.offset) if parameter is not None]
        before = [parameter.clone() for parameter in parameters]
        if self.log_scale is not None and (deviation := standard_deviation(marginal_scores())) != 0:
            self.log_scale.sub_(deviation.log())
        if self.offset is not None:
            self.offset.add_((target - log_normalizer()) / self.offset_unit)
            all_reduce_mean_(self.offset)
        if all(bool(torch.isfinite(parameter)) for parameter in parameters):
            self.calibrated.fill_(True)
        else:
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)

    def _scale_and_offset(self) -> tuple[Tensor | None, Tensor | None]:
        scale = None if self.log_scale is None else self.log_scale.exp()
        return scale, None if self.offset is None else self.offset_unit * self.offset
