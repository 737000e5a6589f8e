"""Garbage collection: what ended goes, in its time, with all it left; nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkt_py.runtime import gc, network
from rkt_py.runtime import pod as pods
from rkt_py.runtime.errors import NetworkError, PodError
from rkt_py.runtime.paths import Paths
from tests.runtime.state import Child

ROOT = Path(__file__).parents[2]


class Host:
    """An installation, what gc reports of it, and the networks it takes down."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = Paths(data=str(directory / "data"), run=str(directory / "run"))
        self.reports: list[str] = []
        self.left: list[str] = []
        self.broken = False

    def collect(self, grace: float = 0, expire: float = 1000, mark_only: bool = False) -> list[str]:
        self.reports.clear()
        gc.collect(
            self.paths,
            grace_period=grace,
            expire_prepared=expire,
            mark_only=mark_only,
            report=self.reports.append,
            teardown=self.teardown,
        )
        return self.reports

    def teardown(self, paths: Paths, uuid: str) -> None:
        assert paths == self.paths
        if self.broken:
            raise NetworkError(f'cannot take down the networks of pod "{uuid}"')
        self.left.append(uuid)

    def pod(self, state: str) -> str:
        """Make a pod; return its UUID."""
        with pods.create(self.paths) as pod:
            pod.write("pod", b"{}")
            pod.write("overlay/app/upper/etc/passwd", b"root")
            if state == "prepared":
                pod.to_prepared(durable=False)
            elif state == "embryo":
                os.rename(pod.path, self.paths.pod("embryo", pod.uuid))
            elif state != "aborted prepare":
                pod.to_run()
                if state != "exited":
                    pod.to_exited_garbage()
                if state == "garbage":
                    pod.to_garbage()
            return pod.uuid

    def states(self) -> dict[str, str]:
        return {pod.uuid: pod.state for pod in pods.walk(self.paths)}

    def cgroup(self, uuid: str, controller: str = "memory", below: str = "") -> Path:
        """Make what looks like a pod's cgroup and say so in the pod."""
        path = self.directory / "cgroup" / controller / "rkt-py" / uuid
        (path / below).mkdir(parents=True)
        with pods.find(self.paths, uuid) as pod:
            before = pod.read("subcgroup") if "subcgroup" in os.listdir(pod.path) else b""
            pod.write("subcgroup", before + f"{path}\n".encode())
        return path


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    descriptors = len(os.listdir("/proc/self/fd"))
    yield host
    assert len(os.listdir("/proc/self/fd")) == descriptors


# What rkt's gc does with each state, and what it says.


@pytest.mark.parametrize(
    "state, grace, expire, mark_only, reports, after",
    [
        ("exited", 0, 1000, False, ['moving pod "U" to garbage', 'Garbage collecting pod "U"'], None),
        ("exited", 1800, 1000, False,
         ['moving pod "U" to garbage', 'pod "U" not removed: still within grace period (30m0s)'],
         "exited garbage"),
        ("exited", 0, 0, True, ['moving pod "U" to garbage'], "exited garbage"),
        ("exited garbage", 0, 1000, False, ['Garbage collecting pod "U"'], None),
        ("exited garbage", 0.25, 1000, False,
         ['pod "U" not removed: still within grace period (250ms)'], "exited garbage"),
        ("exited garbage", 0, 0, True, [], "exited garbage"),
        ("garbage", 1800, 1000, False, ['Garbage collecting pod "U"'], None),
        ("garbage", 0, 0, True, [], "garbage"),
        ("prepared", 0, 1000, False, [], "prepared"),
        ("prepared", 1800, 0, False,
         ['moving expired prepared pod "U" to garbage', 'Garbage collecting pod "U"'], None),
        ("prepared", 0, 0, True, [], "prepared"),
        ("aborted prepare", 1800, 1000, False,
         ['moving failed prepare "U" to garbage', 'Garbage collecting pod "U"'], None),
        ("aborted prepare", 0, 0, True, ['moving failed prepare "U" to garbage'], "garbage"),
        ("embryo", 1800, 1000, False,
         ['moving failed prepare "U" to garbage', 'Garbage collecting pod "U"'], None),
    ],
)  # fmt: skip
def test_what_becomes_of_a_pod(
    host: Host,
    state: str,
    grace: float,
    expire: float,
    mark_only: bool,
    reports: list[str],
    after: str | None,
) -> None:
    uuid = host.pod(state)
    assert host.states() == {uuid: state}
    assert host.collect(grace, expire, mark_only) == [text.replace("U", uuid) for text in reports]
    assert host.states() == ({} if after is None else {uuid: after})


