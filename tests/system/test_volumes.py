"""Volumes: what of the host, and of its own, an app sees where."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

Builder = Callable[..., str]


def volume(source: Path | str, target: str = "/v", *, more: str = "", name: str = "v") -> tuple[str, str]:
    kind = f"kind=host,source={source}{more}"
    return f"--volume={name},{kind}", f"--mount=volume={name},target={target}"


def empty(more: str = "", target: str = "/v", name: str = "v") -> tuple[str, str]:
    return f"--volume={name},kind=empty{more}", f"--mount=volume={name},target={target}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_text("of the host\n")
    return directory


# Of the host


def test_directory_of_the_host_is_written_through(pods: Pods, source: Path) -> None:
    done = pods.sh("cat /v/file; echo new > /v/new; rm /v/file", *volume(source))
    assert done == Done(0, b"of the host\n", b"")
    assert [path.name for path in source.iterdir()] == ["new"]
    assert (source / "new").read_text() == "new\n"


@pytest.mark.parametrize("options", [",readOnly=true", ",readOnly=true,recursive=false"])
def test_read_only_volume_cannot_be_written(pods: Pods, source: Path, options: str) -> None:
    script = "cat /v/file; echo x > /v/new; echo x > /v/file; rm /v/file; mount -o remount,rw /v"
    done = pods.sh(script, *volume(source, more=options))
    assert done.text == "of the host\n"
    assert done.errors.count("Read-only file system") == 3
    assert done.code != 0
    assert (source / "file").read_text() == "of the host\n"


def test_mount_point_of_the_image_makes_a_volume_read_only(
    pods: Pods, build: Builder, rootfs: Path, source: Path
) -> None:
    app = {
        "exec": ["/bin/sh", "-c", "cat /point/file; echo x > /point/file"],
        "user": "0",
        "group": "0",
        "mountPoints": [{"name": "v", "path": "/point", "readOnly": True}],
    }
    done = pods("run", "--net=none", volume(source)[0], build(rootfs, app))
    assert done.text == "of the host\n"
    assert "Read-only file system" in done.errors


def test_file_of_the_host_is_mounted_on_a_file(pods: Pods, source: Path) -> None:
    for target in ("/data/file", "/new/deep/file"):
        assert pods.sh(f"cat {target}; stat -c %F {target}", *volume(source / "file", target)).lines == [
            "of the host",
            "regular file",
        ]


def test_directory_on_a_file_is_refused(pods: Pods, source: Path) -> None:
    done = pods.sh("true", *volume(source, "/data/file"))
    assert (done.code, done.out) == (254, b"")
    assert "/data/file: Not a directory" in done.errors


def in_own_mounts(script: str, pods: Pods, *args: str | Path) -> Done:
    """Run `script`, and then the command in mounts that are not the host's."""
    command = [
        "unshare", "-m", "--propagation", "private", "sh", "-ec", f'{script}; exec "$@"', "sh",
        *pods.rkt.command(*args),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=20, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("options", "seen", "written"),
    [("", True, True), (",recursive=false", False, None), (",readOnly=true", True, False)],
)
def test_what_is_mounted_below_the_source_comes_along(
    pods: Pods, source: Path, options: str, seen: bool, written: bool | None
) -> None:
    (source / "sub").mkdir()
    mount = f"mount -t tmpfs none {source}/sub; echo below > {source}/sub/file"
    script = "cat /v/sub/file && { echo x > /v/sub/new && echo written; }; true"
    done = in_own_mounts(mount, pods, *pods.command(script, *volume(source, more=options)))
    assert ("below" in done.text, "written" in done.text) == (seen, bool(written))
    if written is False:
        assert "Read-only file system" in done.errors


def test_mounts_of_an_app_do_not_reach_the_host(pods: Pods, source: Path) -> None:
    done = in_own_mounts(
        f"mount --bind {source} {source}; mount --make-shared {source}",
        pods,
        *pods.command(
            "mkdir /v/sub; mount -t tmpfs none /v/sub; echo x > /v/sub/inside; cat /v/sub/inside",
            "--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE",
            *volume(source),
        ),
    )
    assert done == Done(0, b"x\n", b"")
    assert list((source / "sub").iterdir()) == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("/etc"), "is a symbolic link"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_source_that_is_a_link_or_missing_is_refused(
    own_pods: Pods, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "it")
    for verb in (["run", "--net=none"], ["prepare"]):
        done = own_pods(*verb, BUSYBOX, *volume(tmp_path / "it"))
        assert (done.code, done.out) == (254, b"")
        assert reason in done.errors
        assert str(tmp_path / "it") in done.errors
    assert list(own_pods.rkt.data.glob("pods/*/*")) == []


def test_source_that_went_away_after_prepare_is_told(pods: Pods, source: Path) -> None:
    uuid = pods.ok("prepare", BUSYBOX, *volume(source / "file"), "--exec=/bin/true").strip()
    (source / "file").unlink()
    done = pods("run-prepared", "--net=none", uuid)
    assert done.code == 254
    assert "No such file or directory" in done.errors


# Empty


def test_empty_volume_is_made_as_asked_for_and_goes_with_the_pod(own_pods: Pods) -> None:
    uuid_file = own_pods.directory / "uuid"
    script = "stat -c '%a %u:%g' /v; ls -A /v; echo x > /v/file; cat /v/file"
    done = own_pods.sh(script, f"--uuid-file-save={uuid_file}", *empty(",mode=2770,uid=1000,gid=2000"))
    assert done.lines == ["2770 1000:2000", "x"]
    own_pods.ok("rm", uuid_file.read_text().strip())
    assert list(own_pods.rkt.data.glob("pods/*/*")) == []


def test_empty_volume_is_roots_by_default(pods: Pods) -> None:
    assert pods.sh("stat -c '%a %u:%g' /v", *empty()).lines == ["755 0:0"]


def test_mount_point_without_a_volume_gets_an_empty_one_and_a_warning(
    pods: Pods, build: Builder, rootfs: Path
) -> None:
    app = {
        "exec": ["/bin/sh", "-c", "ls /data; echo x > /data/new; cat /data/new"],
        "user": "0",
        "group": "0",
        "mountPoints": [{"name": "work", "path": "/data"}],
    }
    done = pods("run", "--net=none", build(rootfs, app))
    assert done.text == "x\n"
    assert 'no volume specified for mount point "work", implicitly creating an "empty" volume' in done.errors


def test_volume_is_shared_by_the_apps_that_mount_it(pods: Pods) -> None:
    wait = "until [ -e /b/{} ]; do usleep 1000; done; cat /b/{}"
    done = pods(
        "run", "--net=none", "--volume=shared,kind=empty,mode=0777",
        BUSYBOX, "--name=one", "--mount=volume=shared,target=/a", "--exec=/bin/sh",
        "--", "-c", "echo of one >/a/x; mv /a/x /a/one; until [ -e /a/two ]; do usleep 999; done; cat /a/two",
        "---",
        BUSYBOX, "--name=two", "--mount=volume=shared,target=/b", "--exec=/bin/sh",
        "--", "-c", f"{wait.format('one', 'one')}; echo of two > /b/x; mv /b/x /b/two",
    )  # fmt: skip
    assert done.code == 0
    assert sorted(done.lines) == ["of one", "of two"]


# Where


def test_unknown_volume_of_a_mount_is_told(pods: Pods) -> None:
    done = pods.sh("true", "--mount=volume=nope,target=/x")
    assert done == Done(254, b"", b'run: dangling mount point "/x": volume "nope" not found\n')


def test_volume_without_a_mount_is_nothing(pods: Pods, source: Path) -> None:
    assert pods.sh("ls /v", volume(source)[0]).code == 1


def test_mounts_are_nested_whatever_their_order(pods: Pods, source: Path) -> None:
    inner = source.parent / "inner"
    inner.mkdir()
    (inner / "file").write_text("inner\n")
    done = pods.sh(
        "cat /v/file /v/deep/sub/file",
        *volume(inner, "/v/deep/sub", name="inner"),
        *volume(source, "/v"),
    )
    assert done.lines == ["of the host", "inner"]
    assert (source / "deep/sub").is_dir()


