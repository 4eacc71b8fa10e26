"""Atomic file writes: temporary file, fsync, rename; plus removal of stale temporary files."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: no lock is needed, since an open file cannot be removed
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".partial"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: to a hidden temporary file in its folder, synced to disk, then renamed.

    After a kill, a full disk or a power cut, an earlier file of that name is intact. A kill leaves the temporary file
    behind; :func:`sweep` removes it. Missing folders are created.

    Args:
        path: The file. The temporary file is in the same folder, since a rename to another file system is a copy.
        write: Writes the content to a binary file.

    Raises:
        OSError: The write failed; no temporary file is left.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", lambda file: file.write(b"all of it"))
        >>> [(path.name, path.read_bytes()) for path in folder.iterdir()]
        [('a.txt', b'all of it')]
    """
    created = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked_partial(path)
    partial = Path(file.name)
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows cannot rename an open file; elsewhere the lock lasts until the rename
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    for folder in (path.parent, *(folder.parent for folder in created)):
        _sync_folder(folder)


def sweep(folder: Path, *, recursively: bool = False) -> list[Path]:
    """Remove stale temporary files and return them. Files that are being written, which are locked, stay.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".last.ckpt.x1.partial").touch()
        >>> [path.name for path in sweep(folder)], list(folder.iterdir())
        (['.last.ckpt.x1.partial'], [])
    """
    pattern = f".*{_SUFFIX}"
    swept = []
    for path in sorted(folder.rglob(pattern) if recursively else folder.glob(pattern)):
        with contextlib.suppress(OSError), path.open("r+b") as file:  # NFS cannot lock a read-only file
            if path.is_file() and _lock(file, wait=False):
                path.unlink()
                swept.append(path)
    return swept


def _locked_partial(path: Path) -> IO[bytes]:
    """A new temporary file beside ``path``, locked while its writer runs."""
    while True:
        file = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}").open("xb")
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:  # not swept by another process before the lock
            return file
        file.close()


def _lock(file: IO[bytes], wait: bool) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return wait  # no locks on this file system: do not sweep, the file may be in use
    return True


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entries, which include the new name."""
    with contextlib.suppress(OSError):  # some systems cannot open folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def require_writable(folder: Path) -> None:
    """Check, before hours of training, that ``folder`` can be created and written to; create nothing.

    Raises:
        OSError: The folder is not writable; the message names the folder and the reason.

    Example:
        >>> require_writable(Path("/proc/no_such_folder"))
        Traceback (most recent call last):
        OSError: cannot write to the output folder /proc/no_such_folder: ...
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as problem:
        raise OSError(
            f"cannot write to the output folder {folder}: {problem.strerror} ({existing}). "
            "Name a folder that you may write to."
        ) from None
