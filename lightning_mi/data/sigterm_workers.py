"""Loader workers that leave it to their parent to end when a scheduler tells everybody to."""

import multiprocessing
import os
import signal
import threading

from lightning_mi.utilities.lifeline import end_with_parent


def obey_parent_alone(worker_id: int) -> None:
    """Let a loader's worker be ended by its parent only; for ``DataLoader(worker_init_fn=...)``.

    Schedulers send SIGTERM to every process of a job, a terminal sends Ctrl-C and its closing to every process of a
    command. A worker that obeyed would take away the parent's batches before the parent, between two steps, has saved.
    It ends as soon as its parent has ended.

    Args:
        worker_id: Not used.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux, where schedulers are
        parent = multiprocessing.parent_process()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for, args=(parent.pid if parent else os.getppid(),), daemon=True).start()
    end_with_parent()  # after the mask, which a new thread inherits


def _wait_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
