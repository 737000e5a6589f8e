from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from errno import EACCES, ENOSYS, EPERM
from pathlib import Path

import pytest

from rkt_py.aci import isolator
from rkt_py.runtime import capability, seccomp, seccomp_program
from rkt_py.runtime import seccomp_sets as sets
from rkt_py.runtime.errors import PlanError
from rkt_py.runtime.seccomp import Filter
from tests.runtime import bpf
from tests.runtime.bpf import ARM, ARM64, I386, X32_BIT, X86_64

ROOT = Path(__file__).parents[2]
X32 = 0x4000003E
DEFAULT = capability.APPC_DEFAULT
SYS_ADMIN = 1 << 21

on_amd64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")

# The 32-bit ABI's direct numbers of what libseccomp knows as parts of socketcall and ipc.
I386_DIRECT = {
    **dict(
        enumerate(
            """socket socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername
               sendto sendmsg recvfrom recvmsg shutdown""".split(),
            359,
        )
    ),
    337: "recvmmsg",
    345: "sendmmsg",
    **dict(enumerate("semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl".split(), 393)),
}
CONDITIONAL = {"clone", "personality", "socket", "ioctl"}


def retain(*calls: str, errno: str = "") -> isolator.Isolator:
    return isolator.make(isolator.SECCOMP_RETAIN_SET, {"set": list(calls), "errno": errno})


def remove(*calls: str, errno: str = "") -> isolator.Isolator:
    return isolator.make(isolator.SECCOMP_REMOVE_SET, {"set": list(calls), "errno": errno})


def filter_of(asked: isolator.Isolator | None, capabilities: int = DEFAULT) -> Filter:
    found = seccomp.filter_for(isolator=asked, capabilities=capabilities)
    assert found is not None
    return found


_compiled: dict[Filter, list[bpf.Instruction]] = {}


def says(asked: isolator.Isolator | None, capabilities: int = DEFAULT) -> Callable[..., str | int]:
    """Return what a filter says of an architecture, a number, arguments."""
    wanted = filter_of(asked, capabilities)
    if wanted not in _compiled:
        _compiled[wanted] = bpf.instructions(seccomp.compile(wanted))
    code = _compiled[wanted]
    return lambda arch, number, *arguments: bpf.meaning(bpf.run(code, arch, number, *arguments))


def numbers(token: int, names: Iterable[str]) -> set[int]:
    """Return the numbers of calls on an architecture, by libseccomp and our own table."""
    library = seccomp._Library()
    found = {library.resolve(name, token) for name in names if name not in sets.SHARED}
    bit = X32_BIT if token == X32 else 0
    found |= {bit | sets.SHARED_FIRST + sets.SHARED.index(name) for name in names if name in sets.SHARED}
    if token == X86_64:
        found |= {number for name, number in sets.X86_64_ONLY.items() if name in names}
    if token == I386:
        found |= {number for number, name in I386_DIRECT.items() if name in names}
    return {number for number in found if number >= 0}


# The filter as a value


def test_no_isolator_means_the_default_list() -> None:
    assert filter_of(None) == Filter("default", (), "", DEFAULT & seccomp.RELEVANT)


@pytest.mark.parametrize(
    "asked, expected",
    [
        (retain("@appc.io/all"), None),
        (retain("read", "@appc.io/all", "write"), None),
        (retain("write", "read"), Filter("retain", ("read", "write"))),
        (retain("read", "read", errno="EACCES"), Filter("retain", ("read",), "EACCES")),
        (retain("@appc.io/empty"), Filter("retain")),
        (
            retain("@rkt/default-whitelist", "mount"),
            Filter("retain", ("@rkt/default-whitelist", "mount"), "", 1 << 18),
        ),
        (remove("mount"), Filter("remove", ("mount",))),
        (remove("@systemd/mount", errno="ENOSYS"), Filter("remove", ("@systemd/mount",), "ENOSYS")),
        # rkt: remove @appc.io/empty opts in to the default list
        (remove("@appc.io/empty"), Filter("default", (), "", 1 << 18)),
        (remove("@appc.io/empty", "chroot"), Filter("default", ("chroot",), "", 1 << 18)),
    ],
)
def test_filter_follows_the_isolator(asked: isolator.Isolator, expected: Filter | None) -> None:
    assert seccomp.filter_for(isolator=asked, capabilities=DEFAULT) == expected


