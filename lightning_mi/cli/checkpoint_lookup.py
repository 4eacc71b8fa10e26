"""Find the checkpoint of `--ckpt_path best` or `--ckpt_path last`."""

from collections.abc import Collection, Iterable
from pathlib import Path

from lightning_mi.checkpoints.loading import CheckpointAlias, read_checkpoint
from lightning_mi.exceptions import CheckpointError


def find_checkpoint(alias: CheckpointAlias, folders: Iterable[Path]) -> Path:
    """The best or the last checkpoint of the newest run under `folders`.

    The newest run is the folder of the most recently written `*.ckpt`. Its last checkpoint is its newest `last*.ckpt`,
    otherwise its newest file. Its best checkpoint is the `best_model_path` in the last one: that of a
    `HeldOutCheckpoint`, otherwise of the first `ModelCheckpoint` that monitors a metric, otherwise of the first
    `ModelCheckpoint`. If the run was moved, a file of the same name is searched in its folder.

    Args:
        alias: `"best"` or `"last"`.
        folders: Folders of runs, searched recursively; missing folders are skipped.

    Raises:
        CheckpointError: If no run has such a checkpoint.
    """
    roots = sorted(set(folders))
    found = _all_under(roots)
    if not found:
        places = ", ".join(str(root) for root in roots)
        raise CheckpointError(
            f"Got --ckpt_path {alias}: there is no checkpoint under {places}. Train first (`lightning-mi fit ...`), "
            "use the configuration of the earlier run, or name a file: --ckpt_path FILE."
        )
    last = _last_of_newest_run(found)
    return last if alias == "last" else _best_recorded_in(last, roots)


def newest_checkpoint(folders: Iterable[Path]) -> Path | None:
    """The checkpoint that `--ckpt_path last` reads, or None without one."""
    found = _all_under(folders)
    return _last_of_newest_run(found) if found else None


def _last_of_newest_run(found: Collection[Path]) -> Path:
    newest = max(found, key=_written)
    in_run = [path for path in found if path.parent == newest.parent]
    return max((path for path in in_run if path.name.startswith("last")), key=_written, default=newest)


def _best_recorded_in(last: Path, roots: Iterable[Path]) -> Path:
    states = [
        state
        for name, state in read_checkpoint(last).get("callbacks", {}).items()
        if name.startswith(("ModelCheckpoint", "HeldOutCheckpoint")) and state.get("best_model_path")
    ]
    if not states:
        raise CheckpointError(
            f"Got --ckpt_path best: {last} does not record a best checkpoint. Use `last` or name a file."
        )
    monitoring = [state for state in states if state.get("monitor") is not None]
    held_out = [state for state in monitoring if "standard_error" in state]
    recorded = Path((held_out or monitoring or states)[0]["best_model_path"])
    within = [root.resolve() for root in roots]
    for candidate in (recorded, last.parent / recorded.name):
        # A foreign checkpoint may record any path; only files under the folders of these runs are read.
        if candidate.is_file() and any(root in candidate.resolve().parents for root in within):
            return candidate
    raise CheckpointError(
        f"Got --ckpt_path best: {last} records {recorded}, which does not exist or is outside the folders of these "
        f"runs ({', '.join(map(str, roots))}). Use `last` or name a file."
    )


def _all_under(folders: Iterable[Path]) -> set[Path]:
    return {path for root in folders if root.is_dir() for path in root.rglob("*.ckpt") if path.is_file()}


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns
