"""kill -9 at any moment: a collection leaves nothing, and the next run works."""

from __future__ import annotations

import gzip
import os
import random
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rkt_py
from tests.system.harm import Site, archive, entry, manifest, wait_for_processes, wait_until

pytestmark = pytest.mark.root

# Printed by a test that fails; RKT_SEED=N repeats it.
SEED = int(os.environ.get("RKT_SEED", time.time_ns() % 10**6))
MOMENTS = 8

# So that an import takes some time: what does not compress, in many files.
BULK = random.Random(0).randbytes(6_000_000)


class Installation(NamedTuple):
    site: Site
    good: str
    """The ID of an image that is never removed."""
    bulky: Path
    """An archive that is not in the store."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("kill")
    site = Site(directory / "data")
    app = {"exec": ["/bin/sh", "-c", "echo $(true; true; true)"]}
    (directory / "good.aci").write_bytes(archive(about=manifest(app=app)))
    files = [entry(f"rootfs/{i}", BULK[i * 20_000 : (i + 1) * 20_000]) for i in range(300)]
    bulky = directory / "bulky.aci"
    bulky.write_bytes(gzip.compress(archive(*files, about=manifest(name="example.com/bulky")), 1))
    good = site.ok("--insecure-options=image", "fetch", "--full", directory / "good.aci").strip()
    site.ok("run", "--net=none", good)
    site.collect()
    yield Installation(site, good, bulky)
    site.close()


class Operation(NamedTuple):
    """A command, and what must be there before it."""

    name: str
    prepare: Callable[[Installation], Sequence[str | Path]]


def nothing_before(*args: str) -> Callable[[Installation], Sequence[str | Path]]:
    return lambda at: [arg.replace("GOOD", at.good).replace("BULKY", str(at.bulky)) for arg in args]


def _pods(at: Installation, count: int) -> list[str]:
    return [run(at, keep=True).uuid for _ in range(count)]


def _before_gc(at: Installation) -> Sequence[str]:
    _pods(at, 4)
    return ["gc", "--grace-period=0s"]


def _before_rm(at: Installation) -> Sequence[str]:
    return ["rm", *_pods(at, 3)]


def _before_run_prepared(at: Installation) -> Sequence[str]:
    return ["run-prepared", "--net=none", at.site.ok("prepare", at.good).strip()]


def _before_image_rm(at: Installation) -> Sequence[str]:
    return ["image", "rm", _fetch_bulky(at)]


def _before_fetch(at: Installation) -> Sequence[str | Path]:
    if "example.com/bulky" in at.site.ok("image", "list"):
        at.site.ok("image", "rm", "example.com/bulky")
    return ["--insecure-options=image", "fetch", at.bulky]


def _fetch_bulky(at: Installation) -> str:
    return at.site.ok("--insecure-options=image", "fetch", "--full", at.bulky).strip()


OPERATIONS = [
    Operation("fetch", _before_fetch),
    Operation("prepare", nothing_before("prepare", "GOOD")),
    Operation("prepare without overlay", nothing_before("prepare", "--no-overlay", "GOOD")),
    Operation("run", nothing_before("run", "--net=none", "GOOD", "--memory=64M")),
    Operation("run in a network", nothing_before("run", "--net=default", "GOOD")),
    Operation("run-prepared", _before_run_prepared),
    Operation("gc", _before_gc),
    Operation("rm", _before_rm),
    Operation("image rm", _before_image_rm),
]


def run(at: Installation, *, keep: bool = False) -> rkt_py.Result:
    result = rkt_py.run(at.good, memory="64M", keep=keep, paths=rkt_py.Paths(data=str(at.site.data)))
    assert result.exit_code == 0
    return result


def start(at: Installation, args: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(at.site.command(*args), stdin=null, stdout=null, stderr=null)


def duration(at: Installation, operation: Operation) -> float:
    """How long it takes undisturbed: the shorter of two, so that late moments are not all behind its end."""
    took = []
    for _ in range(2):
        args = operation.prepare(at)
        began = time.monotonic()
        assert start(at, args).wait(60) == 0
        took.append(time.monotonic() - began)
    return min(took)


def moments(at: Installation, operation: Operation) -> list[float]:
    chance = random.Random(f"{SEED} {operation.name}")
    whole = duration(at, operation)
    return [whole * (index + chance.random()) / MOMENTS for index in range(MOMENTS)]


def ended_by(process: subprocess.Popen[Any], moment: float) -> int | None:
    try:
        return process.wait(moment)
    except subprocess.TimeoutExpired:
        return None


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill a process, and wait for its end and for that of those it started; False when it had ended."""
    process.send_signal(signal.SIGSTOP)  # it starts no more of them
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    pidfds = [os.pidfd_open(pid) for pid in children(process.pid)]
    process.kill()
    code = process.wait(60)
    for pidfd in pidfds:
        # A process that dies is seen no more by its descriptors before its locks are free.
        assert select.select([pidfd], [], [], 20)[0], "a child outlives its parent"
        os.close(pidfd)
    return code == -signal.SIGKILL


