"""Environment of two ranks on one machine, for tests that fork; each run uses a free port."""

import os
import socket


def free_port() -> int:
    """A free port."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port: int = server.getsockname()[1]
        return port


def become_rank(rank: int, port: int) -> None:
    """Set the environment variables of a rank that Lightning reads."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "RANK": str(rank)}
