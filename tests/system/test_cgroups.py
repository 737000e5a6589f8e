"""Limits: what they do to an app, and that their cgroups go with the pod."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

EPERM, EAGAIN = 1, 11
READY = "echo ready; exec sleep 1000"


def directories(uuid: str) -> list[Path]:
    """The cgroups of a pod on the host."""
    return [Path(path) for path, _, _ in os.walk("/sys/fs/cgroup") if uuid in path]


def settings(uuid: str) -> dict[str, str]:
    """What the files of an app's or its pod's cgroups say, by v1's or v2's names."""
    names = (
        "memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "cpu.shares", "cpu.weight"
    )  # fmt: skip
    found: dict[str, str] = {}
    for directory in sorted(directories(uuid)):
        for name in names:
            if (directory / name).exists():
                found[name] = (directory / name).read_text().strip()
    return found


def test_app_that_takes_more_memory_than_its_limit_is_killed(pods: Pods) -> None:
    assert pods.probe("allocate", "20", flags=["--memory=64Mi"]) == Done(0, b"allocated\n", b"")
    assert pods.probe("allocate", "200", flags=["--memory=64Mi"]) == Done(137, b"", b"")


def test_limit_of_one_app_is_not_the_others(pods: Pods) -> None:
    done = pods(
        "run", "--net=none",
        BUSYBOX, "--name=small", "--memory=32Mi", "--exec=/bin/sh",
        "--", "-c", "until [ -e /dev/shm/done ]; do usleep 1000; done", "---",
        BUSYBOX, "--name=large", "--exec=/bin/sh", "--", "-c", "probe allocate 100 && echo > /dev/shm/done",
    )  # fmt: skip
    assert done == Done(0, b"allocated\n", b"")


def test_memory_that_nothing_can_run_with_is_refused(pods: Pods) -> None:
    done = pods.sh("true", "--memory=16m")
    assert done.code == 254
    assert "too low. Try a reasonable value, such as --memory=16M" in done.errors


def test_limits_are_written_to_the_cgroups(pods: Pods) -> None:
    found = settings(pods.start_sh(READY, "--memory=64Mi", "--cpu=250m", "--cpu-shares=2048").uuid)
    assert found.get("memory.limit_in_bytes", found.get("memory.max")) == str(64 << 20)
    assert found.get("cpu.cfs_quota_us", found.get("cpu.max", "").split(" ")[0]) == "25000"
    assert found.get("cpu.shares") == "2048" or found.get("cpu.weight") == "200"


def test_every_process_of_the_pod_is_in_its_cgroups(pods: Pods) -> None:
    running = pods.start_sh(f"sleep 1000 & {READY}", "--memory=64Mi")
    pods("enter", running.uuid, "/bin/true")
    status = dict(line.split("=", 1) for line in pods.ok("status", running.uuid).splitlines())
    init = int(status["pid"])
    children = [init, *descendants(init)]
    assert len(children) == 3
    for pid in children:
        cgroups = Path(f"/proc/{pid}/cgroup").read_text()
        assert any(running.uuid in line for line in cgroups.splitlines())


def descendants(pid: int) -> list[int]:
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [other for child in found for other in descendants(child)]


def test_processes_are_limited_in_number(pods: Pods) -> None:
    made, errno = pods.probe("forks", "4200").text.split()
    assert 4000 < int(made) < 4096
    assert int(errno) == EAGAIN


@pytest.mark.parametrize("flags", [(), ("--caps-retain=CAP_MKNOD,CAP_SYS_ADMIN,CAP_DAC_OVERRIDE",)])
def test_disks_of_the_host_cannot_be_opened(pods: Pods, flags: tuple[str, ...]) -> None:
    disk = next(line.split() for line in Path("/proc/partitions").read_text().splitlines()[2:])
    found = pods.probe("node", "b", "/tmp/disk", disk[0], disk[1], flags=flags).table
    assert str(EPERM) in (found["mknod"], found["open"])


@pytest.mark.parametrize(("major", "minor"), [(1, 1), (1, 4), (1, 11), (10, 237), (10, 200)])
def test_memory_and_other_devices_of_the_host_cannot_be_opened(pods: Pods, major: int, minor: int) -> None:
    found = pods.probe("node", "c", "/tmp/node", str(major), str(minor)).table
    assert str(EPERM) in (found["mknod"], found["open"])


def test_allowed_devices_can_be_made_and_opened(pods: Pods) -> None:
    found = pods.probe("node", "c", "/dev/another-null", "1", "3").table
    # Where nothing guards what is opened, none can be made.
    assert found in ({"mknod": "0", "open": "0"}, {"mknod": str(EPERM), "open": "2"})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A node of a block device in which there is something."""
    image = tmp_path / "image"
    image.write_bytes(b"of the disk\n".ljust(1 << 20))
    command = ["losetup", "--find", "--show", str(image)]
    loop = subprocess.run(command, capture_output=True, text=True, check=False)
    if loop.returncode:
        pytest.skip(f"no loop devices: {loop.stderr}")
    yield Path(loop.stdout.strip())
    subprocess.run(["losetup", "--detach", loop.stdout.strip()], check=True)


@pytest.mark.may_skip("a kernel may have no loop devices")
@pytest.mark.parametrize("read_only", [False, True])
def test_device_that_is_a_volume_can_be_used(pods: Pods, disk: Path, read_only: bool) -> None:
    script = "head -n1 /disk; echo changed > /disk; head -n1 /disk"
    flags = (
        f"--volume=v,kind=host,source={disk},readOnly={str(read_only).lower()}",
        "--mount=volume=v,target=/disk",
    )
    done = pods.sh(script, *flags)
    guarded = any("devices" in line for line in Path("/proc/self/cgroup").read_text().splitlines())
    assert done.lines == ["of the disk", "of the disk" if read_only and guarded else "changed"], done


def test_cgroups_are_shown_to_the_app_and_cannot_be_changed(pods: Pods) -> None:
    done = pods.sh(
        "find /sys/fs/cgroup -name 'memory.limit_in_bytes' -o -name 'memory.max' | head -1; "
        "for f in $(find /sys/fs/cgroup -name '*.procs'); do echo $$ > $f; done; mkdir /sys/fs/cgroup/x",
        "--memory=64Mi",
        "--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE",
    )
    assert done.code != 0
    assert "Read-only file system" in done.errors
    assert all("Read-only" in line for line in done.errors.splitlines())


def test_app_sees_itself_at_the_root_of_its_cgroups(pods: Pods) -> None:
    lines = pods.sh("cat /proc/self/cgroup").lines
    assert lines
    uuids = [line for line in lines if line.count("-") >= 4 and "rkt-py" in line]
    assert uuids == []


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_cgroups_go_with_the_pod(pods: Pods, number: signal.Signals | None) -> None:
    running = pods.start_sh("echo ready; exec sleep 1000" if number else "echo ready", "--memory=64Mi")
    uuid = running.uuid
    if number:
        assert directories(uuid)
    running.end(number)
    assert directories(uuid) == []


def test_failed_start_leaves_no_cgroups(pods: Pods, tmp_path: Path) -> None:
    uuid_file = tmp_path / "uuid"
    done = pods.sh("true", "--memory=64Mi", "--working-dir=/missing", f"--uuid-file-save={uuid_file}")
    assert done.code == 254
    assert directories(uuid_file.read_text().strip()) == []