def check_all_is_well(at: Installation, what: str) -> None:
    print(what, f"RKT_SEED={SEED}")
    at.site.see()
    wait_for_processes(at.site.data)
    at.site.collect()
    at.site.assert_clean()
    run(at)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_operation_killed_at_any_moment_leaves_nothing(
    operation: Operation, installation: Installation
) -> None:
    killed = 0
    for moment in moments(installation, operation):
        process = start(installation, operation.prepare(installation))
        if ended_by(process, moment) is None:
            killed += kill(process)
        check_all_is_well(installation, f"{operation.name} killed after {moment * 1000:.1f} ms")
        assert {"example.com/harm"} <= names(installation) <= {"example.com/harm", "example.com/bulky"}
    # A busy machine shifts moments; they must not all have come too late to mean anything.
    assert killed >= MOMENTS // 3, f"only {killed} of {MOMENTS} moments were before the end"
    if operation.name in ("fetch", "image rm"):
        key = _fetch_bulky(installation)
        assert rkt_py.run(key, paths=rkt_py.Paths(data=str(installation.site.data))).exit_code == 0


def names(at: Installation) -> set[str]:
    lines = at.site.ok("image", "list", "--fields=name", "--no-legend").splitlines()
    return {line.strip() for line in lines}


# The processes of a running pod


def wait_for_text(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == text


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


FOREVER = ["--exec=/bin/sh", "--", "-c", "echo ready; while :; do read line < /dev/ptmx; done"]


def running(at: Installation, *options: str) -> subprocess.Popen[bytes]:
    """A pod whose apps say that they are there, and stay."""
    process = subprocess.Popen(
        at.site.command("run", "--net=none", *options, at.good, *FOREVER),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for_text(process, b"ready\n")
    return process


@pytest.mark.parametrize("number", range(4))
def test_pid_1_of_a_running_pod_killed_ends_the_pod(number: int, installation: Installation) -> None:
    process = running(installation)
    (init,) = children(process.pid)
    os.kill(init, signal.SIGKILL)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGKILL, errors
    check_all_is_well(installation, "pid 1 killed")


@pytest.mark.parametrize("number", range(4))
def test_the_supervisor_of_a_running_pod_killed_ends_the_pod(number: int, installation: Installation) -> None:
    process = running(installation)
    (init,) = children(process.pid)
    pidfd = os.pidfd_open(init)
    process.kill()
    process.communicate(timeout=20)
    assert select.select([pidfd], [], [], 20)[0], "pid 1 lives on"
    os.close(pidfd)
    state = installation.site("status", installation.site.pods()["run"][0]).stdout
    assert state.startswith("state=exited\n"), state
    check_all_is_well(installation, "supervisor killed")


@pytest.mark.parametrize("number", range(6))
def test_pid_1_of_a_starting_pod_killed_ends_the_pod(number: int, installation: Installation) -> None:
    chance = random.Random(f"{SEED} {number}")
    process = start(installation, ["run", "--net=none", installation.good, *FOREVER])
    wait_until(lambda: children(process.pid), "pid 1 of the pod")
    for _ in range(chance.randrange(200)):
        os.sched_yield()
    for init in children(process.pid):
        os.kill(init, signal.SIGKILL)
    assert process.wait(20) in (128 + signal.SIGKILL, 254)
    check_all_is_well(installation, f"pid 1 killed at its start, {number}")


def test_a_supervisor_killed_before_pid_1_can_know_takes_it_along(
    installation: Installation, tmp_path: Path
) -> None:
    """Its first act is to ask for a signal at the supervisor's death, which may have been before."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-e", "trace=prctl", "-e", "inject=prctl:delay_enter=300000"]
        + [
            "-o",
            str(tmp_path / "trace"),
            *installation.site.command("run", "--net=none", installation.good, *FOREVER),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        # strace tries out ptrace(2) on a child or two of its own before.
        wait_until(lambda: [pid for pid in children(tracer.pid) if children(pid)], "pid 1 of the pod")
        (supervisor,) = children(tracer.pid)
        os.kill(supervisor, signal.SIGKILL)
        tracer.wait(20)
    finally:
        tracer.kill()
        tracer.wait()
    calls = re.findall(r"prctl\((PR_\w+)", (tmp_path / "trace").read_text())
    assert calls[:3] == ["PR_SET_NAME", "PR_SET_DUMPABLE", "PR_SET_PDEATHSIG"], calls
    check_all_is_well(installation, "supervisor killed before pid 1 asked for its death signal")


def test_a_collection_killed_over_and_over_gets_done(installation: Installation) -> None:
    """Each goes on where the last one was killed; none is stopped by what it finds."""
    _pods(installation, 8)
    chance = random.Random(f"{SEED} over and over")
    for _ in range(10):
        process = start(installation, ["gc", "--grace-period=0s"])
        if ended_by(process, 0.02 + 0.03 * chance.random()) is None:
            kill(process)
    check_all_is_well(installation, "gc killed over and over")


@pytest.mark.parametrize("verb", ["list", "prepare", "run"])
def test_an_interrupt_at_any_moment_is_no_error(verb: str, installation: Installation) -> None:
    """^C while Python starts, while it works, and when the pod runs."""
    args = {"list": ["list"], "prepare": ["prepare", "--no-overlay", installation.good]}.get(
        verb, ["run", "--net=none", installation.good]
    )
    for moment in moments(installation, Operation(verb, lambda _: args)):
        process = subprocess.Popen(
            installation.site.command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        interrupted = ended_by(process, moment) is None
        if interrupted:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        # -SIGINT: it came before there was anything but the launcher, or to the supervisor before it listens.
        expected = (0, 130, 143, -signal.SIGINT) if interrupted else (0,)
        assert (errors, process.returncode in expected) == ("", True), process.returncode
        installation.site.see()
    check_all_is_well(installation, f"{verb} interrupted")
