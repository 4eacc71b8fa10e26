"""AdaptiveRegularizer: the regularizer's weight follows the log-normalizer."""

import math
from typing import Any, final

import lightning.pytorch as L

from lightning_mi._compat import batches_done
from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks._direct_logs import log_now
from lightning_mi.callbacks._step_outputs import bound_of, observed
from lightning_mi.callbacks.stability.rollback import regularizer_of
from lightning_mi.callbacks.stability.window import BlockReader
from lightning_mi.regularizers import AbstractRegularizer, check_target
from lightning_mi.utilities.checks import check_instance, check_number, check_whole

_NAME = "AdaptiveRegularizer"


@final
class AdaptiveRegularizer(L.Callback):
    """Raises the regularizer's weight while the log-normalizer is out of its band, and relaxes it inside.

    Every ``every_n_steps`` steps it takes the mean of the log-normalizer since the last time, over all processes, and
    multiplies the weight with ``raise_by`` or ``relax_by``, within ``min_weight`` and ``max_weight``. A scheduled
    weight is multiplied at each step with what has come together. Logs ``regularizer/weight``. The course is in the
    checkpoint.

    Args:
        band: Where the log-normalizer may be, lowest and highest, nats. It holds the regularizer's target.
        bound: What is trained; the module's attribute ``bound`` by default.
        every_n_steps: Steps between two changes of the weight.
        raise_by: A factor above 1.
        relax_by: A factor of at most 1; 1 never relaxes.
        min_weight: The lowest weight, positive.
        max_weight: The highest weight.

    Attributes:
        factor: What the regularizer's own weight is multiplied with.

    Raises:
        ValueError: An argument is out of range; at the start of fit, the band does not hold the target.
        TypeError: At the start of fit, the module has no regularizer or no bound; at the first step, it gave no terms
            and scores.

    Example:
        >>> adaptive = AdaptiveRegularizer(band=(-0.5, 0.5), max_weight=1.0)
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=adaptive)
    """

    def __init__(
        self,
        band: tuple[float, float] = (-1.0, 1.0),
        bound: AbstractBound | None = None,
        every_n_steps: int = 50,
        raise_by: float = 2.0,
        relax_by: float = 0.9,
        min_weight: float = 1e-3,
        max_weight: float = 10.0,
    ) -> None:
        if bound is not None:
            check_instance("bound", bound, AbstractBound, "bounds.DV()")
        check_whole("every_n_steps", every_n_steps, 1)
        check_instance("band", band, (tuple, list), "(low, high)")
        if len(band) != 2:
            raise ValueError(f"Got band={band!r}: give the lowest and the highest log-normalizer, in nats.")
        low, high = band
        for name, number in (("low", low), ("high", high)):
            check_number(f"band {name}", number, "a log-normalizer in nats")
        for name, number in (("raise_by", raise_by), ("relax_by", relax_by)):
            check_number(name, number, "a factor")
        for name, number in (("min_weight", min_weight), ("max_weight", max_weight)):
            check_number(name, number, "lambda")
        if not low < high:
            raise ValueError(f"Got band={band!r}: give the lowest and the highest log-normalizer, in nats.")
        if not (1 < raise_by < math.inf and 0 < relax_by <= 1):
            raise ValueError(
                f"Got raise_by={raise_by} and relax_by={relax_by}: out of the band the weight is multiplied with a "
                "factor above 1, and inside with one of at most 1 and above 0."
            )
        if not 0 < min_weight <= max_weight < math.inf:
            raise ValueError(
                f"Got min_weight={min_weight} and max_weight={max_weight}: the weight stays between two positive "
                "numbers; from 0 no factor would raise it."
            )
        self.band = (low, high)
        self.raise_by, self.relax_by = raise_by, relax_by
        self.min_weight, self.max_weight = min_weight, max_weight
        self.factor = 1.0
        self._bound = bound
        self._every_n_steps = every_n_steps
        self._reader = BlockReader(every_n_steps)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin anew, unless a checkpoint is loaded after this; reject a band without the regularizer's target."""
        if stage != "fit":
            return
        self._reader = BlockReader(self._every_n_steps)
        low, high = self.band
        regularizer = self._regularizer(pl_module)
        check_target(bound_of(pl_module, self._bound, _NAME), regularizer)
        target = regularizer.target
        if not low <= target <= high:
            raise ValueError(
                f"Got band=({low:g}, {high:g}), but the regularizer holds the log-normalizer at {target:g} nats: it "
                f"would be pulled out of its band. Give a band around {target:g}, or the regularizer another target."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the factor from the regularizer, whose state dict holds it."""
        self.factor = self._regularizer(pl_module).factor

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep this step's log-normalizer, and change the weight when it is time."""
        terms, scores = observed(outputs, pl_module, _NAME)
        self._reader.add(terms, scores)
        if not self._reader.full:
            return
        block = self._reader.close(scores, batches_done(trainer))
        regularizer = self._regularizer(pl_module)
        weight = regularizer.current_weight()
        if block is not None and weight > 0:  # a warm-up begins at 0, which is not the callback's to change
            low, high = self.band
            # Also where it is not a number.
            change = self.relax_by if low <= block.log_normalizer <= high else self.raise_by
            regularizer.factor *= min(max(change * weight, self.min_weight), self.max_weight) / weight
        self.factor = regularizer.factor
        log_now(trainer, {"regularizer/weight": regularizer.current_weight()})

    def state_dict(self) -> dict[str, Any]:
        """The factor, and the block that has begun."""
        return {"factor": self.factor, **self._reader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.factor = state_dict["factor"]
        self._reader.load_state_dict(state_dict)

    def _regularizer(self, pl_module: L.LightningModule) -> AbstractRegularizer:
        found = regularizer_of(pl_module)
        if found is None:
            raise TypeError(
                f"{_NAME} changes the weight of a regularizer, and {type(pl_module).__name__} has none in an attribute "
                "`regularizer`. Give it one, such as regularizers.Squared(weight=0.1)."
            )
        return found
