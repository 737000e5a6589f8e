"""`run`: what an app is started with, what its caller sees, and how a pod ends."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import random
import resource
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

WAIT = "while :; do sleep 1000 & wait $!; done"


def apps(*scripts: str) -> list[str]:
    """The arguments of a pod of apps a, b, c..., each a shell script."""
    command = ["run", "--net=none"]
    for number, script in enumerate(scripts):
        separator = ["---"] if number else []
        name = f"--name={chr(ord('a') + number)}"
        command += [*separator, BUSYBOX, name, "--exec=/bin/sh", "--", "-c", script]
    return command


def processes(marker: str) -> list[str]:
    """The pids of the host whose command line has the marker in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


# What runs


def test_image_runs_its_own_program(pods: Pods, build: Callable[..., str], rootfs: Path) -> None:
    image = build(rootfs, {"exec": ["/bin/echo", "of", "the image"], "user": "0", "group": "0"})
    assert pods("run", "--net=none", image) == Done(0, b"of the image\n", b"")


def test_arguments_are_added_to_the_programs_own(pods: Pods, build: Callable[..., str], rootfs: Path) -> None:
    image = build(rootfs, {"exec": ["/bin/echo", "own"], "user": "0", "group": "0"})
    assert pods("run", "--net=none", image, "--", "given", "--net=host", "").text == "own given --net=host \n"


def test_exec_replaces_the_program_and_its_arguments(
    pods: Pods, build: Callable[..., str], rootfs: Path
) -> None:
    image = build(rootfs, {"exec": ["/bin/echo", "own"], "user": "0", "group": "0"})
    assert pods("run", "--net=none", image, "--exec=/bin/printf", "--", "%s", "x").text == "x"


def test_program_without_a_slash_is_searched_in_the_apps_path(pods: Pods) -> None:
    done = pods(
        "run", "--net=none", BUSYBOX, "--exec=probe", "--environment=PATH=/nowhere:/bin", "--", "none"
    )
    assert done.code == 64


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/bin/missing", 'cannot execute "/bin/missing": No such file or directory'),
        ("missing", 'cannot execute "missing": No such file or directory'),
        ("/etc/passwd", 'cannot execute "/etc/passwd": Permission denied'),
        ("/etc", 'cannot execute "/etc": Permission denied'),
    ],
)
def test_program_that_cannot_be_executed_is_named(pods: Pods, program: str, reason: str) -> None:
    done = pods("run", "--net=none", BUSYBOX, f"--exec={program}")
    assert (done.code, done.out) == (254, b"")
    assert done.errors == f'run: app "busybox": {reason}\n'


def test_missing_interpreter_of_a_script_is_told_from_a_missing_script(
    pods: Pods, build: Callable[..., str], rootfs: Path
) -> None:
    image = build(rootfs, {"exec": ["/bin/script"], "user": "0", "group": "0"})
    assert "its interpreter or loader is missing" in pods("run", "--net=none", image).errors


def test_two_apps_share_the_pod_and_have_roots_of_their_own(pods: Pods) -> None:
    write = "echo a > /file; echo $AC_APP_NAME; until [ -e /dev/shm/seen ]; do usleep 1000; done; hostname"
    look = "ls /file 2>/dev/null; echo $AC_APP_NAME; hostname; echo > /dev/shm/seen"
    done = pods(*apps(write, look))
    assert done.code == 0
    lines = sorted(done.lines)
    assert lines[:2] == ["a", "b"]
    assert lines[2] == lines[3]
    assert len(lines) == 4


# How it ends


@pytest.mark.parametrize("code", [0, 1, 2, 20, 255])
def test_exit_code_is_the_apps(pods: Pods, code: int) -> None:
    assert pods.sh(f"exit {code}") == Done(code, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGUSR1])
def test_death_by_a_signal_is_told_as_a_shell_does(pods: Pods, number: signal.Signals) -> None:
    assert pods.sh(f"exec /bin/sh -c 'kill -{number.value} $$'").code == 128 + number


def test_first_failure_ends_the_pod_with_its_code(pods: Pods) -> None:
    trap = f"trap 'echo told; exit 9' TERM; echo > /dev/shm/trapped; {WAIT}"
    failing = "until [ -e /dev/shm/trapped ]; do usleep 1000; done; exit 5"
    assert pods(*apps("exit 0", trap, failing)) == Done(5, b"told\n", b"")


def test_app_that_succeeds_does_not_end_the_pod(pods: Pods) -> None:
    late = "until [ -e /dev/shm/first ]; do usleep 1000; done; echo late"
    assert pods(*apps("echo > /dev/shm/first", late)) == Done(0, b"late\n", b"")


def test_three_apps_that_succeed_are_a_pod_that_does(pods: Pods) -> None:
    assert pods(*apps("exit 0", "exit 0", "exit 0")).code == 0


def test_status_tells_the_code_of_each_app(pods: Pods, tmp_path: Path) -> None:
    uuid_file = tmp_path / "uuid"
    verb, *rest = apps("exit 0", "exit 7", "until [ -e /never ]; do usleep 1000; done")
    assert pods(verb, f"--uuid-file-save={uuid_file}", *rest).code == 7
    lines = pods.ok("status", uuid_file.read_text().strip()).splitlines()
    assert [line for line in lines if line.startswith("app-")] == ["app-a=0", "app-b=7", "app-c=143"]


def test_app_that_cannot_start_ends_the_others(pods: Pods) -> None:
    command = apps("until [ -e /never ]; do usleep 1000; done", "")
    command[command.index("--name=b") + 1] = "--exec=/bin/missing"
    done = pods(*command)
    assert done.code == 254
    assert 'app "b": cannot execute "/bin/missing"' in done.errors


def test_zombies_are_reaped_by_pid_1(pods: Pods) -> None:
    count = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z 1 '"
    script = f'probe orphans 30; while [ "$({count})" != 0 ]; do usleep 1000; done; echo reaped'
    assert pods.sh(script).text == "reaped\n"


def test_orphans_end_with_the_pod(pods: Pods, tmp_path: Path) -> None:
    marker = f"9{random.randrange(10**8):08}"
    script = f"(setsid sleep {marker} &) ; until pidof sleep >/dev/null; do usleep 1000; done; echo up"
    assert pods.sh(script) == Done(0, b"up\n", b"")
    assert processes(marker) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_run_stops_the_pod_by_the_apps_own_handler(pods: Pods, number: signal.Signals) -> None:
    running = pods.start_sh(f"trap 'echo told; exit 7' TERM; echo ready; {WAIT}")
    assert running.end(number) == Done(7, b"ready\ntold\n", b"")


def test_app_without_a_handler_dies_of_sigterm(pods: Pods) -> None:
    assert pods.start_sh("echo ready; exec sleep 1000").end(signal.SIGTERM).code == 143


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_second_signal_kills_an_app_that_ignores_the_first(
    pods: Pods, numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    running = pods.start_sh(f"trap 'echo no' TERM; echo ready; {WAIT}")
    running.signal(numbers[0])
    running.until("no")
    assert running.end(numbers[1]).code == 137


@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2", "QUIT", "CONT"])
def test_other_signals_are_passed_on_to_the_app(pods: Pods, name: str) -> None:
    running = pods.start_sh(f"trap 'echo got {name}; exit 0' {name}; echo ready; {WAIT}")
    assert running.end(signal.Signals[f"SIG{name}"]) == Done(0, f"ready\ngot {name}\n".encode(), b"")


def test_killed_supervisor_takes_the_pod_along(pods: Pods) -> None:
    marker = f"9{random.randrange(10**8):08}"
    running = pods.start_sh(f"echo ready; exec sleep {marker}")
    (pid,) = processes(marker)
    pidfd = os.pidfd_open(int(pid))
    running.end(signal.SIGKILL)
    try:
        # A pidfd is readable when its process has ended.
        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)
    assert pods.ok("status", running.uuid).startswith("state=exited\n")


# Standard streams


def test_output_reaches_the_caller_byte_for_byte(pods: Pods, tmp_path: Path) -> None:
    for name, size in (("out", 1 << 20), ("err", 300_001)):
        (tmp_path / name).write_bytes(random.randbytes(size))
    done = pods.sh(
        "cat /in/err >&2 & cat /in/out; wait",
        f"--volume=in,kind=host,source={tmp_path}",
        "--mount=volume=in,target=/in",
    )
    assert done.code == 0
    assert done.out == (tmp_path / "out").read_bytes()
    assert done.err == (tmp_path / "err").read_bytes()


