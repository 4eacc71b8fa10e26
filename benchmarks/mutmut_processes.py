"""A plugin of pytest for mutmut: what a test calls in processes that it starts is called by that test too.

`[tool.mutmut]` in pyproject.toml names it. Without it mutmut would try no test of several processes on the gathering.
"""

import os
import tempfile
from pathlib import Path

import pytest
from mutmut.mutation import trampoline
from mutmut.state import state

PROCESS = os.getpid()
CALLED = Path(tempfile.mkdtemp(), "called")
record_here = trampoline.record_trampoline_hit


def record(name: str, caller: str | None = None) -> None:
    if os.getpid() == PROCESS:
        record_here(name, caller)
    else:
        with CALLED.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")


trampoline.record_trampoline_hit = record


@pytest.hookimpl(tryfirst=True)  # before mutmut reads what the test has called
def pytest_runtest_teardown() -> None:
    if CALLED.exists():
        state()._stats.update(CALLED.read_text(encoding="utf-8").split())
        CALLED.unlink()
