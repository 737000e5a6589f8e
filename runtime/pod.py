"""Pods: a state is a directory and a lock.

    pods/STATE/UUID/                    its descriptor carries the flock
        pod                             the pod manifest, 0640
        pod-created                     empty; its mtime is when
        runtime-config                  JSON: what `run` was told, with rkt's keys
        pid                             the pod's pid 1, seen from the host; its mtime is the start
        net-info.json                   JSON: the networks it is in
        subcgroup                       absolute cgroup directories, one a line
        appsinfo/APP/manifest           the image's manifest
        appsinfo/APP/treeStoreID        the tree below the app
        overlay/APP/{upper,work,root}
        sharedVolumes/VOLUME/
        rkt/status/APP                  exit code; APP-created, APP-started: empty, mtime
        rkt/log/APP                     what it wrote; APP.1 before that

    STATE            locked              unlocked
    embryo           embryo              embryo
    prepare          preparing           aborted prepare
    prepared         deleting            prepared
    run              running             exited
    exited-garbage   exited deleting     exited garbage
    garbage          deleting            garbage

A pod only ever moves down this table, by rename; who loses a race finds nothing to rename. The lock
belongs to the open directory, so it goes along with renames and across exec, and the kernel drops it
when the last process holding the descriptor is gone, however it went.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from rkt_py.aci import strictjson
from rkt_py.aci.value import value
from rkt_py.runtime.errors import PodError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    from rkt_py.aci.podmanifest import PodManifest
    from rkt_py.runtime.paths import Paths

    State = Literal[
        "embryo",
        "preparing",
        "aborted prepare",
        "prepared",
        "running",
        "deleting",
        "exited deleting",
        "exited",
        "exited garbage",
        "garbage",
    ]
    AppState = Literal["created", "running", "exited"]

EMBRYO = "embryo"
PREPARE = "prepare"
PREPARED = "prepared"
RUN = "run"
EXITED_GARBAGE = "exited-garbage"
GARBAGE = "garbage"

# In the order pods move. A search that goes this way cannot miss one that moves meanwhile.
DIRECTORIES = (EMBRYO, PREPARE, PREPARED, RUN, EXITED_GARBAGE, GARBAGE)

_STATES: dict[str, tuple[State, State]] = {  # directory: (unlocked, locked)
    EMBRYO: ("embryo", "embryo"),
    PREPARE: ("aborted prepare", "preparing"),
    PREPARED: ("prepared", "deleting"),
    RUN: ("exited", "running"),
    EXITED_GARBAGE: ("exited garbage", "exited deleting"),
    GARBAGE: ("garbage", "deleting"),
}

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_MAX_FILE = 16 << 20
_PATIENCE = 5.0  # seconds a lock may be in the hands of somebody who only looks


@value
class AppStatus:
    """One app of a pod: its state, times in ns since the epoch, exit code."""

    name: str
    state: AppState
    created: int | None = None
    started: int | None = None
    finished: int | None = None
    exit_code: int | None = None


class Pod:
    """A pod, by the open descriptor of its directory. Close it, or use it in a `with`."""

    def __init__(self, paths: Paths, uuid: str, directory: str, fd: int) -> None:
        self.paths = paths
        self.uuid = uuid
        self.directory = directory  # where it was seen last
        self._fd = fd
        self._exclusive = False

    def __repr__(self) -> str:
        return f"Pod({self.uuid!r}, {self.directory!r})"

    def __enter__(self) -> Pod:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory, and of the lock unless another process has inherited it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def path(self) -> str:
        return self.paths.pod(self.directory, self.uuid)

    @property
    def lock_fd(self) -> int:
        """The directory's descriptor; once exclusively locked, who holds it keeps the pod alive."""
        return self._fd

    # The life cycle

    @property
    def state(self) -> State:
        """What rkt calls the pod's state, as of now."""
        self._locate()
        locked = self._exclusive or not self._is_free()
        return _STATES[self.directory][locked]

    def lock(self) -> bool:
        """Take the exclusive lock if it is free and the pod is still where it was seen."""
        if self._exclusive:
            return True
        if not self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        if not self._is_in(self.directory):
            self._flock(fcntl.LOCK_UN)
            return False
        self._exclusive = True
        return True

    def unlock(self) -> None:
        self._flock(fcntl.LOCK_UN)
        self._exclusive = False

    def to_prepared(self, *, durable: bool = True) -> None:
        """Move from prepare to prepared and unlock; `durable` makes that survive a power cut."""
        self._demand(self.directory == PREPARE and self._exclusive, "is not being prepared")
        if durable:
            _sync(self._fd)
        self._move(PREPARED, "is not being prepared")
        if durable:
            from rkt_py.runtime import temporary

            temporary.sync_directory(self.paths.pods(PREPARED))
            temporary.sync_directory(self.paths.pods(PREPARE))
        self.unlock()

    def to_run(self) -> None:
        """Move to run, locked: from prepare when it is ours, from prepared when nobody is faster."""
        if self.directory != PREPARE or not self._exclusive:
            self._demand(self.directory == PREPARED, "is not prepared")
            self._take("is not prepared")
        self._move(RUN, "is not prepared")

    def claim(self) -> None:
        """Lock a prepared pod, so that nobody else runs or removes it."""
        self._demand(self.directory == PREPARED, "is not prepared")
        self._take("is not prepared")

    def to_exited_garbage(self) -> None:
        """Mark an exited pod; gc's grace period counts from here."""
        self._demand(self.directory == RUN and self._exclusive, "is not exited")
        self._move(EXITED_GARBAGE, "is not exited")

    def to_garbage(self) -> None:
        """Give up a pod that never ran, or whose grace period is over."""
        given_up = (EMBRYO, PREPARE, PREPARED, EXITED_GARBAGE)
        self._demand(self.directory in given_up and self._exclusive, "may still be used")
        self._move(GARBAGE, "may still be used")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the pod's lock is free; False when that took longer than `timeout` seconds."""
        assert not self._exclusive, "would wait for itself"
        if timeout is None:
            self._flock(fcntl.LOCK_SH)
            self._flock(fcntl.LOCK_UN)
            return True
        end = time.monotonic() + timeout
        pause = 0.001
        while not self._is_free():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.05)
        return True

    def _is_free(self) -> bool:
        if not self._flock(fcntl.LOCK_SH | fcntl.LOCK_NB):
            return False
        self._flock(fcntl.LOCK_UN)
        return True

    def _flock(self, how: int) -> bool:
        try:
            fcntl.flock(self._fd, how)
        except BlockingIOError:
            return False
        return True

    def _take(self, otherwise: str) -> None:
        # Asking for a pod's state locks it for a moment (there is no other way to see a flock), so a
        # refusal decides nothing while the pod is still in its place: who really took it moves it.
        end = time.monotonic() + _PATIENCE
        while not self.lock():
            self._demand(self._is_in(self.directory) and time.monotonic() < end, otherwise)
            time.sleep(0.001)

    def _move(self, directory: str, otherwise: str) -> None:
        target = self.paths.pod(directory, self.uuid)
        try:
            os.rename(self.path, target)
        except FileNotFoundError:
            if not self._is_in(self.directory):
                self.unlock()
                raise PodError(f'pod "{self.uuid}" {otherwise}') from None
            _make_directories(self.paths)
            os.rename(self.path, target)
        self.directory = directory

    def _demand(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise PodError(f'pod "{self.uuid}" {otherwise}')

    def _is_in(self, directory: str) -> bool:
        try:
            there = os.stat(self.paths.pod(directory, self.uuid), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def _locate(self) -> None:
        if self._is_in(self.directory):
            return
        for directory in DIRECTORIES:
            if self._is_in(directory):
                self.directory = directory
                return
        self.directory = GARBAGE  # deleted since: it can have been nowhere else

    # Files

    def read(self, name: str) -> bytes:
        """Read a file of the pod by its relative name; only a regular file is one."""
        with _Below(self, name) as (dirfd, last):
            fd = self._open(dirfd, last, name, _READ)
        try:
            data = b""
            while block := os.read(fd, 1 << 20):
                data += block
                self._demand(len(data) <= _MAX_FILE, f"has a file {name} of more than {_MAX_FILE >> 20} MiB")
            return data
        finally:
            os.close(fd)

    def open(self, name: str) -> int:
        """Open a regular file of the pod for reading; the caller closes the descriptor."""
        with _Below(self, name) as (dirfd, last):
            return self._open(dirfd, last, name, _READ)

    def write(self, name: str, data: bytes, mode: int = 0o640) -> None:
        """Write a file of the pod by its relative name, making the directories on the way."""
        with _Below(self, name, make=True) as (dirfd, last):
            if self.directory in (EMBRYO, PREPARE):
                # Nobody reads a pod this young, and what is half made is never taken for whole.
                self._write(dirfd, last, name, data, mode)
                return
            fresh = f".{last}.{os.getpid()}"
            self._write(dirfd, fresh, name, data, mode)
            os.rename(fresh, last, src_dir_fd=dirfd, dst_dir_fd=dirfd)

    def mkdir(self, name: str, mode: int = 0o755) -> str:
        """Make a directory in the pod and those on the way; return its absolute path."""
        with _Below(self, name, make=True) as (dirfd, last):
            try:
                os.mkdir(last, mode, dir_fd=dirfd)
            except FileExistsError:
                pass
            else:
                os.chmod(last, mode, dir_fd=dirfd)  # past the umask; nobody else is in here yet
        return f"{self.path}/{name}"

    def names(self, name: str) -> list[str]:
        """List a directory of the pod, sorted; one that is not there is empty."""
        try:
            with _Below(self, name) as (dirfd, last):
                fd = os.open(last, _DIRECTORY, dir_fd=dirfd)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._strange(name, error) from None
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def modified(self, name: str) -> int | None:
        """Tell when a file of the pod was last written, in ns since the epoch; None if there is none."""
        try:
            with _Below(self, name) as (dirfd, last):
                status = os.stat(last, dir_fd=dirfd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_mtime_ns if stat.S_ISREG(status.st_mode) else None

    def _open(self, dirfd: int, last: str, name: str, flags: int, mode: int = 0) -> int:
        try:
            fd = os.open(last, flags, mode, dir_fd=dirfd)
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, error.strerror, f"{self.path}/{name}") from None
        except OSError as error:
            raise self._strange(name, error) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise PodError(f'pod "{self.uuid}" has a {name} that is not a regular file')
        return fd

    def _write(self, dirfd: int, last: str, name: str, data: bytes, mode: int) -> None:
        fd = self._open(dirfd, last, name, _WRITE, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self.path}/{name}") from None
        finally:
            os.close(fd)

    def _strange(self, name: str, error: OSError) -> Exception:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
            return PodError(f'pod "{self.uuid}" has a {name} that is not a regular file')
        return OSError(error.errno, error.strerror, f"{self.path}/{name}")

    # What the files say

    @property
    def created(self) -> int | None:
        """When it was made, in ns since the epoch."""
        return self.modified("pod-created")

    @property
    def started(self) -> int | None:
        """When its pid 1 was, in ns since the epoch."""
        return self.modified("pid")

    @property
    def pid(self) -> int | None:
        """The pod's pid 1 as the host numbers it."""
        return self._number("pid")

    def app_pid(self, app: str) -> int | None:
        """The process of an app's main program as the host numbers it."""
        return self._number(f"rkt/status/{app}-pid")

    def manifest(self) -> PodManifest:
        """Parse the pod manifest."""
        from rkt_py.aci import podmanifest

        return podmanifest.parse(self.read("pod"))

    def app_names(self) -> list[str]:
        """Name the apps laid out in the pod, sorted (the manifest has them in order)."""
        return self.names("appsinfo")

    def app_status(self, app: str, *, state: State | None = None) -> AppStatus:
        """Tell how an app is; `state` is the pod's, for who knows it already."""
        status = f"rkt/status/{app}"
        code = self._number(status)
        created = self.modified(f"{status}-created")
        started = self.modified(f"{status}-started")
        how: AppState = "created"
        if code is not None or (state or self.state).startswith("exited"):
            how = "exited"
        elif started is not None:
            how = "running"
        finished = self.modified(status) if code is not None else None
        return AppStatus(app, how, created, started, finished, code)

    def exit_codes(self) -> dict[str, int]:
        """Map the apps that ended to their exit codes."""
        codes = {app: self._number(f"rkt/status/{app}") for app in self.app_names()}
        return {app: code for app, code in codes.items() if code is not None}

    def networks(self) -> list[dict[str, Any]]:
        """List the pod's networks as net-info.json has them: netName, ifName, ip, ..."""
        try:
            networks: Any = strictjson.loads(self.read("net-info.json"), what="net-info.json")
        except FileNotFoundError:
            return []
        self._demand(
            networks is None or isinstance(networks, list) and all(isinstance(n, dict) for n in networks),
            "has a net-info.json that is not a list of networks",
        )
        return networks or []

    def runtime_config(self) -> RuntimeConfig:
        """Read what `run` or `prepare` was told."""
        return RuntimeConfig.parse(self.read("runtime-config"))

    def _number(self, name: str) -> int | None:
        try:
            text = self.read(name).strip()
        except FileNotFoundError:
            return None
        return int(text) if text.isdigit() and len(text) < 10 else None


class _Below:
    """The directory holding a relative name, reached without following a link: (descriptor, last part)."""

    def __init__(self, pod: Pod, name: str, *, make: bool = False) -> None:
        self.pod = pod
        self.name = name
        self.make = make
        self.fd = -1

    def __enter__(self) -> tuple[int, str]:
        parts = self.name.split("/")
        for part in parts:
            if part in ("", ".", "..") or "\0" in part:
                raise PodError(f'pod "{self.pod.uuid}": {self.name!r} is no name of a file in it')
        for part in parts[:-1]:
            self._step(part)
        return (self.fd if self.fd >= 0 else self.pod.lock_fd), parts[-1]

    def _step(self, part: str) -> None:
        dirfd = self.fd if self.fd >= 0 else self.pod.lock_fd
        try:
            try:
                fd = os.open(part, _STEP, dir_fd=dirfd)
            except FileNotFoundError:
                if not self.make:
                    raise
                try:
                    os.mkdir(part, 0o755, dir_fd=dirfd)
                except FileExistsError:
                    pass
                fd = os.open(part, _STEP, dir_fd=dirfd)
        except OSError as error:
            self.__exit__()
            raise self.pod._strange(self.name, error) from None
        self.__exit__()
        self.fd = fd

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@value
class RuntimeConfig:
    """What a pod is to be started with, beside its manifest."""

    hostname: str = ""
    net: tuple[str, ...] = ("default",)
    interactive: bool = False
    debug: bool = False
    mutable: bool = False
    overlay: bool = True
    disable_paths: bool = False
    disable_capabilities: bool = False
    disable_seccomp: bool = False
    ipc_mode: str = ""
    resolv_conf_mode: str = "default"
    etc_hosts_mode: str = "default"
    private_users: str = ""
    metadata_service_url: str = ""
    mds_token: str = ""

    def json(self) -> bytes:
        """Write it with rkt's keys, and NoOverlay, which rkt keeps as a file."""
        return strictjson.dumps(
            {
                "MetadataServiceURL": self.metadata_service_url,
                "PrivateUsers": self.private_users,
                "MDSToken": self.mds_token,
                "Hostname": self.hostname,
                "Debug": self.debug,
                "Mutable": self.mutable,
                "ResolvConfMode": self.resolv_conf_mode,
                "EtcHostsMode": self.etc_hosts_mode,
                "NetList": list(self.net),
                "Interactive": self.interactive,
                "InsecureOptions": {
                    "DisablePaths": self.disable_paths,
                    "DisableCapabilities": self.disable_capabilities,
                    "DisableSeccomp": self.disable_seccomp,
                },
                "IPCMode": self.ipc_mode,
                "NoOverlay": not self.overlay,
            }
        ).encode()

    @staticmethod
    def parse(data: bytes) -> RuntimeConfig:
        """Read what `json` wrote; what is missing is as by default."""
        fields = _object(strictjson.loads(data, what="runtime-config"), "")
        insecure = _object(fields.get("InsecureOptions", {}), "InsecureOptions")
        net = fields.get("NetList", ["default"])
        if not isinstance(net, list) or not all(isinstance(name, str) for name in net):
            raise PodError("runtime-config: NetList is not a list of strings")
        return RuntimeConfig(
            hostname=_text(fields, "Hostname"),
            net=tuple(net),
            interactive=_flag(fields, "Interactive"),
            debug=_flag(fields, "Debug"),
            mutable=_flag(fields, "Mutable"),
            overlay=not _flag(fields, "NoOverlay"),
            disable_paths=_flag(insecure, "DisablePaths"),
            disable_capabilities=_flag(insecure, "DisableCapabilities"),
            disable_seccomp=_flag(insecure, "DisableSeccomp"),
            ipc_mode=_text(fields, "IPCMode"),
            resolv_conf_mode=_text(fields, "ResolvConfMode", "default"),
            etc_hosts_mode=_text(fields, "EtcHostsMode", "default"),
            private_users=_text(fields, "PrivateUsers"),
            metadata_service_url=_text(fields, "MetadataServiceURL"),
            mds_token=_text(fields, "MDSToken"),
        )


def _object(item: object, name: str) -> dict[str, object]:
    if not isinstance(item, dict):
        raise PodError(f"runtime-config: {name or 'it'} is not an object")
    return item


def _text(fields: dict[str, object], name: str, default: str = "") -> str:
    item = fields.get(name, default)
    if not isinstance(item, str):
        raise PodError(f"runtime-config: {name} is not a string")
    return item


def _flag(fields: dict[str, object], name: str) -> bool:
    item = fields.get(name, False)
    if not isinstance(item, bool):
        raise PodError(f"runtime-config: {name} is not true or false")
    return item


def create(paths: Paths, uuid: str | None = None) -> Pod:
    """Make a pod, preparing and locked by us; a given UUID must be new."""
    if uuid is not None:
        if not is_uuid(uuid):
            raise PodError(f'"{uuid}" is not a UUID')
        if _open_anywhere(paths, uuid) is not None:
            raise PodError(f'pod "{uuid}" exists already')
    while True:
        try:
            pod = _conceive(paths, uuid or new_uuid())
        except FileNotFoundError:
            continue
        try:
            pod._take("is gone")
            pod._move(PREPARE, "is gone")
            pod.write("pod-created", b"")
            return pod
        except BaseException as error:
            gone = not pod._is_in(pod.directory)
            if not gone:
                _discard(pod)
            pod.close()
            # Until it was locked, gc could take it for a stale one; if so, begin again.
            if not (gone and isinstance(error, PodError)):
                raise


def _discard(pod: Pod) -> None:
    """Remove a pod nobody has heard of yet; what cannot be removed is for gc."""
    from rkt_py.runtime.remove import remove_tree

    try:
        dirfd = os.open(pod.paths.pods(pod.directory), _DIRECTORY)
        try:
            remove_tree(dirfd, pod.uuid)
        finally:
            os.close(dirfd)
    except OSError:
        pass


def _conceive(paths: Paths, uuid: str) -> Pod:
    path = paths.pod(EMBRYO, uuid)
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        _make_directories(paths)
        os.mkdir(path, 0o700)
    except FileExistsError:
        raise PodError(f'pod "{uuid}" exists already') from None
    return Pod(paths, uuid, EMBRYO, os.open(path, _DIRECTORY))


def find(paths: Paths, prefix: str) -> Pod:
    """Open the one pod whose UUID begins with `prefix`."""
    wanted = prefix.strip().lower()
    if is_uuid(wanted):
        matches = [wanted]
    elif wanted:
        matches = sorted({uuid for uuid, _ in _listing(paths) if uuid.startswith(wanted)})
    else:
        raise PodError("no UUID was given")
    if len(matches) > 1:
        raise PodError(f'"{prefix}" is ambiguous: {", ".join(matches)}')
    pod = _open_anywhere(paths, matches[0]) if matches else None
    if pod is None:
        raise PodError(f'no matches found for "{prefix}"')
    return pod


def walk(paths: Paths, directories: tuple[str, ...] = DIRECTORIES) -> Iterator[Pod]:
    """Open the pods there are, one after the other by UUID; each is closed when the next is asked for."""
    seen = dict(_listing(paths, directories))
    for uuid in sorted(seen):
        pod = _open(paths, seen[uuid], uuid)
        if pod is None and directories == DIRECTORIES:
            pod = _open_anywhere(paths, uuid)
        if pod is not None:
            with pod:
                yield pod


def _listing(paths: Paths, directories: tuple[str, ...] = DIRECTORIES) -> Iterator[tuple[str, str]]:
    for directory in directories:
        try:
            names = os.listdir(paths.pods(directory))
        except FileNotFoundError:
            continue
        for name in names:
            if is_uuid(name):
                yield name, directory


def _open_anywhere(paths: Paths, uuid: str) -> Pod | None:
    for directory in DIRECTORIES:
        pod = _open(paths, directory, uuid)
        if pod is not None:
            return pod
    return None


def _open(paths: Paths, directory: str, uuid: str) -> Pod | None:
    try:
        return Pod(paths, uuid, directory, os.open(paths.pod(directory, uuid), _DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symbolic link is no pod
            return None
        raise


def _make_directories(paths: Paths) -> None:
    from rkt_py.runtime import temporary

    temporary.make_directories(paths.data, *map(paths.pods, DIRECTORIES))


def _sync(fd: int) -> None:
    """Write out all that is in a pod: its few files one by one, copied roots all at once."""
    copied = False
    for path, directories, files, dirfd in os.fwalk(".", dir_fd=fd):
        if path.startswith("./overlay/") and path.endswith("/root") and (directories or files):
            directories.clear()
            copied = True
            continue
        for name in files:
            if not stat.S_ISREG(os.stat(name, dir_fd=dirfd, follow_symlinks=False).st_mode):
                continue
            file = os.open(name, _READ, dir_fd=dirfd)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        os.fsync(dirfd)
    if copied:
        from ctypes import CDLL, get_errno

        if CDLL(None, use_errno=True).syncfs(fd) < 0:
            raise OSError(get_errno(), os.strerror(get_errno()))


def new_uuid() -> str:
    """Make a random (version 4) UUID."""
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_uuid(text: str) -> bool:
    """Say whether a text is a UUID as we write them: 32 lower-case hex digits, four dashes."""
    return (
        len(text) == 36
        and text[8] == text[13] == text[18] == text[23] == "-"
        and len(digits := text.replace("-", "")) == 32
        and not digits.strip("0123456789abcdef")
    )
