"""Pod manifests from images and requests: rkt's rules, in tables."""

from __future__ import annotations

import pytest

from rkt_py.aci import podmanifest
from rkt_py.aci.imagemanifest import App, EnvironmentVariable, ImageManifest, MountPoint
from rkt_py.aci.isolator import CAPABILITIES_RETAIN_SET, MEMORY, SECCOMP_REMOVE_SET
from rkt_py.aci.name import Label
from rkt_py.aci.podmanifest import PodManifest, Volume
from rkt_py.runtime.apprequest import AppRequest
from rkt_py.runtime.errors import PrepareError
from rkt_py.runtime.generate import PodRequest, generate, parse_environment_file, parse_volume

APP = App(exec=("/bin/sh",), user="0", group="0")
IMAGE = ImageManifest("example.com/hello", app=APP, labels=(Label("os", "linux"), Label("arch", "amd64")))


def make(*requests: AppRequest, image: ImageManifest = IMAGE, pod: PodRequest | None = None) -> PodManifest:
    apps = [(request, image, "sha512-" + "ab" * 32) for request in requests or (AppRequest("x"),)]
    return generate(apps, pod or PodRequest(), machine="x86_64").manifest


def only_app(manifest: PodManifest) -> App:
    app = manifest.apps[0].app
    assert app is not None
    return app


def test_an_app_is_named_after_the_last_part_of_its_image() -> None:
    assert make().apps[0].name == "hello"
    assert make(image=ImageManifest("example.com/My_App", app=APP)).apps[0].name == "my-app"


def test_two_apps_of_one_image_need_names() -> None:
    with pytest.raises(PrepareError, match='two apps have the name "hello"'):
        make(AppRequest("x"), AppRequest("x"))
    assert [app.name for app in make(AppRequest("x"), AppRequest("x", name="other")).apps] == [
        "hello",
        "other",
    ]


@pytest.mark.parametrize("suffix", ["created", "started", "pid"])
def test_names_that_would_share_a_file_are_refused(suffix: str) -> None:
    with pytest.raises(PrepareError, match="cannot be in one pod"):
        make(AppRequest("x", name=f"a-{suffix}"), AppRequest("x", name="a"))


@pytest.mark.parametrize(
    ("image_exec", "request_", "expected"),
    [
        (("/bin/sh",), AppRequest("x"), ("/bin/sh",)),
        (("/bin/sh", "-x"), AppRequest("x", args=("-c", "id")), ("/bin/sh", "-x", "-c", "id")),
        (("/bin/sh", "-x"), AppRequest("x", exec="/bin/ls"), ("/bin/ls",)),
        (("/bin/sh",), AppRequest("x", exec="/bin/ls", args=("-l",)), ("/bin/ls", "-l")),
        ((), AppRequest("x", exec="/bin/ls"), ("/bin/ls",)),
    ],
)
def test_exec_replaces_and_arguments_are_added(
    image_exec: tuple[str, ...], request_: AppRequest, expected: tuple[str, ...]
) -> None:
    image = ImageManifest("example.com/hello", app=App(exec=image_exec, user="0", group="0"))
    assert only_app(make(request_, image=image)).exec == expected


@pytest.mark.parametrize(
    "image",
    [ImageManifest("example.com/none"), ImageManifest("example.com/none", app=App((), "0", "0"))],
)
def test_an_image_with_nothing_to_execute_needs_exec(image: ImageManifest) -> None:
    with pytest.raises(PrepareError, match=r"give --exec"):
        make(AppRequest("x"), image=image)
    assert only_app(make(AppRequest("x", exec="/a"), image=image)).exec == ("/a",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((Label("os", "freebsd"), Label("arch", "amd64")), "operating system freebsd"),
        ((Label("os", "linux"), Label("arch", "aarch64")), "architecture aarch64, this machine is amd64"),
    ],
)
def test_an_image_for_another_platform_is_refused(labels: tuple[Label, ...], message: str) -> None:
    with pytest.raises(PrepareError, match=message):
        make(image=ImageManifest("example.com/hello", app=APP, labels=labels))


def test_environments_win_in_rkts_order() -> None:
    app = App(
        ("/a",), "0", "0", environment=(EnvironmentVariable("B", "image"), EnvironmentVariable("I", "image"))
    )
    pod = PodRequest(
        inherited={"A": "parent", "B": "parent"},
        from_files=(("C", "file"), ("D", "file"), ("E", "file")),
        environment=(("D", "set"), ("E", "set")),
    )
    request = AppRequest("x", environment=(("E", "app"),))
    manifest = make(request, image=ImageManifest("example.com/a", app=app), pod=pod)
    found = {variable.name: variable.value for variable in only_app(manifest).environment}
    assert found == {"A": "parent", "B": "image", "I": "image", "C": "file", "D": "set", "E": "app"}