def test_grace_counts_from_the_mark(host: Host) -> None:
    uuid = host.pod("exited")
    time.sleep(0.25)
    host.collect(grace=0.2)
    assert host.states() == {uuid: "exited garbage"}
    time.sleep(0.25)
    assert host.collect(grace=0.2) == [f'Garbage collecting pod "{uuid}"']


@pytest.mark.parametrize("directory", ["embryo", "prepare", "prepared", "run", "exited-garbage", "garbage"])
def test_what_somebody_holds_stays(host: Host, directory: str) -> None:
    with pods.create(host.paths) as pod:
        os.makedirs(host.paths.pods(directory), exist_ok=True)
        os.rename(pod.path, host.paths.pod(directory, pod.uuid))
        assert host.collect(0, 0) == []
        assert os.path.isdir(host.paths.pod(directory, pod.uuid))


def test_without_a_data_directory_there_is_nothing_to_collect(host: Host) -> None:
    assert host.collect() == []
    assert not os.path.exists(host.paths.data)


def test_killed_imports_are_swept(host: Host) -> None:
    os.makedirs(f"{host.paths.image_tmp}/image-dead/rootfs")
    assert host.collect(mark_only=True) == []
    assert host.collect() == ['removed "image-dead", which nobody finished']
    assert os.listdir(host.paths.image_tmp) == []


def test_collecting_a_pod_is_as_dear_among_many_as_among_few(host: Host) -> None:
    """rkt's was quadratic: 60 pods took 50 times as long as 10."""

    def seconds_a_pod(count: int) -> float:
        for _ in range(count):
            host.pod("exited")
        start = time.process_time()
        host.collect()
        assert host.states() == {}
        return (time.process_time() - start) / count

    few = min(seconds_a_pod(10) for _ in range(3))
    assert seconds_a_pod(200) < 3 * few


# What a pod left


@pytest.mark.parametrize("state", ["exited", "exited garbage", "garbage", "prepared", "aborted prepare"])
def test_networks_are_taken_down_before_the_pod_goes(host: Host, state: str) -> None:
    uuid = host.pod(state)
    host.broken = True
    reports = host.collect(0, 0)
    assert reports[-1] == f'pod "{uuid}" not removed: cannot take down the networks of pod "{uuid}"'
    assert list(host.states()) == [uuid]
    host.broken = False
    host.collect(0, 0)
    assert (host.states(), host.left) == ({}, [uuid])


def test_cgroups_go_with_the_pod_and_their_parents_with_the_last(host: Host) -> None:
    first, second = host.pod("exited"), host.pod("exited garbage")
    for uuid in (first, second):
        host.cgroup(uuid, "memory", "app/below")
        host.cgroup(uuid, "cpu")
    with pods.create(host.paths) as running:
        running.to_run()
        path = host.cgroup(running.uuid)
        host.collect()
        assert list(host.states()) == [running.uuid]
        assert os.listdir(path.parent) == [running.uuid]
        assert os.listdir(host.directory / "cgroup/cpu") == ["rkt-py"]
    host.collect()
    assert os.listdir(host.directory / "cgroup/memory") == []


def test_parents_are_not_removed_from_under_others(host: Host) -> None:
    uuid = host.pod("exited")
    path = host.cgroup(uuid)
    (path.parent / "somebody").mkdir()
    host.collect()
    assert os.listdir(path.parent) == ["somebody"]


