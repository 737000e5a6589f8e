"""From prepare to gc: what each verb says and does in each state of a pod."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ABSOLUTE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,3})? [+-]\d{4} \S+")
MISSING = "ffffffff-ffff-4fff-bfff-ffffffffffff"
SECONDS = "--grace-period=0s"
SLEEP = "echo ready; exec sleep 1000"


def prepare(pods: Pods, script: str = "echo ran", *flags: str) -> str:
    return pods.ok("prepare", BUSYBOX, "--exec=/bin/sh", *flags, "--", "-c", script).strip()


def exited(pods: Pods, script: str = "exit 0") -> str:
    """The UUID of a pod that ran to its end."""
    path = pods.directory / "uuid"
    pods.sh(script, f"--uuid-file-save={path}")
    return path.read_text().strip()


def status(pods: Pods, uuid: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in pods.ok("status", uuid).splitlines())


def rows(pods: Pods, *flags: str) -> list[list[str]]:
    """The table of `list`, cell by cell."""
    return [re.split(r"\t+", line) for line in pods.ok("list", *flags).splitlines()]


def record(pods: Pods, uuid: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(pods.ok("status", "--format=json", uuid))
    return found


# prepare, run-prepared


def test_prepare_prints_the_uuid_alone(pods: Pods) -> None:
    assert UUID.fullmatch(prepare(pods))
    assert UUID.fullmatch(prepare(pods, "exit 0", "--quiet"))


def test_prepared_pod_runs_as_it_was_prepared(pods: Pods) -> None:
    uuid = prepare(pods, 'echo "$X $(pwd)"', "--environment=X=y", "--working-dir=/home")
    assert pods("run-prepared", "--net=none", uuid) == Done(0, b"y /home\n", b"")


def test_prepared_pod_runs_once(pods: Pods) -> None:
    uuid = prepare(pods)
    assert pods("run-prepared", "--net=none", uuid[:13]).text == "ran\n"
    again = pods("run-prepared", "--net=none", uuid)
    assert again == Done(254, b"", f'run-prepared: pod "{uuid}" is not prepared\n'.encode())


def test_prepared_pod_runs_once_even_if_it_is_asked_to_at_the_same_time(pods: Pods) -> None:
    uuid = prepare(pods)
    both = [pods.start("run-prepared", "--net=none", uuid) for _ in range(3)]
    ends = [running.end() for running in both]
    assert sorted(end.code for end in ends) == [0, 254, 254]
    assert sorted(end.out for end in ends) == [b"", b"", b"ran\n"]


def test_prepare_does_not_know_the_flags_of_a_run(pods: Pods) -> None:
    done = pods("prepare", "--hostname=x", BUSYBOX)
    assert done.code == 254
    assert "--hostname" in done.errors


def test_failed_prepare_leaves_no_pod(own_pods: Pods) -> None:
    done = own_pods("prepare", "--volume=v,kind=host,source=/no/such", BUSYBOX, "--mount=volume=v,target=/v")
    assert (done.code, done.out) == (254, b"")
    assert "/no/such: No such file or directory" in done.errors
    assert rows(own_pods, "--no-legend") == []
    assert [path.name for path in own_pods.rkt.data.glob("pods/*/*")] == []


# list, status, cat-manifest


def test_lists_of_nothing(own_pods: Pods) -> None:
    head = ["UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS"]
    assert rows(own_pods) == [head]
    assert own_pods.ok("list", "--no-legend") == ""
    assert own_pods.ok("list", "--format=json") == "null\n"


def test_list_shows_each_state(own_pods: Pods) -> None:
    running = own_pods.start_sh(SLEEP)
    uuids = {"prepared": prepare(own_pods), "exited": exited(own_pods), "running": running.uuid}
    table = rows(own_pods, "--no-legend")
    assert [row[0] for row in table] == sorted(uuid[:8] for uuid in uuids.values())
    by_state = {row[3]: row for row in table}
    assert {state: row[0] for state, row in by_state.items()} == {
        state: uuid[:8] for state, uuid in uuids.items()
    }
    assert all(row[1:3] == ["busybox", "example.com/busybox:1"] for row in table)
    assert all(re.fullmatch(r"now|\d+ seconds? ago", row[4]) for row in table)
    records = {item["name"]: item for item in json.loads(own_pods.ok("list", "--format=json"))}
    assert {uuid: records[uuid]["state"] for uuid in uuids.values()} == {
        uuid: state for state, uuid in uuids.items()
    }
    own_pods.ok("gc", "--mark-only")
    assert {row[3] for row in rows(own_pods, "--no-legend")} == {"prepared", "running", "exited garbage"}


def test_full_list_has_whole_uuids_image_ids_and_times(own_pods: Pods) -> None:
    uuid = exited(own_pods)
    head, row = rows(own_pods, "--full")
    assert head == ["UUID", "APP", "IMAGE NAME", "IMAGE ID", "STATE", "CREATED", "STARTED", "NETWORKS"]
    assert (row[0], row[4]) == (uuid, "exited")
    assert re.fullmatch(r"sha512-[0-9a-f]{12}", row[3])
    assert ABSOLUTE.fullmatch(row[5])
    assert ABSOLUTE.fullmatch(row[6])


def test_list_shows_the_other_apps_of_a_pod_below_the_first(own_pods: Pods) -> None:
    own_pods.ok("prepare", BUSYBOX, "--name=one", "--", "---", BUSYBOX, "--name=two")
    first, second = rows(own_pods, "--no-legend")
    assert (first[1], first[3]) == ("one", "prepared")
    assert second[:3] == ["", "two", "example.com/busybox:1"]


def test_status_of_a_prepared_pod_is_short(pods: Pods) -> None:
    found = status(pods, prepare(pods))
    assert found.keys() == {"state", "created"}
    assert found["state"] == "prepared"
    assert ABSOLUTE.fullmatch(found["created"])


def test_status_of_a_running_and_an_exited_pod(pods: Pods) -> None:
    running = pods.start_sh(SLEEP)
    found = status(pods, running.uuid)
    assert list(found) == ["state", "created", "started", "pid", "exited"]
    assert (found["state"], found["exited"]) == ("running", "false")
    assert Path("/proc", found["pid"], "comm").read_text() == "rkt-py-init\n"
    running.end(signal.SIGTERM)
    ended = status(pods, running.uuid)
    assert list(ended) == ["state", "created", "started", "pid", "exited", "app-busybox"]
    assert (ended["state"], ended["exited"], ended["app-busybox"]) == ("exited", "true", "143")


def test_json_of_a_pod_has_its_times_in_seconds_and_its_apps_in_nanoseconds(pods: Pods) -> None:
    found = record(pods, exited(pods, "exit 6"))
    assert found["state"] == "exited"
    assert found["app_names"] == ["busybox"]
    (app,) = found["apps"]  # type: ignore[misc]
    assert (app["name"], app["state"], app["exit_code"]) == ("busybox", "exited", 6)  # type: ignore[has-type]
    created, started = found["created_at"], found["started_at"]
    assert isinstance(created, int)
    assert isinstance(started, int)
    times = [app[f"{what}_at"] for what in ("created", "started", "finished")]  # type: ignore[has-type]
    assert times == sorted(times)
    assert created <= times[0] / 1e9 < times[2] / 1e9 < created + 30
    assert abs(started - times[1] / 1e9) < 2


def test_json_can_be_pretty(pods: Pods) -> None:
    uuid = prepare(pods)
    pretty = pods.ok("status", "--format=json-pretty", uuid)
    assert pretty.startswith('{\n\t"name": ')
    assert json.loads(pretty) == record(pods, uuid)


def test_manifest_of_a_pod_in_each_state(pods: Pods) -> None:
    uuid = prepare(pods, "exit 0", "--environment=X=y")
    manifest = pods.ok("cat-manifest", uuid)
    assert manifest.startswith('{\n\t"acVersion"')
    (app,) = json.loads(manifest)["apps"]
    assert app["name"] == "busybox"
    assert app["app"]["environment"] == [{"name": "X", "value": "y"}]
    assert app["app"]["exec"] == ["/bin/sh", "-c", "exit 0"]
    compact = pods.ok("cat-manifest", "--pretty-print=false", uuid)
    assert compact.count("\n") == 1
    pods("run-prepared", "--net=none", uuid)
    assert pods.ok("cat-manifest", uuid) == manifest


# Which pod


def test_uuid_may_be_cut_short_while_it_is_unique(own_pods: Pods) -> None:
    uuids = [prepare(own_pods)]
    while not any(uuid[0] == uuids[-1][0] for uuid in uuids[:-1]):
        uuids.append(prepare(own_pods))
    first = next(uuid for uuid in uuids[:-1] if uuid[0] == uuids[-1][0])
    done = own_pods("status", uuids[-1][0])
    both = ", ".join(sorted([first, uuids[-1]]))
    assert done == Done(254, b"", f'status: "{first[0]}" is ambiguous: {both}\n'.encode())
    short = os.path.commonprefix([first, uuids[-1]])
    assert own_pods("status", first[: len(short) + 1]).code == 0
    assert own_pods("status", first.upper()).code == 0


@pytest.mark.parametrize("verb", ["status", "cat-manifest", "run-prepared", "enter", "logs"])
@pytest.mark.parametrize("uuid", ["zz", MISSING, "../run", "*"])
def test_unknown_uuid_is_told(pods: Pods, verb: str, uuid: str) -> None:
    assert pods(verb, uuid) == Done(254, b"", f'{verb}: no matches found for "{uuid}"\n'.encode())


@pytest.mark.parametrize(
    ("verb", "text"),
    [("rm", "failed to remove one or more pods"), ("stop", "failed to stop one or more pods")],
)
def test_verbs_of_several_pods_do_what_they_can(own_pods: Pods, verb: str, text: str) -> None:
    uuid = exited(own_pods) if verb == "rm" else own_pods.start_sh(SLEEP).uuid
    done = own_pods(verb, "zz", uuid)
    assert (done.code, done.text) == (254, f'"{uuid}"\n')
    assert done.errors == f'{verb}: cannot get pod: no matches found for "zz"\n{verb}: {text}\n'


@pytest.mark.parametrize("verb", ["status", "cat-manifest", "rm"])
def test_uuid_may_come_from_a_file(pods: Pods, verb: str, tmp_path: Path) -> None:
    path = tmp_path / "uuid"
    path.write_text(exited(pods) + "\n")
    assert pods.ok(verb, f"--uuid-file={path}")
    assert "No such file" in pods(verb, f"--uuid-file={path}.not").errors
    path.write_text("")
    assert pods(verb, f"--uuid-file={path}").code == 254


# --wait


def test_wait_returns_when_the_pod_has_ended(pods: Pods) -> None:
    running = pods.start_sh("trap 'exit 3' TERM; echo ready; while :; do sleep 100 & wait $!; done")
    waiting = pods.start("status", "--wait", running.uuid)
    with pytest.raises(Exception, match="timed out"):
        waiting.process.wait(0.1)
    running.end(signal.SIGTERM)
    assert b"app-busybox=3\n" in waiting.end().out


def test_wait_gives_up_after_a_duration(pods: Pods) -> None:
    running = pods.start_sh(SLEEP)
    done = pods("status", "--wait=20ms", running.uuid)
    assert done == Done(254, b"", f'status: pod "{running.uuid}" did not end in time\n'.encode())


def test_wait_ready_waits_for_a_pod_that_is_not_started_yet(pods: Pods) -> None:
    uuid = prepare(pods, SLEEP)
    assert pods("status", "--wait-ready=20ms", uuid).code == 254
    waiting = pods.start("status", "--wait-ready", uuid)
    pods.start("run-prepared", "--net=none", uuid).until("ready")
    assert b"state=running\n" in waiting.end().out


# stop


def test_stop_ends_a_pod_gently_and_says_which(pods: Pods) -> None:
    running = pods.start_sh(
        "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 100 & wait $!; done"
    )
    assert pods.ok("stop", running.uuid[:13]) == f'"{running.uuid}"\n'
    assert running.end() == Done(3, b"ready\ntold\n", b"")


def test_stop_with_force_ends_a_pod_that_ignores_it(pods: Pods) -> None:
    running = pods.start_sh("trap '' TERM INT HUP; echo ready; while :; do sleep 1000; done")
    assert pods.ok("stop", "--force", running.uuid) == f'"{running.uuid}"\n'
    assert running.end().code == 137
    assert status(pods, running.uuid)["app-busybox"] == "137"


def test_stop_of_a_pod_that_does_not_run_is_an_error(pods: Pods) -> None:
    uuid = exited(pods)
    done = pods("stop", uuid)
    assert done.code == 254
    assert done.errors.startswith(f'stop: error stopping pod: pod "{uuid}" is not running\n')


# rm, gc


@pytest.mark.parametrize("make", [prepare, exited])
def test_rm_removes_what_does_not_run(own_pods: Pods, make: object) -> None:
    uuid = make(own_pods)  # type: ignore[operator]
    assert own_pods("rm", uuid) == Done(0, f'"{uuid}"\n'.encode(), b"")
    assert list(own_pods.rkt.data.glob(f"pods/*/{uuid}")) == []


def test_rm_refuses_a_running_pod(pods: Pods) -> None:
    running = pods.start_sh(SLEEP)
    done = pods("rm", running.uuid)
    assert (done.code, done.out) == (254, b"")
    assert done.errors.startswith(f'rm: pod "{running.uuid}" is currently running\n')
    assert status(pods, running.uuid)["state"] == "running"


def test_gc_marks_first_and_removes_after_the_grace_period(own_pods: Pods) -> None:
    uuid = exited(own_pods)
    done = own_pods("gc", "--mark-only")
    assert done == Done(0, b"", f'gc: moving pod "{uuid}" to garbage\n'.encode())
    assert status(own_pods, uuid)["state"] == "exited garbage"
    done = own_pods("gc")
    assert done.errors == f'gc: pod "{uuid}" not removed: still within grace period (30m0s)\n'
    done = own_pods("gc", SECONDS)
    assert done == Done(0, f'Garbage collecting pod "{uuid}"\n'.encode(), b"")
    assert list(own_pods.rkt.data.glob(f"pods/*/{uuid}")) == []
    assert own_pods("gc", SECONDS) == Done(0, b"", b"")


def test_gc_leaves_running_and_prepared_pods_alone(own_pods: Pods) -> None:
    running = own_pods.start_sh(SLEEP)
    uuid = prepare(own_pods)
    assert own_pods("gc", SECONDS) == Done(0, b"", b"")
    assert status(own_pods, running.uuid)["state"] == "running"
    assert status(own_pods, uuid)["state"] == "prepared"
    done = own_pods("gc", SECONDS, "--expire-prepared=0s")
    assert f'gc: moving expired prepared pod "{uuid}" to garbage\n' in done.errors
    assert own_pods("status", uuid).code == 254


def test_gc_removes_what_an_app_wrote_whatever_it_is(own_pods: Pods) -> None:
    script = """mkdir -p /deep/$(seq -s/ 1 200); mkfifo /fifo; ln -s / /link; mknod /null c 1 3
        echo x > '/new
