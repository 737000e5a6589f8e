"""Logs: what apps wrote, merged, cut, followed through rotations."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rkt_py.runtime import log
from rkt_py.runtime import pod as pods
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.log import LogLine
from rkt_py.runtime.paths import Paths
from rkt_py.runtime.pod import Pod
from tests.runtime.state import Child

SECOND = 10**9
NOON = 1795176000 * SECOND  # 2026-11-20T12:00:00Z


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """A pod that ended."""
    with pods.create(Paths(data=str(tmp_path / "data"))) as made:
        made.mkdir("rkt/log")
        made.to_run()
    with pods.find(made.paths, made.uuid) as found:
        yield found


def line(number: float, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-11-20T12:00:{number:012.9f}Z {stream} {tag} {text}\n"


def write(pod: Pod, name: str, *lines: str | bytes) -> Path:
    path = Path(pod.path, "rkt/log", name)
    with path.open("ab") as file:
        file.writelines(item if isinstance(item, bytes) else item.encode() for item in lines)
    return path


def texts(lines: Iterator[LogLine]) -> list[str]:
    return [item.text for item in lines]


def test_a_line_is_read_with_all_it_has(pod: Pod) -> None:
    write(pod, "app", "2026-11-20T12:00:01.000000009Z stderr P some  text \n")
    (item,) = log.read(pod)
    assert item == LogLine(NOON + SECOND + 9, "app", "stderr", "some  text ", True)
    assert item.stamp == "2026-11-20T12:00:01.000000009Z"


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"2026-11-20T12:00:00Z stdout F x", (NOON, "stdout", "x", False)),
        (b"2026-11-20T12:00:00.5Z stdout F x", (NOON + SECOND // 2, "stdout", "x", False)),
        (b"2026-11-20T12:00:00.5Z stdout F ", (NOON + SECOND // 2, "stdout", "", False)),
        (b"2026-11-20T12:00:00.5Z stdout F \xff\x00", (NOON + SECOND // 2, "stdout", "\udcff\0", False)),
        (b"1969-12-31T23:59:59.5Z stdout F x", (-SECOND // 2, "stdout", "x", False)),
        (b"2026-11-20T12:00:00.5Z stdout F", (7, "stdout", "2026-11-20T12:00:00.5Z stdout F", False)),
        (b"2026-11-20T12:00:00.5Z other F x", (7, "stdout", "2026-11-20T12:00:00.5Z other F x", False)),
        (b"2026-11-20T12:00:00.5+01:00 stdout F x",
         (7, "stdout", "2026-11-20T12:00:00.5+01:00 stdout F x", False)),
        (b"2026-11-20 stdout F x", (7, "stdout", "2026-11-20 stdout F x", False)),
        (b"2026-13-20T12:00:00Z stdout F x", (7, "stdout", "2026-13-20T12:00:00Z stdout F x", False)),
        (b"2026-11-20T12:00:00.xZ stdout F x", (7, "stdout", "2026-11-20T12:00:00.xZ stdout F x", False)),
        (b"", (7, "stdout", "", False)),
    ],
)  # fmt: skip
def test_what_is_cut_or_strange_is_shown_as_it_is(data: bytes, expected: tuple[int, str, str, bool]) -> None:
    time, stream, text, partial = expected
    assert log._parse(data, "app", 7) == LogLine(time, "app", stream, text, partial)


def test_a_stamp_is_read_as_it_is_written() -> None:
    for moment in (0, 1, NOON, NOON + 123456789, 951782400 * SECOND):
        assert log._time(LogLine(moment, "", "", "", False).stamp) == moment


def test_apps_are_merged_by_time_older_files_first(pod: Pod) -> None:
    write(pod, "a.1", line(1, "a1"), line(3, "a3"))
    write(pod, "a", line(5, "a5"), line(9, "a9"))
    write(pod, "b", line(2, "b2"), line(4, "b4"), line(6, "b6"))
    assert texts(log.read(pod)) == ["a1", "b2", "a3", "b4", "a5", "b6", "a9"]
    assert texts(log.read(pod, "a")) == ["a1", "a3", "a5", "a9"]
    assert texts(log.read(pod, "b")) == ["b2", "b4", "b6"]


def test_a_last_line_without_an_end_is_read_too(pod: Pod) -> None:
    write(pod, "a", line(1, "one"), line(2, "two")[:-1])
    assert texts(log.read(pod)) == ["one", "two"]


@pytest.mark.parametrize(
    "tail, expected",
    [
        (None, ["1", "2", "3", "4a", "4b", "4c", "5", "6"]),
        (0, []),
        (1, ["6"]),
        (3, ["4a", "4b", "4c", "5", "6"]),
        (100, ["1", "2", "3", "4a", "4b", "4c", "5", "6"]),
    ],
)
def test_tail_counts_lines_not_pieces(pod: Pod, tail: int | None, expected: list[str]) -> None:
    write(pod, "a.1", line(1, "1"), line(2, "2"), line(3, "3"))
    write(
        pod,
        "a",
        line(4, "4a", tag="P"),
        line(4.1, "4b", tag="P"),
        line(4.2, "4c"),
        line(5, "5"),
        line(6, "6"),
    )
    assert texts(log.read(pod, tail=tail)) == expected


def test_an_app_that_wrote_nothing_is_no_error_but_an_unknown_one_is(pod: Pod) -> None:
    pod.mkdir("appsinfo/quiet")
    assert texts(log.read(pod, "quiet")) == []
    assert texts(log.read(pod)) == []
    with pytest.raises(PodError, match=f'pod "{pod.uuid}" has no app "other"'):
        list(log.read(pod, "other"))


def test_a_link_is_no_log(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(line(1, "secret"))
    Path(pod.path, "rkt/log/a").symlink_to(tmp_path / "secret")
    with pytest.raises(PodError, match="not a regular file"):
        list(log.read(pod))


def test_reading_leaves_no_descriptors(pod: Pod) -> None:
    for name in ("a.1", "a", "b"):
        write(pod, name, line(1, "x"), line(2, "y"))
    before = os.listdir("/proc/self/fd")
    list(log.read(pod))
    next(log.read(pod))
    lines = log.read(pod)
    next(lines)
    lines.close()  # type: ignore[attr-defined]
    assert os.listdir("/proc/self/fd") == before


# Following


def running(tmp_path: Path, write_logs: Callable[[Pod], None]) -> tuple[Child, Pod]:
    """Start a child that is a running pod and writes its logs; return it and the pod."""
    paths = Paths(data=str(tmp_path / "data"))
    uuid = pods.new_uuid()

    def run() -> None:
        with pods.create(paths, uuid) as mine:
            mine.mkdir("rkt/log")
            mine.to_run()
            write_logs(mine)

    child = Child(run)
    while not os.path.isdir(paths.pod("run", uuid)):
        time.sleep(0.001)
    return child, pods.find(paths, uuid)


def test_following_ends_with_the_pod_and_misses_nothing(tmp_path: Path) -> None:
    def write_logs(mine: Pod) -> None:
        for number in range(30):
            write(mine, f"app{number % 2}", line(number, str(number)))
            time.sleep(0.01)
        write(mine, "late", line(40, "late"), line(41, "last")[:-1])

    child, pod = running(tmp_path, write_logs)
    with pod:
        found = texts(log.read(pod, follow=True))
        assert pod.state == "exited"
    assert child.wait() == 0
    assert sorted(found[:-2], key=int) == [str(number) for number in range(30)]
    assert found[-2:] == ["late", "last"]


def test_what_is_followed_comes_soon(tmp_path: Path) -> None:
    def write_logs(mine: Pod) -> None:
        write(mine, "app", line(1, "old"), line(2, "older"))
        time.sleep(0.5)
        write(mine, "app", line(3, str(time.monotonic())))
        time.sleep(1000)

    child, pod = running(tmp_path, write_logs)
    try:
        with pod:
            while texts(log.read(pod)) != ["old", "older"]:
                time.sleep(0.001)
            lines = log.read(pod, follow=True, tail=0)
            delay = time.monotonic() - float(next(lines).text)
            lines.close()  # type: ignore[attr-defined]
    finally:
        child.kill()
        child.wait()
    assert delay < 0.25


def test_following_survives_rotation(tmp_path: Path) -> None:
    """The supervisor's way: APP becomes APP.1, a new APP begins; here after every third line."""

    def write_logs(mine: Pod) -> None:
        for number in range(200):
            path = write(mine, "app", line(number / 10, str(number)))
            if number % 3 == 2:
                path.rename(path.with_name("app.1"))
            time.sleep(0.004)

    child, pod = running(tmp_path, write_logs)
    with pod:
        found = texts(log.read(pod, follow=True))
    assert child.wait() == 0
    # Six lines are there at any time, so who looks twenty times a second misses some of 250 a second: but
    # what is read is in order, once, and the last ones are there.
    numbers = [int(text) for text in found]
    assert numbers == sorted(set(numbers))
    assert numbers[-3:] == [197, 198, 199]


@pytest.mark.parametrize("rotations", [1, 2])
def test_rotations_between_two_looks_lose_nothing(tmp_path: Path, rotations: int) -> None:
    sys.stdout.flush()
    reading, writing = os.pipe()

    def write_logs(mine: Pod) -> None:
        write(mine, "app", line(0, "0"))
        os.read(reading, 1)
        path = write(mine, "app", line(1, "1"))
        for number in range(rotations):
            path.rename(path.with_name("app.1"))
            write(mine, "app", line(number + 2, str(number + 2)))

    child, pod = running(tmp_path, write_logs)
    with pod:
        lines = log.read(pod, follow=True)
        found = [next(lines).text]
        os.write(writing, b"x")
        found += texts(lines)
    assert child.wait() == 0
    os.close(reading)
    os.close(writing)
    assert found == [str(number) for number in range(rotations + 2)]
