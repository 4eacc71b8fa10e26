"""Two ranks of one machine, for tests that fork them: each run has a port of its own."""

import os
import socket


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port: int = one.getsockname()[1]
        return port


def become_rank(rank: int, port: int) -> None:
    """Set the environment of a rank, as Lightning reads it."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "RANK": str(rank)}
