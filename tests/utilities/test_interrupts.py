"""SIGINT, SIGTERM and SIGHUP end a command with the status that shells report."""

import os
import signal
import subprocess
import sys

import pytest

from lightning_mi.utilities.interrupts import handle_signals, interruptible, restore_signals
from tests.helpers.paths import ROOT

STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("number", STATUSES)
def test_block_ends_with_the_status_of_its_signal(number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, interruptible():
        signal.raise_signal(number)
    assert ended.value.code == STATUSES[number]
    assert signal.getsignal(number) is before


def test_signal_status_replaces_that_of_lightning():
    def train():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as ended, interruptible():
        train()
    assert ended.value.code == 143


def test_other_exits_do_not_change():
    with pytest.raises(SystemExit) as ended, interruptible():
        sys.exit(2)
    assert ended.value.code == 2


def test_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_the_first_signal_is_handled():
    received: list[int] = []
    before = handle_signals(received.append)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):  # SIGINT at once: the same key press, sent twice
        signal.raise_signal(number)
    restore_signals(before)
    assert received == [signal.SIGTERM]


SECOND = """
import signal, time
from lightning_mi.utilities.interrupts import handle_signals
handle_signals(lambda number: None)
signal.raise_signal(signal.SIGINT)
time.sleep(0.6)
signal.raise_signal(signal.SIGINT)
print("still here")
"""

FORKED = """
import os, signal, sys
from lightning_mi.utilities.interrupts import handle_signals
handle_signals(lambda number: print("handled", flush=True))
child = os.fork()
if child == 0:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
    print("child goes on", flush=True)
    signal.raise_signal(signal.SIGTERM)
    os._exit(0)
sys.exit(-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(program):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_second_ctrl_c_ends_the_process_at_once():
    ended = run(SECOND)
    assert (ended.returncode, ended.stdout) == (130, "")


def test_forked_worker_ends_by_sigterm_only():
    ended = run(FORKED)
    assert (ended.returncode, ended.stdout) == (signal.SIGTERM, "child goes on\n")
