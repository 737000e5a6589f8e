"""Build: a directory to an ACI.

The archive depends on the tree and the manifest alone: not on the order of directories, the umask, the
locale, the machine or the clock. It keeps modes, numeric owners, times to the nanosecond, hard links,
symlinks, devices, fifos, holes, capabilities and user.* attributes.

    output            there when its build is complete, by link or rename
    .rkt-py-XXXXXXXX  while it is built, only where a file cannot be without a name (O_TMPFILE)
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from rkt_py.aci import compressor as compressors
from rkt_py.aci import imagemanifest, strictjson, tar
from rkt_py.aci.compressor import Block, Compression
from rkt_py.aci.errors import BuildError
from rkt_py.aci.imagemanifest import ImageManifest
from rkt_py.aci.value import value

SECOND = 10**9
CHUNK = 1 << 20
HOLE = 4096  # zeros of a file with holes are left out in units of this, whatever its file system's are
KEY_DIGITS = 64

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo in a file's place does not block
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What openat() and read() say of a name that was something else a moment ago.
_REPLACED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EAGAIN)
_TYPES = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER_DEVICE,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


@value
class Built:
    """An image that was built: `sha512` is that of the uncompressed archive, `key` its name in stores."""

    sha512: str
    key: str
    size: int
    compressed_size: int
    warnings: tuple[str, ...] = ()


def build(
    rootfs: str | Path,
    manifest: ImageManifest | bytes,
    output: str | Path,
    *,
    compression: Compression = "gzip",
    level: int | None = None,
    overwrite: bool = False,
    source_date_epoch: int | None = None,
    owner: tuple[int, int] | None = None,
) -> Built:
    """Build an image of a directory; the output is there when it is complete, or not at all.

    Times after `source_date_epoch` (if None, that of the environment's SOURCE_DATE_EPOCH) become it.
    `owner`, a user and a group id, goes before the owners that the files have.
    """
    if isinstance(manifest, ImageManifest):
        manifest = imagemanifest.dump(manifest).encode()
    imagemanifest.parse(manifest)
    epoch = _environment_epoch() if source_date_epoch is None else source_date_epoch
    for number in owner or ():
        if not 0 <= number <= imagemanifest.MAX_ID:
            raise BuildError(f"owner {number} is not a user or group id, 0 to {imagemanifest.MAX_ID}")
    compressor = compressors.make(compression, level)
    with ExitStack() as stack:
        root = os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        result = stack.enter_context(_Output(os.fspath(output), overwrite=overwrite))
        result.check_outside(root, os.fspath(rootfs))
        blocks = stack.enter_context(_Blocks(compressor, result))
        tree = _Tree(blocks, os.fspath(rootfs), epoch=epoch, owner=owner)
        tree.add_manifest(manifest, os.fstat(root))
        tree.add_root(os.dup(root))
        blocks.write(tar.END)
        sha512 = blocks.finish()
        result.publish()
    return Built(sha512, f"sha512-{sha512[:KEY_DIGITS]}", blocks.size, result.size, tuple(tree.warnings))


def _environment_epoch() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise BuildError(f"SOURCE_DATE_EPOCH is {text!r}, which is not a number of seconds")
    return int(text)


class _Tree:
    """Writes the entries of a tree, in the order of their names' bytes as they are in the archive.

    Everything is opened relative to its directory, without following links, and looked at again after it
    was read: an image of half of one state and half of another is no image.
    """

    def __init__(
        self, blocks: _Blocks, shown: str, *, epoch: int | None, owner: tuple[int, int] | None
    ) -> None:
        self.blocks = blocks
        self.shown = os.fsencode(shown.rstrip("/") or "/")
        self.latest = None if epoch is None else epoch * SECOND
        self.owner = owner
        self.links: dict[tuple[int, int], bytes] = {}
        self.warnings: list[str] = []
        self.now = b"rootfs/"

    def add_manifest(self, manifest: bytes, like: os.stat_result) -> None:
        uid, gid = self.owner or (0, 0)
        mtime = self.time(like) // SECOND * SECOND
        self.blocks.write(
            tar.header(tar.Entry(b"manifest", tar.REGULAR, 0o644, uid, gid, mtime, len(manifest)))
        )
        self.blocks.write(manifest)
        self.blocks.skip(tar.padding(len(manifest)))

    def add_root(self, root: int) -> None:
        # A stack, not recursion: a tree may be deeper than Python's.
        levels: list[tuple[int, bytes, os.stat_result, Iterator[bytes]]] = []
        try:
            levels.append(self.open_level(root, b"rootfs/"))
            while levels:
                fd, path, seen, children = levels[-1]
                child = next(children, None)
                if child is None:
                    self.check_same(seen, fd, path)
                    levels.pop()
                    os.close(fd)
                elif child.endswith(b"/"):
                    self.now = path + child
                    # Without the slash, with which O_NOFOLLOW follows.
                    inner = os.open(child[:-1], _OPEN_DIRECTORY, dir_fd=fd)
                    levels.append(self.open_level(inner, self.now))
                else:
                    self.now = path + child
                    self.add(self.now, child, fd)
        except OSError as error:
            # Its file name is a number, or the last part of the name, unless it is about the output.
            if isinstance(error.filename, str):
                raise
            if error.errno in _REPLACED:
                raise self.changed(self.now) from None
            error.filename = self.name(self.now)
            raise
        finally:
            for fd, *_ in levels:
                os.close(fd)

    def open_level(self, fd: int, path: bytes) -> tuple[int, bytes, os.stat_result, Iterator[bytes]]:
        """Write a directory's entry; return it with the names in it, sorted.

        Names of directories end in "/", as they do in the archive, and are sorted so.
        """
        try:
            seen = os.fstat(fd)
            self.add_directory(path, fd, seen)
            with os.scandir(fd) as found:
                names = [
                    os.fsencode(item.name) + (b"/" if item.is_dir(follow_symlinks=False) else b"")
                    for item in found
                ]
        except BaseException:
            os.close(fd)
            raise
        return fd, path, seen, iter(sorted(names))

    def add_directory(self, path: bytes, fd: int, seen: os.stat_result) -> None:
        self.blocks.write(tar.header(self.entry(path, tar.DIRECTORY, seen, xattrs=self.xattrs(fd))))

    def add(self, path: bytes, name: bytes, directory: int) -> None:
        seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if self.add_link(path, seen):
            return
        if stat.S_ISREG(seen.st_mode):
            fd = os.open(name, _OPEN, dir_fd=directory)
            try:
                self.add_file(path, fd, seen)
            finally:
                os.close(fd)
        elif stat.S_ISLNK(seen.st_mode):
            link = os.readlink(name, dir_fd=directory)
            self.blocks.write(tar.header(self.entry(path, tar.SYMLINK, seen, link=link)))
        elif stat.S_ISSOCK(seen.st_mode):
            self.warnings.append(f"{self.name(path)}: a socket, which an image cannot hold, is left out")
        else:
            self.add_special(path, seen)

    def add_link(self, path: bytes, seen: os.stat_result) -> bool:
        """Write a second name of a file as a link to the first; say whether it was one.

        Names of one symlink or device are written as several: many extractors refuse links to them, as
        a way to elsewhere.
        """
        if seen.st_nlink == 1 or not stat.S_ISREG(seen.st_mode):
            return False
        first = self.links.setdefault((seen.st_dev, seen.st_ino), path)
        if first == path:
            return False
        self.blocks.write(tar.header(self.entry(path, tar.HARD_LINK, seen, link=first)))
        return True

    def add_special(self, path: bytes, seen: os.stat_result) -> None:
        type = _TYPES.get(stat.S_IFMT(seen.st_mode))
        if type is None:  # a directory now
            raise self.changed(path)
        if type == tar.CHARACTER_DEVICE and seen.st_rdev == 0:
            raise BuildError(
                f"{self.name(path)}: character device 0:0, which an overlay takes for a deleted file"
            )
        device = None if type == tar.FIFO else (os.major(seen.st_rdev), os.minor(seen.st_rdev))
        self.blocks.write(tar.header(self.entry(path, type, seen, device=device)))

    def add_file(self, path: bytes, fd: int, seen: os.stat_result) -> None:
        extents = _extents(fd, seen) if seen.st_blocks * 512 < seen.st_size else None
        xattrs = self.xattrs(fd)
        if extents is None:
            size = seen.st_size
            entry = self.entry(path, tar.REGULAR, seen, size=size, xattrs=xattrs)
            self.blocks.write(tar.header(entry))
            complete = self.blocks.copy(fd, size)
        else:
            where = tar.sparse_map(extents, seen.st_size)
            size = len(where) + sum(length for _, length in extents)
            entry = self.entry(path, tar.REGULAR, seen, size=size, xattrs=xattrs, real_size=seen.st_size)
            self.blocks.write(tar.header(entry))
            self.blocks.write(where)
            complete = True
            for offset, length in extents:
                os.lseek(fd, offset, os.SEEK_SET)
                complete = complete and self.blocks.copy(fd, length)
        if not complete:
            raise self.changed(path)
        self.blocks.skip(tar.padding(size))
        self.check_same(seen, fd, path)

    def entry(
        self,
        path: bytes,
        type: bytes,
        seen: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] | None = None,
        xattrs: tuple[tuple[bytes, bytes], ...] = (),
        real_size: int | None = None,
    ) -> tar.Entry:
        uid, gid = self.owner or (seen.st_uid, seen.st_gid)
        mode = stat.S_IMODE(seen.st_mode)
        return tar.Entry(path, type, mode, uid, gid, self.time(seen), size, link, device, xattrs, real_size)

    def time(self, seen: os.stat_result) -> int:
        return seen.st_mtime_ns if self.latest is None else min(seen.st_mtime_ns, self.latest)

    def xattrs(self, fd: int) -> tuple[tuple[bytes, bytes], ...]:
        try:
            names = os.listxattr(fd)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return ()
            raise
        if not names:
            return ()
        kept = sorted(os.fsencode(name) for name in names if _is_kept(name))
        for name in kept:
            if b"=" in name:
                # A pax record ends its keyword at "=", and readers do not agree on how to hide one.
                raise BuildError(
                    f'{self.name(self.now)}: the attribute {os.fsdecode(name)!r} has a "=" in its name, '
                    "which an archive cannot hold"
                )
        return tuple([(name, os.getxattr(fd, name)) for name in kept])

    def check_same(self, seen: os.stat_result, fd: int, path: bytes) -> None:
        if _state(os.fstat(fd)) != _state(seen):
            raise self.changed(path)

    def changed(self, path: bytes) -> BuildError:
        return BuildError(f"{self.name(path)}: changed while the image was built")

    def name(self, path: bytes) -> str:
        """Name a file for a message as the caller named the tree."""
        inside = path.removeprefix(b"rootfs").rstrip(b"/")
        shown = os.fsdecode(self.shown + inside if self.shown != b"/" else inside or b"/")
        return shown if shown.isprintable() else ascii(shown)[1:-1]


def _is_kept(attribute: str) -> bool:
    # Overlayfs obeys those of its own, which say what is in another directory.
    if attribute.startswith("user."):
        return not attribute.startswith("user.overlay.")
    return attribute == "security.capability"


def _state(seen: os.stat_result) -> tuple[int, ...]:
    return seen.st_dev, seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _extents(fd: int, seen: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file is not zero, as (offset, length); None if it has no hole.

    The file system says only where it need not be read: what is a hole in the archive is what is zero, in
    units of HOLE, so that copies of the file on other file systems give the same archive.
    """
    size = seen.st_size
    if os.lseek(fd, 0, os.SEEK_HOLE) >= size:
        os.lseek(fd, 0, os.SEEK_SET)
        return None
    extents: list[tuple[int, int]] = []
    zeros = bytes(HOLE)
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        offset = start // HOLE * HOLE
        while offset < end:
            data = os.pread(fd, CHUNK, offset)
            # A short read in the middle is cut to whole units, as the next one begins with one.
            usable = len(data) if offset + len(data) >= size else len(data) // HOLE * HOLE
            if not usable:
                break
            for at in range(0, usable, HOLE):
                part = data[at : min(at + HOLE, usable)]
                if part != zeros[: len(part)]:
                    _extend(extents, offset + at, len(part))
            offset += usable
        end = max(end, offset)
    return extents


def _extend(extents: list[tuple[int, int]], offset: int, length: int) -> None:
    if extents and sum(extents[-1]) == offset:
        offset, before = extents.pop()
        length += before
    extents.append((offset, length))


class _Stage(threading.Thread):
    """Does something with each block, beside those that make the next ones; hashing and compressing let go
    of Python's lock."""

    def __init__(self, name: str, work: Callable[[Block], object]) -> None:
        super().__init__(name=name, daemon=True)
        self.work = work
        self.blocks: queue.Queue[Block | None] = queue.Queue(4)
        self.error: BaseException | None = None

    def run(self) -> None:
        while (block := self.blocks.get()) is not None:
            # After an error the rest is only taken, so that nobody waits for room in the queue.
            if self.error is None:
                try:
                    self.work(block)
                except BaseException as error:
                    self.error = error

    def put(self, block: Block) -> None:
        if self.error is not None:
            raise self.error
        self.blocks.put(block)

    def finish(self) -> None:
        self.blocks.put(None)
        self.join()


class _Blocks:
    """Gathers what is written into blocks of one size, each hashed, compressed and written elsewhere."""

    def __init__(self, compressor: compressors.Compressor, output: _Output) -> None:
        self.compressor = compressor
        self.output = output
        self.hash = hashlib.sha512()
        self.size = 0
        self.stages = (
            _Stage("sha512", self.hash.update),
            _Stage("compress", lambda block: output.write(compressor.compress(block))),
        )
        self.new_block()

    def __enter__(self) -> _Blocks:
        for stage in self.stages:
            stage.start()
        return self

    def __exit__(self, *_: object) -> None:
        for stage in self.stages:
            if stage.is_alive():
                stage.error = stage.error or BuildError("the build was given up")
                stage.finish()

    def new_block(self) -> None:
        # New memory: the stages may still read the last. It is zero, so padding is only skipped.
        self.block = bytearray(CHUNK)
        self.view = memoryview(self.block)
        self.used = 0

    def write(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            length = min(len(data) - start, CHUNK - self.used)
            self.block[self.used : self.used + length] = data[start : start + length]
            self.advance(length)
            start += length

    def skip(self, count: int) -> None:
        """Write zeros, fewer than fill a block."""
        first = min(count, CHUNK - self.used)
        self.advance(first)
        self.advance(count - first)

    def copy(self, fd: int, size: int) -> bool:
        """Write so many bytes of a file; False if it has not so many."""
        while size:
            count = os.readv(fd, [self.view[self.used : self.used + size]])
            if not count:
                return False
            self.advance(count)
            size -= count
        return True

    def advance(self, count: int) -> None:
        self.used += count
        self.size += count
        if self.used == CHUNK:
            self.send()

    def send(self) -> None:
        block = self.view[: self.used]
        for stage in self.stages:
            stage.put(block)
        self.new_block()

    def finish(self) -> str:
        """Write what is left; return the sha512 of all."""
        if self.used:
            self.send()
        for stage in self.stages:
            stage.finish()
            if stage.error is not None:
                raise stage.error
        self.output.write(self.compressor.flush())
        return self.hash.hexdigest()


class _Output:
    """A file without a name until it is complete, so that nothing is left of it however the build ends."""

    def __init__(self, path: str, *, overwrite: bool, unnamed: bool = True) -> None:
        self.path = path
        self.overwrite = overwrite
        self.unnamed = unnamed
        self.size = 0
        self.temporary = ""
        directory, self.name = os.path.split(path)
        self.directory_name = directory or "."

    def __enter__(self) -> _Output:
        if not self.name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        self.directory = os.open(self.directory_name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.check_target()
            self.fd = self.create()
        except BaseException:
            os.close(self.directory)
            raise
        return self

    def check_target(self) -> None:
        try:
            there = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        if not self.overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
        if not stat.S_ISREG(there.st_mode) and not stat.S_ISLNK(there.st_mode):
            raise BuildError(f"{self.path}: is a device, fifo or socket, which is not overwritten")

    def create(self) -> int:
        if self.unnamed and os.path.isdir("/proc/self/fd"):  # which gives it a name at the end
            try:
                return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self.directory)
            except OSError as error:
                # EISDIR from kernels, EOPNOTSUPP from file systems that do not know it.
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    error.filename = self.directory_name
                    raise
        self.temporary = _temporary_name()
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(self.temporary, flags, 0o666, dir_fd=self.directory)
        except OSError as error:
            error.filename = self.directory_name
            raise

    def check_outside(self, root: int, shown: str) -> None:
        """Refuse to write into the tree that is read."""
        inside = os.fstat(root)
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory)
        while True:
            here = os.fstat(directory)
            up = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = up
            if os.path.samestat(here, inside):
                os.close(up)
                raise BuildError(f"{self.path}: the output is inside {shown}, the directory it is built from")
            if os.path.samestat(here, os.fstat(up)):
                os.close(up)
                return

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                count = os.write(self.fd, rest)
            except OSError as error:
                error.filename = self.path
                raise
            self.size += count
            rest = rest[count:]

    def publish(self) -> None:
        try:
            os.fsync(self.fd)
            if self.overwrite:
                if not self.temporary:
                    name = _temporary_name()
                    self.link(name)
                    self.temporary = name
                os.rename(self.temporary, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
                self.temporary = ""
            else:
                self.link(self.name)
            _sync_directory(self.directory)
        except OSError as error:
            error.filename, error.filename2 = self.path, None
            raise

    def link(self, name: str) -> None:
        # An unnamed file is linked through its link in /proc; for a named one that is the same.
        source = f"/proc/self/fd/{self.fd}" if not self.temporary else self.temporary
        os.link(source, name, src_dir_fd=self.directory, dst_dir_fd=self.directory, follow_symlinks=True)

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        if self.temporary:
            os.unlink(self.temporary, dir_fd=self.directory)
        os.close(self.directory)


def _temporary_name() -> str:
    return f".rkt-py-{os.urandom(4).hex()}"


def _sync_directory(directory: int) -> None:
    # One opened by O_PATH cannot be synced itself; and one that cannot be read, not at all.
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# What uname(2) calls what appc calls otherwise.
_ARCHITECTURES = {"x86_64": "amd64", "i486": "i386", "i586": "i386", "i686": "i386"}
NO_LABEL = "-"


def manifest_for(
    name: str,
    *,
    version: str = "",
    os: str = "linux",
    arch: str = "",
    exec: Iterable[str] = (),
    user: str = "0",
    group: str = "0",
    supplementary_gids: Iterable[int] = (),
    working_directory: str = "",
    environment: Iterable[tuple[str, str]] = (),
    mounts: Iterable[str] = (),
    ports: Iterable[str] = (),
    labels: Iterable[tuple[str, str]] = (),
    annotations: Iterable[tuple[str, str]] = (),
    isolators: Iterable[tuple[str, str]] = (),
) -> ImageManifest:
    """Make a manifest of what `image build` is told.

    `arch` is this machine's if it is empty; `os` and `arch` of "-" give no label. Mounts are written
    NAME,path=PATH[,readOnly=BOOL], ports NAME,port=NUMBER[,protocol=tcp][,count=NUMBER]
    [,socketActivated=BOOL], isolators are names and their values' JSON.
    """
    own = {"version": version or NO_LABEL, "os": os, "arch": arch or _this_architecture()}
    json = {
        "acKind": imagemanifest.KIND,
        "acVersion": imagemanifest.AC_VERSION,
        "name": name,
        "labels": _pairs([*[(key, what) for key, what in own.items() if what != NO_LABEL], *labels]),
        "app": {
            "exec": list(exec),
            "user": user,
            "group": group,
            "supplementaryGIDs": list(supplementary_gids),
            "workingDirectory": working_directory,
            "environment": _pairs(environment),
            "mountPoints": [_fields(text, "mount", {"path": str, "readOnly": _bool}) for text in mounts],
            "ports": [{"protocol": "tcp", **_fields(text, "port", _PORT)} for text in ports],
            "isolators": [
                {"name": key, "value": strictjson.loads(text.encode(), what=f"isolator {key}")}
                for key, text in isolators
            ],
        },
        "annotations": _pairs(annotations),
    }
    # By way of text, so that every rule for manifests holds, with its message.
    return imagemanifest.parse(strictjson.dumps(json).encode())


def _pairs(items: Iterable[tuple[str, str]]) -> list[object]:
    return [{"name": name, "value": what} for name, what in items]


def _this_architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


_PORT: Mapping[str, Callable[[str], object]] = {
    "port": int,
    "protocol": str,
    "count": int,
    "socketActivated": _bool,
}


def _fields(text: str, what: str, known: Mapping[str, Callable[[str], object]]) -> dict[str, object]:
    """Read NAME,key=value,..."""
    name, *rest = text.split(",")
    fields: dict[str, object] = {"name": name}
    for part in rest:
        key, equals, content = part.partition("=")
        if not equals or key not in known or key in fields:
            raise BuildError(
                f"{what} {text!r}: {part!r} is not one of {', '.join(f'{key}=' for key in known)}"
            )
        try:
            fields[key] = known[key](content)
        except (ValueError, KeyError):
            raise BuildError(f"{what} {text!r}: {content!r} is no value for {key}") from None
    return fields
