"""Seccomp filters: what an app's isolator asks for, and its BPF, compiled once and then kept.

    CACHE/default-VERSION-MACHINE-CAPABILITIES      the default list's
    CACHE/KIND-VERSION-MACHINE-NUMBER               one of a set of the user's

An entry is the filter's description in a line, a checksum of the program (8 bytes), and the program. So a
description whose number is another's is noticed, as is an entry that was cut short or changed on disk.
"""

from __future__ import annotations

import errno
import os

from rkt_py.aci.isolator import SECCOMP_REMOVE_SET, SECCOMP_RETAIN_SET, SeccompSet
from rkt_py.aci.name import quoted
from rkt_py.aci.value import value
from rkt_py.runtime.errors import KernelError, PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Literal

    from rkt_py.aci.isolator import Isolator
    from rkt_py.runtime.seccomp_program import Architecture
    from rkt_py.runtime.seccomp_sets import Rule

    Kind = Literal["default", "retain", "remove"]

# Changes with everything that makes another program of the same description.
LIST_VERSION = 1

# linux/seccomp.h
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
_AUDIT_ARCH_X86_64 = 0xC000003E
# libseccomp's token: the kernel shows x32 as x86-64, with a bit in the call's number.
_X32 = 0x4000003E

# The capabilities that the default list depends on (seccomp_sets.ALLOWED_WITH).
RELEVANT = 0xC406FF0004

MAX_PROGRAM = 4096 * 8  # BPF_MAXINSNS of struct sock_filter

_EMPTY, _ALL = "@appc.io/empty", "@appc.io/all"
_STALE_AFTER = 3600.0
# Primes: numbers modulo them are checksums that need no import.
_PRIME_61, _PRIME_89 = 2**61 - 1, 2**89 - 1


@value
class Filter:
    """A filter's description.

    `default` is the default list without `calls`, `retain` allows only them, `remove` all but them.
    """

    kind: Kind = "default"
    calls: tuple[str, ...] = ()
    """System calls and wildcards, sorted."""
    errno: str = ""
    capabilities: int = 0
    """Those the default list depends on, where it is part of the filter."""

    @property
    def key(self) -> str:
        """The whole description, and what else makes a difference, as a line."""
        words = [
            self.kind,
            str(LIST_VERSION),
            os.uname().machine,
            f"{self.capabilities:x}",
            self.errno or "-",
        ]
        return " ".join([*words, *self.calls])

    @property
    def file_name(self) -> str:
        prefix = f"{self.kind}-{LIST_VERSION}-{os.uname().machine}-"
        if self.kind == "default" and not self.calls and not self.errno:
            return f"{prefix}{self.capabilities:x}"
        return f"{prefix}s{int.from_bytes(self.key.encode(), 'little') % _PRIME_89:x}"


def filter_for(*, isolator: Isolator | None, capabilities: int) -> Filter | None:
    """Return the filter that an app's seccomp isolator asks for; None is to be none. Raises PlanError."""
    if isolator is None:
        return Filter(capabilities=capabilities & RELEVANT)
    calls = isolator.value
    if not isinstance(calls, SeccompSet) or isolator.name not in (SECCOMP_RETAIN_SET, SECCOMP_REMOVE_SET):
        raise PlanError(f"{quoted(isolator.name)} is not a seccomp isolator")
    if calls.errno and not isinstance(getattr(errno, calls.errno, None), int):
        raise PlanError(f"{isolator.name}: there is no error {quoted(calls.errno)}")
    for item in calls.set:
        # They are words of a line in the cache.
        if not item.isascii() or not item.isprintable() or " " in item or not item:
            raise PlanError(f"{isolator.name}: {quoted(item)} is not a system call")
    names = set(calls.set)
    has_all, has_empty = _ALL in names, _EMPTY in names
    names -= {_ALL, _EMPTY}
    items = tuple(sorted(names))
    if isolator.name == SECCOMP_RETAIN_SET:
        if has_all:
            return None
        default = any(item.endswith("/default-whitelist") for item in items)
        return Filter("retain", items, calls.errno, capabilities & RELEVANT if default else 0)
    if has_all:
        raise PlanError(f"{isolator.name}: without {_ALL} no app can start")
    if has_empty:
        # rkt's way to ask for the default list by name.
        return Filter("default", items, calls.errno, capabilities & RELEVANT)
    return Filter("remove", items, calls.errno)


