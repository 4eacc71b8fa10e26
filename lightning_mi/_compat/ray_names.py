"""Undocumented names of Ray."""

from contextlib import suppress
from importlib import import_module


def preload_ray_shutdown() -> None:
    """Import ``ray.dag``, which ``ray.shutdown`` imports together with torch; read in Ray 2.54 and 2.60."""
    with suppress(ImportError):
        import_module("ray.dag")


def ray_task_cause(error: Exception) -> Exception:
    """The exception inside a ``RayTaskError``, or the error itself; attribute ``cause``, read in Ray 2.54 and 2.60.

    Example:
        >>> ray_task_cause(ValueError("no cause"))
        ValueError('no cause')
    """
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
