"""The host as a test session must leave it: mounts, cgroups, interfaces, processes, files of pods."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

OWN_PROGRAMS = ("/rkt_py/bin/supervisor", "/rkt_py/bin/unpack", "/bin/rkt-py")
OWN_DIRECTORIES = ("/run/rkt-py", "/var/lib/rkt-py", "/etc/rkt-py", "/run/netns")

# What there is of each kind: {"mounts": {"/proc proc", ...}, ...}
Host = dict[str, frozenset[str]]


def observe() -> Host:
    """Return everything on this host that a pod could leave behind."""
    observed = {
        "mounts": mounts(Path("/proc/self/mountinfo").read_text()),
        "cgroups": cgroups(),
        "interfaces": os.listdir("/sys/class/net"),
        "files": files(),
        "loop devices": loop_devices(),
        "nftables": nft_tables(),
        "processes": processes(),
    }
    return {kind: frozenset(found) for kind, found in observed.items()}


def left_behind(before: Host, after: Host) -> list[str]:
    """Return one line for each thing that is there now and was not, or was and is not."""
    lines = []
    for kind in before:
        lines += [f"{kind}: left {name}" for name in sorted(after[kind] - before[kind])]
        # Processes and files of others may end while tests run; a mount that went was taken by us.
        if kind in ("mounts", "interfaces", "nftables"):
            lines += [f"{kind}: lost {name}" for name in sorted(before[kind] - after[kind])]
    return lines


def mounts(mountinfo: str) -> Iterator[str]:
    """proc_pid_mountinfo(5): mount point and root, propagation, then type and source behind a lone dash."""
    for line in mountinfo.splitlines():
        fields = line.split()
        dash = fields.index("-", 6)
        propagation = " ".join(field.split(":")[0] for field in fields[6:dash])
        yield " ".join([fields[4], fields[3], *fields[dash + 1 : dash + 3], propagation]).strip()


def cgroups() -> Iterator[str]:
    """Those of pods: a systemd host makes and removes others all the time."""
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{directory}/{name}" for name in names if "rkt" in name)


def files() -> Iterator[str]:
    for top in OWN_DIRECTORIES:
        for directory, _, names in os.walk(top):
            yield directory
            yield from (f"{directory}/{name}" for name in names)


def loop_devices() -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        yield f"{backing.parts[3]} {read(backing)}"


def nft_tables() -> list[str]:
    if os.geteuid() != 0:
        return []
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def processes() -> Iterator[str]:
    """Those that run a program of ours, and zombies of this session."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            program = os.readlink(f"{entry.path}/exe")
        except OSError:
            continue
        if program.removesuffix(" (deleted)").endswith(OWN_PROGRAMS):
            command = read(Path(entry.path, "cmdline")).replace("\0", " ")
            yield f"{entry.name} {program} {command}".strip()


def read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def shown(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
