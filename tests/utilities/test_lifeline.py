"""Processes end with their parent, even after SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process IDs as of POSIX")

WORKER = """
import multiprocessing, time
from lightning_mi.utilities.lifeline import end_with_parent

def work():
    end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("METHOD").Process(target=work).start()
    time.sleep(60)
"""

RANKS = """
import os, subprocess, sys, time
from lightning_mi.utilities.lifeline import launched_ranks

with launched_ranks():
    print(os.getpid(), flush=True)
    if "LOCAL_RANK" not in os.environ:
        subprocess.Popen([sys.executable, *sys.argv], env=os.environ | {"LOCAL_RANK": "1"})
    time.sleep(60)
"""

PIPED = """
import subprocess, sys, time
command = [sys.executable, "-m", "lightning_mi.utilities.lifeline", "sleeper"]
subprocess.Popen(command, stdin=subprocess.PIPE)
time.sleep(60)
"""


def start(folder, program):
    (folder / "program.py").write_text(program)
    (folder / "sleeper.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("LOCAL_RANK")}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{folder}"
    command = [sys.executable, str(folder / "program.py")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "program",
    [WORKER.replace("METHOD", "spawn"), WORKER.replace("METHOD", "fork"), PIPED, RANKS],
    ids=["spawned", "forked", "pipe", "rank"],
)
def test_child_ends_when_its_parent_is_killed(program, tmp_path):
    parent = start(tmp_path, program)
    child = int(parent.stdout.readline())
    if child == parent.pid:
        child = int(parent.stdout.readline())
    assert lives(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert not lives(child)
    finally:
        if lives(child):
            os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_launcher_survives_its_shell(tmp_path):
    """As under nohup: its parent ends, it goes on."""
    (tmp_path / "program.py").write_text(
        "import os, time\nfrom lightning_mi.utilities.lifeline import launched_ranks\n"
        "with launched_ranks():\n    time.sleep(1.5)\n    open('done', 'w').close()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    shell = f"{sys.executable} program.py & exit 0"
    environment["PYTHONPATH"] = str(ROOT)
    subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=environment, check=True)
    deadline = time.monotonic() + 20
    while not (tmp_path / "done").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "done").exists()
