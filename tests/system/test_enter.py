"""`enter`: one more process in an app, confined as the app is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

# What a process is confined by, wherever it comes from.
CONFINEMENT = (
    "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff",
    "CapBnd", "CapAmb", "SigBlk", "SigIgn",
)  # fmt: skip
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")
READY = "echo ready; exec sleep 1000"
TELL = f"""
    for name in {" ".join(NAMESPACES)}; do readlink /proc/self/ns/$name; done
    umask; pwd; cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup
    cat /proc/self/status | grep -E '^({"|".join(CONFINEMENT)}):'
    env | grep -v ^SHLVL | sort
"""


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--user=1000", "--group=1000", "--supplementary-gids=7"),
        ("--caps-retain=CAP_NET_ADMIN", "--memory=64Mi", "--oom-score-adj=300"),
        ("--caps-remove=CAP_CHOWN", "--seccomp=mode=remove,errno=EPERM,chmod", "--environment=X=y"),
        ("--working-dir=/home", "--cpu=500m"),
    ],
)
def test_entered_process_is_confined_as_the_app_is(pods: Pods, flags: tuple[str, ...]) -> None:
    running = pods.start_sh(f"{TELL} echo end; {READY}", *flags)
    done = pods("enter", running.uuid, "/bin/sh", "-c", f"{TELL} echo end")
    assert (done.code, done.err) == (0, b"")
    own = running.out.decode().partition("end\n")[0].splitlines()
    assert own == done.text.partition("end\n")[0].splitlines()
    assert len(own) > 30


def test_entered_process_has_the_filter_and_the_bounds_of_insecure_options(pods: Pods) -> None:
    running = pods.start("--insecure-options=all-run", *pods.command(READY))
    running.until("ready")
    found = pods("enter", running.uuid, "/bin/cat", "/proc/self/status").table
    own = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert found["Seccomp"] == "0"
    assert found["CapEff"] == own["CapEff"]


def test_entered_process_cannot_do_what_the_app_cannot(pods: Pods) -> None:
    running = pods.start_sh(READY)
    calls = pods("enter", running.uuid, "/bin/probe", "calls").table
    assert calls == pods.probe("calls").table


def test_entered_process_has_standard_streams_and_no_other_descriptors(pods: Pods) -> None:
    running = pods.start_sh(READY)
    leak = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = pods("enter", running.uuid, "/bin/ls", "/proc/self/fd", pass_fds=[leak])
    finally:
        os.close(leak)
    assert done.lines == ["0", "1", "2", "3"]


def test_callers_environment_stays_outside(pods: Pods) -> None:
    running = pods.start_sh(READY)
    done = pods("enter", running.uuid, "/bin/env", env={"SECRET": "x"})
    assert "SECRET" not in done.text
    assert "AC_APP_NAME=busybox" in done.lines


def test_default_command_is_bash_with_a_warning(pods: Pods) -> None:
    running = pods.start_sh(READY)
    done = pods("enter", running.uuid)
    assert (done.code, done.out) == (254, b"")
    assert done.errors == (
        'enter: no command specified, assuming "/bin/bash"\n'
        'enter: cannot execute "/bin/bash": No such file or directory\n'
    )


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)])
def test_exit_code_is_the_commands(pods: Pods, script: str, code: int) -> None:
    running = pods.start_sh(READY)
    assert pods("enter", running.uuid, "/bin/sh", "-c", script).code == code
    assert running.process.poll() is None


def test_standard_streams_are_the_callers(pods: Pods) -> None:
    running = pods.start_sh(READY)
    data = os.urandom(200_000)
    done = pods("enter", running.uuid, "/bin/sh", "-c", "tee /dev/stderr", stdin=data)
    assert done == Done(0, data, data)


def test_flags_after_the_uuid_are_the_commands(pods: Pods) -> None:
    running = pods.start_sh(READY)
    assert pods("enter", running.uuid, "/bin/echo", "--app=x", "--help", "--").text == "--app=x --help --\n"


def test_app_must_be_named_when_there_are_several(pods: Pods) -> None:
    script = "echo $AC_APP_NAME > /name; echo > /dev/shm/$AC_APP_NAME; exec sleep 1000"
    both = "until [ -e /dev/shm/one ]; do usleep 1000; done; echo ready;" + script
    running = pods.start(
        "run", "--net=none",
        BUSYBOX, "--name=one", "--exec=/bin/sh", "--", "-c", script, "---",
        BUSYBOX, "--name=two", "--user=1000", "--group=1000", "--exec=/bin/sh", "--", "-c", both,
    )  # fmt: skip
    running.until("ready")
    done = pods("enter", running.uuid, "/bin/true")
    assert (done.code, done.errors) == (
        254,
        'enter: pod has multiple apps: one, two: specify one with "--app="\n',
    )
    done = pods("enter", "--app=three", running.uuid, "/bin/true")
    assert (done.code, done.errors) == (254, 'enter: no app "three" in the pod: it has one, two\n')
    tell = "echo $AC_APP_NAME; id -u; cat /name 2>/dev/null"
    assert pods("enter", "--app=one", running.uuid, "/bin/sh", "-c", tell).lines == ["one", "0", "one"]
    assert pods("enter", "--app=two", running.uuid, "/bin/sh", "-c", tell).lines == ["two", "1000"]


def test_pod_that_does_not_run_cannot_be_entered(pods: Pods) -> None:
    uuid = pods.ok("prepare", BUSYBOX).strip()
    done = pods("enter", uuid, "/bin/true")
    assert done == Done(254, b"", f'enter: pod "{uuid}" isn\'t currently running\n'.encode())
    running = pods.start_sh(READY)
    running.end(signal.SIGTERM)
    assert "isn't currently running" in pods("enter", running.uuid, "/bin/true").errors


def test_entered_process_ends_with_the_pod(pods: Pods) -> None:
    running = pods.start_sh(READY)
    entered = pods.start("enter", running.uuid, "/bin/sh", "-c", READY)
    entered.until("ready")
    running.end(signal.SIGTERM)
    assert entered.end().code == 137


def test_signals_reach_the_entered_process(pods: Pods) -> None:
    running = pods.start_sh(READY)
    script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 100 >&- 2>&- & wait $!; done"
    entered = pods.start("enter", running.uuid, "/bin/sh", "-c", script)
    entered.until("ready")
    assert entered.end(signal.SIGTERM) == Done(5, b"ready\ntold\n", b"")


def test_helper_cannot_be_looked_into_from_the_pod(pods: Pods) -> None:
    """CVE-2016-9962: what enters must not be seen with descriptors of the host."""
    script = """echo ready; while :; do ls -d /proc/[0-9]*/fd/*/; done 2>/dev/null"""
    running = pods.start_sh(script, "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH")
    for _ in range(10):
        assert pods("enter", running.uuid, "/bin/true").code == 0
    assert running.end(signal.SIGTERM).out == b"ready\n"


def test_image_cannot_choose_what_enter_runs_on_the_host(pods: Pods) -> None:
    # A loader or library of the image's would be loaded by a helper that is not static.
    supervisor = Path(pods.rkt.program).resolve().parent
    programs = [path for path in (Path("rkt_py/bin/supervisor"), supervisor / "supervisor") if path.exists()]
    assert programs
    for program in programs:
        headers = subprocess.run(["readelf", "-l", program], capture_output=True, text=True, check=True)
        assert "INTERP" not in headers.stdout
