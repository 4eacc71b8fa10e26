"""Find the checkpoint of an earlier run and read it safely."""

import os
import pickle

import pytest
import torch

from lightning_mi.checkpoints.loading import describe_differences, read_checkpoint
from lightning_mi.cli.checkpoint_lookup import find_checkpoint
from lightning_mi.exceptions import CheckpointError


class RunsCode:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def save(path, *, at, best=None, monitor=None):
    """Write a checkpoint in Lightning's form, with modification time `at`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    callbacks: dict[str, dict[str, object]] = {}
    if best is not None:
        callbacks["EarlyStopping{...}"] = {"best_score": 1.0}
        callbacks[f"ModelCheckpoint{{'monitor': {monitor!r}}}"] = {"monitor": monitor, "best_model_path": str(best)}
    torch.save({"state_dict": {}, "callbacks": callbacks}, path)
    os.utime(path, (at, at))
    return path


def test_last_is_the_newest_last_file_of_the_newest_run(tmp_path):
    save(tmp_path / "version_10" / "checkpoints" / "last.ckpt", at=100)
    new = tmp_path / "version_9" / "checkpoints"
    save(new / "last.ckpt", at=150)
    expected = save(new / "last-v1.ckpt", at=190)
    save(new / "epoch=3.ckpt", at=200)
    assert find_checkpoint("last", [tmp_path]) == expected


def test_last_is_otherwise_the_newest_file(tmp_path):
    save(tmp_path / "epoch=9.ckpt", at=100)
    expected = save(tmp_path / "epoch=10.ckpt", at=200)
    assert find_checkpoint("last", [tmp_path, tmp_path / "missing"]) == expected


def test_best_is_the_recorded_checkpoint(tmp_path):
    expected = save(tmp_path / "epoch=1.ckpt", at=100)
    save(tmp_path / "epoch=2.ckpt", at=200)
    save(tmp_path / "last.ckpt", at=300, best=expected, monitor="val/mi")
    assert find_checkpoint("best", [tmp_path]) == expected


def test_best_prefers_a_monitoring_callback(tmp_path):
    expected = save(tmp_path / "epoch=1.ckpt", at=100)
    newest = save(tmp_path / "step=9.ckpt", at=200)
    plain = {"monitor": None, "best_model_path": str(newest)}
    monitoring = {"monitor": "val/mi", "best_model_path": str(expected)}
    callbacks = {"ModelCheckpoint{1}": plain, "ModelCheckpoint{2}": monitoring}
    torch.save({"state_dict": {}, "callbacks": callbacks}, tmp_path / "last.ckpt")
    assert find_checkpoint("best", [tmp_path]) == expected


def test_best_is_found_after_the_run_was_moved(tmp_path):
    expected = save(tmp_path / "epoch=1.ckpt", at=100)
    save(tmp_path / "last.ckpt", at=200, best=tmp_path / "gone" / "epoch=1.ckpt", monitor="val/mi")
    assert find_checkpoint("best", [tmp_path]) == expected


def test_missing_checkpoints_raise_with_the_folders(tmp_path):
    for alias in ("best", "last"):
        with pytest.raises(CheckpointError, match=f"--ckpt_path {alias}: there is no checkpoint under {tmp_path}"):
            find_checkpoint(alias, [tmp_path])
    save(tmp_path / "last.ckpt", at=200)
    with pytest.raises(CheckpointError, match="does not record a best checkpoint"):
        find_checkpoint("best", [tmp_path])
    save(tmp_path / "last.ckpt", at=200, best=tmp_path / "epoch=1.ckpt", monitor="val/mi")
    with pytest.raises(CheckpointError, match=r"epoch=1\.ckpt, which does not exist"):
        find_checkpoint("best", [tmp_path])


def test_best_outside_the_run_folders_is_not_read(tmp_path):
    foreign = save(tmp_path / "elsewhere" / "secret.ckpt", at=100)
    save(tmp_path / "runs" / "last.ckpt", at=200, best=foreign, monitor="val/mi")
    with pytest.raises(CheckpointError, match="outside the folders of these runs"):
        find_checkpoint("best", [tmp_path / "runs"])


def test_reading_never_runs_code(tmp_path):
    witness = tmp_path / "witness"
    hostile = {"state_dict": {}, "payload": RunsCode(witness)}
    torch.save(hostile, tmp_path / "archive.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(hostile, protocol=2))
    for path in (tmp_path / "archive.ckpt", tmp_path / "bare.ckpt"):
        with pytest.raises(CheckpointError, match="damaged, or contains objects other than plain data"):
            read_checkpoint(path)
    assert not witness.exists()


def test_truncated_checkpoint_raises(tmp_path):
    whole = save(tmp_path / "whole.ckpt", at=1).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.ckpt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
            read_checkpoint(tmp_path / "cut.ckpt")


def test_file_without_a_checkpoint_raises(tmp_path):
    torch.save({"weights": torch.ones(2)}, tmp_path / "weights.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name in ("weights.ckpt", "list.ckpt"):
        with pytest.raises(CheckpointError, match="not a Lightning checkpoint"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "missing.ckpt")


def test_another_class_is_reported_as_a_difference():
    given = {"class_path": "a.B", "init_args": {"width": 3}}
    assert describe_differences({"hyper_parameters": {"_class_path": "a.C", "_instantiator": "x"}}, given) == [
        "model.class_path: 'a.C' in the checkpoint, 'a.B' here"
    ]
    assert describe_differences({}, given) == []


def test_added_and_removed_parts_are_differences() -> None:
    with_part = {"regularizer": {"class_path": "lightning_mi.regularizers.Squared", "init_args": {"weight": 0.1}}}
    without: dict[str, object] = {"regularizer": None}
    assert describe_differences({"hyper_parameters": with_part}, {"init_args": without}) == [
        "model.regularizer: Squared in the checkpoint, None here"
    ]
    assert describe_differences({"hyper_parameters": without}, {"init_args": with_part}) == [
        "model.regularizer: None in the checkpoint, Squared here"
    ]