@pytest.mark.parametrize(
    "line",
    ["D", "D/rkt-py", "D/rkt-py/", "D/rkt-py/..", "D/rkt-py/../other", "D/rkt-py/./x", "D//rkt-py/x",
     "rkt-py/x", "D/not-rkt-py/x", "D/link-rkt-py/x"],
)  # fmt: skip
def test_only_cgroups_of_ours_are_removed(host: Host, tmp_path: Path, line: str) -> None:
    for name in ("rkt-py", "rkt-py/x", "other", "not-rkt-py/x", "link-rkt-py/x"):
        (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
    before = sorted((tmp_path / "d").rglob("*"))
    uuid = host.pod("exited")
    with pods.find(host.paths, uuid) as pod:
        pod.write("subcgroup", line.replace("D", f"{tmp_path}/d").encode())
    host.collect()
    assert host.states() == {}
    assert sorted((tmp_path / "d").rglob("*")) == before


def test_a_cgroup_in_use_keeps_the_pod(host: Host) -> None:
    uuid = host.pod("exited")
    path = host.cgroup(uuid)
    (path / "process").touch()  # rmdir of a cgroup with processes fails too
    reports = host.collect()
    assert reports[-1].startswith(f'pod "{uuid}" not removed: ')
    assert str(path) in reports[-1]
    assert host.states() == {uuid: "exited garbage"}
    (path / "process").unlink()
    host.collect()
    assert host.states() == {}


@pytest.mark.root
def test_a_real_cgroup_goes(host: Host) -> None:
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]
    root = next(path for path in roots if (path / "cgroup.procs").exists() and os.access(path, os.W_OK))
    uuid = host.pod("exited")
    parent = root / "rkt-py"
    existed = parent.exists()
    (parent / uuid / "app/nested").mkdir(parents=True)
    with pods.find(host.paths, uuid) as pod:
        pod.write("subcgroup", f"{parent}/{uuid}\n".encode())
    host.collect()
    assert host.states() == {}
    assert not (parent / uuid).exists()
    assert existed or not parent.exists() or any(path.is_dir() for path in parent.iterdir())


