"""Many pods, one after the other and at once: nothing is left, nothing is slower for there being more."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rkt_py
from tests import host
from tests.system.harm import Site, archive, entry, files, manifest, mounts_of, wait_for_processes

pytestmark = pytest.mark.root


class Soaked(Site):
    """An installation with one image, and all that there was before its pods."""

    image = ""
    aci = Path()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soaked]:
    directory = tmp_path_factory.mktemp("soak")
    site = Soaked(directory / "data")
    site.aci = directory / "good.aci"
    site.aci.write_bytes(archive(about=manifest(name="example.com/good")))
    site.image = site.ok("--insecure-options=image", "fetch", "--full", site.aci).strip()
    site.ok("run", "--net=none", site.image)
    site.collect()
    yield site
    site.close()


def run(site: Soaked, *, keep: bool = False) -> str:
    result = rkt_py.run(site.image, memory="32M", keep=keep, paths=rkt_py.Paths(data=str(site.data)))
    assert result.exit_code == 0
    return result.uuid


def namespaces() -> int:
    """How many network namespaces there are that a process is in or a mount keeps."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            continue
    return len(found) + Path("/proc/self/mountinfo").read_text().count(" nsfs ")


def check_clean(site: Soaked) -> None:
    site.see()
    wait_for_processes(site.data)
    site.collect()
    site.assert_clean()


def test_400_pods_in_a_row_leave_nothing(site: Soaked) -> None:
    before = files(site.data), os.listdir("/sys/class/net"), namespaces()
    for _ in range(400):
        site.uuids.add(run(site))
    site.assert_clean()
    assert (files(site.data), os.listdir("/sys/class/net")) == before[:2]
    assert namespaces() <= before[2]


def test_100_pods_of_the_command_in_a_row_and_one_collection_leave_nothing(site: Soaked) -> None:
    before = files(site.data)
    for _ in range(100):
        assert site("run", "--net=none", site.image) == (0, "", "")
    assert len(site.pods()["run"]) == 100
    check_clean(site)
    assert files(site.data) == before


def test_50_pods_at_once_leave_nothing(site: Soaked) -> None:
    """Half of them in a network, so that the last one out has it all to take down."""
    before = host.observe()
    commands = [
        site.command("run", f"--net={('none', 'default')[number % 2]}", site.image, "--exec=/bin/sh")
        + ["--", "-c", f"echo {number}; exit {number}"]
        for number in range(50)
    ]
    pods = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    site.started += pods  # type: ignore[arg-type]
    ended = [(*pod.communicate(timeout=100), pod.returncode) for pod in pods]
    assert ended == [(f"{number}\n".encode(), b"", number) for number in range(50)]
    check_clean(site)
    left = [line for line in host.left_behind(before, host.observe()) if "processes" not in line]
    assert not [line for line in left if any(uuid in line for uuid in site.uuids)]


def test_no_mount_of_a_pod_is_ever_seen_by_the_host(site: Soaked) -> None:
    """Looked at without a break while 20 pods start and end, and while 10 of them run."""
    seen: list[str] = []
    stop = threading.Event()
    looks = 0

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            seen.extend(mounts_of(site.data))
            looks += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        waiting = [
            site.start(
                "run", "--net=none", site.image, "--exec=/bin/sh", "--", "-c", "echo up; read x < /dev/ptmx"
            )
            for _ in range(10)
        ]
        assert [pod.stdout.readline() for pod in waiting if pod.stdout] == ["up\n"] * 10
        for _ in range(20):
            run(site)
        for pod in waiting:
            pod.terminate()
        assert {pod.wait(30) for pod in waiting} <= {143, 128 + 15}
    finally:
        stop.set()
        watcher.join()
    assert looks > 20
    assert not seen
    check_clean(site)


