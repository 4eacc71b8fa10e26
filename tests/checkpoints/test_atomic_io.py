"""Checkpoints are under their name whole or not at all, and reading one runs nothing."""

import errno
import io
import multiprocessing as mp
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_mi import AtomicCheckpointIO
from lightning_mi.checkpoints.atomic_io import use_atomic_checkpoints
from lightning_mi.exceptions import CheckpointError
from lightning_mi.utilities import atomic_files as whole_files
from lightning_mi.utilities.atomic_files import sweep, write_atomically
from tests.helpers.small_module import draw, equal, fit, make, trainer, weights

PLUGIN = AtomicCheckpointIO()


def content(value, size=1000):
    return {"state_dict": {"weight": torch.full((size,), float(value))}}


def value_in(path):
    return AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["weight"][0].item()


def leftovers(folder):
    return sorted(path.name for path in folder.rglob("*.partial"))


def test_a_checkpoint_replaces_the_one_of_its_name(tmp_path):
    for value in (1, 2):
        PLUGIN.save_checkpoint(content(value), tmp_path / "new" / "last.ckpt")
    assert value_in(tmp_path / "new" / "last.ckpt") == 2
    assert os.listdir(tmp_path / "new") == ["last.ckpt"]


def test_it_has_the_permissions_of_any_new_file(tmp_path):
    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    (tmp_path / "other").touch()
    assert (tmp_path / "last.ckpt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_it_is_written_in_its_own_folder_and_brought_to_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append((old.parent, new)), replace(old, new)))
    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    assert events == ["fsync", (tmp_path, tmp_path / "last.ckpt"), "fsync"]


def _save_with_small_files(path, said):
    """Files may not grow beyond 20 kB: to the writer the same as a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        PLUGIN.save_checkpoint(content(2, size=100_000), path)
    except CheckpointError as error:
        said.send(str(error))
    said.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_full_disk_is_a_typed_error_that_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path):
    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    # In a process of its own: the limit is on every file, the one that the tests' progress may be written to too.
    heard, said = mp.Pipe(duplex=False)
    process = mp.get_context("fork").Process(target=_save_with_small_files, args=(tmp_path / "last.ckpt", said))
    process.start()
    said.close()
    assert re.search(r"last\.ckpt could not be written: .*File too large.*is intact", heard.recv())
    process.join()
    heard.close()
    assert process.exitcode == 0
    assert value_in(tmp_path / "last.ckpt") == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_disk_that_fills_up_at_the_end_is_one_too(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        PLUGIN.save_checkpoint(content(2), tmp_path / "last.ckpt")
    assert value_in(tmp_path / "last.ckpt") == 1
    assert leftovers(tmp_path) == []


SAVES_FOR_EVER = """
import sys
from pathlib import Path
from tests.checkpoints.test_atomic_io import PLUGIN, content
while True:
    PLUGIN.save_checkpoint(content(1, size=300_000), Path(sys.argv[1]) / "last.ckpt")
"""


def test_a_writer_that_is_killed_leaves_a_whole_checkpoint_and_the_next_one_sweeps(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", SAVES_FOR_EVER, str(tmp_path)], env=os.environ)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "last.ckpt").exists() and leftovers(tmp_path)):
        assert writer.poll() is None
        assert time.monotonic() < deadline
    sweep(tmp_path)  # what is being written stays
    assert writer.poll() is None
    writer.kill()
    writer.wait()
    assert len(leftovers(tmp_path)) <= 1
    (tmp_path / ".last.ckpt.00.partial").touch()
    assert value_in(tmp_path / "last.ckpt") == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_what_is_being_written_is_not_swept_and_what_is_swept_before_it_is_locked_is_begun_again(tmp_path, monkeypatch):
    lock, swept = whole_files._lock, []

    def raced(file, wait):
        if wait and not swept:
            swept.extend(sweep(tmp_path))
        return lock(file, wait)

    monkeypatch.setattr(whole_files, "_lock", raced)

    def write(file):
        assert sweep(tmp_path) == []
        file.write(b"whole")

    write_atomically(tmp_path / "a", write)
    assert len(swept) == 1
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_without_locks_nothing_is_swept_that_may_be_being_written(tmp_path, monkeypatch):
    (tmp_path / ".a.00.partial").touch()

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(whole_files.fcntl, "flock", refuse)
    write_atomically(tmp_path / "a", lambda file: file.write(b"whole"))
    assert sweep(tmp_path) == []
    assert (tmp_path / "a").read_bytes() == b"whole"
    monkeypatch.setattr(whole_files, "fcntl", None)  # Windows
    assert len(sweep(tmp_path, recursively=True)) == 1


@pytest.mark.parametrize("path", ["https://example.org/a.ckpt", "s3://bucket/a.ckpt", "memory::/a.ckpt"])
@pytest.mark.parametrize(
    "call", [PLUGIN.load_checkpoint, PLUGIN.remove_checkpoint, lambda p: PLUGIN.save_checkpoint({}, p)]
)
def test_addresses_are_refused(call, path):
    with pytest.raises(CheckpointError, match="is an address, not a file"):
        call(path)


def test_what_could_run_code_or_means_nothing_is_refused(tmp_path):
    PLUGIN.save_checkpoint(content(1), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="weights_only=False would run whatever code"):
        PLUGIN.load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    with pytest.raises(CheckpointError, match="storage_options"):
        PLUGIN.save_checkpoint(content(1), tmp_path / "a.ckpt", storage_options={"a": 1})


def test_only_a_file_within_its_folder_is_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious.txt").touch()
    for path in (tmp_path / "run" / ".." / "precious.txt", tmp_path / "run"):
        with pytest.raises(CheckpointError, match="refused to remove"):
            PLUGIN.remove_checkpoint(path)
    PLUGIN.save_checkpoint(content(1), tmp_path / "run" / "a.ckpt")
    for _ in range(2):
        PLUGIN.remove_checkpoint(tmp_path / "run" / "a.ckpt")
    assert os.listdir(tmp_path / "run") == []
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_trainer_saves_keeps_and_resumes_with_it(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1, save_top_k=1)
    whole, resumed = make(), make()
    fit(whole, val=draw(8), callbacks=[keep], enable_checkpointing=True, plugins=[AtomicCheckpointIO()])
    assert sorted(os.listdir(tmp_path)) == ["epoch=0-step=3.ckpt", "last.ckpt"]
    again = trainer(plugins=[AtomicCheckpointIO()], callbacks=[keep], enable_checkpointing=True)
    again.fit(resumed, draw(8, 8, 8), draw(8), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert equal(weights(resumed), weights(whole))


def test_a_trainer_that_was_given_another_way_keeps_it():
    class Own(TorchCheckpointIO):
        pass

    given = trainer(plugins=[Own()])
    use_atomic_checkpoints(given)
    assert type(given.strategy.checkpoint_io) is Own


def test_a_content_that_cannot_be_saved_is_not_called_a_full_disk(tmp_path):
    with pytest.raises((TypeError, AttributeError)):
        PLUGIN.save_checkpoint({"state_dict": {"file": io.StringIO().read, "lambda": lambda: 0}}, tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []
