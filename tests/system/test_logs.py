"""`logs`: what apps wrote, afterwards and while they run."""

from __future__ import annotations

import signal

import pytest

from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root


def two(one: str, two: str) -> list[str]:
    return [
        "run", "--net=none",
        BUSYBOX, "--name=one", "--exec=/bin/sh", "--", "-c", one, "---",
        BUSYBOX, "--name=two", "--exec=/bin/sh", "--", "-c", two,
    ]  # fmt: skip


def test_logs_are_what_was_written_to_each_stream(pods: Pods) -> None:
    running = pods.start(*pods.command("echo out; echo err >&2; echo more"))
    done = running.end()
    assert done == Done(0, b"out\nmore\n", b"err\n")
    assert pods("logs", running.uuid) == Done(0, b"out\nmore\n", b"err\n")


@pytest.mark.parametrize(
    "script",
    [
        r"printf 'a\000b\377\n\n \t\nF P stdout\n'",
        "head -c 20000 /dev/zero | tr '\\0' x; echo",
        "seq 1 5000",
        "printf '\\r\\033[31mred\\n'",
    ],
)
def test_bytes_come_back_as_they_were(pods: Pods, script: str) -> None:
    running = pods.start(*pods.command(script))
    done = running.end()
    assert done.code == 0
    assert done.out
    assert pods("logs", running.uuid).out == done.out


def test_last_line_without_an_end_is_kept(pods: Pods) -> None:
    running = pods.start(*pods.command("printf unfinished"))
    assert running.end().out == b"unfinished"
    assert pods("logs", running.uuid).text == "unfinished\n"


def test_logs_of_one_app(pods: Pods) -> None:
    running = pods.start(*two("echo of one", "echo of two; echo err >&2"))
    running.end()
    assert sorted(pods("logs", running.uuid).lines) == ["of one", "of two"]
    assert pods("logs", "--app=two", running.uuid) == Done(0, b"of two\n", b"err\n")
    done = pods("logs", "--app=three", running.uuid)
    assert (done.code, done.errors) == (254, f'logs: pod "{running.uuid}" has no app "three"\n')


def test_logs_of_two_apps_are_in_the_order_of_time(pods: Pods) -> None:
    wait = "until [ -e /dev/shm/{} ]; do usleep 1000; done"
    running = pods.start(
        *two(
            f"echo 1; echo > /dev/shm/a; {wait.format('b')}; usleep 20000; echo 3",
            f"{wait.format('a')}; usleep 20000; echo 2; echo > /dev/shm/b",
        )
    )
    running.end()
    assert pods("logs", running.uuid).lines == ["1", "2", "3"]


def test_logs_of_a_running_pod_are_what_there_is_so_far(pods: Pods) -> None:
    running = pods.start_sh("echo ready; exec sleep 1000")
    assert pods("logs", running.uuid).text == "ready\n"


def test_followed_logs_end_with_the_pod(pods: Pods) -> None:
    running = pods.start_sh(
        "trap 'echo last; exit 0' TERM; echo ready; while :; do sleep 100 & wait $!; done"
    )
    following = pods.start("logs", "-f", running.uuid)
    following.until("ready\n")
    running.end(signal.SIGTERM)
    assert following.end() == Done(0, b"ready\nlast\n", b"")


def test_logs_of_a_pod_that_never_ran_are_empty(pods: Pods) -> None:
    uuid = pods.ok("prepare", BUSYBOX).strip()
    assert pods("logs", uuid) == Done(0, b"", b"")


def test_logs_outlive_a_killed_supervisor(pods: Pods) -> None:
    running = pods.start_sh("echo ready; exec sleep 1000")
    running.end(signal.SIGKILL)
    pods.ok("status", "--wait=10s", running.uuid)
    assert pods("logs", running.uuid).text == "ready\n"


def test_output_that_nobody_reads_is_still_logged(pods: Pods) -> None:
    # Errors go on when stdout's reader is gone.
    running = pods.start(*pods.command("trap '' PIPE; echo 1 >&2; echo ready; echo 2 >&2"))
    running.end()
    assert pods("logs", running.uuid) == Done(0, b"ready\n", b"1\n2\n")
