"""Trees to nothing: delete a directory and all below it, by file descriptors.

What is deleted here was filled by images and apps, so nothing in it is believed: no path is put
together from its names, no symbolic link is followed, no other mount is entered, and depth costs
neither stack nor descriptors.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 64  # levels held open; what lies deeper is first moved up
_PASSES = 16  # a directory that others still fill is given up after so many readings

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_OR_APPEND = 0x10 | 0x20


class _Level:
    """A directory on the way down, and what is left to do in it."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self.directories: list[str] = []
        self.passes = 0
        self.failed = False


def remove_tree(dirfd: int, name: str) -> None:
    """Delete `name` in the directory `dirfd`, whatever it is; what is already gone is no error.

    All that can be deleted is; then the first failure, if any, is raised as OSError. A mount point
    below is such a failure (EBUSY), and what is mounted there is left as it is.
    """
    _Removal(dirfd, name).run()


class _Removal:
    def __init__(self, dirfd: int, name: str) -> None:
        self.dirfd = dirfd
        self.name = name
        self.stack: list[_Level] = []
        self.moved = 0
        self.error: OSError | None = None

    def run(self) -> None:
        if not self._unlink(self.dirfd, self.name):
            self._walk()
        if self.error is not None:
            raise self.error

    def _walk(self) -> None:
        try:
            self._enter(self.dirfd, self.name, mount=None)
            if not self.stack:
                return
            mount = _mount(self.stack[0].fd)
            while self.stack:
                level = self.stack[-1]
                if level.directories:
                    self._descend(level, level.directories.pop(), mount)
                elif level.passes == 0:
                    self._list(level)
                else:
                    self._leave(level)
        finally:
            for level in self.stack:
                os.close(level.fd)

    def _descend(self, level: _Level, name: str, mount: tuple[int, str]) -> None:
        if len(self.stack) < _DEPTH:
            self._enter(level.fd, name, mount)
            return
        top = self.stack[0]
        self.moved += 1
        unique = f".{os.getpid()}-{self.moved}"
        try:
            _retried(
                level.fd,
                lambda: os.rename(name, unique, src_dir_fd=level.fd, dst_dir_fd=top.fd),
            )
        except FileNotFoundError:
            return
        except OSError:
            # A mount point cannot be moved, and a name may be taken: go on in place.
            self._enter(level.fd, name, mount)
            return
        top.directories.append(unique)

    def _enter(self, dirfd: int, name: str, mount: tuple[int, str] | None) -> None:
        try:
            fd = _open(dirfd, name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):  # no longer a directory
                if not self._unlink(dirfd, name):
                    self._fail(error, name)
            else:
                self._fail(error, name)
            return
        if mount is not None and _mount(fd) != mount:
            os.close(fd)
            self._fail(OSError(errno.EBUSY, "a file system is mounted here"), name)
            return
        self.stack.append(_Level(fd, name))

    def _list(self, level: _Level) -> None:
        """Unlink what is no directory and note what is one."""
        level.passes += 1
        try:
            with os.scandir(level.fd) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            self._fail(error, "")
            return
        for name, is_directory in found:
            if is_directory or not self._unlink(level.fd, name):
                level.directories.append(name)

    def _leave(self, level: _Level) -> None:
        parent = self.stack[-2].fd if len(self.stack) > 1 else self.dirfd
        error: OSError | None = None
        if not level.failed:
            try:
                _retried(parent, lambda: os.rmdir(level.name, dir_fd=parent), level.name)
            except FileNotFoundError:
                pass
            except OSError as caught:
                error = caught
        if error is not None and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and level.passes < _PASSES:
            self._list(level)  # somebody put something in since
            return
        self.stack.pop()
        os.close(level.fd)
        if error is not None:
            self._fail(error, level.name)
        elif level.failed and self.stack:
            self.stack[-1].failed = True

    def _unlink(self, dirfd: int, name: str) -> bool:
        """Unlink; False when it is a directory."""
        try:
            _retried(dirfd, lambda: os.unlink(name, dir_fd=dirfd), name)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            return False
        except OSError as error:
            self._fail(error, name)
        return True

    def _fail(self, error: OSError, name: str) -> None:
        if self.stack:
            self.stack[-1].failed = True
        if self.error is None:
            below = [level.name for level in self.stack] or [self.name]
            path = "/".join([*below, name] if name and below != [name] else below)
            self.error = OSError(error.errno, error.strerror, path)


def _open(dirfd: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=dirfd)
    except PermissionError:
        _make_removable(dirfd, name)
        return os.open(name, _DIRECTORY, dir_fd=dirfd)


def _retried(dirfd: int, act: Callable[[], None], name: str = "") -> None:
    """Act; where modes or flags forbid it, take those away from the directory and the file, act again."""
    try:
        act()
    except PermissionError:
        _make_removable(dirfd, ".")
        if name:
            _make_removable(dirfd, name)
        act()


def _make_removable(dirfd: int, name: str) -> None:
    """Give a directory its owner's rights, and a directory or file up to being immutable or append-only."""
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    except OSError:
        return
    try:
        mode = os.fstat(handle).st_mode
        # Only these two: opening a device or a fifo has effects.
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return
        path = f"/proc/self/fd/{handle}"
        _clear_flags(path)
        if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
            os.chmod(path, stat.S_IMODE(mode) | 0o700)
    except OSError:
        pass  # the second attempt says what is wrong
    finally:
        os.close(handle)


def _clear_flags(path: str) -> None:
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
        value = int.from_bytes(flags[:4], "little")
        if value & _FS_IMMUTABLE_OR_APPEND:
            fcntl.ioctl(
                fd,
                _FS_IOC_SETFLAGS,
                (value & ~_FS_IMMUTABLE_OR_APPEND).to_bytes(8, "little"),
            )
    except OSError:
        pass  # not every file system has such flags
    finally:
        os.close(fd)


def _mount(fd: int) -> tuple[int, str]:
    """Identify the mount a descriptor is on; the device alone would not tell a bind mount."""
    info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(info, 4096).decode()
    finally:
        os.close(info)
    identity = text.partition("mnt_id:")[2].partition("\n")[0].strip()
    return os.fstat(fd).st_dev, identity
