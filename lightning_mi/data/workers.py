"""Loader workers that leave it to their parent to end when a scheduler tells everybody to."""

import os
import signal
import threading


def obey_parent_alone(worker_id: int) -> None:
    """Let a loader's worker be ended by its parent only; for ``DataLoader(worker_init_fn=...)``.

    Schedulers send SIGTERM to every process of a job. A worker that obeyed would take away the parent's batches before
    the parent, between two steps, has saved. It still ends with its parent, whose death it looks out for.

    Args:
        worker_id: Not used.
    """
    if hasattr(signal, "sigwaitinfo"):  # Linux, where schedulers are
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for, args=(os.getppid(),), daemon=True).start()


def _wait_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
