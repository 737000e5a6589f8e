"""Limits and places of pods where v2 has all controllers: on User-Mode Linux, by the installed command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rkt import PROGRAM, Result
from tests.system import uml

pytestmark = [
    pytest.mark.root,
    pytest.mark.may_skip("not every machine has User-Mode Linux"),
    pytest.mark.skipif(not uml.PROGRAM.exists(), reason="there is no User-Mode Linux (user-mode-linux)"),
]

IMAGE = "example.com/busybox"
ROOT = "/sys/fs/cgroup"
SPIN = "while :; do :; done"
# More than 4M, and less than 32M.
HOG = "head -c 8000000 /dev/zero | tail -c 8000000 >/dev/null"
# What CapBnd says: the default 14 are a80425fb, MKNOD is bit 27.
LIMIT = "--memory=4M"
TRACER = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH"
WITHOUT_MKNOD = "00000000a00425fb"
WITH_MKNOD = "00000000a80425fb"


class Machine:
    """The booted machine and the installation on it."""

    def __init__(self, guest: uml.Guest) -> None:
        self.guest = guest

    def sh(self, script: str, *flags: str) -> Result:
        """Run a shell script in a pod of one app."""
        return self.guest(run(app(script, *flags)))

    def start(self, *apps: list[str]) -> str:
        """Start a pod, whose first app says `ready` when it is; return its UUID."""
        started = run("--uuid-file-save=uuid", *apps)
        self.guest.ok(
            f"rm -f out; mkfifo out; {started} >out 2>err & echo $! >supervisor; "
            '{ read -r line; [ "$line" = ready ]; } <out || { cat err >&2; exit 1; }'
        )
        return self.guest.ok("cat uuid").strip()

    def read(self, path: str) -> str:
        return self.guest.ok(f"cat {ROOT}/{path}").strip()

    def stat(self, path: str) -> dict[str, int]:
        """A file of names and numbers."""
        return {name: int(number) for name, number in map(str.split, self.read(path).splitlines())}

    def cgroups(self, below: str = "") -> list[str]:
        """All that there are."""
        found = self.guest.ok(f"cd {ROOT}/{below} && find . -mindepth 1 -type d -printf '%P\\n'")
        return sorted(found.split())

    def processes(self, below: str) -> dict[str, int]:
        """How many are in each cgroup."""
        command = f"cd {ROOT}/{below} && find . -name cgroup.procs -printf '%P\\n' | xargs wc -l"
        lines = [line.split() for line in self.guest.ok(command).splitlines()]
        return {path.removesuffix("cgroup.procs").rstrip("/"): int(n) for n, path in lines if path != "total"}

    def collect(self) -> None:
        self.guest.ok("$RKT gc --grace-period=0s 2>&1")


def app(script: str, *flags: str) -> list[str]:
    return [IMAGE, "--exec=/bin/sh", *flags, "--", "-c", script, "---"]


def run(*args: str | list[str]) -> str:
    words = [word for arg in args for word in ([arg] if isinstance(arg, str) else arg)]
    return f"$RKT run --net=none {shlex.join(words)}"


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory, busybox_aci: Path) -> Iterator[uml.Guest]:
    directory = tmp_path_factory.mktemp("uml")
    guest = uml.Guest(directory, {"RKT": f"{PROGRAM} --dir=/run/data", "ACI": str(busybox_aci)})
    try:
        guest.ok("$RKT --insecure-options=image fetch $ACI")
        yield guest
    finally:
        guest.close()


@pytest.fixture
def machine(booted: uml.Guest) -> Iterator[Machine]:
    """As it was booted; what a test left running is ended, and then no pod may have a cgroup."""
    machine = Machine(booted)
    yield machine
    left = booted(
        "if [ -e supervisor ]; then pid=$(cat supervisor); rm supervisor; "
        "kill -TERM $pid; kill -TERM $pid; while [ -e /proc/$pid ]; do sleep 0.05; done; fi; "
        f"cd {ROOT}; find . -mindepth 1 -depth -type d -not -path ./rkt-py -print -exec rmdir {{}} ';'"
    )
    assert left.stdout == ""


@pytest.fixture(scope="module")
def seen(booted: uml.Guest) -> Result:
    """What an app says of its cgroups."""
    script = "; ".join(
        [
            f"cd {ROOT}$(sed s/^0::// /proc/self/cgroup) && pwd && cat memory.max cpu.max cpu.weight",
            f"ls -d {ROOT}/*/; mkdir {ROOT}/x; echo $$ >{ROOT}/init/cgroup.procs",
            "for fd in /proc/1/fd/*; do [ -d $fd ] || continue; cd $fd; echo held",
            "ls -d ../cgroup.procs ../*/; echo max >memory.max; done",
        ]
    )
    return booted(run(app(script, "--memory=4Mi", "--cpu=500m", "--cpu-shares=2048", TRACER)))


def test_machine_is_of_v2_alone_with_its_controllers(machine: Machine) -> None:
    assert machine.guest.ok("grep -c cgroup /proc/mounts") == "1\n"
    assert set(machine.read("cgroup.controllers").split()) >= {"cpu", "memory", "pids"}


def test_app_finds_its_limits_by_where_it_is_told_to_be(seen: Result) -> None:
    """As the runtimes of Java and Go do: the path of /proc/self/cgroup, in the mount."""
    assert seen.stdout.splitlines()[:4] == [f"{ROOT}/app-busybox", "4194304", "50000 100000", "200"]


def test_pod_sees_its_own_cgroups_only_and_cannot_write_to_them(seen: Result) -> None:
    assert seen.stdout.splitlines()[4:6] == [f"{ROOT}/app-busybox/", f"{ROOT}/init/"]
    assert f"can't create directory '{ROOT}/x': Read-only file system" in seen.stderr
    assert f"can't create {ROOT}/init/cgroup.procs: Read-only file system" in seen.stderr


def test_cgroup_that_pid_1_holds_leads_nowhere(seen: Result) -> None:
    """Who may trace pid 1 opens what it has open: from the host's directory ".." would lead to all others."""
    assert seen.stdout.splitlines()[6:] == ["held", "../cgroup.procs"]
    assert "can't create memory.max: Read-only file system" in seen.stderr


