"""Temporary directories: locked while they are filled, so that the dead ones can be told.

A writer makes one next to where its work shall end, fills it, and publishes it by a rename; what was
published is withdrawn by a rename back. When the writer is killed at any point the kernel drops its
lock; `sweep` then removes what it left.
"""

from __future__ import annotations

import errno
import fcntl
import os

from rkt_py.runtime.remove import remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = ("image-", "tree-", "removed-")  # what `sweep` may take for ours


class Temporary:
    """A new directory in `parent`, exclusively locked; gone at the end of the `with` unless published."""

    def __init__(self, parent: str, kind: str) -> None:
        assert f"{kind}-" in _KINDS
        self.parent = parent
        while True:
            self.name = name(kind)
            self.path = f"{parent}/{self.name}"
            os.mkdir(self.path, 0o700)
            try:
                self.fd = os.open(self.path, _DIRECTORY)
            except FileNotFoundError:
                continue  # swept before it was locked
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            if is_at(self.fd, self.path):
                break
            os.close(self.fd)

    def __enter__(self) -> Temporary:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if is_at(self.fd, self.path):
                _remove(self.parent, self.name)
        finally:
            # Not earlier: while it is here under its temporary name, an unlocked directory is a dead one.
            os.close(self.fd)

    def publish(self, target: str) -> bool:
        """Give it its final name for good; False when something has that name already."""
        os.fsync(self.fd)
        try:
            os.rename(self.path, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        sync_directory(os.path.dirname(target))
        return True


def name(kind: str) -> str:
    """Make a name nobody else has, of one of the kinds `sweep` knows."""
    return f"{kind}-{os.urandom(8).hex()}"


def sweep(parent: str) -> list[str]:
    """Remove the temporary directories nobody fills any more; return their names."""
    swept: list[str] = []
    try:
        names = sorted(os.listdir(parent))
    except FileNotFoundError:
        return swept
    for entry in names:
        if not entry.startswith(_KINDS):
            continue
        try:
            fd = os.open(f"{parent}/{entry}", _DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What was published between our open and our lock is not dead, only elsewhere.
            if is_at(fd, f"{parent}/{entry}"):
                _remove(parent, entry)
                swept.append(entry)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    return swept


def withdraw(path: str, parent: str) -> None:
    """Delete what was published, unless somebody holds a lock on it (BlockingIOError).

    The final name is gone at once; a kill leaves the rest to `sweep`.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_at(fd, path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        entry = name("removed")
        os.rename(path, f"{parent}/{entry}")
        sync_directory(os.path.dirname(path))
    finally:
        os.close(fd)  # who waits for a lock shall see now, not after the deletion, that it is gone
    _remove(parent, entry)


def is_at(fd: int, path: str) -> bool:
    """Say whether `path` still leads to the open directory."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def make_directories(data: str, *paths: str) -> None:
    """Make directories below the data directory that nobody but root may pass, setuid files being in them."""
    os.makedirs(data, 0o755, exist_ok=True)
    for path in paths:
        below = data
        for part in path.removeprefix(data).strip("/").split("/"):
            below = f"{below}/{part}"
            try:
                os.mkdir(below, 0o700)
            except FileExistsError:
                pass


def sync_directory(path: str) -> None:
    """Make what was renamed into or out of a directory survive a power cut."""
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(parent: str, entry: str) -> None:
    dirfd = os.open(parent, _DIRECTORY)
    try:
        remove_tree(dirfd, entry)
    finally:
        os.close(dirfd)
