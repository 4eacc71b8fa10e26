"""Checkpoints are written atomically, and loading one runs no code."""

import errno
import io
import multiprocessing as mp
import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_mi import AtomicCheckpointIO
from lightning_mi.checkpoints.atomic_io import use_atomic_checkpoints
from lightning_mi.exceptions import CheckpointError
from lightning_mi.utilities import atomic_files
from lightning_mi.utilities.atomic_files import sweep, write_atomically
from tests.helpers.small_module import draw, equal, fit, make, trainer, weights

PLUGIN = AtomicCheckpointIO()


def content(value, size=1000):
    return {"state_dict": {"weight": torch.full((size,), float(value))}}


def value_in(path):
    return AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["weight"][0].item()


def leftovers(folder):
    return sorted(path.name for path in folder.rglob("*.partial"))


def test_checkpoint_replaces_the_earlier_one(tmp_path):
    for value in (1, 2):
        PLUGIN.save_checkpoint(content(value), tmp_path / "new" / "last.ckpt")
    assert value_in(tmp_path / "new" / "last.ckpt") == 2
    assert os.listdir(tmp_path / "new") == ["last.ckpt"]


def test_checkpoint_has_default_file_permissions(tmp_path):
    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    (tmp_path / "other").touch()
    assert (tmp_path / "last.ckpt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_checkpoint_is_synced_in_its_folder_before_the_rename(tmp_path, monkeypatch):
    events: list[object] = []
    sync, replace = os.fsync, os.replace

    def record_sync(handle):
        events.append("fsync")
        sync(handle)

    def record_replace(old, new):
        events.append((old.parent, new))
        replace(old, new)

    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    assert events == ["fsync", (tmp_path, tmp_path / "last.ckpt"), "fsync"]


def _save_with_small_files(path, sender):
    """Save with a limit of 20 kB a file, which fails as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        PLUGIN.save_checkpoint(content(2, size=100_000), path)
    except CheckpointError as error:
        sender.send(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # coverage writes its file when the process ends
    sender.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_full_disk_raises_and_leaves_the_earlier_checkpoint(tmp_path):
    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    # In another process: the limit is on every file, also on one that pytest may write to.
    receiver, sender = mp.Pipe(duplex=False)
    process = mp.get_context("fork").Process(target=_save_with_small_files, args=(tmp_path / "last.ckpt", sender))
    process.start()
    sender.close()
    assert re.search(r"last\.ckpt could not be written: .*File too large.*is intact", receiver.recv())
    process.join()
    receiver.close()
    assert process.exitcode == 0
    assert value_in(tmp_path / "last.ckpt") == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_full_disk_at_fsync_raises(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    PLUGIN.save_checkpoint(content(1), tmp_path / "last.ckpt")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        PLUGIN.save_checkpoint(content(2), tmp_path / "last.ckpt")
    assert value_in(tmp_path / "last.ckpt") == 1
    assert leftovers(tmp_path) == []


def _save_for_ever(path):
    while True:
        PLUGIN.save_checkpoint(content(1, size=300_000), path)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_writer_leaves_an_intact_checkpoint(tmp_path):
    writer = mp.get_context("fork").Process(target=_save_for_ever, args=(tmp_path / "last.ckpt",))
    writer.start()
    deadline = time.monotonic() + 60
    while not ((tmp_path / "last.ckpt").exists() and leftovers(tmp_path)):
        assert writer.is_alive()
        assert time.monotonic() < deadline
    sweep(tmp_path)  # does not remove the file in use
    assert writer.is_alive()
    writer.kill()
    writer.join()
    assert len(leftovers(tmp_path)) <= 1
    (tmp_path / ".last.ckpt.00.partial").touch()
    assert value_in(tmp_path / "last.ckpt") == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_sweep_spares_files_that_are_being_written(tmp_path, monkeypatch):
    lock = atomic_files._lock
    swept: list[Path] = []

    def raced(file, wait):
        if wait and not swept:
            swept.extend(sweep(tmp_path))
        return lock(file, wait)

    monkeypatch.setattr(atomic_files, "_lock", raced)

    def write(file):
        assert sweep(tmp_path) == []
        file.write(b"whole")

    write_atomically(tmp_path / "a", write)
    assert len(swept) == 1
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_sweep_without_locks_spares_temporary_files(tmp_path, monkeypatch):
    (tmp_path / ".a.00.partial").touch()

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("lightning_mi.utilities.atomic_files.fcntl.flock", no_locks)
    write_atomically(tmp_path / "a", lambda file: file.write(b"whole"))
    assert sweep(tmp_path) == []
    assert (tmp_path / "a").read_bytes() == b"whole"
    monkeypatch.setattr(atomic_files, "fcntl", None)  # Windows
    assert len(sweep(tmp_path, recursively=True)) == 1


def test_urls_raise():
    with pytest.raises(CheckpointError, match="Got the URL https"):
        PLUGIN.load_checkpoint("https://example.org/a.ckpt")
    with pytest.raises(CheckpointError, match="Got the URL s3"):
        PLUGIN.remove_checkpoint("s3://bucket/a.ckpt")
    with pytest.raises(CheckpointError, match="Got the URL memory"):
        PLUGIN.save_checkpoint({}, "memory::/a.ckpt")


def test_unsafe_and_useless_options_raise(tmp_path):
    PLUGIN.save_checkpoint(content(1), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"weights_only=False: .* could run code"):
        PLUGIN.load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    with pytest.raises(CheckpointError, match="storage_options"):
        PLUGIN.save_checkpoint(content(1), tmp_path / "a.ckpt", storage_options={"a": 1})


def test_only_files_are_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious.txt").touch()
    for path in (tmp_path / "run" / ".." / "precious.txt", tmp_path / "run"):
        with pytest.raises(CheckpointError, match="to remove: a checkpoint is a file"):
            PLUGIN.remove_checkpoint(path)
    PLUGIN.save_checkpoint(content(1), tmp_path / "run" / "a.ckpt")
    for _ in range(2):
        PLUGIN.remove_checkpoint(tmp_path / "run" / "a.ckpt")
    assert os.listdir(tmp_path / "run") == []
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_trainer_saves_and_resumes_with_the_plugin(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1, save_top_k=1)
    whole, resumed = make(), make()
    fit(whole, val=draw(8), callbacks=[keep], enable_checkpointing=True, plugins=[AtomicCheckpointIO()])
    assert sorted(os.listdir(tmp_path)) == ["epoch=0-step=3.ckpt", "last.ckpt"]
    again = trainer(plugins=[AtomicCheckpointIO()], callbacks=[keep], enable_checkpointing=True)
    again.fit(resumed, draw(8, 8, 8), draw(8), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert equal(weights(resumed), weights(whole))


def test_another_checkpoint_io_is_not_replaced():
    class Own(TorchCheckpointIO):
        pass

    given = trainer(plugins=[Own()])
    use_atomic_checkpoints(given)
    assert type(given.strategy.checkpoint_io) is Own


def test_unpicklable_content_is_not_a_disk_error(tmp_path, monkeypatch):
    with pytest.raises((TypeError, AttributeError)):
        PLUGIN.save_checkpoint({"state_dict": {"file": io.StringIO().read, "lambda": lambda: 0}}, tmp_path / "a.ckpt")

    def fail(*_):
        raise RuntimeError("not a disk error")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match=r"^not a disk error$"):
        PLUGIN.save_checkpoint(content(1), tmp_path / "a.ckpt")
    assert os.listdir(tmp_path) == []
