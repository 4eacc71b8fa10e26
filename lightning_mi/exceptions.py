"""Every public error and warning of the package, under :class:`MIError` and :class:`MIWarning`.

Each error also derives from the built-in class that fits, so that ``except ValueError`` catches it.
"""

from typing import final

__all__ = [
    "CheckpointError",
    "CorruptImageError",
    "CriticLagWarning",
    "DatasetDownloadError",
    "DatasetNotFoundError",
    "DoubleBackwardError",
    "EstimateInputError",
    "GridError",
    "InexactResumeWarning",
    "MIError",
    "MINumericalWarning",
    "MIWarning",
    "NoLogRatioError",
    "NonFiniteBatchError",
    "NonFiniteStepError",
    "RayClusterError",
    "RingGatherError",
    "ShardingError",
    "StabilityWarning",
    "UnknownRecipeError",
    "ViewScaleWarning",
    "WatchError",
]


class MIError(Exception):
    """Base class of the errors of this package.

    Example:
        >>> issubclass(NonFiniteBatchError, MIError) and issubclass(NonFiniteBatchError, ValueError)
        True
    """


class MIWarning(Warning):
    """Base class of the warnings of this package.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", MIWarning)  # silences all of them
    """


@final
class NonFiniteBatchError(MIError, ValueError):
    """A batch contains NaN or an infinite value."""


@final
class NonFiniteStepError(MIError, ValueError):
    """A training step has scores, a loss or gradients that are NaN or infinite."""


@final
class DoubleBackwardError(MIError, RuntimeError):
    """Double backward is not supported for tiled scores."""


@final
class RingGatherError(MIError, ValueError):
    """A pairing, a critic or a reduction cannot work with candidates that pass round the ring of ranks."""


@final
class ShardingError(MIError, ValueError):
    """A strategy or a device mesh shards parameters in a way that this package does not support."""


@final
class CheckpointError(MIError, RuntimeError):
    """A checkpoint cannot be found, read, trusted or written, or does not fit the module."""


@final
class DatasetNotFoundError(MIError, FileNotFoundError):
    """A dataset is missing, incomplete or empty.

    Example:
        >>> raise DatasetNotFoundError("No CIFAR-10 in data/cifar-10-batches-py.")
        Traceback (most recent call last):
        lightning_mi.exceptions.DatasetNotFoundError: No CIFAR-10 in data/cifar-10-batches-py.
    """


@final
class DatasetDownloadError(MIError, OSError):
    """A dataset could not be downloaded."""


@final
class CorruptImageError(MIError, ValueError):
    """An image file cannot be decoded; the message names the file."""


@final
class EstimateInputError(MIError, ValueError):
    """The arrays of :func:`lightning_mi.estimate` do not hold samples of two variables."""


@final
class NoLogRatioError(MIError, NotImplementedError):
    """A law of samples has no known density, and so no log-ratio."""


@final
class UnknownRecipeError(MIError, LookupError):
    """No recipe or benchmark has this name; the message lists the known names."""


@final
class GridError(MIError, ValueError):
    """A benchmark's YAML is invalid, or an option names an unknown preset, loss or data set."""


@final
class RayClusterError(MIError, RuntimeError):
    """Ray is not installed, the cluster is unreachable, or no node has the resources of one training."""


@final
class WatchError(MIError, ValueError):
    """A layer, label or entry that a callback watches is missing, or cannot be watched."""


@final
class CriticLagWarning(MIWarning, UserWarning):
    """A critic follows the representations too slowly: :class:`~lightning_mi.callbacks.MIPenalty`."""


@final
class MINumericalWarning(MIWarning, RuntimeWarning):
    """A value overflowed or is NaN, or an estimate is meaningless because of its scores."""


@final
class StabilityWarning(MIWarning, UserWarning):
    """A training drifts or explodes: :class:`~lightning_mi.callbacks.StabilityMonitor`."""


@final
class ViewScaleWarning(MIWarning, UserWarning):
    """Views or representations are far from unit scale."""


@final
class InexactResumeWarning(MIWarning, UserWarning):
    """A resumed training will not be bitwise equal to an uninterrupted one."""
