"""Harm: archives no builder would make, what is left of a pod or an import, and who still has hold of it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.rkt import Result, Rkt

BUSYBOX = Path("/bin/busybox")
PATIENCE = 20.0
END_OF_TAR = bytes(1024)

_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
}


# Archives


def entry(
    name: str,
    data: bytes = b"",
    *,
    kind: str = "file",
    mode: int = 0o755,
    link: str = "",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One entry of a tar, with its data and padding."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = _TYPES[kind], mode, link, len(data)
    info.devmajor, info.devminor = device
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def manifest(*, without: str = "", app: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A good image manifest, but for the changes."""
    fields: dict[str, Any] = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/harm",
        "labels": [{"name": "os", "value": "linux"}],
        "app": {"exec": ["/bin/true"], "user": "0", "group": "0", **(app or {})},
        **changes,
    }
    fields.pop(without, None)
    return fields


def busybox(*applets: str) -> list[bytes]:
    """The entries of a root file system that can run something."""
    links = [
        entry(f"rootfs/bin/{name}", kind="symlink", link="busybox")
        for name in ("sh", "true", "cat", *applets)
    ]
    return [
        entry("rootfs", kind="directory"),
        entry("rootfs/bin", kind="directory"),
        entry("rootfs/bin/busybox", BUSYBOX.read_bytes()),
        *links,
    ]


def archive(*entries: bytes, about: dict[str, Any] | bytes | None = None, rootfs: bool = True) -> bytes:
    """An image of busybox and these entries; `about` is its manifest."""
    text = about if isinstance(about, bytes) else json.dumps(manifest() if about is None else about).encode()
    return b"".join([entry("manifest", text), *(busybox() if rootfs else ()), *entries, END_OF_TAR])


# What is left


def files(top: Path) -> set[str]:
    """Every path below a directory, whatever it is."""
    found = set()
    for directory, directories, names in os.walk(top):
        found |= {os.path.relpath(os.path.join(directory, name), top) for name in (*directories, *names)}
    return found


class Site(Rkt):
    """An installation that is watched: which pods it had, and what they leave."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.uuids: set[str] = set()

    def see(self) -> None:
        """Remember the pods that there are: cgroups and interfaces bear their names."""
        for state in ("embryo", "prepare", "prepared", "run", "exited-garbage", "garbage"):
            try:
                self.uuids.update(os.listdir(self.data / "pods" / state))
            except FileNotFoundError:
                pass

    def pods(self) -> dict[str, list[str]]:
        """The pods in each directory that has some."""
        found = {}
        for directory in (self.data / "pods").glob("*"):
            if names := sorted(os.listdir(directory)):
                found[directory.name] = names
        return found

    def collect(self) -> None:
        """Collect all that ended or was given up."""
        self.see()
        done = self("gc", "--grace-period=0s", "--expire-prepared=0s")
        assert done.code == 0, done
        assert "not removed" not in done.stderr, done

    def left(self) -> list[str]:
        """What there is after a collection that should not be: empty when all is well."""
        found = [f"pod {state}/{name}" for state, names in self.pods().items() for name in names]
        found += [f"temporary {name}" for name in files(self.data / "cas/tmp")]
        found += [f"temporary {path}" for path in files(self.data) if os.path.basename(path).startswith(".")]
        found += [f"lock {name}" for name in files(self.data / "locks")]
        found += [f"cgroup {path}" for path in cgroups(self.uuids)]
        found += [f"lease {path}" for path in leases(self.uuids)]
        found += [f"process {line}" for line in holders(self.data)]
        found += [f"mount {line}" for line in mounts_of(self.data)]
        return found

    def assert_clean(self) -> None:
        """Fail unless nothing is left, once the kernel has ended what was killed."""
        wait_for_processes(self.data)
        left = self.left()
        assert not left, "\n".join(left)


def cgroups(uuids: set[str]) -> Iterator[str]:
    if not uuids:
        return
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{directory}/{name}" for name in names if name in uuids)


def leases(uuids: set[str]) -> Iterator[str]:
    for path in Path("/run/rkt-py").rglob("*"):
        try:
            if path.name in uuids or (path.is_file() and path.read_text().strip() in uuids):
                yield str(path)
        except (FileNotFoundError, UnicodeDecodeError):
            pass


def mounts_of(data: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{data}/" in line]


def holders(data: Path) -> dict[int, str]:
    """The processes that have to do with a data directory: by a descriptor, a mount or an argument."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid != os.getpid() and _holds(pid, os.fsencode(data) + b"/"):
            found[pid] = f"{pid} {_read(pid, 'cmdline').replace(bytes(1), b' ').decode(errors='replace')}"
    return found


