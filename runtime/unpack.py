"""Unpacking: an image archive to a manifest, a rootfs and the archive's hash, by csrc/unpack.c."""

from __future__ import annotations

import os

from rkt_py.aci.errors import BadImage
from rkt_py.aci.value import value
from rkt_py.runtime import child

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", "unpack")


@value
class Limits:
    """What an archive may make of itself. `size` is that of the uncompressed archive, and of its files."""

    entries: int = 1_000_000
    size: int = 32 << 30
    manifest: int = 4 << 20


@value
class Unpacked:
    """An archive that was read to its end and found good."""

    sha512: str
    size: int
    compressed_size: int
    compression: str
    entries: int


def unpack(
    source_fd: int,
    directory_fd: int,
    *,
    keep_fd: int | None = None,
    sync: bool = True,
    limits: Limits = Limits(),  # noqa: B008
    program: str | None = None,
) -> Unpacked:
    """Extract the archive read from `source_fd` into `manifest` and `rootfs` of a directory that has neither.

    The archive's bytes are written to `keep_fd` as they come. With `sync`, everything is on disk on return.
    After an error the directory holds some of the image; it is the caller's to remove.
    """
    program = program or PROGRAM
    reading, writing = os.pipe()
    try:
        fds = [source_fd, directory_fd, writing] + ([] if keep_fd is None else [keep_fd])
        arguments = _arguments(program, source_fd, directory_fd, writing, keep_fd, sync, limits)
        # dup2 of a descriptor to itself makes it inheritable in the child, and only there.
        actions = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in fds]
        pid = os.posix_spawn(program, arguments, {"LC_ALL": "C"}, file_actions=actions)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        with open(reading, "rb") as file:
            report = file.read()
        status = _wait(pid)
    except BaseException:
        child.end(pid)
        raise
    return _result(report.decode(errors="replace"), status)


def _wait(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:  # the caller ignores SIGCHLD: the report has to do
        return 0


def _arguments(
    program: str, source: int, into: int, report: int, keep: int | None, sync: bool, limits: Limits
) -> list[str]:
    # fmt: off
    return [
        program,
        "--source", str(source),
        "--into", str(into),
        "--report", str(report),
        "--parent", str(os.getpid()),
        "--max-entries", str(limits.entries),
        "--max-size", str(limits.size),
        "--max-manifest", str(limits.manifest),
        *([] if keep is None else ["--keep", str(keep)]),
        *(["--sync"] if sync else []),
    ]
    # fmt: on


def _result(report: str, status: int) -> Unpacked:
    fields = dict([line.split("=", 1) for line in report.split("\n") if "=" in line])
    if "error" in fields:
        raise BadImage(fields["error"])
    if status != 0 or "sha512" not in fields:
        code = os.waitstatus_to_exitcode(status)
        raise BadImage(
            f"the extractor was killed by signal {-code}" if code < 0 else f"the extractor failed ({code})"
        )
    return Unpacked(
        sha512=fields["sha512"],
        size=int(fields["size"]),
        compressed_size=int(fields["compressed-size"]),
        compression=fields["compression"],
        entries=int(fields["entries"]),
    )
