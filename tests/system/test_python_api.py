"""Pods from Python: what `import rkt_py` promises, and what it leaves in the process that calls it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rkt_py
from tests.system.harm import Site, archive, manifest

pytestmark = pytest.mark.root


class Api(Site):
    """An installation as the library is told of it."""

    image = ""
    aci = Path()

    @property
    def paths(self) -> rkt_py.Paths:
        return rkt_py.Paths(data=str(self.data))

    def shell(self, script: str, **options: object) -> rkt_py.Result:
        args = ["-c", script]
        options = {"exec": "/bin/sh", "paths": self.paths, **options}
        return rkt_py.run(self.image, args, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("api")
    api = Api(directory / "data")
    api.aci = directory / "good.aci"
    api.aci.write_bytes(archive(about=manifest(name="example.com/good")))
    api.image = api.ok("--insecure-options=image", "fetch", "--full", api.aci).strip()
    api.shell("true")
    yield api
    api.close()


class Output:
    """A pipe to give to a pod, and what came through it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def text(self) -> str:
        os.close(self.writing)
        with open(self.reading) as file:
            return file.read()


def test_a_pod_tells_its_exit_code_and_is_gone(api: Api) -> None:
    for code in (0, 1, 42, 255):
        result = api.shell(f"exit {code}")
        assert result.exit_code == code
        api.uuids.add(result.uuid)
    assert not api.pods()
    api.assert_clean()


def test_a_signal_is_told_as_a_shell_does(api: Api) -> None:
    assert api.shell("kill -9 $$").exit_code == 128 + 9


def test_streams_are_the_callers(api: Api) -> None:
    out, err = Output(), Output()
    result = api.shell("echo to out; echo to err >&2; cat", stdout=out.writing, stderr=err.writing)
    assert (result.exit_code, out.text(), err.text()) == (0, "to out\n", "to err\n")


def test_what_is_asked_for_is_so(api: Api, tmp_path: Path) -> None:
    volume = tmp_path / "volume"  # which others than root may enter
    volume.mkdir()
    (volume / "file").write_text("of the host\n")
    out = Output()
    commands = (
        "id -u",
        "id -g",
        "pwd",
        "echo $WORD",
        "cat /v/file",
        "ls /sys/class/net",
        "touch /x || echo no",
    )
    script = "; ".join(
        command if command[:2] in ("pw", "ec") else f"/bin/busybox {command}" for command in commands
    )
    result = api.shell(
        script,
        user="7",
        group="8",
        working_dir="/bin",
        environment={"WORD": "a b"},
        volumes={"/v": str(volume)},
        memory="32M",
        cpu="500m",
        readonly_rootfs=True,
        stdout=out.writing,
    )
    lines = ["7", "8", "/bin", "a b", "of the host", "lo", "no"]
    assert (result.exit_code, out.text().splitlines()) == (0, lines)


def test_more_memory_than_allowed_ends_the_app(api: Api) -> None:
    fill = "exec /bin/busybox dd if=/dev/zero of=/dev/null bs=100M count=1"
    assert api.shell(fill, memory="256M").exit_code == 0
    assert api.shell(fill, memory="32M").exit_code == 128 + 9


def test_a_kept_pod_has_its_files_until_it_is_collected(api: Api) -> None:
    result = api.shell("echo kept", keep=True)
    assert api.pods() == {"run": [result.uuid]}
    assert "kept" in api.ok("logs", result.uuid)
    api.collect()
    api.assert_clean()


def test_a_file_is_fetched_when_signatures_need_not_be(api: Api) -> None:
    with pytest.raises(rkt_py.RktError, match="good.aci.asc"):
        rkt_py.run(str(api.aci), paths=api.paths)
    assert rkt_py.run(str(api.aci), insecure=True, paths=api.paths).exit_code == 0