def test_flags_become_isolators_in_place_of_the_images() -> None:
    app = only_app(
        make(
            AppRequest("x", memory="64M", caps_retain=("CAP_KILL",), seccomp="mode=remove,errno=EPERM,chmod")
        )
    )
    names = [isolator.name for isolator in app.isolators]
    assert names == [CAPABILITIES_RETAIN_SET, SECCOMP_REMOVE_SET, MEMORY]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (AppRequest("x", memory="lots"), "--memory"),
        (AppRequest("x", cpu="-"), "--cpu"),
        (AppRequest("x", oom_score_adj=2000), "--oom-score-adj"),
        (AppRequest("x", seccomp="chmod"), 'mode is retain or remove, not ""'),
        (AppRequest("x", seccomp="mode=retain"), "--seccomp"),
        (AppRequest("x", caps_retain=("CAP_KILL",), caps_remove=("CAP_KILL",)), "cannot be given together"),
        (AppRequest("x", name="Not A Name"), "app name"),
        (AppRequest("x", environment=(("1A", "x"),)), "environment"),
        (AppRequest("x", mounts=(("nope", "/x"),)), 'dangling mount point "/x": volume "nope" not found'),
    ],
)
def test_what_cannot_be_is_refused(request_: AppRequest, message: str) -> None:
    with pytest.raises(PrepareError, match=message):
        make(request_)


def test_a_mount_point_without_volume_gets_an_empty_one() -> None:
    app = App(("/a",), "0", "0", mount_points=(MountPoint("data", "/data"),))
    image = ImageManifest("example.com/hello", app=app)
    generated = generate([(AppRequest("x"), image, "sha512-" + "ab" * 32)], PodRequest(), machine="x86_64")
    assert generated.manifest.volumes == (Volume("hello-data", "empty", mode="0755", uid=0, gid=0),)
    assert [(mount.volume, mount.path) for mount in generated.manifest.apps[0].mounts] == [
        ("hello-data", "/data")
    ]
    assert "no volume specified" in generated.warnings[0]


def test_a_mount_of_the_command_line_stands_for_the_mount_point_at_its_path() -> None:
    app = App(("/a",), "0", "0", mount_points=(MountPoint("data", "/data/"),))
    pod = PodRequest(volumes=(Volume("mine", "host", "/srv"),))
    manifest = make(
        AppRequest("x", mounts=(("mine", "/data"),)), image=ImageManifest("example.com/a", app=app), pod=pod
    )
    assert [(mount.volume, mount.path) for mount in manifest.apps[0].mounts] == [("mine", "/data")]


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("d,kind=host,source=/srv", Volume("d", "host", "/srv")),
        ("d,kind=host,source=/srv,readOnly=true", Volume("d", "host", "/srv", read_only=True)),
        ("d,kind=host,source=/srv,recursive=false", Volume("d", "host", "/srv", recursive=False)),
        ("d,kind=empty", Volume("d", "empty", mode="0755", uid=0, gid=0)),
        ("d,kind=empty,mode=0700,uid=1,gid=2", Volume("d", "empty", mode="0700", uid=1, gid=2)),
    ],
)
def test_volumes_are_parsed_as_rkt_has_them(text: str, volume: Volume) -> None:
    assert parse_volume(text) == volume


@pytest.mark.parametrize(
    "text",
    ["", "d", "D,kind=empty", "d,kind=nfs", "d,kind=host", "d,kind=host,source=srv", "d,kind=empty,source=/x",
     "d,kind=empty,mode=9", "d,kind=empty,uid=-1", "d,kind=empty,uid=٣", "d,kind=host,source=/x,readOnly=yes",
     "d,kind=host,source=/x,what=1", "d,kind=host,source=/x,mode=0755"],
)  # fmt: skip
def test_a_bad_volume_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(PrepareError, match="volume"):
        parse_volume(text)


def test_environment_files_skip_comments_and_blank_lines() -> None:
    assert parse_environment_file("# c\n; c\n\nA=1\nB=x=y\nC=\n", "f") == (
        ("A", "1"),
        ("B", "x=y"),
        ("C", ""),
    )
    with pytest.raises(PrepareError, match='f, line 2: "nonsense"'):
        parse_environment_file("A=1\nnonsense\n", "f")


def test_what_is_generated_is_a_manifest_that_parses() -> None:
    pod = PodRequest(volumes=(Volume("mine", "host", "/srv"),))
    manifest = make(
        AppRequest("x", mounts=(("mine", "/data"),), memory="64M", annotations=(("a", "b"),)), pod=pod
    )
    assert podmanifest.parse(podmanifest.dump(manifest).encode()) == manifest
