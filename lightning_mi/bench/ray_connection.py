"""Connect to a Ray cluster, or raise within seconds."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_mi.exceptions import RayClusterError

_CONNECT_TIMEOUT = 25.0  # seconds; Ray itself retries a wrong address for minutes, then ends the process
_PROGRAM = (
    "from lightning_mi.utilities.lifeline import end_with_stdin; end_with_stdin(); import ray; ray.init(**{options!r})"
)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Context manager: the ``ray`` module, connected to a cluster.

    Args:
        address: ``HOST:PORT``, ``auto`` or ``ray://HOST:PORT``.

    Raises:
        RayClusterError: If Ray is not installed or the cluster does not respond.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RayClusterError("--ray needs Ray, which is not installed: pip install 'lightning-mi[ray]'") from error
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    _try_to_connect(options)
    try:
        with warnings.catch_warnings():
            # Older releases warn that GPUs will stay visible to tasks without GPUs; run_on_worker hides them.
            warnings.simplefilter("ignore", FutureWarning)
            handler = signal.getsignal(signal.SIGTERM)
            ray.init(**options)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray's handler would exit with status 15
        yield ray
    finally:
        ray.shutdown()


def check_resources(ray: Any, gpus_per_run: float) -> None:
    """Check that some node has the resources of one training; Ray would wait for such a node forever.

    Raises:
        RayClusterError: If no node has them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus_per_run for node in nodes):
        available = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise RayClusterError(
            f"Got --gpus-per-run {gpus_per_run:g}: a training needs 1 CPU and {gpus_per_run:g} GPUs on one node, and "
            f"the nodes have {available}. Change --gpus-per-run, or add a node to the cluster."
        )


def _try_to_connect(options: dict[str, Any]) -> None:
    """Connect in a separate process first: with a wrong address, ``ray.init`` cannot be interrupted."""
    program = _PROGRAM.format(options=options)
    reader, writer = os.pipe()
    # The attempt ends with its stdin, whose writing end only this process holds.
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb"):
        try:
            attempt = subprocess.run(
                [sys.executable, "-c", program],
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=_CONNECT_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"no response within {_CONNECT_TIMEOUT:g} s"
        else:
            if attempt.returncode == 0:
                return
            lines = [line for line in attempt.stderr.splitlines() if line.strip()]
            reason = (lines or ["the connecting process died"])[-1].rstrip(".")
    raise RayClusterError(
        f"Got --ray {options['address']}: cannot connect to a Ray cluster there: {reason}. Run `ray status` on a node "
        "to check the cluster; from a machine that is not a node, use --ray ray://HOST:10001."
    )
