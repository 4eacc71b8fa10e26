"""Files that are under their name whole or not at all, whenever the process or the machine dies."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: it lets nobody remove a file that is being written, which is what the lock is for
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".partial"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its place, bring it to the disk, and give it its name; folders are made.

    Whatever stops it, a kill, a full disk or a power cut, what had the name before is still there and intact. A kill
    leaves the unfinished file behind, hidden; :func:`sweep` removes it.

    Args:
        path: The file's name. A temporary file in another folder might lie on another file system, from where a file
            is copied, not renamed.
        write: Writes the content to a binary file.

    Raises:
        OSError: It could not be written; nothing unfinished is left.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", lambda file: file.write(b"all of it"))
        >>> [(path.name, path.read_bytes()) for path in folder.iterdir()]
        [('a.txt', b'all of it')]
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked_partial(path)
    partial = Path(file.name)
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # no open file is renamed there; elsewhere the lock lasts until it has its name
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    for folder in (path.parent, *(folder.parent for folder in made)):
        _sync_folder(folder)


def sweep(folder: Path, *, recursively: bool = False) -> list[Path]:
    """Remove unfinished files whose writer is dead, and return them; those that are being written stay.

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
        with contextlib.suppress(OSError), path.open("r+b") as file:  # NFS locks no file that is open for reading alone
            if path.is_file() and _lock(file, wait=False):
                path.unlink()
                swept.append(path)
    return swept


def _locked_partial(path: Path) -> IO[bytes]:
    """A new file beside `path`, locked for as long as its writer lives."""
    while True:
        file = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}").open("xb")
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:  # nobody swept it before it was locked
            return file
        file.close()


def _lock(file: IO[bytes], wait: bool) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return wait  # a file system without locks: what may be being written is left alone
    return True


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too."""
    with contextlib.suppress(OSError):  # not every system opens folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def require_writable(folder: Path) -> None:
    """Raise, before hours of training, if `folder` could not be created and written to; leave nothing behind.

    Raises:
        OSError: if it could not; the message names the folder and the reason.

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