def program(isolators: Iterable[Isolator], capabilities: int, cache_dir: str) -> bytes:
    """Return the program for an app with these isolators, empty for none. Raises PlanError, KernelError."""
    asked = [item for item in isolators if item.name in (SECCOMP_RETAIN_SET, SECCOMP_REMOVE_SET)]
    if len(asked) > 1:
        raise PlanError(f"{asked[0].name} cannot be together with another {asked[1].name}")
    wanted = filter_for(isolator=asked[0] if asked else None, capabilities=capabilities)
    return b"" if wanted is None else bpf(wanted, cache_dir)


def bpf(filter: Filter, cache_dir: str) -> bytes:
    """Return a filter's program, from the cache or else compiled. Raises PlanError, KernelError."""
    path = f"{cache_dir}/{filter.file_name}"
    description = f"{filter.key}\n".encode()
    program = _read(path, description)
    if program is None:
        program = compile(filter)
        _write(path, description, program)
    return program


def _checksum(program: bytes) -> bytes:
    # The byte after it makes zeros at the end count.
    return (int.from_bytes(program + b"\1", "little") % _PRIME_61).to_bytes(8, "little")


def _read(path: str, description: bytes) -> bytes | None:
    """Return the program of an entry if there is one, whole and of this description."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        entry = os.read(fd, len(description) + 8 + MAX_PROGRAM + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not entry.startswith(description):
        return None
    start = len(description)
    program = entry[start + 8 :]
    if not program or len(program) % 8 or len(program) > MAX_PROGRAM:
        return None
    return program if entry[start : start + 8] == _checksum(program) else None


def _write(path: str, description: bytes, program: bytes) -> None:
    """Keep a program. Where that cannot be (read-only, full), the next run compiles it again."""
    directory, name = os.path.split(path)
    temporary = f"{directory}/.{name}.{os.urandom(6).hex()}"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _remove_stale(directory)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    # No fsync: what a crash leaves of it is noticed by whoever reads it.
    entry = description + _checksum(program) + program
    try:
        try:
            written = os.write(fd, entry)
        finally:
            os.close(fd)
        if written != len(entry):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
        os.rename(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


def _remove_stale(directory: str) -> None:
    """Remove what writers left that were killed."""
    import time

    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        if (
            name.startswith(".")
            and os.stat(path, follow_symlinks=False).st_mtime < time.time() - _STALE_AFTER
        ):
            os.unlink(path)


def compile(filter: Filter) -> bytes:
    """Return a filter's program, compiled by libseccomp for every architecture of this machine.

    Raises PlanError for a call or a wildcard that does not exist, KernelError when there is no libseccomp.
    """
    from rkt_py.runtime import seccomp_sets as sets

    library = _Library()
    calls = sets.expand(filter.calls, filter.capabilities)
    for name in sorted(calls.own):
        if not library.knows(name):
            raise PlanError(f"there is no system call {quoted(name)}")
    denied = ERRNO | (getattr(errno, filter.errno) if filter.errno else errno.EPERM)
    no_such_call = ERRNO | errno.ENOSYS
    names = {rule.call for rule in calls.rules}
    if filter.kind == "remove":
        blocked = dict.fromkeys(names, denied)
        shared = [blocked.get(name) for name in sets.SHARED]
        return library.program(
            ALLOW, [(sets.Rule(name), denied) for name in sorted(names)], shared, None, blocked
        )
    if filter.kind == "default":
        rules = [rule for rule in sets.default(filter.capabilities) if rule.call not in names]
    else:
        # As systemd, and so rkt, has it: an app that may do less cannot even start.
        rules = [*calls.rules, *(sets.Rule(name) for name in sets.systemd("default"))]
    has_default = filter.kind == "default" or calls.default
    allowed = {rule.call: ALLOW for rule in rules}
    # A libc that hears ENOSYS uses the call's elder; of EPERM it thinks that it may not.
    other = denied if has_default or filter.errno else no_such_call
    shared = [allowed.get(name, other) for name in sets.SHARED]
    if has_default:
        younger = sets.SHARED.index(sets.YOUNGER_THAN_DEFAULT)
        for index, name in enumerate(sets.SHARED):
            if name not in allowed and (index >= younger or name == "clone3"):
                shared[index] = no_such_call
        other = no_such_call
    shared += [other] * (sets.SHARED_END - sets.SHARED_FIRST - len(shared))
    terminal = ERRNO | errno.EPERM if has_default and "ioctl" not in calls.own else None
    return library.program(denied, [(rule, ALLOW) for rule in rules], shared, terminal, allowed)


class _Library:
    """libseccomp, which is loaded here and nowhere else."""

    def __init__(self) -> None:
        try:
            from rkt_py.runtime import _seccomp  # type: ignore[attr-defined]
        except ImportError as error:
            raise KernelError(f"seccomp filters cannot be compiled: {error}") from None
        self._lib: Any = _seccomp.lib
        self._ffi: Any = _seccomp.ffi
        tokens = self._ffi.new("uint32_t[8]")
        count = self._lib.rkt_seccomp_architectures(tokens, 8)
        self.tokens: list[int] = list(tokens)[:count]

    def resolve(self, name: str, token: int) -> int:
        """Return a call's number on an architecture; a pseudo number below -1 if only others have it."""
        number: int = self._lib.rkt_seccomp_resolve(token, name.encode("ascii"))
        return number

    def knows(self, name: str) -> bool:
        from rkt_py.runtime import seccomp_sets as sets

        if name in sets.SHARED or name in self._own_numbers():
            return True
        return name.isidentifier() and self.resolve(name, self.tokens[0]) != -1

    def _own_numbers(self) -> dict[str, int]:
        from rkt_py.runtime import seccomp_sets as sets

        return sets.X86_64_ONLY if self.tokens[0] == _AUDIT_ARCH_X86_64 else {}

    def program(
        self,
        default: int,
        rules: Sequence[tuple[Rule, int]],
        shared: Sequence[int | None],
        terminal: int | None,
        by_name: dict[str, int],
    ) -> bytes:
        """Return the program of rules, of what becomes of the shared calls, and of a terminal's ioctls."""
        from rkt_py.runtime import seccomp_program, seccomp_sets

        own = self._own_numbers()
        elsewhere = {*seccomp_sets.SHARED, *own}
        actions = tuple((own[name], by_name[name]) for name in own if name in by_name)
        head = seccomp_program.head(self._architectures(actions), seccomp_sets.SHARED_FIRST, shared, terminal)
        body = self._compile(default, [item for item in rules if item[0].call not in elsewhere])
        if len(head) + len(body) > MAX_PROGRAM:
            raise KernelError("the seccomp filter is longer than the kernel takes")
        return head + body

    def _architectures(self, actions: tuple[tuple[int, int], ...]) -> list[Architecture]:
        from rkt_py.runtime.seccomp_program import Architecture

        result = []
        for token in self.tokens:
            ioctl = self.resolve("ioctl", token)
            if token == _AUDIT_ARCH_X86_64:
                result.append(Architecture(token, True, (ioctl, self.resolve("ioctl", _X32)), actions))
            elif token != _X32:
                result.append(Architecture(token, ioctl=(ioctl,)))
        return result

    def _compile(self, default: int, rules: Iterable[tuple[Rule, int]]) -> bytes:
        # A rule without conditions is all there is to say of its call.
        whole = {rule.call for rule, _ in rules if not rule.arguments}
        native = self.tokens[0]
        items: list[dict[str, object]] = []
        names: list[str] = []
        for rule, action in rules:
            number = self.resolve(rule.call, native)
            if number == -1 or action == default or (rule.arguments and rule.call in whole):
                continue
            arguments = [{"index": index, "op": op, "a": a, "b": b} for index, op, a, b in rule.arguments]
            names.append(rule.call)
            items.append(
                {"call": number, "action": action, "n_arguments": len(arguments), "arguments": arguments}
            )
        program = self._ffi.new("uint8_t[]", MAX_PROGRAM)
        failed = self._ffi.new("int32_t *")
        array = self._ffi.new("struct rkt_seccomp_rule[]", items)
        size: int = self._lib.rkt_seccomp_compile(default, array, len(items), program, MAX_PROGRAM, failed)
        if size < 0:
            what = f"system call {names[failed[0]]}" if failed[0] >= 0 else "the whole"
            raise KernelError(
                f"the seccomp filter cannot be compiled: {what}: {os.strerror(-size)}", "seccomp", -size
            )
        return bytes(self._ffi.buffer(program, size))
