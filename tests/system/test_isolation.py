"""What an app sees and may do: looked at from inside, against the host outside."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rkt_py.runtime import plan
from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

EPERM, EACCES, EINVAL, ENOSYS, ENOKEY, ECONNREFUSED = 1, 13, 22, 38, 126, 111
DEFAULT_CAPABILITIES = 0xA80425FB
MKNOD = 1 << 27


Builder = Callable[..., str]


def altered(rootfs: Path, tmp_path: Path, name: str, to: str = "/var") -> Path:
    """A copy of a root with a link in place of something."""
    root = tmp_path / "altered"
    shutil.copytree(rootfs, root, symlinks=True)
    path = root / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(to)
    return root


def status(pods: Pods, *flags: str) -> dict[str, str]:
    """/proc/self/status of an app."""
    done = pods("run", "--net=none", BUSYBOX, "--exec=/bin/cat", *flags, "--", "/proc/self/status")
    assert done.code == 0, done
    return done.table


# Namespaces


def test_every_namespace_but_the_users_is_the_pods_own(pods: Pods) -> None:
    kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
    names = pods.sh(f"for kind in {' '.join(kinds)} user; do readlink /proc/self/ns/$kind; done").lines
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in [*kinds, "user"]]
    assert [inside != outside for inside, outside in zip(names, host, strict=True)] == [True] * 6 + [False]


def test_ipc_parent_and_net_host_are_the_hosts(pods: Pods) -> None:
    script = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/net"
    names = pods.sh(script, "--ipc=parent", "--net=host").lines
    assert names == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("ipc", "net")]


def test_only_loopback_is_there_and_it_is_up(pods: Pods) -> None:
    done = pods.sh("ls /sys/class/net; ip -o addr | grep -c .; ping -c1 -W2 127.0.0.1 >/dev/null && echo up")
    assert done.lines[0] == "lo"
    assert done.lines[-1] == "up"


def test_processes_of_the_host_cannot_be_seen(pods: Pods) -> None:
    done = pods.sh("cat /proc/1/comm; echo $$; ls -d /proc/[0-9]*")
    assert done.lines == ["rkt-py-init", "2", "/proc/1", "/proc/2"]


def test_abstract_sockets_of_the_host_cannot_be_reached(pods: Pods) -> None:
    name = f"rkt-test-{random.randrange(10**9)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert pods.probe("connect", name).table == {"connect": str(ECONNREFUSED)}
        # So is it there at all?
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"\0{name}")


def test_ipc_objects_of_the_host_cannot_be_seen(pods: Pods) -> None:
    made = subprocess.run(["ipcmk", "-M", "4096"], capture_output=True, text=True, check=True).stdout.split()[
        -1
    ]
    try:
        assert pods.sh("tail -n +2 /proc/sysvipc/shm").out == b""
    finally:
        subprocess.run(["ipcrm", "-m", made], check=True)


# The file system


def test_mount_table_names_nothing_of_the_host(pods: Pods) -> None:
    mounts = [line.split() for line in pods.sh("cat /proc/self/mounts").lines]
    assert mounts[0][1:3] == ["/", "overlay"]
    assert {kind for _, _, kind, *_ in mounts[1:]} <= {
        "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"
    }  # fmt: skip
    points = [point for _, point, *_ in mounts]
    assert all(point.startswith(("/proc", "/sys", "/dev")) for point in points[1:])


def test_hidden_paths_show_nothing(pods: Pods) -> None:
    script = """for path in "$@"; do
        [ -e $path ] || continue
        if [ -d $path ]; then ls -A $path; else head -c 100 $path; fi
        echo x > $path/x || echo x > $path
    done 2>/dev/null; true"""
    existing = [path for path in plan.MASKED if os.path.exists(path)]
    assert len(existing) > 10
    done = pods("run", "--net=none", BUSYBOX, "--exec=/bin/sh", "--", "-c", script, "sh", *existing)
    assert done == Done(0, b"", b"")


@pytest.mark.parametrize("name", ["kernel/core_pattern", "vm/panic_on_oom", "kernel/ns_last_pid"])
def test_what_changes_the_host_is_read_only(pods: Pods, name: str) -> None:
    path = f"/proc/sys/{name}"
    done = pods.sh(
        f"cat {path} >/dev/null && echo 1 > {path}", "--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE"
    )
    assert done.code != 0
    assert "Read-only file system" in done.errors


def test_sysfs_is_read_only(pods: Pods) -> None:
    assert "Read-only" in pods.sh("echo > /sys/kernel/mm/ksm/run || echo > /sys/x").errors


def test_insecure_paths_shows_what_is_hidden_by_default(pods: Pods) -> None:
    insecure = "--insecure-options=paths"
    done = pods(
        insecure, "run", "--net=none", BUSYBOX, "--exec=/bin/sh", "--", "-c", "ls /sys/module | wc -l"
    )
    assert int(done.text) > 5


def test_devices_are_the_ones_of_the_spec(pods: Pods) -> None:
    found = pods.sh("cd /dev; find . | sort; stat -c '%n %F %a %t:%T' null zero full random urandom tty")
    nodes = [
        "null 666 1:3",
        "zero 666 1:5",
        "full 666 1:7",
        "random 666 1:8",
        "urandom 666 1:9",
        "tty 666 5:0",
    ]
    names = "console fd full mqueue null ptmx pts pts/ptmx random shm stderr stdin stdout tty urandom zero"
    assert found.lines[: -len(nodes)] == [".", *(f"./{name}" for name in names.split())]
    assert [line.replace(" character special file", "") for line in found.lines[-len(nodes) :]] == nodes


def test_temporary_directories_are_for_everybody(pods: Pods) -> None:
    script = "for d in /tmp /dev/shm; do stat -c %a $d; echo x > $d/mine; cat $d/mine; done"
    assert pods.sh(script, "--user=1000", "--group=1000").lines == ["1777", "x"] * 2


def test_shared_memory_is_the_pods(pods: Pods) -> None:
    marker = f"rkt-test-{random.randrange(10**9)}"
    assert pods.sh(f"echo x > /dev/shm/{marker}").code == 0
    assert not Path("/dev/shm", marker).exists()


def test_readonly_rootfs_leaves_what_is_mounted_in_it_writable(pods: Pods, tmp_path: Path) -> None:
    script = "echo x > /file; echo x > /tmp/file; echo x > /v/file && echo x > /dev/shm/file && echo written"
    done = pods.sh(
        script,
        "--readonly-rootfs",
        f"--volume=v,kind=host,source={tmp_path}",
        "--mount=volume=v,target=/v",
    )
    assert done.lines == ["written"]
    assert done.errors.count("Read-only file system") == 2
    assert (tmp_path / "file").read_text() == "x\n"


def test_nothing_is_in_the_hosts_mount_table(pods: Pods) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    pods.start_sh("echo ready; exec sleep 1000")
    data = str(pods.rkt.data)
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if data in line] == []
    assert [line for line in before.splitlines() if data in line] == []


def test_store_is_closed_to_other_users(pods: Pods) -> None:
    # An image's setuid program must not be one for the host's users.
    stores = pods.rkt.data / "cas", pods.rkt.data / "pods"
    assert [path.name for path in stores if path.stat().st_mode & 0o007] == []


# Capabilities


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), DEFAULT_CAPABILITIES),
        (("--caps-retain=CAP_NET_ADMIN",), 1 << 12),
        (("--caps-retain=CAP_SYS_ADMIN,CAP_CHOWN",), 1 << 21 | 1),
        (("--caps-remove=CAP_CHOWN,CAP_KILL",), DEFAULT_CAPABILITIES & ~(1 | 1 << 5)),
    ],
)
def test_capabilities_of_root_are_the_bounding_set(pods: Pods, flags: tuple[str, ...], expected: int) -> None:
    found = status(pods, *flags)
    # mknod goes where nothing guards the nodes.
    sets = {int(found[name], 16) | (expected & MKNOD) for name in ("CapBnd", "CapPrm", "CapEff")}
    assert sets == {expected}
    assert {int(found[name], 16) for name in ("CapInh", "CapAmb")} == {0}


def test_insecure_capabilities_are_all_there_are(pods: Pods) -> None:
    (ours,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    flags = "--insecure-options=capabilities", "run", "--net=none", BUSYBOX, "--exec=/bin/cat"
    found = pods(*flags, "--", "/proc/self/status").table
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == int(ours.split()[1], 16)


def test_other_users_have_no_capabilities(pods: Pods) -> None:
    found = status(pods, "--user=1000", "--group=1000", "--caps-retain=CAP_SYS_ADMIN")
    assert [int(found[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0] * 4
    assert int(found["CapBnd"], 16) == 1 << 21


def test_setuid_program_gains_nothing(pods: Pods) -> None:
    command = "run", "--net=none", BUSYBOX, "--exec=/bin/setuid", "--user=1000", "--group=1000"
    found = pods(*command, "--", "status").table
    assert found["NoNewPrivs"] == "1"
    assert found["Uid"].split() == ["1000"] * 4
    assert int(found["CapEff"], 16) == 0


def test_unknown_capability_is_refused(pods: Pods) -> None:
    done = pods.sh("true", "--caps-retain=CAP_EVERYTHING")
    assert done.code == 254
    assert "CAP_EVERYTHING" in done.errors


# Seccomp


DENIED = (
    "mount", "umount2", "fsopen", "open_tree", "move_mount", "pivot_root", "keyctl", "add_key",
    "unshare_newuser", "unshare_newns", "clone_newuser", "setns", "io_uring_setup", "bpf",
    "perf_event_open", "userfaultfd", "kexec_load", "init_module", "delete_module", "reboot", "swapon",
    "sethostname", "settimeofday",
    "open_by_handle_at", "syslog", "acct",
)  # fmt: skip
ALLOWED = ("statx", "memfd_create", "getrandom", "openat2", "pidfd_open", "close_range")


@pytest.mark.parametrize("flags", [(), ("--user=1000", "--group=1000")])
def test_dangerous_calls_are_denied_and_common_ones_are_not(pods: Pods, flags: tuple[str, ...]) -> None:
    done = pods.probe("calls", flags=flags)
    assert done.code == 0
    errors = {name: int(errno) for name, errno in done.table.items()}
    assert {name: errors[name] for name in DENIED if errors[name] not in (EPERM, ENOSYS)} == {}
    assert {name: errors[name] for name in ALLOWED if errors[name] != 0} == {}
    # Its flags are in memory, where a filter cannot look: who gets ENOSYS uses clone.
    assert errors["clone3"] in (0, ENOSYS)


def test_filter_is_on(pods: Pods) -> None:
    found = status(pods)
    assert found["Seccomp"] == "2"
    assert found["Seccomp_filters"] == "1"
    assert found["NoNewPrivs"] == "0"


def test_insecure_seccomp_is_no_filter(pods: Pods) -> None:
    command = "--insecure-options=seccomp", "run", "--net=none", BUSYBOX, "--exec=/bin/cat"
    assert pods(*command, "--", "/proc/self/status").table["Seccomp"] == "0"


def test_capability_opens_the_calls_it_is_for(pods: Pods) -> None:
    script = "mount -t tmpfs none /tmp && grep -c ' /tmp tmpfs' /proc/mounts"
    assert pods.sh(script, "--caps-retain=CAP_SYS_ADMIN").text == "1\n"
    assert pods.sh(script).code != 0


def test_seccomp_flag_removes_calls_with_the_errno_asked_for(pods: Pods) -> None:
    done = pods.sh("mkdir /x", "--seccomp=mode=remove,errno=ENOTSUP,mkdir,mkdirat")
    assert done.code == 1
    assert "not supported" in done.errors


def test_limits_of_a_filter_are_kept_when_privileges_are_not(pods: Pods) -> None:
    found = status(pods, "--user=1000", "--group=1000")
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")


# What is inherited


def test_only_standard_streams_are_open_even_if_the_caller_leaks(pods: Pods, tmp_path: Path) -> None:
    leak = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = pods.sh("exec ls /proc/self/fd", pass_fds=[leak])
    finally:
        os.close(leak)
    assert done.lines == ["0", "1", "2", "3"]  # 3 is the one that ls reads from


def test_working_directory_at_a_descriptor_is_refused(pods: Pods) -> None:
    for number in range(3, 20):
        done = pods.sh("pwd", f"--working-dir=/proc/self/fd/{number}")
        assert done.code == 254, (number, done)
        assert "working directory" in done.errors


@pytest.mark.parametrize("name", ["exe", "root", "cwd", "fd/0", "environ", "maps", "mem", "auxv", "ns/mnt"])
@pytest.mark.parametrize("user", ["0", "1000"])
def test_pid_1_cannot_be_looked_into(pods: Pods, name: str, user: str) -> None:
    script = f"readlink /proc/1/{name} || head -c1 /proc/1/{name} || echo x > /proc/1/{name}"
    done = pods.sh(script, f"--user={user}", f"--group={user}")
    assert done.out == b""
    assert done.code != 0


def test_pid_1_cannot_be_traced_or_killed(pods: Pods) -> None:
    assert pods.probe("trace", "1", flags=["--caps-retain=CAP_KILL"]).table == {"ptrace": str(EPERM)}
    assert pods.sh("kill -9 1; kill -STOP 1; echo alive").text == "alive\n"


def test_pid_1_holds_nothing_of_the_host_for_who_may_trace_it(pods: Pods) -> None:
    flags = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH"
    script = "readlink /proc/1/root; for fd in 0 1 2 $(ls /proc/1/fd); do readlink /proc/1/fd/$fd; done"
    links = pods.sh(script, flags).lines
    assert links[:4] == ["/", "/dev/null", "/dev/null", "/dev/null"]
    assert {link.partition(":")[0] for link in links[4:]} == {"/dev/null", "anon_inode", "socket", "pipe"}


@pytest.mark.parametrize("number", [1, 3])
def test_pid_1_has_no_capabilities_for_who_may_trace_it(pods: Pods, number: int) -> None:
    look = [BUSYBOX, "--exec=/bin/cat", "--", "/proc/1/status"]
    others = [[BUSYBOX, f"--name=other-{i}", "--exec=/bin/true", "--", "---"] for i in range(1, number)]
    found = pods("run", "--net=none", *(arg for other in others for arg in other), *look).table
    kill = 1 << 5
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [kill] * 3
    assert [int(found[name], 16) for name in ("CapInh", "CapAmb")] == [0] * 2
    assert found["NoNewPrivs"] == "1"


def test_pid_1_that_an_app_stopped_is_woken_to_end_the_pod(pods: Pods) -> None:
    running = pods.start_sh("probe trace 1; echo ready; exec sleep 1000", "--caps-retain=CAP_SYS_PTRACE")
    assert "ptrace 0" in running.out.decode()
    assert running.end(signal.SIGTERM).code == 143


def test_pid_1_ends_apps_of_other_users(pods: Pods) -> None:
    script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 1000 & wait $!; done"
    running = pods.start_sh(script, "--user=1000", "--group=1000")
    assert running.end(signal.SIGTERM) == Done(3, b"ready\ntold\n", b"")


def test_session_keyring_of_the_caller_is_not_the_apps(pods: Pods) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    keyctl, add_key, join, session = 250, 248, 1, -3
    name = f"rkt-test-{random.randrange(10**9)}"

    def own_keyring() -> None:
        assert libc.syscall(keyctl, join, None) > 0
        assert libc.syscall(add_key, b"user", name.encode(), b"secret", 6, session) > 0

    insecure = "--insecure-options=seccomp", "run", "--net=none", BUSYBOX, "--exec=/bin/probe"
    found = pods(*insecure, "--", "find-key", name, preexec=own_keyring).table
    assert found == {"search": str(ENOKEY)}


def test_no_signal_is_ignored_or_blocked_as_the_caller_had_it(pods: Pods) -> None:
    """32 to 34 among them, which C libraries do not let go of."""

    def ignore_all() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        ignored = (ctypes.c_uint64 * 4)(1)  # SIG_IGN
        for number in range(1, 65):
            if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
                assert libc.syscall(13, number, ignored, None, 8) == 0  # rt_sigaction
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))

    look = ["--exec=/bin/cat", "--", "/proc/self/status"]
    found = pods("run", "--net=none", BUSYBOX, *look, preexec=ignore_all).table
    assert [int(found[name], 16) for name in ("SigBlk", "SigIgn", "SigPnd")] == [0] * 3


def test_umask_signals_and_session_are_an_apps_own(pods: Pods) -> None:
    assert pods.sh("umask", preexec=lambda: os.umask(0o077)).text == "0022\n"
    found = status(pods)
    assert [int(found[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")] == [0] * 4
    fields = pods.sh("exec cat /proc/self/stat").text.rpartition(")")[2].split()
    assert fields[3] == "2"  # the session: its own
    assert fields[4] == "0"  # no controlling terminal


def test_supplementary_groups_are_exactly_those_asked_for(pods: Pods) -> None:
    def have_groups() -> None:
        os.setgroups([4, 27])

    command = "run", "--net=none", BUSYBOX, "--exec=/bin/cat"
    assert pods(*command, "--", "/proc/self/status", preexec=have_groups).table["Groups"] == ""
    assert status(pods, "--supplementary-gids=2000,3000")["Groups"] == "2000 3000"
    # `user` is in the group `extra` of the image, which nobody asked for.
    assert status(pods, "--user=user", "--group=user")["Groups"] == ""


def test_resource_limits_are_the_same_whoever_calls(pods: Pods) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    limits = pods.sh("ulimit -Sn; ulimit -Hn", preexec=limited).lines
    assert limits == pods.sh("ulimit -Sn; ulimit -Hn").lines
    assert limits[0] == "1024"


def test_oom_score_is_what_was_asked_for(pods: Pods) -> None:
    assert pods.sh("cat /proc/self/oom_score_adj", "--oom-score-adj=500").text == "500\n"


# What an image cannot do by how it is made


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "etc"])
def test_link_in_place_of_a_directory_of_ours_is_refused(
    pods: Pods, build: Builder, rootfs: Path, tmp_path: Path, name: str
) -> None:
    image = build(altered(rootfs, tmp_path, name), {"exec": ["/bin/true"], "user": "0", "group": "0"})
    done = pods("run", "--net=none", image)
    assert done.code == 254
    assert f"/{name}" in done.errors


@pytest.mark.parametrize("name", ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"])
def test_link_in_place_of_a_file_of_ours_is_replaced(
    pods: Pods, build: Builder, rootfs: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "victim").write_text("untouched\n")
    image = build(
        altered(rootfs, tmp_path, name, to=f"/../../../../..{tmp_path}/victim"),
        {"exec": ["/bin/true"], "user": "0", "group": "0"},
    )
    done = pods("run", "--net=none", "--dns=8.8.8.8", "--hosts-entry=10.0.0.1=x", image)
    assert done == Done(0, b"", b"")
    assert (tmp_path / "victim").read_text() == "untouched\n"


def test_temporary_directory_that_is_a_link_stays_in_the_image(
    pods: Pods, build: Builder, rootfs: Path, tmp_path: Path
) -> None:
    image = build(
        altered(rootfs, tmp_path, "tmp", to=f"{tmp_path}/made"),
        {"exec": ["/bin/true"], "user": "0", "group": "0"},
    )
    pods("run", "--net=none", image)
    assert not (tmp_path / "made").exists()
