"""The C core, seen from Python: the only module that imports it.

`csrc/rkt.h` is the whole interface. A function of C that fails returns `-errno`; here it raises `OSError`
with the file name it was about.
"""

from __future__ import annotations

import os

from rkt_py.runtime import _core  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_lib: Any = _core.lib
_ffi: Any = _core.ffi

PROGRAMS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "bin")
SUPERVISOR = os.path.join(PROGRAMS, "supervisor")


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def open_in_root(root_fd: int, path: str, flags: int, *, resolve: int = 0) -> int:
    """Open `path` as a process whose root is `root_fd` would see it (openat2(2), RESOLVE_IN_ROOT).

    Links lead nowhere outside; magic links of procfs are not followed. The fd is close-on-exec.
    Raises OSError.
    """
    return _check(_lib.rkt_open_in_root(root_fd, os.fsencode(path), flags, resolve), path)


def new_netns() -> int:
    """Make a network namespace with its loopback up, and return the fd that keeps it. Raises OSError."""
    return _check(_lib.rkt_new_netns(), "a network namespace")


def file_system_type(path: str) -> int:
    """Return the magic number of the file system at `path` (statfs(2)). Raises OSError."""
    return _check(_lib.rkt_file_system_type(os.fsencode(path)), path)


def sealed_memfd(name: str, data: bytes | bytearray) -> int:
    """Return a memory file of these bytes that nobody can change any more. Raises OSError."""
    return _check(_lib.rkt_sealed_memfd(name.encode(), bytes(data), len(data)), name)


def exec_supervisor(plan: bytes | bytearray, keep: Sequence[int]) -> None:
    """Become the supervisor of a plan, which keeps these fds; returns only by raising OSError."""
    program, plan_fd = os.fsencode(SUPERVISOR), sealed_memfd("plan", plan)
    _check(_lib.rkt_exec_supervisor(program, plan_fd, list(keep), len(keep)), SUPERVISOR)


def spawn_supervisor(
    plan: bytes | bytearray, keep: Sequence[int], *, stdin: int = -1, stdout: int = -1, stderr: int = -1
) -> tuple[int, int]:
    """Start the supervisor of a plan as a child: its pid, and a pidfd. Streams of -1 are /dev/null.

    Raises OSError.
    """
    plan_fd = sealed_memfd("plan", plan)
    try:
        pidfd = _ffi.new("int *")
        fds = [stdin, stdout, stderr, *keep]
        program = os.fsencode(SUPERVISOR)
        pid = _check(_lib.rkt_spawn_supervisor(program, plan_fd, fds, len(fds), pidfd), SUPERVISOR)
        return pid, pidfd[0]
    finally:
        os.close(plan_fd)


def wait_pidfd(pidfd: int, timeout: float | None = None) -> int | None:
    """Wait for a child of ours: its exit code (128 + n for signal n), None after `timeout` seconds."""
    status = _ffi.new("int *")
    milliseconds = -1 if timeout is None else int(timeout * 1000)
    if _check(_lib.rkt_wait_pidfd(pidfd, milliseconds, status)) == 0:
        return None
    code: int = status[0]
    return code


class PlanMemory:
    """A plan as the C core reads it: `struct rkt_plan`, then arrays and strings by their offset."""

    def __init__(self) -> None:
        self._memory = bytearray(_ffi.sizeof("struct rkt_plan"))
        self._strings: dict[bytes, int] = {b"": 0}

    def text(self, text: str | bytes) -> int:
        """Return the offset of a string, which is kept once."""
        data = text if isinstance(text, bytes) else os.fsencode(text)
        offset = self._strings.get(data)
        if offset is None:
            if 0 in data:
                raise ValueError(f"a NUL character in {text!r}")
            offset = self._strings[data] = len(self._memory)
            self._memory += data + b"\0"
        return offset

    def array(self, kind: str, items: list[Any]) -> dict[str, int]:
        """Return the span of an array of structs (given as dicts) or numbers."""
        if not items:
            return {"offset": 0, "count": 0}
        return self.block(_ffi.buffer(_ffi.new(f"{kind}[]", items)), len(items))

    def block(self, data: Any, count: int) -> dict[str, int]:
        self._memory += bytes(-len(self._memory) % 8)
        offset = len(self._memory)
        self._memory += data
        return {"offset": offset, "count": count}

    def finish(self, **fields: Any) -> bytearray:
        """Return the whole, with the fields of its head."""
        head = _ffi.new(
            "struct rkt_plan *",
            {
                "magic": _lib.RKT_PLAN_MAGIC,
                "version": _lib.RKT_PLAN_VERSION,
                "size": len(self._memory),
                **fields,
            },
        )
        self._memory[: _ffi.sizeof("struct rkt_plan")] = _ffi.buffer(head)
        return self._memory


def constant(name: str) -> int:
    """Return a number of rkt.h: 1 for RKT_MODE_RUN."""
    number: int = getattr(_lib, name)
    return number
