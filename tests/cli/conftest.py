"""A working folder for commands."""

import sys

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder; also restores `sys.path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path