line'; chmod 0 /deep; chattr +i /fifo 2>/dev/null; true"""
    uuid = exited(own_pods, script)
    own_pods.ok("gc", SECONDS)
    assert list(own_pods.rkt.data.glob(f"pods/*/{uuid}")) == []
    assert Path("/etc/passwd").exists()


def test_gc_collects_a_pod_whose_supervisor_was_killed(own_pods: Pods) -> None:
    running = own_pods.start_sh(SLEEP, "--memory=64Mi")
    running.end(signal.SIGKILL)
    own_pods.ok("status", "--wait=10s", running.uuid)
    own_pods.ok("gc", SECONDS)
    assert list(own_pods.rkt.data.glob("pods/*/*")) == []
    assert [directory for directory, _, _ in os.walk("/sys/fs/cgroup") if running.uuid in directory] == []


def test_image_of_a_running_pod_stays(own_pods: Pods) -> None:
    running = own_pods.start_sh(SLEEP)
    (image,) = json.loads(own_pods.ok("image", "list", "--format=json"))
    done = own_pods("image", "rm", image["id"])
    assert done.code == 254
    assert "is in use by a running pod" in done.errors
    assert own_pods("enter", running.uuid, "/bin/cat", "/data/file").text == "of the image\n"
    running.end(signal.SIGTERM)
    own_pods.ok("image", "rm", image["id"])
    assert own_pods.ok("image", "list", "--format=json") == "null\n"
