"""Optional interfaces of data modules, critics, callbacks and modules.

Nothing has to derive from these classes: an object with the members has the interface, and ``isinstance`` checks for
them. Without the members, the corresponding feature is off.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypedDict, runtime_checkable

from torch import Tensor

# Data modules.


@runtime_checkable
class HasTrueMI(Protocol):
    """A data module with known mutual information; it is logged as ``train/true_mi``.

    Example:
        >>> isinstance(object(), HasTrueMI)
        False
    """

    def true_mi(self) -> float | None:
        """I(x; y) of the first two entries of a batch, nats, at the current training step and in the current split.

        None if it is unknown.
        """


@runtime_checkable
class HasNumClasses(Protocol):
    """A data module with class labels 0 to C - 1; parts of a module with another ``num_classes`` are an error."""

    num_classes: int


@runtime_checkable
class HasClassCounts(Protocol):
    """A data module with known class frequencies; pairings of labels use them."""

    def class_counts(self, split: str | None = None) -> Tensor:
        """(C,) int64, the number of samples of each class.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``; by default the current one.
        """


@runtime_checkable
class HasExchangeable(Protocol):
    """A data module that declares whether (x, y) and (y, x) have the same distribution; if not, they may differ."""

    @property
    def exchangeable(self) -> bool:
        """Whether p(x, y) = p(y, x)."""


@runtime_checkable
class HasReferenceLoader(Protocol):
    """A data module with labelled training samples for the probes."""

    def reference_dataloader(self) -> Iterable[Any]:
        """A data loader of (x, label): the training samples without augmentation, each once over all ranks."""


@runtime_checkable
class AugmentsEvaluation(Protocol):
    """A data module whose validation and test views may be augmented; probes then read its samples without."""

    augments_evaluation: bool

    def reference_dataloader(self, split: str = "train") -> Iterable[Any]:
        """A data loader of (x, label): the samples of a split without augmentation, each once over all ranks."""


# Critics.


@runtime_checkable
class NeedsCalibration(Protocol):
    """A critic that sets its scale and offset from the first training batch."""

    @property
    def needs_calibration(self) -> bool:
        """Whether the critic is not yet calibrated."""

    def calibrate(
        self, marginal_scores: Callable[[], Tensor], log_normalizer: Callable[[], Tensor], target: float
    ) -> None:
        """Set scale and offset; every rank must call it.

        Args:
            marginal_scores: Returns this critic's scores of the batch's marginal pairs, (K,).
            log_normalizer: Returns the bound's log-normalizer with this critic on the batch, a scalar, nats.
            target: The log-normalizer after calibration, nats.
        """


# Callbacks.


@runtime_checkable
class HandlesNonFinite(Protocol):
    """A callback that responds to non-finite steps, in place of the module's ``on_non_finite`` policy."""

    handles_non_finite: bool


# Modules.


class StepOutputs(TypedDict):
    """The dict that ``training_step`` of any LightningModule returns so that callbacks of this package can observe it.

    Attributes:
        loss: The loss, with its graph.
        terms: The :class:`~lightning_mi.BoundTerms` of the step.
        scores: The :class:`~lightning_mi.Scores` of the step.
    """

    loss: Tensor
    terms: Any  # BoundTerms and Scores are defined in packages that import this one
    scores: Any
