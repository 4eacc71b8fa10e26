"""A critic that can move its scores without touching the features."""

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from lightning_mi.critics.base import AbstractCritic
from lightning_mi.scores.tiles import AbstractTiles
from lightning_mi.utilities.checks import check_instance, check_number
from lightning_mi.utilities.distributed import all_reduce_mean_, standard_deviation


@final
class CalibratedCritic(AbstractCritic):
    """Another critic's scores times a learnable scale plus a learnable offset, both set from the first batch.

    The offset lets training move the log-normalizer without touching the features, which otherwise could only shrink
    to obey a regularizer. :meth:`calibrate` starts it where the log-normalizer is at its target, and the scale where
    marginal scores have unit standard deviation. ``MIEstimationModule`` calls it on the first training batch.

    Args:
        critic: The critic to wrap.
        offset: Learn an offset.
        scale: Learn a scale; it is kept positive.
        offset_unit: Nats by which the offset moves as its parameter moves by 1. Optimizers like Adam move a parameter
            by about their learning rate a step: at 1e-3 and a unit of 1, a nat would take 1000 steps, and features
            would have to wait for the offset to make room. For plain SGD, whose steps go with its square, take 1.

    Raises:
        TypeError: ``critic`` is not a critic.
        ValueError: Neither is asked for, or the unit is not positive.

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
        self, critic: AbstractCritic, offset: bool = True, scale: bool = False, offset_unit: float = 30.0
    ) -> None:
        super().__init__()
        check_instance("critic", critic, AbstractCritic, "critics.InnerProductCritic()")
        if not (offset or scale):
            raise ValueError("Got offset=False and scale=False: there is nothing to calibrate; use the critic itself.")
        check_number("offset_unit", offset_unit, "nats")
        if not 0 < offset_unit < math.inf:
            raise ValueError(f"Got offset_unit={offset_unit}: it is a positive number of nats.")
        self.critic = critic
        self.offset_unit = offset_unit
        self.offset = nn.Parameter(torch.zeros(())) if offset else None
        self.log_scale = nn.Parameter(torch.zeros(())) if scale else None
        self.register_buffer("calibrated", torch.tensor(False))
        self._buffer_read: tuple[int, int] | None = None
        self._needs_calibration = True

    @property
    def needs_calibration(self) -> bool:
        """Whether no batch has set scale and offset yet.

        The buffer ``calibrated`` decides, also after a state dict was loaded. It is read again only after it was
        written to, since reading it waits for the device.
        """
        state = (id(self.calibrated), self.calibrated._version)
        if state != self._buffer_read:
            self._needs_calibration, self._buffer_read = not bool(self.calibrated), state
        return self._needs_calibration

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) scores of matching rows."""
        return self._affine(self.critic.paired(x, y))

    def pairwise(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, M) scores of all pairs."""
        return self._affine(self.critic.pairwise(x, y))

    def tiles(self, x: Tensor, y: Tensor) -> AbstractTiles | None:
        """Those of the critic, if it has any, with scale and offset."""
        tiles = self.critic.tiles(x, y)
        return None if tiles is None else tiles.affine(*self._scale_and_offset())

    @torch.no_grad()
    def calibrate(
        self, marginal_scores: Callable[[], Tensor], log_normalizer: Callable[[], Tensor], target: float = 0.0
    ) -> None:
        """Set scale and offset from a batch, once: nothing happens if they have been set, or would not be finite.

        Processes set them alike, from the scores of all and the mean of their log-normalizers; each must call it.

        Args:
            marginal_scores: Gives this critic's scores of the batch's marginal pairs, (K,).
            log_normalizer: Gives the bound's log-normalizer with this critic on the batch, a scalar in nats.
            target: Where the offset puts it, nats.
        """
        if not self.needs_calibration:
            return
        own = [p for p in (self.log_scale, self.offset) if p is not None]
        before = [p.clone() for p in own]
        if self.log_scale is not None and (deviation := standard_deviation(marginal_scores())) != 0:
            self.log_scale.sub_(deviation.log())
        if self.offset is not None:
            self.offset.add_((target - log_normalizer()) / self.offset_unit)
            all_reduce_mean_(self.offset)
        if all(bool(torch.isfinite(p)) for p in own):
            self.calibrated.fill_(True)
        else:
            for parameter, old in zip(own, before, strict=True):
                parameter.copy_(old)

    def _affine(self, scores: Tensor) -> Tensor:
        scale, offset = self._scale_and_offset()
        if scale is not None:
            scores = scores * scale
        return scores if offset is None else scores + offset

    def _scale_and_offset(self) -> tuple[Tensor | None, Tensor | None]:
        scale = None if self.log_scale is None else self.log_scale.exp()
        return scale, None if self.offset is None else self.offset_unit * self.offset
