"""A full disk: a sentence that says so, nothing half there, and all works once there is space again."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harm import (
    SmallDisk,
    archive,
    assert_one_sentence,
    cgroups,
    entry,
    files,
    manifest,
    small_disk,
    wait_until,
)

pytestmark = pytest.mark.root

FULL = "No space left on device"
NOISE = random.Random(0).randbytes(6_000_000)
BIG = archive(*[entry(f"rootfs/{i}", NOISE[i * 60_000 : (i + 1) * 60_000]) for i in range(100)])


class Disk(SmallDisk):
    """A small disk with a good image in its store."""

    good = ""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "good.aci").write_bytes(archive(about=manifest(name="example.com/good")))
    (tmp_path / "big.aci").write_bytes(BIG)
    with small_disk(tmp_path / "disk", 24) as small:
        disk = Disk(small.data.parent, small.namespace)
        disk.good = disk.ok("--insecure-options=image", "fetch", "--full", tmp_path / "good.aci").strip()
        disk.ok("run", "--net=none", disk.good)
        collect(disk)
        yield disk


def collect(disk: SmallDisk) -> None:
    done = disk("gc", "--grace-period=0s", "--expire-prepared=0s")
    assert done.code == 0 and "not removed" not in done.stderr, done


def check_works_again(disk: Disk) -> None:
    disk.clear()
    assert disk("run", "--net=none", disk.good) == (0, "", "")
    collect(disk)
    assert not disk.left()


@pytest.mark.parametrize("room", [0, 1 << 20, 5 << 20, 9 << 20], ids=lambda room: f"{room >> 20} MiB free")
def test_an_image_that_does_not_fit_is_not_in_the_store(room: int, disk: Disk, tmp_path: Path) -> None:
    disk.fill(leave=room)
    before, free = files(disk.seen), disk.free()
    result = disk("--insecure-options=image", "fetch", tmp_path / "big.aci")
    assert_one_sentence(result, "fetch", FULL)
    assert files(disk.seen) == before
    assert disk.free() == free
    check_works_again(disk)
    disk.ok("--insecure-options=image", "fetch", tmp_path / "big.aci")
    assert len(disk.ok("image", "list", "--no-legend").splitlines()) == 2


@pytest.mark.parametrize(
    "command",
    [
        ["prepare"],
        ["prepare", "--no-overlay"],
        ["run", "--net=none"],
        ["run", "--net=none", "--no-overlay"],
        ["run", "--net=none", "--pod-manifest=POD"],
    ],
    ids=" ".join,
)
def test_a_pod_that_does_not_fit_is_not_there(command: list[str], disk: Disk, tmp_path: Path) -> None:
    pod = {
        "acVersion": "0.8.11",
        "acKind": "PodManifest",
        "apps": [{"name": "a", "image": {"id": disk.good}}],
    }
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    args = [word.replace("POD", str(tmp_path / "pod.json")) for word in command]
    disk.fill()
    before = files(disk.seen)
    result = disk(*args, *([] if "--pod-manifest=POD" in command else [disk.good]))
    assert_one_sentence(result, command[0], FULL)
    assert files(disk.seen) == before
    check_works_again(disk)


def test_no_room_for_one_more_file_at_any_step_leaves_no_pod(tmp_path: Path) -> None:
    (tmp_path / "good.aci").write_bytes(archive(entry("rootfs/extra", b"x"), about=manifest()))
    with small_disk(tmp_path / "disk", 24, inodes=200) as disk:
        key = disk.ok("--insecure-options=image", "fetch", "--full", tmp_path / "good.aci").strip()
        disk.ok("run", "--net=none", key)
        collect(disk)
        failed = 0
        for leave in range(40):
            disk.fill_inodes(leave)
            before = files(disk.seen)
            result = disk("prepare", key)
            if result.code == 0:
                break
            assert_one_sentence(result, "prepare", FULL)
            assert files(disk.seen) == before, leave
            disk.clear()
            failed += 1
        assert 10 < failed < 40
        disk.clear()
        collect(disk)
        assert not disk.left()


def test_room_for_some_of_what_a_pod_writes_is_an_error_or_enough(disk: Disk) -> None:
    """Page by page: what gc must know of a pod is written before the pod has it."""
    failed = 0
    for pages in range(24):
        disk.fill(leave=pages * os.sysconf("SC_PAGE_SIZE"))
        result = disk("run", "--net=none", disk.good)
        if result.code == 0:
            break
        assert_one_sentence(result, "run", FULL, "pod" if failed < 6 else "/etc")
        failed += 1
        for pod in (disk.seen / "data/pods/run").iterdir():
            assert (pod / "subcgroup").read_text() or not made_cgroups(pod.name)
        collect(disk)
        assert not disk.left()
        disk.clear()
    assert 6 <= failed < 24
    check_works_again(disk)


def made_cgroups(uuid: str) -> list[str]:
    return list(cgroups({uuid}))


def test_a_prepared_pod_can_be_listed_and_collected_on_a_full_disk(disk: Disk) -> None:
    uuid = disk.ok("prepare", disk.good).strip()
    disk.fill()
    assert uuid[:8] in disk.ok("list")
    assert "prepared" in disk.ok("status", uuid)
    result = disk("run-prepared", "--net=none", uuid)
    assert_one_sentence(result, "run-prepared", FULL)
    collect(disk)
    assert not disk.left()
    check_works_again(disk)


def test_ended_pods_are_removed_on_a_full_disk(disk: Disk) -> None:
    disk.ok("run", "--net=none", disk.good)
    kept = disk.ok("prepare", disk.good).strip()
    disk.fill()
    assert disk.ok("rm", kept) == f'"{kept}"\n'
    collect(disk)
    assert not disk.left()
    assert disk.ok("image", "rm", disk.good)
    assert not disk.left()


def test_an_export_that_does_not_fit_leaves_no_file(disk: Disk) -> None:
    disk.fill(leave=1 << 20)
    before = files(disk.seen)
    result = disk("image", "export", disk.good, disk.data.parent / "out.aci")
    assert_one_sentence(result, "export", FULL, "out.aci")
    assert files(disk.seen) == before
    disk.clear()
    disk.ok("image", "export", disk.good, disk.data.parent / "out.aci")
    assert (disk.seen / "out.aci").read_bytes() == archive(about=manifest(name="example.com/good"))


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz", "bzip2"])
def test_an_image_built_that_does_not_fit_leaves_no_file(
    compression: str, disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs/file").write_bytes(NOISE[:2_000_000])
    build = ["image", "build", f"--compression={compression}", "--name=example.com/a"]
    build.append(str(tmp_path / "rootfs"))
    out = disk.data.parent / "out.aci"
    disk.fill(leave=200_000)
    before = files(disk.seen)
    result = disk(*build, out)
    assert_one_sentence(result, "build", FULL, "out.aci")
    assert files(disk.seen) == before
    disk.clear()
    disk.ok(*build, out)
    assert (disk.seen / "out.aci").stat().st_size > 1_000_000


def test_a_pod_runs_on_when_its_log_does_not_fit(disk: Disk, tmp_path: Path) -> None:
    """All it writes goes to the caller; what of its log has no room is lost, and only that."""
    (tmp_path / "volume").mkdir()
    go = tmp_path / "volume/go"
    os.mkfifo(go)
    loop = "i=0; while [ $i -lt 3000 ]; do echo line $i of the log; i=$((i+1)); done"
    script = f"echo before; cat /v/go; {loop}; cat /v/go; echo after"
    volume = ["--volume=v,kind=host,source=" + str(tmp_path / "volume"), "--mount=volume=v,target=/v"]
    uuid_file = tmp_path / "uuid"
    running = subprocess.Popen(
        disk.command("run", "--net=none", f"--uuid-file-save={uuid_file}", *volume, disk.good)
        + ["--exec=/bin/sh", "--", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "before\n"
    log = disk.seen / "data/pods/run" / uuid_file.read_text().strip() / "rkt/log/good"
    wait_until(lambda: log.stat().st_size > 0, "the first line in the log")
    disk.fill()
    go.write_text("")
    lines = [running.stdout.readline() for _ in range(3000)]
    assert lines == [f"line {i} of the log\n" for i in range(3000)]
    disk.clear()
    go.write_text("")
    rest, errors = running.communicate(timeout=30)
    assert (running.returncode, rest, errors) == (0, "after\n", "")
    kept = disk.ok("logs", uuid_file.read_text().strip())
    assert "before\n" in kept and kept.endswith("after\n") and kept.count("\n") < 3002
    assert "app-good=0" in disk.ok("status", uuid_file.read_text().strip())
    collect(disk)
    assert not disk.left()