def test_nodes_cannot_be_made_where_nothing_would_keep_them_closed(machine: Machine) -> None:
    """v2 has no devices controller, and no program takes its place yet."""
    script = "grep CapBnd /proc/self/status; mknod /tmp/node b 254 0"
    done = machine.sh(script)
    assert done.stdout.split()[1] == WITHOUT_MKNOD
    assert "Operation not permitted" in done.stderr
    assert done.code != 0


def test_pod_has_a_leaf_for_pid_1_and_one_for_each_app(machine: Machine) -> None:
    uuid = machine.start(app("echo ready; exec sleep 1000", "--name=a"), app("sleep 1000", "--name=b"))
    assert machine.processes(f"rkt-py/{uuid}") == {"": 0, "init": 1, "app-a": 1, "app-b": 1}


def test_memory_limit_kills_what_goes_over_it(machine: Machine) -> None:
    machine.guest.ok("dmesg --clear")
    assert machine.sh(HOG, LIMIT).code == 137
    assert "oom_memcg=/rkt-py/" in machine.guest.ok("dmesg")
    assert machine.sh(HOG, "--memory=32M").code == 0


def test_memory_limit_of_one_app_is_not_that_of_another(machine: Machine) -> None:
    uuid = machine.start(
        app(f"echo ready; ({HOG}); sleep 1000", "--name=a", LIMIT), app("sleep 1000", "--name=b")
    )
    machine.guest.ok(
        f"until grep -q 'oom_kill 1' {ROOT}/rkt-py/{uuid}/app-a/memory.events; do sleep 0.1; done"
    )
    assert machine.read(f"rkt-py/{uuid}/app-a/memory.swap.max") == "0"
    assert machine.read(f"rkt-py/{uuid}/app-b/memory.max") == "max"
    assert machine.processes(f"rkt-py/{uuid}")["app-b"] == 1


def test_memory_limit_of_the_pod_holds_for_its_apps(machine: Machine) -> None:
    image = machine.guest.ok("$RKT image list --fields=id --no-legend --full").strip()
    manifest = {
        "acKind": "PodManifest",
        "acVersion": "0.8.11",
        "apps": [
            {
                "name": "a",
                "image": {"id": image},
                "app": {"exec": ["/bin/sh", "-c", HOG], "user": "0", "group": "0"},
            }
        ],
        "volumes": [],
        "isolators": [{"name": "resource/memory", "value": {"limit": "4M"}}],
        "annotations": [],
        "ports": [],
    }
    machine.guest.ok(f"echo {shlex.quote(json.dumps(manifest))} >pod.json")
    assert machine.guest(run("--pod-manifest=pod.json")).code == 137


