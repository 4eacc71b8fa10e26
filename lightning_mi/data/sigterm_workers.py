"""Loader workers that ignore signals to the whole job and end with their parent."""

import multiprocessing
import os
import signal
import threading

from lightning_mi.utilities.lifeline import end_with_parent


def ignore_job_signals(worker_id: int) -> None:
    """Ignore signals that do not come from the parent; for ``DataLoader(worker_init_fn=...)``.

    Schedulers send SIGTERM to every process of a job, and terminals send SIGINT and SIGHUP to every process of a
    command. If workers ended first, the parent would fail in its next batch instead of saving a checkpoint. Workers end
    when their parent ends.

    Args:
        worker_id: Unused.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(range(8), batch_size=4, num_workers=2, worker_init_fn=ignore_job_signals)
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux
        parent = multiprocessing.parent_process()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(
            target=_end_on_sigterm_from, args=(parent.pid if parent else os.getppid(),), daemon=True
        ).start()
    end_with_parent()  # after the signal mask, which the new thread inherits


def _end_on_sigterm_from(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