def test_output_waits_for_a_slow_reader(pods: Pods) -> None:
    running = pods.start(*pods.command("yes | head -c 100000"))
    assert running.process.stdout is not None
    # The smallest pipe there is: all along the way it is full, and the app has ended long before its end.
    fcntl.fcntl(running.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    assert running.end() == Done(0, b"y\n" * 50000, b"")


def test_output_to_a_file_is_appended_where_the_caller_is(pods: Pods, tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        subprocess.run(pods.rkt.command(*pods.command("echo during")), stdout=file, check=True)
        os.write(file.fileno(), b"after\n")
    assert path.read_bytes() == b"before\nduring\nafter\n"


def test_stdin_is_dev_null(pods: Pods) -> None:
    assert pods.sh("cat; readlink /proc/self/fd/0", stdin=b"of the caller\n").text == "/dev/null\n"


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1"])
def test_app_of_any_user_opens_its_own_stdout(pods: Pods, path: str) -> None:
    assert pods.sh(f"echo seen > {path}", "--user=1000", "--group=1000") == Done(0, b"seen\n", b"")


def test_app_dies_of_a_reader_that_went_away(pods: Pods) -> None:
    command = pods.rkt.command(*pods.command("yes"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(20) == 128 + signal.SIGPIPE


def test_reader_that_went_away_is_no_signal_to_who_does_not_write(pods: Pods) -> None:
    script = "trap 'echo told >&2' PIPE; echo ready; (exec yes); echo went on >&2; exit 3"
    running = pods.start_sh(script)
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.process.stderr is not None
    assert running.process.stderr.read() == b"went on\n"
    assert running.process.wait(20) == 3


def test_stopped_app_hears_that_it_shall_end(pods: Pods) -> None:
    running = pods.start_sh(f"trap 'echo told; exit 4' TERM; echo ready; kill -STOP $$; {WAIT}")
    pid = next(pid for pid in processes("kill -STOP $$") if Path(f"/proc/{pid}/comm").read_text() == "sh\n")
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass
    assert running.end(signal.SIGTERM) == Done(4, b"ready\ntold\n", b"")


def test_pod_of_many_apps_runs_with_few_descriptors(pods: Pods) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    assert pods(*apps(*["echo x"] * 24), preexec=few) == Done(0, b"x\n" * 24, b"")


def test_closed_streams_of_the_caller_are_no_descriptors_of_ours(pods: Pods) -> None:
    script = (
        f"exec {' '.join(pods.rkt.command('run', '--net=none', BUSYBOX, '--exec=/bin/true'))} <&- >&- 2>&-"
    )
    assert subprocess.run(["/bin/sh", "-c", script], timeout=20, check=False).returncode == 0


# Event handlers


def handlers(
    *events: tuple[str, str], user: str = "0", group: str = "0", exec: str = "echo main"
) -> dict[str, object]:
    return {
        "exec": ["/bin/sh", "-c", exec],
        "user": user,
        "group": group,
        "environment": [{"name": "OWN", "value": "set"}],
        "eventHandlers": [{"name": name, "exec": ["/bin/sh", "-c", script]} for name, script in events],
    }


def test_event_handlers_run_around_the_app_as_root_in_its_environment(
    pods: Pods, build: Callable[..., str], rootfs: Path
) -> None:
    tell = "echo $0 $OWN $AC_APP_NAME $(id -u):$(id -g)"
    events = ("pre-start", tell.replace("$0", "pre")), ("post-stop", tell.replace("$0", "post"))
    app = handlers(*events, user="1000", group="1000", exec=tell.replace("$0", "main"))
    assert pods("run", "--net=none", build(rootfs, app)).lines == [
        "pre set built 0:0",
        "main set built 1000:1000",
        "post set built 0:0",
    ]


def test_failure_of_pre_start_keeps_the_app_from_starting(
    pods: Pods, build: Callable[..., str], rootfs: Path
) -> None:
    app = handlers(("pre-start", "exit 3"), ("post-stop", "echo post"))
    assert pods("run", "--net=none", build(rootfs, app)) == Done(3, b"post\n", b"")


def test_failure_of_the_app_is_not_hidden_by_post_stop(
    pods: Pods, build: Callable[..., str], rootfs: Path
) -> None:
    app = handlers(("post-stop", "echo post"), exec="exit 4")
    assert pods("run", "--net=none", build(rootfs, app)) == Done(4, b"post\n", b"")


def test_post_stop_runs_when_the_pod_is_stopped(pods: Pods, build: Callable[..., str], rootfs: Path) -> None:
    app = handlers(("post-stop", "echo post"), exec=f"trap 'exit 0' TERM; echo ready; {WAIT}")
    running = pods.start("run", "--net=none", build(rootfs, app))
    running.until("ready")
    assert running.end(signal.SIGTERM) == Done(0, b"ready\npost\n", b"")


# Environment


def environment(done: Done) -> dict[str, str]:
    assert done.code == 0, done
    return dict(line.split("=", 1) for line in done.lines)


def test_environment_is_what_the_spec_says_and_nothing_else(pods: Pods) -> None:
    done = pods("run", "--net=none", BUSYBOX, "--exec=/bin/env", env={"LEAK": "x", "LD_PRELOAD": "/x.so"})
    assert environment(done) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        "container": "rkt-py",
        "AC_APP_NAME": "busybox",
    }


def test_home_and_user_are_by_the_images_passwd(pods: Pods) -> None:
    done = pods("run", "--net=none", BUSYBOX, "--exec=/bin/env", "--user=user", "--name=other")
    found = environment(done)
    assert (found["HOME"], found["USER"], found["LOGNAME"]) == ("/home/user", "user", "user")
    assert found["AC_APP_NAME"] == "other"


def test_environment_precedence_is_caller_image_file_pod_app(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    names = ["A", "B", "C", "D", "E"]
    image = build(
        rootfs,
        {
            "exec": ["/bin/env"],
            "user": "0",
            "group": "0",
            "environment": [{"name": name, "value": "image"} for name in names[1:]],
        },
    )
    (tmp_path / "env").write_text("# comment\n; too\n\nC=file\nD=file\nE=file\n")
    done = pods(
        "run",
        "--net=none",
        "--inherit-env",
        f"--set-env-file={tmp_path / 'env'}",
        "--set-env=D=pod",
        "--set-env=E=pod",
        image,
        "--environment=E=app",
        env=dict.fromkeys(names, "caller") | {"PATH": "/caller"},
    )
    found = environment(done)
    assert [found[name] for name in names] == ["caller", "image", "file", "pod", "app"]
    assert found["PATH"] == "/caller"


def test_callers_environment_never_says_how_an_app_is_called(pods: Pods) -> None:
    done = pods("run", "--net=none", "--inherit-env", BUSYBOX, "--exec=/bin/env", env={"AC_APP_NAME": "x"})
    assert environment(done)["AC_APP_NAME"] == "busybox"


def test_environment_values_pass_unchanged(pods: Pods) -> None:
    value = "a b\tc\n\"'$x\\ =é"
    assert pods.sh('printf %s "$X"', f"--environment=X={value}").text == value


# Where it runs


def test_working_directory_is_what_was_asked_for(pods: Pods) -> None:
    assert pods.sh("pwd").text == "/\n"
    assert pods.sh("pwd", "--working-dir=/home/user").text == "/home/user\n"


def test_working_directory_through_a_link_stays_in_the_image(pods: Pods) -> None:
    assert pods.sh("pwd -P; ls etc/passwd", "--working-dir=/outside").text == "/\netc/passwd\n"


def test_missing_working_directory_is_told(pods: Pods) -> None:
    done = pods.sh("pwd", "--working-dir=/missing")
    assert done.code == 254
    assert "working directory /missing: No such file or directory" in done.errors


def test_hostname_is_by_the_uuid_or_as_given(pods: Pods, tmp_path: Path) -> None:
    uuid_file = tmp_path / "uuid"
    script = "hostname; cat /etc/hostname"
    done = pods.sh(script, f"--uuid-file-save={uuid_file}")
    name = f"rkt-{uuid_file.read_text().strip()}"
    assert done.lines == [name, name]
    host = os.uname().nodename
    assert pods.sh(script, "--hostname=some-name").lines == ["some-name", "some-name"]
    assert os.uname().nodename == host


def test_etc_hosts_knows_localhost_and_the_pod(pods: Pods) -> None:
    assert pods.sh("cat /etc/hosts", "--hostname=me").lines[0].split() == ["127.0.0.1", "localhost", "me"]
    entries = "--hosts-entry=10.0.0.1=one,10.0.0.1=uno", "--hosts-entry=10.0.0.2=two"
    lines = pods.sh("cat /etc/hosts", *entries).lines
    assert lines[2:] == ["10.0.0.1 one uno", "10.0.0.2 two"]
    own = pathlib.Path("/etc/hosts").read_text()
    assert pods.sh("cat /etc/hosts", "--hosts-entry=host").text == own


def test_resolv_conf_is_as_asked_for(pods: Pods) -> None:
    flags = "--dns=8.8.8.8,9.9.9.9", "--dns-search=example.com", "--dns-opt=ndots:2", "--dns-domain=d.example"
    assert [line for line in pods.sh("cat /etc/resolv.conf", *flags).lines if line[:1] not in ("#", "")] == [
        "search example.com",
        "nameserver 8.8.8.8",
        "nameserver 9.9.9.9",
        "options ndots:2",
        "domain d.example",
    ]
    own = pathlib.Path("/etc/resolv.conf").read_text()
    assert pods.sh("cat /etc/resolv.conf", "--dns=host").text == own
    assert pods.sh("ls /etc/resolv.conf", "--dns=none").code == 1


def test_mtab_is_the_apps_own(pods: Pods) -> None:
    assert pods.sh("readlink /etc/mtab").text == "/proc/self/mounts\n"


# --uuid-file-save, --pod-manifest


def test_saved_uuid_is_there_before_the_app_is(pods: Pods, tmp_path: Path) -> None:
    running = pods.start_sh("echo ready; exec sleep 1000")
    assert len(running.uuid) == 36
    assert pods.ok("status", running.uuid).startswith("state=running\n")


def test_uuid_that_cannot_be_saved_is_no_pod(own_pods: Pods, tmp_path: Path) -> None:
    done = own_pods.sh("echo ran", f"--uuid-file-save={tmp_path}/no/uuid")
    assert (done.code, done.out) == (254, b"")
    assert done.errors == f"run: cannot save the UUID to {tmp_path}/no/uuid: No such file or directory\n"


def pod_manifest(image: str, **app: object) -> dict[str, object]:
    base: dict[str, object] = {
        "exec": ["/bin/sh", "-c", "echo $X; pwd; cat /v/file"],
        "user": "0",
        "group": "0",
    }
    return {
        "acKind": "PodManifest",
        "acVersion": "0.8.11",
        "apps": [
            {
                "name": "given",
                "image": {"id": image},
                "app": base | app,
                "mounts": [{"volume": "v", "path": "/v"}],
            }
        ],
        "volumes": [],
        "isolators": [],
        "annotations": [],
        "ports": [],
    }


def test_pod_manifest_is_run_as_it_is(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    image = build(rootfs, {"exec": ["/bin/false"], "user": "0", "group": "0"})
    (tmp_path / "v").mkdir()
    (tmp_path / "v/file").write_text("of the volume\n")
    manifest = pod_manifest(image, environment=[{"name": "X", "value": "y"}], workingDirectory="/home")
    manifest["volumes"] = [{"name": "v", "kind": "host", "source": str(tmp_path / "v"), "readOnly": True}]
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(manifest))
    assert pods("run", "--net=none", f"--pod-manifest={path}").lines == ["y", "/home", "of the volume"]


def test_pod_manifest_goes_with_few_flags(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "pod.json").write_text("{}")
    done = pods("run", f"--pod-manifest={tmp_path / 'pod.json'}", "--hostname=x")
    assert done.code == 254
    assert "conflicting flags set with --pod-manifest" in done.errors


def test_run_without_overlay_is_the_same_to_the_app(pods: Pods) -> None:
    done = pods.sh("echo x > /file; cat /file /data/file; grep ' / ' /proc/mounts", "--no-overlay")
    assert done.lines[:2] == ["x", "of the image"]
    assert "overlay" not in done.lines[2]
    assert pods.sh("ls /file", "--no-overlay").code == 1


def test_image_is_never_written_to(pods: Pods) -> None:
    assert pods.sh("echo changed > /data/file; rm -r /home; cat /data/file").text == "changed\n"
    assert pods.sh("cat /data/file; ls /home").lines == ["of the image", "user"]
