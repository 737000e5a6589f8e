"""State for the tests of state: archives, an extractor in Python, child processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import prctl

from rkt_py.aci.errors import BadImage
from rkt_py.runtime.imagestore import Image, ImageStore
from rkt_py.runtime.unpack import Unpacked


def unpack(source_fd: int, directory_fd: int, *, keep_fd: int | None = None, sync: bool = True) -> Unpacked:
    """Extract an uncompressed archive, as slowly and plainly as Python does."""
    with open(source_fd, "rb", closefd=False) as source:
        data = source.read()
    if keep_fd is not None:
        for start in range(0, len(data), 4096):
            os.write(keep_fd, data[start : start + 4096])
    try:
        archive = tarfile.open(fileobj=io.BytesIO(data))
    except tarfile.TarError as error:
        raise BadImage(f"not a tar: {error}") from None
    with archive:
        # Python 3.11.4 and later would keep setuid bits from the disk; nothing here is hostile.
        archive.extraction_filter = lambda member, path: member
        archive.extractall(f"/proc/self/fd/{directory_fd}")
        entries = len(archive.getnames())
    return Unpacked(hashlib.sha512(data).hexdigest(), len(data), len(data), "none", entries)


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, content in fields.items():
        setattr(info, field, content)
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def manifest(name: str = "example.com/hello", version: str = "1.0.0", **fields: object) -> dict[str, object]:
    labels = [{"name": "version", "value": version}]
    return {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name, "labels": labels, **fields}


def archive(
    path: Path,
    content: dict[str, object] | bytes,
    entries: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    *,
    rootfs: bool = True,
) -> Path:
    """Write an image archive; `content` is its manifest."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with tarfile.open(path, "w") as tar:
        for info, body in (
            [entry("manifest", data)] + ([directory("rootfs")] if rootfs else []) + list(entries)
        ):
            tar.addfile(info, io.BytesIO(body))
    return path


def put(
    store: ImageStore,
    content: dict[str, object],
    entries: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
) -> Image:
    """Put an image of this manifest and these files into a store."""
    path = Path(store.paths.data).parent / f"archive-{os.urandom(4).hex()}.aci"
    try:
        return store.put(str(archive(path, content, entries)), unpack=unpack)
    finally:
        path.unlink()


class Child:
    """A forked process that runs one function: 0 when it returns, 1 when it raises."""

    def __init__(self, function: Callable[[], object]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            prctl.set_pdeathsig(signal.SIGKILL)
            try:
                function()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def wait(self) -> int:
        """Wait for its end; return its exit code, or minus the signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