@pytest.mark.parametrize(
    "asked, message",
    [
        (remove("@appc.io/all"), "without @appc.io/all no app can start"),
        (retain("read", errno="ENOTANERROR"), "there is no error 'ENOTANERROR'"),
        (retain("read\nwrite"), r"'read\\nwrite' is not a system call"),
        (retain("re ad"), "'re ad' is not a system call"),
        (retain("réad"), "'réad' is not a system call"),
        (isolator.make(isolator.CPU_SHARES, 7), "'os/linux/cpu-shares' is not a seccomp isolator"),
    ],
)
def test_filter_that_cannot_be_is_refused(asked: isolator.Isolator, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        seccomp.filter_for(isolator=asked, capabilities=DEFAULT)


@pytest.mark.parametrize("make", [retain, remove])
@pytest.mark.parametrize(
    "call, message",
    [
        ("nonesuch", "there is no system call 'nonesuch'"),
        ("read\0", "is not a system call"),
        ("Read", "there is no system call 'Read'"),
        ("", "is not a system call|must not be|empty name"),
        ("59", "there is no system call '59'"),
        ("@appc.io/some", "there is no set of system calls '@appc.io/some'"),
        ("@docker/all", "there is no set of system calls '@docker/all'"),
        ("@systemd/", "there is no set of system calls '@systemd/'"),
        ("@mount", "there is no set of system calls '@mount'"),
        ("@", "there is no set of system calls '@'"),
    ],
)
def test_unknown_call_of_the_users_is_refused(
    make: Callable[..., isolator.Isolator], call: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        seccomp.bpf(filter_of(make("read", call)), str(tmp_path))
    assert type(caught.value).__name__ in ("PlanError", "BadManifest")
    assert list(tmp_path.iterdir()) == []


def test_program_of_an_app_follows_its_isolators(tmp_path: Path) -> None:
    shares = isolator.make(isolator.CPU_SHARES, 7)
    assert seccomp.program([shares], DEFAULT, str(tmp_path)) == seccomp.compile(filter_of(None))
    assert seccomp.program([shares, retain("@appc.io/all")], DEFAULT, str(tmp_path)) == b""
    asked = remove("mount")
    assert seccomp.program([asked, shares], DEFAULT, str(tmp_path)) == seccomp.compile(filter_of(asked))
    # appc spec, "os/linux/seccomp-remove-set": one of them for an app
    with pytest.raises(
        PlanError, match="seccomp-remove-set cannot be together with another .*seccomp-retain-set"
    ):
        seccomp.program([asked, retain("read")], DEFAULT, str(tmp_path))


def test_capabilities_without_a_part_in_the_list_share_a_filter() -> None:
    net_admin = capability.parse_names(["CAP_NET_ADMIN"])
    assert filter_of(None, DEFAULT | net_admin) == filter_of(None, DEFAULT)
    assert filter_of(None, DEFAULT | SYS_ADMIN) != filter_of(None, DEFAULT)
    assert sum(1 << number for number in sets.ALLOWED_WITH) == seccomp.RELEVANT


def test_keys_tell_filters_apart() -> None:
    filters = [
        Filter(),
        Filter(capabilities=1 << 18),
        Filter(calls=("mount",)),
        Filter(errno="EACCES"),
        Filter("retain"),
        Filter("retain", ("mount",)),
        Filter("retain", ("mount", "umount")),
        Filter("retain", ("mount",), "EACCES"),
        Filter("remove", ("mount",)),
    ]
    assert len({item.key for item in filters}) == len({item.file_name for item in filters}) == len(filters)


def test_file_name_of_any_set_is_short_enough() -> None:
    assert len(Filter("retain", tuple(f"call_{number}" for number in range(5000))).file_name) < 100


# The sets


def test_lists_have_the_version_they_say() -> None:
    """Programs in caches are known by LIST_VERSION: who changes a list changes it too, then this sum."""
    lists = {
        name: value
        for name, value in vars(sets).items()
        if name.isupper() and isinstance(value, (list, dict, tuple, int, str))
    }
    text = json.dumps(lists, sort_keys=True)
    assert (seccomp.LIST_VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == (1, "797aa674d326c5a9")


def test_lists_have_no_call_twice() -> None:
    lists = {"allowed": sets.ALLOWED, "shared": sets.SHARED, "blacklist": sets.BLACKLIST}
    lists |= {name: text.split() for name, text in sets.SYSTEMD.items()}
    for name, calls in lists.items():
        assert len(calls) == len(set(calls)), name
    assert all(call.isidentifier() for call in [*sets.ALLOWED, *sets.SHARED, *sets.BLACKLIST])


HEADER = Path("/usr/include/asm-generic/unistd.h")


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers")
def test_shared_numbers_are_those_of_the_kernels_header() -> None:
    words = [line.split() for line in HEADER.read_text().splitlines() if line.startswith("#define __NR_")]
    header = {line[1][5:]: int(line[2]) for line in words if line[2:] and line[2].isdigit()}
    ours = {name: number for number, name in enumerate(sets.SHARED, sets.SHARED_FIRST)}
    header.pop("syscalls")  # how many there are
    of_header = {name: number for name, number in header.items() if number in ours.values()}
    assert len(of_header) >= 26
    assert ours.items() >= of_header.items()


def systemd_version() -> int:
    try:
        done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return 0
    return int(done.stdout.split()[1])


@pytest.mark.may_skip("the groups of a newer systemd have calls that ours need not have yet")
def test_groups_are_those_systemd_has_here() -> None:
    """What Debian 12's systemd has in a group, ours has."""
    if systemd_version() not in range(250, 253):
        pytest.skip("systemd here is not Debian 12's")
    done = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True)
    groups: dict[str, set[str]] = {}
    group: set[str] = set()
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line[1:], set())
        elif line.startswith("    ") and line[4] not in "#@":
            group.add(line.strip())
    del groups["known"]
    assert groups.keys() <= sets.SYSTEMD.keys()
    for name, calls in groups.items():
        assert calls <= set(sets.systemd(name)), name


def test_what_the_blacklist_stops_takes_a_capability_or_is_not_in_the_default_list() -> None:
    # appc images name these lists; moby has since found five of them harmless.
    harmless = {
        "adjtimex", "clock_adjtime", "clock_adjtime64", "name_to_handle_at", "process_vm_readv",
        "process_vm_writev", "ptrace",
    }  # fmt: skip
    assert set(sets.BLACKLIST) & set(sets.ALLOWED) == harmless


# What the default filter says


TOKENS = {"x86_64": [X86_64, I386, X32], "aarch64": [ARM64, ARM]}.get(platform.machine(), [])


@pytest.mark.parametrize("token", TOKENS, ids=hex)
@pytest.mark.parametrize("capabilities", [0, DEFAULT, SYS_ADMIN, seccomp.RELEVANT], ids=hex)
def test_default_says_of_every_number_what_the_list_says(token: int, capabilities: int) -> None:
    decide = says(None, capabilities)
    arch, bit = (X86_64, X32_BIT) if token == X32 else (token, 0)
    names = {rule.call for rule in sets.default(capabilities) if not rule.arguments}
    allowed = numbers(token, names)
    conditional = numbers(token, CONDITIONAL - (names - {"ioctl"}))
    younger = sets.SHARED_FIRST + sets.SHARED.index(sets.YOUNGER_THAN_DEFAULT)
    clone3 = sets.SHARED_FIRST + sets.SHARED.index("clone3")
    for plain in range(600):
        number = bit | plain
        if number in conditional:
            continue
        expected: str | int = EPERM
        if number in allowed:
            expected = "allow"
        elif younger <= plain < sets.SHARED_END or plain == clone3:
            expected = ENOSYS
        assert decide(arch, number) == expected, (hex(arch), plain)


@on_amd64
@pytest.mark.parametrize(
    "arch, number, arguments, expected",
    [
        # socket: families
        (X86_64, 41, (0,), "allow"),  # AF_UNSPEC: the kernel's EAFNOSUPPORT
        (X86_64, 41, (1,), "allow"),
        (X86_64, 41, (2,), "allow"),
        (X86_64, 41, (10,), "allow"),
        (X86_64, 41, (12,), EPERM),  # AF_DECnet
        (X86_64, 41, (16,), "allow"),
        (X86_64, 41, (17,), "allow"),  # AF_PACKET: the kernel wants CAP_NET_RAW
        (X86_64, 41, (38,), EPERM),  # AF_ALG
        (X86_64, 41, (40,), EPERM),  # AF_VSOCK
        (X86_64, 41, (46,), EPERM),
        (X86_64, 41, (1 << 32 | 40,), EPERM),  # the kernel looks at 32 bits of it
        (X86_64, 41, (1 << 32,), EPERM),
        (X86_64, 41, (2**64 - 1,), EPERM),
        (I386, 359, (40,), EPERM),
        (I386, 359, (2,), "allow"),
        (X86_64, X32_BIT | 41, (40,), EPERM),
        (X86_64, X32_BIT | 41, (2,), "allow"),
        (I386, 102, (1,), "allow"),  # socketcall: its arguments are behind a pointer
        # clone: no namespaces, whatever else there is
        (X86_64, 56, (0x01200011,), "allow"),
        (X86_64, 56, (0x003D0F00,), "allow"),
        (X86_64, 56, (0x00020000,), EPERM),
        (X86_64, 56, (0x02000000,), EPERM),
        (X86_64, 56, (0x04000000,), EPERM),
        (X86_64, 56, (0x08000000,), EPERM),
        (X86_64, 56, (0x10000000,), EPERM),
        (X86_64, 56, (0x10000011,), EPERM),
        (X86_64, 56, (0x20000000,), EPERM),
        (X86_64, 56, (0x40000000,), EPERM),
        (I386, 120, (0x10000011,), EPERM),
        (I386, 120, (0x01200011,), "allow"),
        (X86_64, X32_BIT | 56, (0x10000011,), EPERM),
        # personality
        (X86_64, 135, (0,), "allow"),
        (X86_64, 135, (8,), "allow"),
        (X86_64, 135, (0x20008,), "allow"),
        (X86_64, 135, (0xFFFFFFFF,), "allow"),
        (X86_64, 135, (0x40000,), EPERM),  # ADDR_NO_RANDOMIZE
        (X86_64, 135, (0x400000,), EPERM),  # READ_IMPLIES_EXEC
        (I386, 136, (0x40000,), EPERM),
        # ioctl: all but what types into a terminal
        (X86_64, 16, (0, 0x5401), "allow"),
        (X86_64, 16, (0, 0x5412), EPERM),
        (X86_64, 16, (0, 0x541C), EPERM),
        (X86_64, 16, (0, 1 << 32 | 0x5412), EPERM),  # CVE-2019-10063
        (X86_64, 16, (0, 0xFFFFFFFF00005412), EPERM),
        (X86_64, 16, (0, 0x15412), "allow"),
        (X86_64, 16, (0x5412, 0x5401), "allow"),
        (I386, 54, (0, 0x5412), EPERM),
        (I386, 54, (0, 0x5401), "allow"),
        (X86_64, X32_BIT | 514, (0, 0x5412), EPERM),
        (X86_64, X32_BIT | 514, (0, 0x5401), "allow"),
        (X86_64, X32_BIT | 16, (0, 0x5412), EPERM),
        # what no tracer and no program says
        (X86_64, 0xFFFFFFFF, (), EPERM),
        (I386, 0xFFFFFFFF, (), EPERM),
        (X86_64, 0x80000000, (), EPERM),
        (0xC00000B7, 0, (), "kill"),
        (0, 0, (), "kill"),
        # calls that came after this machine's libseccomp
        (X86_64, 462, (), "allow"),  # mseal
        (I386, 462, (), "allow"),
        (X86_64, 335, (), "allow"),  # uretprobe
        (X86_64, 336, (), EPERM),
        (X86_64, 425, (), EPERM),  # io_uring_setup
        (X86_64, 435, (), ENOSYS),  # clone3
        (X86_64, 468, (), ENOSYS),
        (X86_64, 511, (), ENOSYS),
        (X86_64, 600, (), EPERM),
    ],
)
def test_default_says_of_arguments(
    arch: int, number: int, arguments: tuple[int, ...], expected: str | int
) -> None:
    assert says(None)(arch, number, *arguments) == expected


@on_amd64
@pytest.mark.parametrize(
    "number, name, capability_name",
    [
        (165, "mount", "CAP_SYS_ADMIN"),
        (435, "clone3", "CAP_SYS_ADMIN"),
        (272, "unshare", "CAP_SYS_ADMIN"),
        (161, "chroot", "CAP_SYS_CHROOT"),
        (169, "reboot", "CAP_SYS_BOOT"),
        (175, "init_module", "CAP_SYS_MODULE"),
        (304, "open_by_handle_at", "CAP_DAC_READ_SEARCH"),
        (163, "acct", "CAP_SYS_PACCT"),
        (312, "kcmp", "CAP_SYS_PTRACE"),
        (438, "pidfd_getfd", "CAP_SYS_PTRACE"),
        (172, "iopl", "CAP_SYS_RAWIO"),
        (164, "settimeofday", "CAP_SYS_TIME"),
        (153, "vhangup", "CAP_SYS_TTY_CONFIG"),
        (237, "mbind", "CAP_SYS_NICE"),
        (103, "syslog", "CAP_SYSLOG"),
        (321, "bpf", "CAP_BPF"),
        (298, "perf_event_open", "CAP_PERFMON"),
    ],
)
def test_capability_opens_its_calls(number: int, name: str, capability_name: str) -> None:
    with_it = capability.parse_names([capability_name])
    everything_else = capability.all_of("40") & ~with_it
    if name in ("syslog", "bpf", "perf_event_open"):
        everything_else &= ~SYS_ADMIN
    assert says(None, with_it)(X86_64, number) == "allow"
    assert says(None, everything_else)(X86_64, number) == (ENOSYS if name == "clone3" else EPERM)


@on_amd64
def test_sys_admin_may_make_namespaces() -> None:
    assert says(None, SYS_ADMIN)(X86_64, 56, 0x7E020000) == "allow"


# What sets of the user say


MOUNT, READ, EXECVE, GETUID, FORK, CLONE, CLONE3, IOCTL, SOCKET, MSEAL = (
    165,
    0,
    59,
    102,
    57,
    56,
    435,
    16,
    41,
    462,
)


@on_amd64
@pytest.mark.parametrize(
    "asked, expected",
    [
        (
            retain("read"),
            # systemd's @default is in every retain-set
            {
                READ: "allow",
                EXECVE: "allow",
                GETUID: "allow",
                MOUNT: EPERM,
                FORK: EPERM,
                CLONE3: ENOSYS,
                500: ENOSYS,
            },
        ),
        (retain("read", errno="EACCES"), {READ: "allow", MOUNT: EACCES, CLONE3: EACCES, 500: EACCES}),
        (retain("@appc.io/empty"), {READ: EPERM, EXECVE: "allow"}),
        (retain("mseal", "clone3"), {MSEAL: "allow", CLONE3: "allow", READ: EPERM}),
        (retain("read", "open"), {MSEAL: "allow", CLONE3: ENOSYS, READ: "allow"}),
        (retain("@systemd/mount"), {MOUNT: "allow", READ: EPERM, 467: "allow", 442: "allow"}),
        (retain("@systemd/privileged"), {164: "allow", 169: "allow", 172: "allow", READ: EPERM}),
        (retain("@systemd/default-whitelist"), {GETUID: "allow", READ: EPERM}),
        (retain("@systemd/system-service"), {READ: "allow", SOCKET: "allow", MOUNT: EPERM}),
        (
            retain("@rkt/default-whitelist", "mount"),
            {READ: "allow", MOUNT: "allow", CLONE3: ENOSYS, 425: EPERM, 500: ENOSYS, 323: EPERM},
        ),
        (retain("@docker/default-whitelist"), {READ: "allow", MOUNT: EPERM, CLONE3: ENOSYS}),
        (
            retain("@docker/default-whitelist", errno="EACCES"),
            {MOUNT: EACCES, 425: EACCES, CLONE3: ENOSYS, 500: ENOSYS},
        ),
        (retain("@rkt/default-blacklist"), {MOUNT: "allow", READ: EPERM}),
        (remove("mount"), {MOUNT: EPERM, READ: "allow", CLONE3: "allow", 425: "allow", 600: "allow"}),
        (remove("mount", errno="ENOSYS"), {MOUNT: ENOSYS, READ: "allow"}),
        (remove("mseal", "clone3"), {MSEAL: EPERM, CLONE3: EPERM, 436: "allow", 500: "allow"}),
        (remove("uretprobe"), {335: EPERM, 334: "allow"}),
        (remove("@rkt/default-blacklist"), {MOUNT: EPERM, 425: EPERM, 430: EPERM, READ: "allow"}),
        (remove("@systemd/clock"), {164: EPERM, READ: "allow"}),
        (remove("@appc.io/empty"), {MOUNT: EPERM, READ: "allow", 161: "allow"}),
        (remove("@appc.io/empty", "chroot"), {161: EPERM, READ: "allow"}),
        (remove("@appc.io/empty", "mseal"), {MSEAL: EPERM, READ: "allow"}),
        (remove("@appc.io/empty", errno="EACCES"), {MOUNT: EACCES, CLONE3: ENOSYS, 500: ENOSYS}),
    ],
    ids=lambda item: f"{item.name[9:]} {item.value}" if isinstance(item, isolator.Isolator) else "",
)
def test_set_says(asked: isolator.Isolator, expected: dict[int, str | int]) -> None:
    decide = says(asked)
    assert {number: decide(X86_64, number) for number in expected} == expected


@on_amd64
def test_set_holds_for_the_other_architectures_too() -> None:
    decide = says(remove("mount", "socket", "chown32", "mseal"))
    assert decide(I386, 21) == decide(X86_64, X32_BIT | MOUNT) == EPERM
    assert decide(I386, 359, 2) == decide(I386, 102, 1) == EPERM  # socket, and socketcall's socket
    assert decide(I386, 102, 3) == "allow"
    assert decide(I386, 212) == EPERM  # chown32: only there
    assert decide(I386, 462) == decide(X86_64, X32_BIT | 462) == EPERM
    assert decide(I386, 3) == "allow"


@on_amd64
def test_user_who_names_a_call_gets_the_whole_of_it() -> None:
    decide = says(retain("@rkt/default-whitelist", "ioctl", "clone", "personality", "socket"))
    assert decide(X86_64, IOCTL, 0, 0x5412) == "allow"
    assert decide(X86_64, CLONE, 0x7E020000) == "allow"
    assert decide(X86_64, 135, 0x40000) == "allow"
    assert decide(X86_64, SOCKET, 40) == "allow"


@on_amd64
def test_list_within_a_set_keeps_its_conditions() -> None:
    decide = says(retain("@rkt/default-whitelist", "mount"))
    assert decide(X86_64, IOCTL, 0, 0x5412) == EPERM
    assert decide(X86_64, CLONE, 0x10000000) == EPERM
    assert decide(X86_64, SOCKET, 40) == EPERM


@on_amd64
def test_removing_a_conditional_call_from_the_default_removes_all_of_it() -> None:
    decide = says(remove("@appc.io/empty", "socket", "ioctl"))
    assert decide(X86_64, SOCKET, 2) == decide(X86_64, IOCTL, 0, 0x5401) == EPERM


def test_call_of_the_default_list_is_decided_in_few_steps() -> None:
    code = bpf.instructions(seccomp.compile(filter_of(None)))
    assert len(code) <= 4096

    class Counting(list[bpf.Instruction]):
        steps = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            Counting.steps += 1
            return super().__getitem__(index)

    if platform.machine() == "x86_64":
        bpf.run(Counting(code), X86_64, READ)
        # A list of 300 calls takes 300 steps, a tree of them 12 to 20.
        assert Counting.steps < 40


def test_head_that_decides_nothing_is_empty() -> None:
    nothing = seccomp_program.head([seccomp_program.Architecture(X86_64)], 424, [None] * 88, None)
    assert nothing == b""


# The cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cas/seccomp"


def only_entry(cache: Path) -> Path:
    (entry,) = cache.iterdir()
    return entry


def test_program_is_kept_for_its_owner_alone(cache: Path) -> None:
    first = seccomp.bpf(filter_of(None), str(cache))
    entry = only_entry(cache)
    assert entry.name == filter_of(None).file_name
    assert entry.stat().st_mode & 0o7777 == 0o600
    assert cache.stat().st_mode & 0o7777 == 0o700
    assert first == entry.read_bytes()[-len(first) :]
    assert seccomp.bpf(filter_of(None), str(cache)) == first == seccomp.compile(filter_of(None))


def _cut(data: bytes) -> bytes:
    return data[:-8]


def _flip(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _flip,
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + bytes(8),
        lambda data: data + bytes(100_000),
        lambda data: data[:-2000] + bytes(2000),
        lambda data: data.replace(b"default", b"Default", 1),
        lambda data: data[: data.index(b"\n") + 1] + bytes(8),
        lambda data: b"\0" * len(data),
    ],
)
def test_damaged_entry_is_compiled_again(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    program = seccomp.bpf(filter_of(None), str(cache))
    entry = only_entry(cache)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert entry.read_bytes() != whole
    assert seccomp.bpf(filter_of(None), str(cache)) == program
    assert only_entry(cache).read_bytes() == whole


def test_entry_of_another_filter_under_this_name_is_not_taken(cache: Path) -> None:
    """The number in an entry's name is no hash: two descriptions can have the same."""
    other = filter_of(remove("mount"))
    seccomp.bpf(other, str(cache))
    wanted = filter_of(remove("reboot"))
    (cache / other.file_name).rename(cache / wanted.file_name)
    assert seccomp.bpf(wanted, str(cache)) == seccomp.compile(wanted) != seccomp.compile(other)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_entry_that_is_no_file_is_not_followed_nor_waited_for(cache: Path, kind: str) -> None:
    cache.mkdir(parents=True)
    path = cache / filter_of(None).file_name
    if kind == "symlink":
        path.symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert seccomp.bpf(filter_of(None), str(cache)) == seccomp.compile(filter_of(None))
    assert [item.name for item in cache.iterdir()] == [path.name]


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    program = seccomp.bpf(filter_of(None), str(tmp_path / "file/seccomp"))
    assert program == seccomp.compile(filter_of(None))


def test_what_killed_writers_left_is_removed(cache: Path) -> None:
    cache.mkdir(parents=True)
    for name, age in ((".old", 7200), (".new", 0), ("entry", 7200)):
        (cache / name).write_text("")
        os.utime(cache / name, (time.time() - age, time.time() - age))
    seccomp.bpf(filter_of(None), str(cache))
    assert {path.name for path in cache.iterdir()} == {".new", "entry", filter_of(None).file_name}


def test_callers_at_once_all_get_the_program(cache: Path) -> None:
    found: list[bytes] = []
    callers = [
        threading.Thread(target=lambda: found.append(seccomp.bpf(filter_of(None), str(cache))))
        for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [seccomp.compile(filter_of(None))] * 8
    assert only_entry(cache).name == filter_of(None).file_name


def test_hit_loads_neither_the_sets_nor_libseccomp(cache: Path) -> None:
    asked = retain("@docker/default-whitelist", "mount")
    for item in (None, asked):
        seccomp.bpf(filter_of(item), str(cache))
    script = f"""
import sys
from rkt_py.aci import isolator
from rkt_py.runtime import seccomp
before = set(sys.modules)
asked = isolator.make({asked.name!r}, {{"set": ["@docker/default-whitelist", "mount"]}})
for item in (None, asked):
    seccomp.bpf(seccomp.filter_for(isolator=item, capabilities={DEFAULT}), {str(cache)!r})
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_hit_takes_less_than_a_fifth_of_a_millisecond(cache: Path) -> None:
    seccomp.bpf(filter_of(None), str(cache))
    times = []
    for _ in range(300):
        start = time.perf_counter()
        seccomp.bpf(filter_of(None), str(cache))
        times.append(time.perf_counter() - start)
    # The machine may be busy, so the best of many.
    assert min(times) < 0.0002


# The kernel's word


def under(program: bytes, calls: Callable[[], list[int]]) -> list[int]:
    """Return what calls come to in a child that has loaded a filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program)

    class SockFprog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    fprog = SockFprog(len(program) // 8, ctypes.addressof(code))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            seccomp_call = 317 if platform.machine() == "x86_64" else 277
            loaded = libc.syscall(seccomp_call, 1, 0, ctypes.byref(fprog))
            results = calls() if loaded == 0 else [-1000 - ctypes.get_errno()]
            os.write(writer, json.dumps(results).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert text, f"the child ended with status {status:#x}"
    found: list[int] = json.loads(text)
    return found


def native(number: int, *arguments: int) -> int:
    """Make a call: 0, or the error's number."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(argument) for argument in arguments]
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *words) == -1 else 0


def int80() -> Callable[[int, int, int, int], int]:
    """Return a function that makes a call by the 32-bit ABI, which any x86-64 program can do."""
    # push rbx; mov eax, edi; mov ebx, esi; xchg ecx, edx; int 0x80; pop rbx; ret
    code = bytes.fromhex("53 89f8 89f3 87d1 cd80 5b c3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)
    function = kind(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    pages.append(page)
    return lambda *words: min(0, function(*words)) * -1


pages: list[mmap.mmap] = []


@pytest.mark.root
@on_amd64
def test_kernel_does_what_the_default_filter_says() -> None:
    cases = [
        ((39,), 0),  # getpid
        ((MOUNT, 0, 0, 0, 0, 0), EPERM),
        ((272, 0x10000000), EPERM),  # unshare(CLONE_NEWUSER)
        ((56, 0x10000011, 0, 0, 0, 0), EPERM),
        ((CLONE3, 0, 0), ENOSYS),
        ((425, 1, 0), EPERM),  # io_uring_setup
        ((SOCKET, 40, 1, 0), EPERM),
        ((SOCKET, 38, 5, 0), EPERM),
        ((SOCKET, 1, 1, 0), 0),
        ((135, 0x40000), EPERM),
        ((135, 0xFFFFFFFF), 0),
        ((IOCTL, 0, 0x5412, 0), EPERM),
        ((IOCTL, 0, 1 << 32 | 0x5412, 0), EPERM),
        ((IOCTL, 2**32 - 1, 0x5401, 0), 9),  # EBADF: the kernel got it
        ((500,), ENOSYS),
        ((248, 0, 0, 0, 0, 0), EPERM),  # add_key
        ((155, 0, 0), EPERM),  # pivot_root
        ((436, 1000, 1001, 0), 0),  # close_range
    ]
    program = seccomp.compile(filter_of(None))
    found = under(program, lambda: [native(*case) for case, _ in cases])
    assert found == [expected for _, expected in cases]


def has_32_bit_abi() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if int80()(20, 0, 0, 0) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.root
@pytest.mark.may_skip("a kernel need not run programs of the 32-bit ABI")
@on_amd64
def test_kernel_does_what_the_filter_says_by_the_32_bit_abi_too() -> None:
    if not has_32_bit_abi():
        pytest.skip("this kernel has no 32-bit ABI")
    call = int80()
    cases = [
        ((20, 0, 0, 0), 0),  # getpid
        ((21, 0, 0, 0), EPERM),  # mount
        ((310, 0x10000000, 0, 0), EPERM),  # unshare
        ((120, 0x10000011, 0, 0), EPERM),  # clone
        ((CLONE3, 0, 0, 0), ENOSYS),
        ((359, 40, 1, 0), EPERM),  # socket
        ((359, 1, 1, 0), 0),
        ((136, 0x40000, 0, 0), EPERM),  # personality
        ((54, 0, 0x5412, 0), EPERM),  # ioctl
        ((425, 1, 0, 0), EPERM),
        ((500, 0, 0, 0), ENOSYS),
        ((217, 0, 0, 0), EPERM),  # pivot_root
    ]
    program = seccomp.compile(filter_of(None))
    found = under(program, lambda: [call(*case) for case, _ in cases])
    assert found == [expected for _, expected in cases]


@pytest.mark.root
@on_amd64
def test_kernel_does_what_a_set_says() -> None:
    program = seccomp.compile(filter_of(remove("mount", "mseal", errno="EACCES")))
    found = under(program, lambda: [native(MOUNT, 0, 0, 0, 0, 0), native(MSEAL, 0, 0, 0), native(39)])
    assert found == [EACCES, EACCES, 0]


@pytest.mark.root
@pytest.mark.parametrize("asked", [None, retain("@systemd/system-service"), remove("@rkt/default-blacklist")])
def test_program_of_today_runs_under_the_filter(asked: isolator.Isolator | None, tmp_path: Path) -> None:
    """Threads, pipes and a child: what rkt's list killed for want of statx, rseq and clone3."""
    program = seccomp.compile(filter_of(asked))
    script = (
        "import threading, subprocess, os; t = threading.Thread(target=os.getpid); t.start(); t.join();"
        "print(subprocess.check_output(['/bin/sh', '-c', 'ls / > /dev/null; echo $((6 * 7))'], text=True))"
    )
    path = tmp_path / "output"

    def start() -> list[int]:
        pid = os.posix_spawn(
            "/usr/bin/python3",
            ["python3", "-I", "-c", script],
            {"PATH": "/usr/bin:/bin"},
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, str(path), os.O_WRONLY | os.O_CREAT, 0o600)],
        )
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    assert under(program, start) == [0]
    assert path.read_text().strip() == "42"