@pytest.mark.parametrize(
    "script", ["read x < /dev/ptmx", "trap '' TERM INT; while :; do read x < /dev/ptmx; done"]
)
def test_a_pod_that_takes_too_long_is_killed_and_gone(script: str, api: Api) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="longer than 0.2 seconds"):
        api.shell(script, timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 8
    assert not api.pods()
    api.assert_clean()


def test_a_pod_that_is_in_time_is_not_killed(api: Api) -> None:
    assert api.shell("true", timeout=30).exit_code == 0


ERRORS: list[tuple[dict[str, object], str]] = [
    ({"image": "example.com/nope"}, 'no image "example.com/nope"'),
    ({"image": "sha512-" + 64 * "0"}, "no image"),
    ({"image": "/nope.aci", "insecure": True}, "/nope.aci"),
    ({"image": "A B"}, "A B"),
    ({"user": "nobody-there"}, "nobody-there"),
    ({"user": "-1"}, "-1"),
    ({"memory": "lots"}, "lots"),
    ({"memory": "16m"}, "too low"),
    ({"volumes": {"/v": "/nope"}}, "/nope"),
    ({"volumes": {"/proc/x": "/tmp"}}, "/proc/x"),
    ({"net": "nope"}, "nope"),
    ({"net": "default:IP=192.0.2.1"}, "192.0.2.1"),
    ({"environment": {"A=B": ""}}, "A=B"),
    ({"args": ["\udcff"]}, "not UTF-8"),
    ({"args": ["a\0b"]}, "NUL"),
]


@pytest.mark.parametrize("options, says", [pytest.param(options, says, id=says) for options, says in ERRORS])
def test_errors_are_raised_and_leave_nothing(options: dict[str, object], says: str, api: Api) -> None:
    before = descriptors()
    given = {"image": api.image, **options}
    # A file that cannot be read is an OSError, with its name.
    with pytest.raises(FileNotFoundError if says == "/nope.aci" else rkt_py.RktError, match=re.escape(says)):
        rkt_py.run(paths=api.paths, **given)  # type: ignore[arg-type]
    assert not api.pods()
    assert descriptors() == before


def test_what_the_supervisor_finds_wrong_is_its_exit_code(api: Api) -> None:
    err = Output()
    result = rkt_py.run(api.image, exec="/bin/nope", stderr=err.writing, paths=api.paths)
    assert result.exit_code == 254
    assert err.text() == 'run: app "good": cannot execute "/bin/nope": No such file or directory\n'
    assert not api.pods()


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def own_children() -> str:
    return "".join(Path(path).read_text() for path in Path("/proc/self/task").glob("*/children"))


def test_8_threads_of_25_pods_each_leave_nothing_in_the_process(api: Api) -> None:
    netns = os.readlink("/proc/self/ns/net")
    mounts = Path("/proc/self/mountinfo").read_text()
    before = descriptors(), threading.active_count(), own_children()

    def many(number: int) -> list[str]:
        texts = []
        for index in range(25):
            out = Output()
            assert api.shell(f"echo {number}.{index}", memory="32M", stdout=out.writing).exit_code == 0
            texts.append(out.text())
            # Each thread stays in the namespace that it was in: making one goes through unshare(2).
            assert os.readlink("/proc/thread-self/ns/net") == netns
        return texts

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(many, range(8)))
    assert results == [[f"{number}.{index}\n" for index in range(25)] for number in range(8)]
    assert (descriptors(), threading.active_count(), own_children()) == before
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not api.pods()
    api.assert_clean()


def test_threads_that_time_out_and_fail_leave_nothing_in_the_process(api: Api) -> None:
    before = descriptors(), threading.active_count(), own_children()

    def one(number: int) -> None:
        if number % 3 == 0:
            with pytest.raises(TimeoutError):
                api.shell("read x < /dev/ptmx", timeout=0.05)
        elif number % 3 == 1:
            with pytest.raises(rkt_py.RktError):
                api.shell("true", user="nobody-there")
        else:
            assert api.shell("true").exit_code == 0

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    assert (descriptors(), threading.active_count(), own_children()) == before
    assert not api.pods()
    api.assert_clean()


def test_a_caller_that_dies_leaves_a_pod_that_can_be_collected(api: Api) -> None:
    """Its pod is its own process: it ends by itself, or by `rkt-py stop`."""
    program = (
        "import rkt_py, sys\n"
        "rkt_py.run(sys.argv[1], ['-c', 'echo up; read x < /dev/ptmx'], exec='/bin/sh', stdout=1,"
        " paths=rkt_py.Paths(data=sys.argv[2]))"
    )
    root = Path(rkt_py.__file__).parent.parent
    caller = subprocess.Popen(
        [sys.executable, "-c", program, api.image, str(api.data)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert caller.stdout is not None and caller.stdout.readline() == "up\n"
    caller.kill()
    caller.wait()
    (uuid,) = api.pods()["run"]
    assert "state=running" in api.ok("status", uuid)
    api.ok("stop", uuid)
    api.ok("status", "--wait", uuid)
    assert caller.communicate(timeout=20)[0] == ""
    api.collect()
    api.assert_clean()