def test_cpu_limit_throttles(machine: Machine) -> None:
    script = f"timeout 1 sh -c '{SPIN}'; cat {ROOT}/app-busybox/cpu.stat"
    found = dict(line.split() for line in machine.sh(script, "--cpu=100m").stdout.splitlines())
    assert int(found["nr_throttled"]) >= 3
    assert int(found["usage_usec"]) < 500_000


def test_cpu_shares_are_weights_among_apps(machine: Machine) -> None:
    uuid = machine.start(
        app(f"echo ready; {SPIN}", "--name=a", "--cpu-shares=8192"),
        app(SPIN, "--name=b", "--cpu-shares=1024"),
    )
    leaves = [f"rkt-py/{uuid}/app-{name}" for name in "ab"]
    assert [machine.read(f"{leaf}/cpu.weight") for leaf in leaves] == ["800", "100"]
    before = [machine.stat(f"{leaf}/cpu.stat")["usage_usec"] for leaf in leaves]
    machine.guest.ok("sleep 1")
    after = [machine.stat(f"{leaf}/cpu.stat")["usage_usec"] for leaf in leaves]
    much, little = (then - now for then, now in zip(after, before, strict=True))
    assert much > 3 * little > 0


def test_pod_has_a_limit_of_processes(machine: Machine) -> None:
    # The bomb goes off once the limit is one that this machine reaches quickly.
    uuid = machine.start(
        app("echo ready; read -r _ </dev/zero; :", "--name=a"), app("sleep 1000", "--name=b")
    )
    assert machine.read(f"rkt-py/{uuid}/pids.max") == "4096"
    machine.guest.ok(f"echo 16 >{ROOT}/rkt-py/{uuid}/pids.max")
    bomb = shlex.quote("while sleep 1000 & do :; done")
    done = machine.guest(f"$RKT enter --app=b {uuid} /bin/sh -c {bomb}")
    assert done.code != 0
    assert "can't fork" in done.stderr
    assert machine.stat(f"rkt-py/{uuid}/pids.events")["max"] > 0
    assert machine.read(f"rkt-py/{uuid}/pids.peak") == "16"


def test_pods_cgroups_go_with_it_and_their_parent_with_the_last_collected(machine: Machine) -> None:
    assert machine.sh("exit 3", LIMIT).code == 3
    assert machine.cgroups() == ["rkt-py"]
    machine.collect()
    assert machine.cgroups() == []


def test_entered_process_is_in_the_apps_cgroup(machine: Machine) -> None:
    """Wherever it comes from: with nsdelegate nobody is moved into a namespace from outside of it."""
    uuid = machine.start(app("echo ready; sleep 1000", "--name=a"), app("sleep 1000", "--name=b", LIMIT))
    outside = f"{ROOT}/outside"
    enter = f"$RKT enter --app=a {uuid} /bin/cat /proc/self/cgroup"
    assert machine.guest.ok(f"mkdir {outside}; echo $$ >{outside}/cgroup.procs; {enter}") == "0::/app-a\n"
    machine.guest.ok(f"rmdir {outside}")
    assert machine.guest(f"$RKT enter --app=b {uuid} /bin/sh -c {shlex.quote(HOG)}").code == 137


def test_entered_process_does_not_hold_the_cgroup_of_a_pod_that_ends(machine: Machine) -> None:
    uuid = machine.start(app("echo ready; exec sleep 1000", "--name=a"))
    machine.guest.ok(f"$RKT enter {uuid} /bin/sleep 1000 >/dev/null 2>&1 &")
    machine.guest.ok(
        f"until [ $(grep -c . {ROOT}/rkt-py/{uuid}/app-a/cgroup.procs) = 3 ]; do sleep 0.05; done"
    )
    machine.guest.ok(
        "pid=$(cat supervisor); rm supervisor; kill -TERM $pid; while [ -e /proc/$pid ]; do sleep 0.05; done"
    )
    assert machine.cgroups() == ["rkt-py"]


def test_nodes_can_be_made_by_who_retains_the_capability(machine: Machine) -> None:
    done = machine.sh("grep CapBnd /proc/self/status; mknod /tmp/node b 254 0", "--caps-retain=CAP_MKNOD")
    assert (done.code, done.stdout.split()[1]) == (0, f"{1 << 27:016x}")


