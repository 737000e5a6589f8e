"""Pods: states, races for them, names, files."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rkt_py.aci.errors import BadManifest
from rkt_py.runtime import pod as pods
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.paths import Paths
from rkt_py.runtime.pod import Pod, RuntimeConfig
from tests.runtime.state import Child

ROOT = Path(__file__).parents[2]
UUID = "6bc20d61-53a3-4b41-a5a1-4a2b4cfb2f2e"
OTHER = "6bc20d61-0000-4b41-a5a1-4a2b4cfb2f2e"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=str(tmp_path / "data"), run=str(tmp_path / "run"))


def place(paths: Paths, directory: str, uuid: str = UUID) -> Path:
    path = Path(paths.pod(directory, uuid))
    path.mkdir(parents=True)
    return path


def exited(paths: Paths, uuid: str | None = None) -> str:
    with pods.create(paths, uuid) as pod:
        pod.to_run()
        return pod.uuid


# rkt, pod life cycle: a state is a directory and a lock


@pytest.mark.parametrize(
    "directory, unlocked, locked",
    [
        ("embryo", "embryo", "embryo"),
        ("prepare", "aborted prepare", "preparing"),
        ("prepared", "prepared", "deleting"),
        ("run", "exited", "running"),
        ("exited-garbage", "exited garbage", "exited deleting"),
        ("garbage", "garbage", "deleting"),
    ],
)
def test_state_is_a_directory_and_a_lock(paths: Paths, directory: str, unlocked: str, locked: str) -> None:
    path = place(paths, directory)
    with pods.find(paths, UUID) as pod:
        assert pod.state == unlocked
        holder = os.open(path, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert pod.state == locked
        os.close(holder)
        assert pod.state == unlocked


def test_a_pod_goes_from_preparing_through_prepared_and_running_to_garbage(paths: Paths) -> None:
    pod = pods.create(paths)
    seen: list[str] = [pod.state]
    pod.to_prepared()
    seen.append(pod.state)
    pod.to_run()
    seen.append(pod.state)
    pod.close()
    with pods.find(paths, pod.uuid) as pod:
        seen.append(pod.state)
        assert pod.lock()
        pod.to_exited_garbage()
        seen.append(pod.state)
        pod.unlock()
        seen.append(pod.state)
        assert pod.lock()
        pod.to_garbage()
        seen.append(pod.state)
        pod.unlock()
        seen.append(pod.state)
    assert seen == [
        "preparing", "prepared", "running", "exited", "exited deleting", "exited garbage",
        "deleting", "garbage",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "directory, move",
    [
        ("embryo", Pod.to_run),
        ("prepare", Pod.to_run),
        ("prepare", Pod.to_prepared),
        ("prepared", Pod.to_prepared),
        ("run", Pod.to_run),
        ("run", Pod.to_garbage),
        ("run", Pod.to_exited_garbage),
        ("exited-garbage", Pod.to_run),
        ("garbage", Pod.to_run),
    ],
)
def test_a_move_that_is_none_is_refused(paths: Paths, directory: str, move: Callable[[Pod], None]) -> None:
    place(paths, directory)
    with pods.find(paths, UUID) as pod, pytest.raises(PodError, match=UUID):
        move(pod)
    assert os.listdir(paths.pods(directory)) == [UUID]


def test_of_many_that_run_a_prepared_pod_one_does(paths: Paths, tmp_path: Path) -> None:
    for _ in range(10):
        with pods.create(paths) as pod:
            pod.to_prepared(durable=False)
        ready, go = os.pipe()
        result = tmp_path / pod.uuid
        result.touch()

        def run(uuid: str = pod.uuid, result: Path = result, ready: int = ready, go: int = go) -> None:
            with pods.find(paths, uuid) as mine:
                os.close(go)
                os.read(ready, 1)
                try:
                    mine.to_run()
                    outcome = "ran\n"
                except PodError as error:
                    outcome = f"{error}\n"
                with result.open("a") as file:
                    file.write(outcome)

        children = [Child(run) for _ in range(8)]
        os.close(ready)
        os.close(go)
        assert [child.wait() for child in children] == [0] * 8
        lines = sorted(result.read_text().splitlines())
        assert lines == [f'pod "{pod.uuid}" is not prepared'] * 7 + ["ran"]


def test_asking_for_states_stops_nobody(paths: Paths) -> None:
    def ask() -> None:
        while True:
            for pod in pods.walk(paths):
                assert pod.state

    askers = [Child(ask) for _ in range(2)]
    try:
        for _ in range(100):
            with pods.create(paths) as pod:
                pod.to_prepared(durable=False)
            with pods.find(paths, pod.uuid) as pod:
                pod.to_run()
                pod.to_exited_garbage()
                os.rmdir(pod.mkdir("x"))
                os.unlink(f"{pod.path}/pod-created")
                os.rmdir(pod.path)
    finally:
        for asker in askers:
            asker.kill()
    assert [asker.wait() for asker in askers] == [-9, -9]


def test_the_lock_goes_along_across_exec_and_ends_with_the_process(paths: Paths) -> None:
    with pods.create(paths) as pod:
        pod.to_run()
        process = subprocess.Popen(["sleep", "1000"], pass_fds=[pod.lock_fd])
    with pods.find(paths, pod.uuid) as pod:
        try:
            states: list[str] = [pod.state]
            assert not pod.lock()
            assert not pod.wait(0.01)
        finally:
            process.kill()
        pod.wait()
        assert [*states, pod.state] == ["running", "exited"]
        assert pod.wait(0)
    process.wait()


@pytest.mark.parametrize("timeout", [None, 30])
def test_wait_ends_when_the_pod_does(paths: Paths, timeout: float | None) -> None:
    def run() -> None:
        pods.create(paths, UUID).to_run()
        time.sleep(0.2)

    child = Child(run)
    while not os.path.isdir(paths.pod("run", UUID)):
        time.sleep(0.001)
    with pods.find(paths, UUID) as pod:
        assert pod.wait(timeout)
        assert pod.state == "exited"
    assert child.wait() == 0


def test_a_pod_killed_at_any_point_is_found_aborted_prepared_or_exited(paths: Paths) -> None:
    def live() -> None:
        while True:
            with pods.create(paths) as pod:
                pod.write("pod", b"{}")
                pod.to_prepared(durable=False)
                pod.to_run()

    for round in range(20):
        child = Child(live)
        time.sleep(0.003 + round * 0.0007)
        child.kill()
        assert child.wait() == -9
    states = [pod.state for pod in pods.walk(paths)]
    assert len(states) > 20
    assert set(states) <= {"embryo", "aborted prepare", "prepared", "exited"}


# Names


def test_uuids_are_random_version_4() -> None:
    made = {pods.new_uuid() for _ in range(1000)}
    assert len(made) == 1000
    assert all(pods.is_uuid(uuid) and uuid[14] == "4" and uuid[19] in "89ab" for uuid in made)


@pytest.mark.parametrize(
    "text",
    ["", "x", UUID.upper(), UUID[:-1], UUID + "0", UUID.replace("-", "_"), UUID.replace("6", "g"),
     "6bc20d6-153a3-4b41-a5a1-4a2b4cfb2f2e", "-" * 36, f"../{UUID}"[:36], UUID[:-1] + "\n"],
)  # fmt: skip
def test_what_is_no_uuid(text: str) -> None:
    assert not pods.is_uuid(text)


@pytest.mark.parametrize("prefix", [UUID, UUID[:12], UUID[:10], UUID[:10].upper(), f" {UUID}\n"])
def test_a_unique_prefix_is_enough(paths: Paths, prefix: str) -> None:
    place(paths, "run")
    place(paths, "prepared", OTHER)
    with pods.find(paths, prefix) as pod:
        assert (pod.uuid, pod.directory) == (UUID, "run")


@pytest.mark.parametrize(
    "prefix, message",
    [
        ("zz", 'no matches found for "zz"'),
        (UUID.replace("6", "7"), f'no matches found for "{UUID.replace("6", "7")}"'),
        ("6bc2", f'"6bc2" is ambiguous: {OTHER}, {UUID}'),
        ("6bc20d61-", f'"6bc20d61-" is ambiguous: {OTHER}, {UUID}'),
        ("", "no UUID was given"),
        ("..", 'no matches found for ".."'),
        ("no-uuid", 'no matches found for "no-uuid"'),
    ],
)
def test_no_match_and_several_are_said_so(paths: Paths, prefix: str, message: str) -> None:
    place(paths, "run")
    place(paths, "prepared", OTHER)
    place(paths, "run", "no-uuid")
    with pytest.raises(PodError) as caught:
        pods.find(paths, prefix)
    assert str(caught.value) == message


def test_without_a_data_directory_there_are_no_pods(paths: Paths) -> None:
    assert list(pods.walk(paths)) == []
    with pytest.raises(PodError, match="no matches"):
        pods.find(paths, UUID)
    assert not os.path.exists(paths.data)


def test_a_pod_that_moves_is_found(paths: Paths) -> None:
    for directory in pods.DIRECTORIES:
        os.makedirs(paths.pods(directory))
    os.mkdir(paths.pod("embryo", UUID))

    def move() -> None:
        for before, after in zip(pods.DIRECTORIES, pods.DIRECTORIES[1:]):
            time.sleep(0.003)
            os.rename(paths.pod(before, UUID), paths.pod(after, UUID))

    child = Child(move)
    finds = 0
    while not os.path.isdir(paths.pod("garbage", UUID)):
        pods.find(paths, UUID).close()
        pods.find(paths, UUID[:8]).close()
        assert [pod.uuid for pod in pods.walk(paths)] == [UUID]
        finds += 1
    assert child.wait() == 0
    assert finds > 0


def test_pods_are_walked_by_uuid_one_open_at_a_time(paths: Paths) -> None:
    uuids = sorted(pods.new_uuid() for _ in range(30))
    for number, uuid in enumerate(uuids):
        place(paths, pods.DIRECTORIES[number % 6], uuid)
    before = len(os.listdir("/proc/self/fd"))
    seen = []
    for pod in pods.walk(paths):
        seen.append(pod.uuid)
        assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert seen == uuids


@pytest.mark.parametrize("uuid, message", [("x", "not a UUID"), (UUID, "exists already")])
def test_a_given_uuid_must_be_a_new_one(paths: Paths, uuid: str, message: str) -> None:
    place(paths, "exited-garbage")
    with pytest.raises(PodError, match=message):
        pods.create(paths, uuid)


def test_nobody_but_root_gets_to_a_pods_files(paths: Paths) -> None:
    old = os.umask(0)
    try:
        with pods.create(paths) as pod:
            pod.write("pod", b"{}")
    finally:
        os.umask(old)
    for path in (pod.path, paths.pods("prepare"), os.path.dirname(paths.pods("prepare"))):
        assert os.stat(path).st_mode & 0o7777 == 0o700
    assert os.stat(f"{pod.path}/pod").st_mode & 0o7777 == 0o640


# Files


def test_what_was_written_is_read(paths: Paths) -> None:
    with pods.create(paths) as pod:
        pod.write("appsinfo/app/manifest", b"one")
        pod.write("appsinfo/app/manifest", b"two")
        assert pod.read("appsinfo/app/manifest") == b"two"
        pod.to_prepared(durable=False)
        pod.write("appsinfo/app/manifest", b"three", 0o600)
        assert pod.read("appsinfo/app/manifest") == b"three"
        assert pod.names("appsinfo/app") == ["manifest"]
        assert pod.app_names() == ["app"]
        assert pod.names("nothing") == []
        assert pod.modified("nothing/there") is None
        assert abs((pod.created or 0) / 1e9 - time.time()) < 60


def test_to_prepared_writes_all_of_a_pod_out(paths: Paths) -> None:
    """Also with links and fifos in it, and a root copied for want of an overlay."""
    with pods.create(paths) as pod:
        pod.write("overlay/app/root/etc/passwd", b"root")
        pod.write("pod", b"{}")
        os.symlink("nowhere", f"{pod.path}/link")
        os.mkfifo(f"{pod.path}/fifo")
        pod.to_prepared()
        assert pod.state == "prepared"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "../../x", "a/../../x", "a//b", "a/", "rkt/status/../../../x", "a\0b"],
)
def test_no_name_leads_out_of_a_pod(paths: Paths, name: str) -> None:
    with pods.create(paths) as pod:
        for act in (pod.read, pod.open, pod.mkdir, pod.names, pod.modified):
            with pytest.raises(PodError, match="no name of a file"):
                act(name)
        with pytest.raises(PodError, match="no name of a file"):
            pod.write(name, b"")
    assert os.listdir(pod.path) == ["pod-created"]


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "below a symlink", "endless"])
def test_what_is_no_file_is_not_read(paths: Paths, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "pid").write_text("1")
    with pods.create(paths) as pod:
        path = Path(pod.path, "d", "pid")
        if kind != "below a symlink":
            path.parent.mkdir()
        if kind == "symlink":
            path.symlink_to(outside / "pid")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "below a symlink":
            path.parent.symlink_to(outside)
        else:
            with path.open("wb") as file:
                file.truncate(1 << 40)
        with pytest.raises(PodError, match=f'pod "{pod.uuid}" has a '):
            pod.read("d/pid")
        if kind not in ("endless", "fifo"):
            with pytest.raises(PodError, match=f'pod "{pod.uuid}" has a '):
                pod.write("d/pid", b"2")
    assert (outside / "pid").read_text() == "1"


def test_a_hostile_pod_directory_is_no_pod(paths: Paths, tmp_path: Path) -> None:
    os.makedirs(paths.pods("run"))
    place(paths, "prepared", OTHER)
    Path(paths.pod("run", UUID)).symlink_to(paths.pod("prepared", OTHER))
    Path(paths.pod("embryo", "00000000-0000-4000-8000-000000000000")).parent.mkdir()
    Path(paths.pod("embryo", "00000000-0000-4000-8000-000000000000")).touch()
    assert [pod.uuid for pod in pods.walk(paths)] == [OTHER]
    with pytest.raises(PodError, match="no matches"):
        pods.find(paths, UUID)


@pytest.mark.parametrize(
    "text, pid",
    [(b"1234", 1234), (b"1234\n", 1234), (b"", None), (b"-1", None), (b"12 34", None), (b"0x10", None),
     (b"9" * 5000, None), ("٣".encode(), None)],
)  # fmt: skip
def test_pid_is_a_number_or_none(paths: Paths, text: bytes, pid: int | None) -> None:
    with pods.create(paths) as pod:
        assert (pod.pid, pod.started) == (None, None)
        pod.write("pid", text)
        assert pod.pid == pid
        assert pod.started is not None


@pytest.mark.parametrize(
    "state, files, expected",
    [
        ("prepared", {}, ("created", None)),
        ("prepared", {"-created": b""}, ("created", None)),
        ("running", {"-created": b""}, ("created", None)),
        ("running", {"-created": b"", "-started": b""}, ("running", None)),
        ("running", {"-started": b"", "": b"3"}, ("exited", 3)),
        ("running", {"-started": b"", "": b"0\n"}, ("exited", 0)),
        ("exited", {"-started": b""}, ("exited", None)),
        ("exited garbage", {"": b"137"}, ("exited", 137)),
    ],
)
def test_an_apps_state_is_in_its_files(
    paths: Paths, state: pods.State, files: dict[str, bytes], expected: tuple[str, int | None]
) -> None:
    with pods.create(paths) as pod:
        pod.mkdir("appsinfo/app")
        for suffix, data in files.items():
            pod.write(f"rkt/status/app{suffix}", data)
        status = pod.app_status("app", state=state)
        assert (status.state, status.exit_code) == expected
        assert (status.created is not None) == ("-created" in files)
        assert (status.started is not None) == ("-started" in files)
        assert (status.finished is not None) == ("" in files)
        assert pod.exit_codes() == ({} if expected[1] is None else {"app": expected[1]})


@pytest.mark.parametrize(
    "text, networks",
    [
        (b"null", []),
        (b"[]", []),
        (b'[{"netName":"default","ip":"172.16.28.2"}]', [("default", "172.16.28.2")]),
    ],
)
def test_networks_are_as_net_info_has_them(
    paths: Paths, text: bytes, networks: list[tuple[str, str]]
) -> None:
    with pods.create(paths) as pod:
        assert pod.networks() == []
        pod.write("net-info.json", text)
        assert [(network["netName"], network["ip"]) for network in pod.networks()] == networks


@pytest.mark.parametrize("text", [b"{}", b"[1]", b"1"])
def test_other_networks_are_refused(paths: Paths, text: bytes) -> None:
    with pods.create(paths) as pod:
        pod.write("net-info.json", text)
        with pytest.raises(PodError, match="not a list of networks"):
            pod.networks()


# runtime-config

CONFIGS = [
    RuntimeConfig(),
    RuntimeConfig(
        hostname="h", net=("a", "b:IP=1"), interactive=True, debug=True, mutable=True, overlay=False,
        disable_paths=True, disable_capabilities=True, disable_seccomp=True, ipc_mode="private",
        resolv_conf_mode="host", etc_hosts_mode="host", private_users="0:65536",
        metadata_service_url="http://x", mds_token="t",
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_runtime_config_is_read_as_it_was_written(paths: Paths, config: RuntimeConfig) -> None:
    with pods.create(paths) as pod:
        pod.write("runtime-config", config.json())
        assert pod.runtime_config() == config


def test_runtime_config_has_rkts_keys() -> None:
    fields = json.loads(RuntimeConfig().json())
    assert list(fields) == [
        "MetadataServiceURL", "PrivateUsers", "MDSToken", "Hostname", "Debug", "Mutable", "ResolvConfMode",
        "EtcHostsMode", "NetList", "Interactive", "InsecureOptions", "IPCMode", "NoOverlay",
    ]  # fmt: skip
    assert list(fields["InsecureOptions"]) == ["DisablePaths", "DisableCapabilities", "DisableSeccomp"]


def test_what_a_runtime_config_lacks_is_as_by_default() -> None:
    assert RuntimeConfig.parse(b"{}") == RuntimeConfig()


@pytest.mark.parametrize(
    "text, error",
    [
        (b"[]", PodError), (b'{"Hostname":1}', PodError), (b'{"Debug":"yes"}', PodError),
        (b'{"NetList":"a"}', PodError), (b'{"NetList":[1]}', PodError), (b'{"InsecureOptions":[]}', PodError),
        (b"{", BadManifest), (b'{"Debug":true,"Debug":false}', BadManifest),
    ],
)  # fmt: skip
def test_a_bad_runtime_config_is_refused(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        RuntimeConfig.parse(text)


def test_the_hot_path_imports_little() -> None:
    code = (
        "import os, sys; sys.path.insert(0, '.'); before = set(sys.modules)\n"
        "import rkt_py.runtime.pod, rkt_py.runtime.imagestore, rkt_py.runtime.treestore\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    others = {name for name in done.stdout.split() if not name.startswith("rkt_py")}
    assert others <= {"__future__", "_json", "errno", "fcntl", "time"}
    ours = {name.rpartition(".")[2] for name in done.stdout.split() if name.startswith("rkt_py")}
    assert not ours & {"remove", "temporary", "unpack", "imagemanifest", "podmanifest"}