def test_mount_before_any_image_is_for_all_apps(pods: Pods, source: Path) -> None:
    done = pods(
        "run", "--net=none", *volume(source),
        BUSYBOX, "--name=a", "--exec=/bin/cat", "--", "/v/file", "---",
        BUSYBOX, "--name=b", "--exec=/bin/cat", "--", "/v/file",
    )  # fmt: skip
    assert done.lines == ["of the host"] * 2


@pytest.mark.parametrize("target", ["/link/v", "/outside/v", "/outside/outside/v"])
def test_mount_through_a_link_of_the_image_stays_inside(pods: Pods, source: Path, target: str) -> None:
    inside = {"/link/v": "/data/v"}.get(target, "/v")
    assert pods.sh(f"cat {target}/file {inside}/file", *volume(source, target)).lines == ["of the host"] * 2


def test_mount_on_a_link_that_leads_out_makes_nothing_on_the_host(
    pods: Pods, build: Builder, rootfs: Path, source: Path, tmp_path: Path
) -> None:
    link = rootfs / "data/leads"
    link.symlink_to(f"/../../../../../../..{tmp_path}/made")
    try:
        image = build(rootfs, {"exec": ["/bin/cat", "/v/file"], "user": "0", "group": "0"})
    finally:
        link.unlink()
    pods("run", "--net=none", image, *volume(source, "/data/leads"))
    pods("run", "--net=none", image, *volume(source, "/data/leads/below"))
    pods("run", "--net=none", image, *volume(source / "file", "/data/leads"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "target", ["/", "/proc", "/proc/sys", "/sys/fs/cgroup", "/dev", "/dev/shm", "/x/../proc"]
)
def test_volume_on_what_is_ours_is_refused(pods: Pods, source: Path, target: str) -> None:
    done = pods.sh("true", *volume(source, target))
    assert (done.code, done.out) == (254, b"")
    assert "a volume cannot be mounted on" in done.errors


@pytest.mark.parametrize("to", ["/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/shm", "/", "../proc"])
def test_volume_through_a_link_does_not_reach_what_is_ours(
    pods: Pods, build: Builder, rootfs: Path, source: Path, to: str
) -> None:
    """CVE-2019-19921: a procfs that is not one would take what is written to confine the app."""
    link = rootfs / "data/leads"
    link.symlink_to(to)
    try:
        image = build(rootfs, {"exec": ["/bin/true"], "user": "0", "group": "0"})
    finally:
        link.unlink()
    done = pods("run", "--net=none", image, *volume(source, "/data/leads"))
    assert (done.code, done.out) == (254, b"")
    assert "which leads to /proc, /sys, /dev or the root itself: Operation not permitted" in done.errors
    assert [path.name for path in source.iterdir()] == ["file"]


def test_device_of_the_host_as_a_volume_can_be_opened(pods: Pods) -> None:
    assert pods.sh("head -c 3 /dev/zerotoo | wc -c", *volume("/dev/zero", "/dev/zerotoo")).text == "3\n"


def test_two_volumes_on_one_path_are_refused(pods: Pods, source: Path) -> None:
    done = pods.sh("true", *volume(source), *empty(name="w"))
    assert done.code == 254
    assert "/v" in done.errors


def test_volumes_are_told_in_the_status_of_a_pod(pods: Pods, source: Path) -> None:
    uuid = pods.ok("prepare", BUSYBOX, *volume(source, more=",readOnly=true")).strip()
    (app,) = json.loads(pods.ok("status", "--format=json", uuid))["apps"]
    assert app["mounts"] == [
        {"name": "v", "container_path": "/v", "host_path": str(source), "read_only": True}
    ]


def test_removal_of_a_pod_never_reaches_into_a_volume(own_pods: Pods, source: Path) -> None:
    own_pods.sh("true", *volume(source))
    own_pods.ok("gc", "--grace-period=0s")
    assert (source / "file").read_text() == "of the host\n"
    assert os.listdir(source) == ["file"]