def test_killed_supervisor_leaves_nothing_that_is_not_collected(machine: Machine) -> None:
    uuid = machine.start(app("echo ready; sleep 1000", "--name=a", LIMIT))
    machine.guest.ok("kill -KILL $(cat supervisor); rm supervisor")
    assert f"rkt-py/{uuid}/app-a" in machine.cgroups()
    machine.collect()
    assert machine.cgroups() == []
    assert uuid not in machine.guest.ok("find /run/data")


def test_all_run_lifts_capabilities_but_no_limits(machine: Machine) -> None:
    script = "grep CapBnd /proc/self/status; grep Seccomp: /proc/self/status"
    done = machine.sh(f"{script}; {HOG}", "--insecure-options=all-run", LIMIT)
    every = (1 << (int(machine.guest.ok("cat /proc/sys/kernel/cap_last_cap")) + 1)) - 1
    assert done.stdout.split() == ["CapBnd:", f"{every:016x}", "Seccomp:", "0"]
    assert done.code == 137


def test_pods_are_below_a_cgroup_that_was_delegated(machine: Machine) -> None:
    """As of a unit with Delegate=yes, whose start of pods is twice the same."""
    machine.guest(f"rmdir {ROOT}/rkt-py")
    unit = f"{ROOT}/unit"
    script = f"cat {unit}/cgroup.procs; ls -d {unit}/*/; ls {ROOT}/rkt-py"
    found = machine.guest(
        f"echo '+cpu +memory +pids' >{ROOT}/cgroup.subtree_control; mkdir {unit}; "
        f"setfattr -n user.delegate -v 1 {unit}; echo $$ >{unit}/cgroup.procs; cat /proc/self/cgroup; "
        f"{run(app('exit 3', LIMIT))}; echo $?; cat /proc/self/cgroup; "
        f"{run(app(HOG, LIMIT))}; echo $?; cat /proc/self/cgroup; {script}"
    )
    own = "0::/unit/rkt-py.supervisor"
    assert found.stdout.splitlines() == [
        *("0::/unit", "3", own, "137", own),
        *(f"{unit}/rkt-py.supervisor/", f"{unit}/rkt-py/"),
    ], found
    assert f"{ROOT}/rkt-py" in found.stderr
    machine.collect()
    assert machine.cgroups() == ["unit", "unit/rkt-py.supervisor"]
    machine.guest.ok(f"rmdir {unit}/rkt-py.supervisor {unit}")


def test_container_is_a_machine_to_its_pods(machine: Machine) -> None:
    """Its root is no true one: it has processes, which make room for the limits of others."""
    container = f"{ROOT}/container"
    inside = "; ".join(
        [
            f"umount {ROOT}; mount -t cgroup2 -o nsdelegate cgroup2 {ROOT}",
            run(app(HOG, LIMIT)),
            "echo $?; cat /proc/self/cgroup",
            "$RKT gc --grace-period=0s >/dev/null 2>&1",
            f"ls -d {ROOT}/*/",
        ]
    )
    found = machine.guest(
        f"echo '+cpu +memory +pids' >{ROOT}/cgroup.subtree_control; mkdir {container}; "
        f"echo $$ >{container}/cgroup.procs; unshare --cgroup --mount sh -c {shlex.quote(inside)}"
    )
    assert found.stdout.splitlines() == ["137", "0::/rkt-py.supervisor", f"{ROOT}/rkt-py.supervisor/"], found
    machine.guest.ok(f"rmdir {container}/rkt-py.supervisor {container}")


def test_hybrid_has_a_pod_in_both(machine: Machine) -> None:
    """Limits are v2's and devices v1's: there MKNOD is harmless, and the pod sees its own part of either."""
    devices = "/run/devices"
    machine.guest.ok(f"mkdir {devices}; mount -t cgroup -o devices cgroup {devices}")
    script = "cut -d: -f2- /proc/self/cgroup; grep CapBnd /proc/self/status"
    nodes = "mknod /tmp/null c 1 3; mknod /tmp/disk b 254 0"
    try:
        done = machine.sh(f"{script}; {nodes}; {HOG}", LIMIT)
        assert done.stdout.split() == ["devices:/", ":/app-busybox", "CapBnd:", WITH_MKNOD], done
        assert "mknod: /tmp/disk: Operation not permitted" in done.stderr
        assert "null" not in done.stderr
        assert done.code == 137
    finally:
        machine.guest.ok(f"rmdir {devices}/rkt-py; umount {devices}; rmdir {devices}")