def work(site: Soaked, *args: str) -> int:
    """How many system calls a command makes."""
    done = subprocess.run(
        ["strace", "-f", "-c", "-U", "calls,name", *site.command(*args)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    total = re.search(r"^ *(\d+) +total$", done.stderr, re.MULTILINE)
    assert total, done.stderr
    return int(total[1])


@pytest.mark.parametrize("verb", ["gc", "list", "image list"])
def test_the_work_grows_no_faster_than_what_there_is(verb: str, site: Soaked, tmp_path: Path) -> None:
    """System calls for 5, 20 and 80: as many for each of them, whether there are few or many."""
    counts = {}
    for many in (0, 5, 20, 80):
        if verb == "image list":
            for number in range(len(site.ok("image", "list", "--no-legend").splitlines()) - 1, many):
                copy_image(site, number)
        else:
            for _ in range(many if verb == "gc" else many - len(site.pods().get("run", []))):
                run(site, keep=True)
        args = [verb, "--grace-period=0s"] if verb == "gc" else verb.split()
        counts[many] = work(site, *args)
    each = [(counts[many] - counts[0]) / many for many in (5, 20, 80)]
    print(counts, each)
    assert max(each) <= 1.3 * min(each), counts
    if verb == "image list":
        for key in os.listdir(site.data / "cas/image"):
            if key != site.image:
                site.ok("image", "rm", key)
    check_clean(site)


def copy_image(site: Soaked, number: int) -> None:
    """One more image in the store, by a name of its own."""
    aci = site.data.parent / "more.aci"
    text = manifest(name=f"example.com/more{number}")
    aci.write_bytes(archive(entry("rootfs", kind="directory"), about=text, rootfs=False))
    site.ok("--insecure-options=image", "fetch", aci)


# The same things at once


def at_once(*commands: list[str]) -> list[tuple[int, str, str]]:
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=100)
        results.append((process.returncode, out, err))
    return results


def test_one_image_fetched_by_8_at_once_is_there_once(tmp_path: Path) -> None:
    site = Site(tmp_path / "data")
    (tmp_path / "good.aci").write_bytes(archive())
    fetch = site.command("--insecure-options=image", "fetch", "--full", tmp_path / "good.aci")
    results = at_once(*[fetch] * 8)
    assert len(set(results)) == 1 and results[0][0] == 0 and results[0][2] == "", results
    key = results[0][1].strip()
    assert os.listdir(site.data / "cas/image") == [key]
    assert not os.listdir(site.data / "cas/tmp")
    assert site("run", "--net=none", key) == (0, "", "")
    site.collect()
    site.assert_clean()


def test_an_image_fetched_removed_and_run_at_once_is_whole_or_not_there(site: Soaked) -> None:
    """Whoever comes too late gets a sentence; nobody gets half an image."""
    fetch = site.command("--insecure-options=image", "fetch", site.aci)
    rm = site.command("image", "rm", "example.com/good")
    start = site.command("run", "--net=none", "example.com/good")
    for _ in range(4):
        for code, _, errors in at_once(fetch, rm, start, fetch, rm, start):
            assert code in (0, 254) and "Traceback" not in errors and "internal error" not in errors, errors
            lines = errors.splitlines()
            assert code == 0 or 1 <= len(lines) <= 2, errors
            assert not [line for line in lines if "damaged" in line], errors
    site.ok("--insecure-options=image", "fetch", site.aci)
    assert site("run", "--net=none", site.image) == (0, "", "")
    check_clean(site)


def test_an_image_in_use_is_not_removed(site: Soaked) -> None:
    pod = site.start(
        "run", "--net=none", site.image, "--exec=/bin/sh", "--", "-c", "echo up; read x < /dev/ptmx"
    )
    assert pod.stdout is not None and pod.stdout.readline() == "up\n"
    result = site("image", "rm", site.image)
    assert result.code == 254 and "in use" in result.stderr, result
    pod.terminate()
    pod.wait(30)
    check_clean(site)
    assert site("run", "--net=none", site.image) == (0, "", "")
    check_clean(site)


def test_collections_at_once_share_the_work(site: Soaked) -> None:
    uuids = {run(site, keep=True) for _ in range(20)}
    results = at_once(*[site.command("gc", "--grace-period=0s")] * 4)
    reported = []
    for code, _, errors in results:
        assert code == 0 and "not removed" not in errors, errors
        reported += re.findall(r"Garbage collecting pod \"([0-9a-f-]{36})\"", errors)
    out = "".join(out for _, out, _ in results)
    reported += re.findall(r"Garbage collecting pod \"([0-9a-f-]{36})\"", out)
    assert sorted(reported) == sorted(uuids)
    site.assert_clean()


def test_collections_leave_pods_that_start_and_run_alone(site: Soaked) -> None:
    """Twenty pods start while one collection follows the other: none is taken for an ended one."""
    stop = threading.Event()
    errors: list[str] = []

    def collect() -> None:
        while not stop.is_set():
            done = site("gc", "--grace-period=0s")
            if done.code != 0 or "not removed" in done.stderr:
                errors.append(done.stderr)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        running = site.start(
            "run", "--net=none", site.image, "--exec=/bin/sh", "--", "-c", "echo up; read x < /dev/ptmx"
        )
        assert running.stdout is not None and running.stdout.readline() == "up\n"
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: site("run", "--net=none", site.image), range(20)))
        assert set(results) == {(0, "", "")}
        prepared = site.ok("prepare", site.image).strip()
        assert running.poll() is None
        running.terminate()
        running.wait(30)
    finally:
        stop.set()
        collector.join()
    assert not errors
    assert prepared in site.pods()["prepared"]
    check_clean(site)