def _holds(pid: int, data: bytes) -> bool:
    # A zombie has none of these, and is its parent's to reap.
    if data in _read(pid, "mountinfo") or data[:-1] in _read(pid, "cmdline"):
        return True
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        try:
            if os.fsencode(os.readlink(f"/proc/{pid}/fd/{name}")).startswith(data):
                return True
        except OSError:
            continue
    return False


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def wait_for_processes(data: Path) -> None:
    """Wait until no process has to do with a data directory any more: what was killed takes a moment."""
    end = time.monotonic() + PATIENCE
    while found := holders(data):
        for pid in found:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                left = end - time.monotonic()
                assert left > 0 and select.select([pidfd], [], [], left)[0], f"still there: {found[pid]}"
            finally:
                os.close(pidfd)


# Complaints


def assert_one_sentence(result: Result, verb: str, *says: str, code: int = 254) -> None:
    """An error as all of ours are: the exit code, nothing on stdout, one line that names what is wrong."""
    assert result.code == code, result
    assert result.stdout == "", result
    assert result.stderr.endswith("\n") and result.stderr.count("\n") == 1, result
    line = result.stderr[:-1]
    assert line.startswith(f"{verb}: "), result
    assert line.isprintable(), result
    assert "Traceback" not in line and "internal error" not in line, result
    for text in says:
        assert text in line, (text, result)


# Waiting


def wait_until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait for what nobody announces: looked at every few milliseconds, given up with a sentence."""
    end = time.monotonic() + timeout
    pause = select.poll()
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        pause.poll(2)


# A data directory on a disk of its own


@contextmanager
def small_disk(where: Path, megabytes: int, *, inodes: int = 20_000) -> Iterator[SmallDisk]:
    """A tmpfs of this size, in a mount namespace that is nobody else's."""
    where.mkdir()
    options = f"size={megabytes}m,nr_inodes={inodes},mode=0755"
    script = f'mount -t tmpfs -o {options} small "$0" && echo ready && exec cat'
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(where)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
        yield SmallDisk(where, holder.pid)
    finally:
        holder.communicate(timeout=PATIENCE)


class SmallDisk(Site):
    """An installation on a small disk: commands run where it is mounted."""

    def __init__(self, where: Path, holder: int) -> None:
        super().__init__(where / "data")
        self.namespace = holder
        # As seen from out here; commands see it at its own place.
        self.seen = Path(f"/proc/{holder}/root{where}")

    def command(self, *args: str | Path) -> list[str]:
        return ["nsenter", "-t", str(self.namespace), "-m", *super().command(*args)]

    def left(self) -> list[str]:
        return [f"{path}" for path in files(self.seen / "data") if _is_half(path)]

    def free(self) -> int:
        space = os.statvfs(self.seen)
        return space.f_bavail * space.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all space but so many bytes."""
        with open(self.seen / "ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - leave)

    def fill_inodes(self, leave: int = 0) -> None:
        """Leave room for so many files and directories."""
        (self.seen / "ballast").mkdir()
        for number in range(os.statvfs(self.seen).f_favail - leave):
            (self.seen / "ballast" / str(number)).touch()

    def clear(self) -> None:
        """Give back what was taken."""
        if (self.seen / "ballast").is_dir():
            shutil.rmtree(self.seen / "ballast")
        else:
            (self.seen / "ballast").unlink()


def _is_half(path: str) -> bool:
    parts = path.split("/")
    return (
        parts[:2] == ["cas", "tmp"]
        and len(parts) > 2
        or parts[0] == "pods"
        and len(parts) > 2
        or parts[-1].startswith(".")
        or parts[-1].endswith(".tmp")
    )
