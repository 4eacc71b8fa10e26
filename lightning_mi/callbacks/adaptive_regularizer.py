"""AdaptiveRegularizer: adapt the regularizer's weight to the log-normalizer."""

import math
from collections.abc import Sequence
from typing import Any, final

import lightning.pytorch as L

from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks._step_outputs import find_bound, find_regularizer, log_metrics, read_step
from lightning_mi.callbacks.stability.window import BlockReader
from lightning_mi.regularizers import AbstractRegularizer, check_target
from lightning_mi.utilities.checks import check_instance, check_number, check_whole

_NAME = "AdaptiveRegularizer"


@final
class AdaptiveRegularizer(L.Callback):
    r"""Raises the regularizer's weight while the log-normalizer is outside a band, and lowers it inside.

    Every ``every_n_steps`` steps,

    .. math:: \lambda \leftarrow \mathrm{clip}(c \lambda, \lambda_{min}, \lambda_{max}),

    where c is ``relax_by`` if the mean log-normalizer of these steps, over all ranks, is inside the band, and
    ``raise_by`` otherwise. A scheduled weight is multiplied with the product of all changes at each step. Logs
    ``regularizer/weight``. The state is in the checkpoint.

    Args:
        band: Lowest and highest log-normalizer, nats. It must contain the regularizer's target.
        bound: The bound that is trained; the module's attribute ``bound`` by default.
        every_n_steps: Steps between two changes of the weight.
        raise_by: A factor above 1.
        relax_by: A factor of at most 1; 1 never lowers the weight.
        min_weight: The lowest weight, positive.
        max_weight: The highest weight.

    Attributes:
        factor: The product of all changes, which the regularizer's weight is multiplied with.

    Raises:
        ValueError: An argument is out of range; at the start of fit, the band does not contain the target.
        TypeError: At the start of fit, the module has no regularizer or no bound; at the first step, it returned no
            terms and scores.

    Example:
        >>> adaptive = AdaptiveRegularizer(band=(-0.5, 0.5), max_weight=1.0)
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=adaptive)
    """

    def __init__(
        self,
        band: tuple[float, float] = (-1.0, 1.0),
        bound: AbstractBound | None = None,
        *,
        every_n_steps: int = 50,
        raise_by: float = 2.0,
        relax_by: float = 0.9,
        min_weight: float = 1e-3,
        max_weight: float = 10.0,
    ) -> None:
        if bound is not None:
            check_instance("bound", bound, AbstractBound, "bounds.DV()")
        check_whole("every_n_steps", every_n_steps, 1)
        _check_band(band)
        for name, number in (("raise_by", raise_by), ("relax_by", relax_by)):
            check_number(name, number, "a factor")
        for name, number in (("min_weight", min_weight), ("max_weight", max_weight)):
            check_number(name, number, "lambda")
        if not (1 < raise_by < math.inf and 0 < relax_by <= 1):
            raise ValueError(
                f"Got raise_by={raise_by} and relax_by={relax_by}: raise_by is a factor above 1, and relax_by is above "
                "0 and at most 1."
            )
        if not 0 < min_weight <= max_weight < math.inf:
            raise ValueError(
                f"Got min_weight={min_weight} and max_weight={max_weight}: both are positive and finite, and "
                "min_weight is at most max_weight. A weight of 0 could not be raised by a factor."
            )
        self.band = (band[0], band[1])
        self.raise_by, self.relax_by = raise_by, relax_by
        self.min_weight, self.max_weight = min_weight, max_weight
        self.factor = 1.0
        self._bound = bound
        self._every_n_steps = every_n_steps
        self._reader = BlockReader(every_n_steps)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state, before Lightning loads a checkpoint; check that the band contains the target."""
        if stage != "fit":
            return
        self._reader = BlockReader(self._every_n_steps)
        low, high = self.band
        regularizer = self._regularizer(pl_module)
        check_target(find_bound(pl_module, self._bound, _NAME), regularizer)
        target = regularizer.target
        if not low <= target <= high:
            raise ValueError(
                f"Got band=({low:g}, {high:g}) for a regularizer whose target is {target:g} nats: it would pull the "
                f"log-normalizer out of the band. Give a band around {target:g}, or another target."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the factor from the regularizer, whose state dict contains it."""
        self.factor = self._regularizer(pl_module).factor

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step's log-normalizer; every ``every_n_steps`` steps, change and log the weight."""
        terms, scores = read_step(outputs, pl_module, _NAME)
        self._reader.add(terms, scores)
        if not self._reader.full:
            return
        block = self._reader.close(scores, batches_done(trainer))
        regularizer = self._regularizer(pl_module)
        weight = regularizer.current_weight()
        if block is not None and weight > 0:  # 0: a schedule has not started yet
            low, high = self.band
            # A log-normalizer of NaN is outside the band.
            change = self.relax_by if low <= block.log_normalizer <= high else self.raise_by
            regularizer.factor *= min(max(change * weight, self.min_weight), self.max_weight) / weight
        self.factor = regularizer.factor
        log_metrics(trainer, {"regularizer/weight": regularizer.current_weight()})

    def state_dict(self) -> dict[str, Any]:
        """The factor and the current block."""
        return {"factor": self.factor, **self._reader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the factor and the current block."""
        self.factor = state_dict["factor"]
        self._reader.load_state_dict(state_dict)

    def _regularizer(self, pl_module: L.LightningModule) -> AbstractRegularizer:
        found = find_regularizer(pl_module)
        if found is None:
            raise TypeError(
                f"Got {type(pl_module).__name__} without a regularizer in its attribute `regularizer`: {_NAME} adapts "
                "a regularizer's weight. Give it one, such as regularizers.Squared(weight=0.1)."
            )
        return found


def _check_band(band: Sequence[float]) -> None:
    check_instance("band", band, (tuple, list), "(low, high)")
    for name, number in zip(("band low", "band high"), band, strict=False):
        check_number(name, number, "a log-normalizer in nats")
    if len(band) != 2 or not band[0] < band[1]:
        raise ValueError(f"Got band={band!r}: give the lowest and the highest log-normalizer, in nats.")
