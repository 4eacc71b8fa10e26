"""Settings of a process that trains cells of a grid."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def configure_worker() -> None:
    """Use one thread: it is fastest for small matrices, and parallel workers do not compete for cores."""
    import torch

    torch.set_num_threads(1)


@contextmanager
def quiet_process() -> Iterator[None]:
    """Context manager: one thread, no messages of Lightning, no warnings."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    configure_worker()
    with warnings.catch_warnings():
        # A diverging run is a result of the grid and recorded; its warning would appear once per process.
        warnings.simplefilter("ignore")
        yield