HOSTILE: dict[str, Callable[[Path, Path], object]] = {
    "a fifo as pid": lambda pod, outside: os.mkfifo(pod / "pid"),
    "a fifo as subcgroup": lambda pod, outside: os.mkfifo(pod / "subcgroup"),
    "a link as subcgroup": lambda pod, outside: (pod / "subcgroup").symlink_to(outside / "kept"),
    "links outside": lambda pod, outside: (pod / "overlay/app/root").symlink_to(outside),
    "a link as appsinfo": lambda pod, outside: (pod / "appsinfo").symlink_to(outside),
    "a directory as subcgroup": lambda pod, outside: os.makedirs(pod / "subcgroup/x"),
    "names": lambda pod, outside: os.mkdir(os.fsencode(pod) + b"/\xff\n"),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_pod_goes_and_nothing_else(
    host: Host, tmp_path: Path, make: Callable[[Path, Path], object]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text(f"{outside}/rkt-py/x\n")
    (outside / "rkt-py/x").mkdir(parents=True)
    uuid = host.pod("exited")
    make(Path(host.paths.pod("run", uuid)), outside)
    host.collect()
    assert os.listdir(host.paths.pods("garbage")) == os.listdir(host.paths.pods("run")) == []
    assert sorted(os.listdir(outside)) == ["kept", "rkt-py"]
    assert os.listdir(outside / "rkt-py") == ["x"]


def test_what_is_no_pod_is_left_alone(host: Host, tmp_path: Path) -> None:
    host.pod("exited")
    run = Path(host.paths.pods("run"))
    (tmp_path / "outside").mkdir()
    (run / pods.new_uuid()).symlink_to(tmp_path / "outside")
    (run / pods.new_uuid()).touch()
    (run / "notes").mkdir()
    host.collect()
    assert len(os.listdir(run)) == 3
    assert (tmp_path / "outside").is_dir()


MOUNTED = """
import os, subprocess, sys
from rkt_py.runtime import gc, pod as pods
from rkt_py.runtime.paths import Paths
paths = Paths(data=sys.argv[1], run=sys.argv[1] + "/run")
with pods.create(paths) as pod:
    root = pod.mkdir("overlay/app/root").replace("prepare", "run")
    pod.to_run()
subprocess.run(["mount", "--bind", "/usr", root], check=True)
reports = []
collect = lambda: gc.collect(paths, grace_period=0, expire_prepared=0, report=reports.append)
collect()
assert "mounted" in reports[-1] and "not removed" in reports[-1], reports
root = root.replace("run", "garbage")
assert sorted(os.listdir("/usr")) == sorted(os.listdir(root)) != []
subprocess.run(["umount", root], check=True)
collect()
assert not list(pods.walk(paths)), reports
"""


@pytest.mark.root
def test_what_is_mounted_in_a_pod_stays(host: Host) -> None:
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", MOUNTED, host.paths.data]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Others at it, and killed


def test_several_collections_share_the_pods(host: Host) -> None:
    for _ in range(40):
        host.pod("exited")

    def collect() -> None:
        reports = host.collect()
        assert not [text for text in reports if "not removed" in text], reports

    children = [Child(collect) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    host.collect()
    assert host.states() == {}


def test_killed_at_any_point_a_collection_is_finished_by_the_next(host: Host) -> None:
    for _ in range(60):
        uuid = host.pod("exited")
        host.cgroup(uuid)
    killed = 0
    for number in range(15):
        child = Child(host.collect)
        time.sleep(0.001 * number)
        child.kill()
        killed += child.wait() == -9
        assert set(host.states().values()) <= {"exited", "exited garbage", "garbage"}
    host.collect()
    assert host.states() == {}
    assert os.listdir(host.directory / "cgroup/memory") == []
    assert killed > 3


def test_pods_made_and_run_while_collecting_are_not_lost(host: Host) -> None:
    def collect() -> None:
        while True:
            host.collect()

    child = Child(collect)
    try:
        for _ in range(100):
            with pods.create(host.paths) as pod:
                pod.write("pod", b"{}")
                pod.to_run()
                assert pod.read("pod") == b"{}"
            with pods.create(host.paths) as pod:
                pod.to_prepared(durable=False)
                pod.to_run()
                assert os.path.isdir(pod.path)
    finally:
        child.kill()
        child.wait()
    host.collect()
    assert host.states() == {}


# rm


@pytest.mark.parametrize(
    "state", ["exited", "exited garbage", "garbage", "prepared", "aborted prepare", "embryo"]
)
def test_rm_removes_what_is_not_running(host: Host, state: str) -> None:
    uuid = host.pod(state)
    path = host.cgroup(uuid)
    with pods.find(host.paths, uuid) as pod:
        gc.remove(pod, teardown=host.teardown)
    assert (host.states(), host.left) == ({}, [uuid])
    assert not path.parent.exists()


def test_rm_removes_what_one_is_preparing_oneself(host: Host) -> None:
    with pods.create(host.paths) as pod:
        gc.remove(pod, teardown=host.teardown)
    assert host.states() == {}


@pytest.mark.parametrize(
    "directory, why",
    [
        ("run", "running"),
        ("prepare", "being prepared"),
        ("embryo", "being prepared"),
        ("prepared", "being deleted"),
        ("exited-garbage", "being deleted"),
        ("garbage", "being deleted"),
    ],
)
def test_rm_says_why_not(host: Host, directory: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_PATIENCE", 0.05)
    with pods.create(host.paths) as holder:
        os.rename(holder.path, host.paths.pod(directory, holder.uuid))
        with pods.find(host.paths, holder.uuid) as pod, pytest.raises(PodError) as caught:
            gc.remove(pod, teardown=host.teardown)
        assert str(caught.value) == f'pod "{holder.uuid}" is currently {why}'
        assert os.path.isdir(host.paths.pod(directory, holder.uuid))


def test_rm_of_what_somebody_else_removes_is_no_error(host: Host) -> None:
    uuid = host.pod("exited")
    found = [pods.find(host.paths, uuid) for _ in range(2)]
    for pod in found:
        with pod:
            gc.remove(pod, teardown=host.teardown)
    assert host.states() == {}


def test_rm_follows_a_pod_that_was_marked_meanwhile(host: Host) -> None:
    uuid = host.pod("exited")
    with pods.find(host.paths, uuid) as pod:
        host.collect(grace=1000)
        assert pod.directory == "run"
        gc.remove(pod, teardown=host.teardown)
    assert host.states() == {}


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (1, "1s"), (0.25, "250ms"), (1.5, "1.5s"), (60, "1m0s"), (90, "1m30s"), (1800, "30m0s"),
     (3600, "1h0m0s"), (86400, "24h0m0s"), (3661.5, "1h1m1.5s")],
)  # fmt: skip
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert gc._duration(seconds) == text


def test_the_seam_to_networks_is_the_real_one() -> None:
    for function in (gc.collect, gc.remove):
        assert (function.__kwdefaults__ or {})["teardown"] is network.teardown
