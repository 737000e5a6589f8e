from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkt_py.aci import podmanifest
from rkt_py.aci.errors import BadManifest
from rkt_py.aci.imagemanifest import Annotation, App, MountPoint, Port
from rkt_py.aci.isolator import Isolator, Resource
from rkt_py.aci.name import Label
from rkt_py.aci.podmanifest import (
    ExposedPort,
    Mount,
    PodManifest,
    RuntimeApp,
    RuntimeImage,
    Volume,
)
from rkt_py.aci.quantity import parse as q

ID = "sha512-" + "8d3fffdd" * 16

# appc spec 0.8.11, examples/pod_runtime.json
EXAMPLE: dict[str, Any] = {
    "acKind": "PodManifest",
    "acVersion": "0.8.11",
    "apps": [
        {
            "name": "reduce-worker",
            "image": {"name": "example.com/reduce-worker", "id": ID},
            "app": {
                "exec": ["/usr/bin/reduce-worker", "--debug=true", "--data-dir=/mnt/foo"],
                "group": "0",
                "user": "0",
                "mountPoints": [{"name": "database", "path": "/var/lib/db"}],
                "isolators": [{"name": "resource/memory", "value": {"limit": "1G"}}],
            },
            "mounts": [{"volume": "dbvolume", "path": "/var/lib/db"}],
        },
        {
            "name": "backup",
            "image": {
                "name": "example.com/worker-backup",
                "id": ID,
                "labels": [{"name": "version", "value": "latest"}],
            },
            "mounts": [
                {"volume": "dbvolume", "path": "/mnt/db"},
                {"volume": "buildoutput", "path": "/mnt/out"},
            ],
            "annotations": [{"name": "foo", "value": "baz"}],
        },
        {
            "name": "register",
            "image": {
                "name": "example.com/reduce-worker-register",
                "id": "sha512-...",
                "labels": [{"name": "version", "value": "3.0.0"}],
            },
        },
    ],
    "volumes": [
        {"name": "dbvolume", "kind": "host", "source": "/opt/tenant1/database", "readOnly": True},
        {"name": "buildoutput", "kind": "empty", "mode": "0777", "uid": 0, "gid": 0},
    ],
    "isolators": [
        {"name": "resource/memory", "value": {"limit": "4G"}},
        {"name": "os/unix/sysctl", "value": {"net.ipv4.tcp_fin_timeout": "6"}},
    ],
    "annotations": [{"name": "ip-address", "value": "10.1.2.3"}],
    "ports": [{"name": "ftp", "hostPort": 2121}],
}

VALUE = PodManifest(
    "0.8.11",
    apps=(
        RuntimeApp(
            "reduce-worker",
            RuntimeImage(ID, "example.com/reduce-worker"),
            App(
                ("/usr/bin/reduce-worker", "--debug=true", "--data-dir=/mnt/foo"),
                "0",
                "0",
                mount_points=(MountPoint("database", "/var/lib/db"),),
                isolators=(Isolator("resource/memory", Resource(q("1G"))),),
            ),
            mounts=(Mount("dbvolume", "/var/lib/db"),),
        ),
        RuntimeApp(
            "backup",
            RuntimeImage(ID, "example.com/worker-backup", (Label("version", "latest"),)),
            mounts=(Mount("dbvolume", "/mnt/db"), Mount("buildoutput", "/mnt/out")),
            annotations=(Annotation("foo", "baz"),),
        ),
        RuntimeApp(
            "register",
            RuntimeImage("sha512-...", "example.com/reduce-worker-register", (Label("version", "3.0.0"),)),
        ),
    ),
    volumes=(
        Volume("dbvolume", "host", "/opt/tenant1/database", read_only=True),
        Volume("buildoutput", "empty", mode="0777", uid=0, gid=0),
    ),
    isolators=(
        Isolator("resource/memory", Resource(q("4G"))),
        Isolator("os/unix/sysctl", {"net.ipv4.tcp_fin_timeout": "6"}),
    ),
    annotations=(Annotation("ip-address", "10.1.2.3"),),
    ports=(ExposedPort("ftp", 2121),),
)

MINIMAL: dict[str, Any] = {"acKind": "PodManifest", "acVersion": "0.8.11"}
APP: dict[str, Any] = {"name": "a", "image": {"id": ID}}


def parse(obj: object) -> PodManifest:
    return podmanifest.parse(json.dumps(obj).encode())


def refusal(obj: object) -> BadManifest:
    with pytest.raises(BadManifest) as caught:
        parse(obj)
    return caught.value


def test_the_example_of_the_spec_is_read() -> None:
    assert parse(EXAMPLE) == VALUE


def test_what_is_written_is_read_again() -> None:
    for indent in (None, "\t"):
        assert podmanifest.parse(podmanifest.dump(VALUE, indent=indent).encode()) == VALUE


def test_what_was_not_said_is_not_written() -> None:
    written = json.loads(podmanifest.dump(parse(EXAMPLE)))
    assert written == EXAMPLE
    assert list(written) == ["acVersion", "acKind", "apps", "volumes", "isolators", "annotations", "ports"]
    assert list(written["apps"][0]) == ["name", "image", "app", "mounts"]
    assert list(written["apps"][1]["image"]) == ["name", "id", "labels"]


def test_an_empty_pod_is_written_as_rkt_writes_it() -> None:
    assert podmanifest.dump(PodManifest()) == (
        '{"acVersion":"0.8.11","acKind":"PodManifest","apps":[],"volumes":null,"isolators":null,'
        '"annotations":null,"ports":[]}'
    )
    pod = PodManifest(apps=(RuntimeApp("a", RuntimeImage(ID), read_only_rootfs=True),))
    assert podmanifest.dump(pod, indent="\t") == (
        '{\n\t"acVersion": "0.8.11",\n\t"acKind": "PodManifest",\n\t"apps": [\n\t\t{\n\t\t\t"name": "a",\n'
        f'\t\t\t"image": {{\n\t\t\t\t"id": "{ID}"\n\t\t\t}},\n\t\t\t"readOnlyRootFS": true\n\t\t}}\n\t],\n'
        '\t"volumes": null,\n\t"isolators": null,\n\t"annotations": null,\n\t"ports": []\n}'
    )


def test_the_nulls_of_rkt_are_read() -> None:
    nulls = {"apps": None, "volumes": None, "isolators": None, "annotations": None, "ports": None}
    assert parse({**MINIMAL, **nulls}) == parse(MINIMAL) == PodManifest()


def test_things_are_found_by_name() -> None:
    backup = VALUE.app("backup")
    assert backup is not None
    assert backup.annotation("foo") == "baz"
    assert backup.annotation("bar") is None
    assert VALUE.app("none") is None
    assert VALUE.volume("buildoutput") == VALUE.volumes[1]
    assert VALUE.volume("none") is None
    assert VALUE.isolator("resource/memory") == VALUE.isolators[0]
    assert VALUE.isolator("resource/cpu") is None
    assert VALUE.annotation("ip-address") == "10.1.2.3"


@pytest.mark.parametrize(
    ("obj", "volume"),
    [
        ({"kind": "host", "source": "/"}, Volume("v", "host", "/")),
        (
            {"kind": "host", "source": "/srv", "readOnly": False, "recursive": False},
            Volume("v", "host", "/srv", False, False),
        ),
        (
            {"kind": "host", "source": "/srv", "readOnly": True, "recursive": True, "mode": None},
            Volume("v", "host", "/srv", True, True),
        ),
        ({"kind": "empty"}, Volume("v", "empty", mode="0755", uid=0, gid=0)),
        ({"kind": "empty", "source": ""}, Volume("v", "empty", mode="0755", uid=0, gid=0)),
        (
            {"kind": "empty", "readOnly": True, "mode": "01777", "uid": 1000, "gid": 4294967294},
            Volume("v", "empty", read_only=True, mode="01777", uid=1000, gid=4294967294),
        ),
    ],
)
def test_volumes(obj: dict[str, Any], volume: Volume) -> None:
    pod = parse({**MINIMAL, "volumes": [{"name": "v", **obj}]})
    assert pod.volumes == (volume,)
    assert parse(json.loads(podmanifest.dump(pod))) == pod
    app = {**APP, "mounts": [{"volume": "m", "path": "/p", "appVolume": {"name": "v", **obj}}]}
    pod = parse({**MINIMAL, "apps": [app]})
    assert pod.apps[0].mounts == (Mount("m", "/p", volume),)
    assert parse(json.loads(podmanifest.dump(pod))) == pod


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "kind: is missing"),
        ({"kind": "tmpfs"}, "kind: must be empty or host, not 'tmpfs'"),
        ({"kind": "Host", "source": "/"}, "kind: must be empty or host, not 'Host'"),
        ({"kind": "empty", "name": None}, "name: is missing"),
        ({"kind": "empty", "name": "a.b"}, "name: 'a.b' is not an AC name"),
        ({"kind": "host"}, "source: is missing"),
        ({"kind": "host", "source": ""}, "source: '' is not an absolute path"),
        ({"kind": "host", "source": "srv"}, "source: 'srv' is not an absolute path"),
        ({"kind": "host", "source": "/a\0"}, "source: '/a\\x00' has a NUL character"),
        ({"kind": "host", "source": "/", "mode": "0755"}, "mode: must not be set for a host volume"),
        ({"kind": "host", "source": "/", "uid": 0}, "uid: must not be set for a host volume"),
        ({"kind": "host", "source": "/", "gid": 0}, "gid: must not be set for a host volume"),
        ({"kind": "host", "source": "/", "readOnly": 1}, "readOnly: must be true or false, not a number"),
        ({"kind": "empty", "source": "/"}, "source: must not be set for an empty volume"),
        ({"kind": "empty", "recursive": True}, "recursive: must not be set for an empty volume"),
        ({"kind": "empty", "mode": ""}, "mode: '' is not a mode such as 0755"),
        ({"kind": "empty", "mode": "0888"}, "mode: '0888' is not a mode such as 0755"),
        ({"kind": "empty", "mode": "10000"}, "mode: '10000' is not a mode such as 0755"),
        ({"kind": "empty", "mode": "0o755"}, "mode: '0o755' is not a mode such as 0755"),
        ({"kind": "empty", "mode": "-755"}, "mode: '-755' is not a mode such as 0755"),
        ({"kind": "empty", "mode": 493}, "mode: must be a string, not a number"),
        ({"kind": "empty", "uid": -1}, "uid: must be from 0 to 4294967294, not -1"),
        ({"kind": "empty", "gid": 4294967295}, "gid: must be from 0 to 4294967294, not 4294967295"),
        ({"kind": "empty", "uid": "0"}, "uid: must be a whole number, not a string"),
    ],
)
def test_volumes_against_the_rules_are_refused(obj: dict[str, Any], message: str) -> None:
    volume = {"name": "v", **obj}
    error = refusal({**MINIMAL, "volumes": [{"name": "ok", "kind": "empty"}, volume]})
    assert str(error).startswith(f"volumes[1].{message}")
    app = {**APP, "mounts": [{"volume": "m", "path": "/p", "appVolume": volume}]}
    error = refusal({**MINIMAL, "apps": [app]})
    assert str(error).startswith(f"apps[0].mounts[0].appVolume.{message}")


@pytest.mark.parametrize(
    ("obj", "port"),
    [
        ({"hostPort": 1}, ExposedPort("p", 1)),
        ({"hostPort": 65535, "hostIP": "127.0.0.1"}, ExposedPort("p", 65535, "127.0.0.1")),
        ({"hostPort": 80, "hostIP": "2001:db8::1"}, ExposedPort("p", 80, "2001:db8::1")),
        ({"hostPort": 80, "hostIP": "::ffff:10.0.0.1"}, ExposedPort("p", 80, "::ffff:10.0.0.1")),
        ({"hostPort": 80, "hostIP": ""}, ExposedPort("p", 80)),
        (
            {"hostPort": 80, "podPort": {"name": "p", "protocol": "tcp", "port": 8080}},
            ExposedPort("p", 80, None, Port("p", "tcp", 8080)),
        ),
    ],
)
def test_exposed_ports(obj: dict[str, Any], port: ExposedPort) -> None:
    pod = parse({**MINIMAL, "ports": [{"name": "p", **obj}]})
    assert pod.ports == (port,)
    assert parse(json.loads(podmanifest.dump(pod))) == pod


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "hostPort: is missing"),
        ({"hostPort": 0}, "hostPort: must be from 1 to 65535, not 0"),
        ({"hostPort": 65536}, "hostPort: must be from 1 to 65535, not 65536"),
        ({"hostPort": "80"}, "hostPort: must be a whole number, not a string"),
        ({"hostPort": 80, "name": "A"}, "name: 'A' is not an AC name"),
        ({"hostPort": 80, "hostIP": "localhost"}, "hostIP: 'localhost' is not an IP address"),
        ({"hostPort": 80, "hostIP": "1.2.3"}, "hostIP: '1.2.3' is not an IP address"),
        ({"hostPort": 80, "hostIP": "1.2.3.256"}, "hostIP: '1.2.3.256' is not an IP address"),
        ({"hostPort": 80, "hostIP": "1.2.3.4\0"}, "hostIP: '1.2.3.4\\x00' is not an IP address"),
        ({"hostPort": 80, "hostIP": "fe80::1%eth0"}, "hostIP: 'fe80::1%eth0' is not an IP address"),
        ({"hostPort": 80, "hostIP": "é"}, "hostIP: 'é' is not an IP address"),
        ({"hostPort": 80, "podPort": {}}, "podPort.port: is missing"),
        ({"hostPort": 80, "podPort": 80}, "podPort: must be an object, not a number"),
    ],
)
def test_exposed_ports_against_the_rules_are_refused(obj: dict[str, Any], message: str) -> None:
    error = refusal({**MINIMAL, "ports": [{"name": "p", **obj}]})
    assert str(error).startswith(f"ports[0].{message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acKind": "ImageManifest"}, "acKind: must be PodManifest, not 'ImageManifest'"),
        ({"acKind": None}, "acKind: is missing"),
        ({"acVersion": None}, "acVersion: is missing"),
        ({"acVersion": "0.0.0"}, "acVersion: '0.0.0' is not a version of the appc spec"),
        ({"apps": {}}, "apps: must be a list, not an object"),
        ({"apps": ["a"]}, "apps[0]: must be an object, not a string"),
        ({"apps": [{**APP, "name": None}]}, "apps[0].name: is missing"),
        ({"apps": [{**APP, "name": "a/b"}]}, "apps[0].name: 'a/b' is not an AC name"),
        ({"apps": [{**APP, "name": ".."}]}, "apps[0].name: '..' is not an AC name"),
        ({"apps": [APP, {**APP, "name": "b"}, APP]}, "apps[2]: there is an app 'a' before this one"),
        ({"apps": [{"name": "a"}]}, "apps[0].image: is missing"),
        ({"apps": [{**APP, "image": ID}]}, "apps[0].image: must be an object, not a string"),
        ({"apps": [{**APP, "image": {}}]}, "apps[0].image.id: is missing"),
        ({"apps": [{**APP, "image": {"id": ""}}]}, "apps[0].image.id: '' is not an image ID"),
        ({"apps": [{**APP, "image": {"id": "sha512-/"}}]}, "apps[0].image.id: 'sha512-/' is not an image ID"),
        (
            {"apps": [{**APP, "image": {"id": ID, "name": ""}}]},
            "apps[0].image.name: '' is not an AC identifier",
        ),
        (
            {"apps": [{**APP, "image": {"id": ID, "labels": [{"name": "name"}]}}]},
            "apps[0].image.labels: a label may not be named 'name'",
        ),
        ({"apps": [{**APP, "app": {}}]}, "apps[0].app.user: is missing"),
        ({"apps": [{**APP, "app": []}]}, "apps[0].app: must be an object, not a list"),
        (
            {"apps": [{**APP, "app": {"user": "0", "group": "0", "ports": [{"port": 0}]}}]},
            "apps[0].app.ports[0].port: must be from 1 to 65535, not 0",
        ),
        ({"apps": [{**APP, "readOnlyRootFS": "yes"}]}, "apps[0].readOnlyRootFS: must be true or false"),
        ({"apps": [{**APP, "mounts": [{"path": "/a"}]}]}, "apps[0].mounts[0].volume: is missing"),
        ({"apps": [{**APP, "mounts": [{"volume": "v"}]}]}, "apps[0].mounts[0].path: is missing"),
        (
            {"apps": [{**APP, "mounts": [{"volume": "v", "path": ""}]}]},
            "apps[0].mounts[0].path: must not be empty",
        ),
        (
            {"apps": [{**APP, "annotations": [{"name": "a"}, {"name": "a"}]}]},
            "apps[0].annotations[1]: there is an annotation 'a' before this one",
        ),
        (
            {"volumes": [{"name": "v", "kind": "empty"}, {"name": "v", "kind": "empty"}]},
            "volumes[1]: there is a volume 'v' before this one",
        ),
        ({"isolators": [{"name": "resource/cpu", "value": 1}]}, "isolators[0].value: must be an object"),
        ({"annotations": [{"name": "homepage", "value": "x"}]}, "annotations[0].value: 'x' is not a URL"),
        ({"userAnnotations": {"a": None}}, "userAnnotations['a']: must be a string, not null"),
        ({"userLabels": "a"}, "userLabels: must be an object, not a string"),
    ],
)
def test_a_pod_against_the_rules_is_refused_by_its_field(change: dict[str, Any], message: str) -> None:
    error = refusal({**MINIMAL, **change})
    assert str(error).startswith(message)
    assert str(error).startswith(error.field + ": ")


def test_what_users_say_of_a_pod_is_kept() -> None:
    obj = {**MINIMAL, "userAnnotations": {"b": "1", "a": "2"}, "userLabels": {"k": "v"}}
    pod = parse(obj)
    assert pod.user_annotations == {"b": "1", "a": "2"}
    assert pod.user_labels == {"k": "v"}
    written = json.loads(podmanifest.dump(pod))
    assert list(written["userAnnotations"]) == ["b", "a"]
    assert written["userLabels"] == {"k": "v"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the pod manifest is not JSON: it is empty"),
        (b"1", "the manifest must be an object, not a number"),
        (b'{"apps": [], "apps": []}', "the pod manifest has the key 'apps' twice in one object"),
        (b'{"apps": [], "Apps": []}', "the manifest has both 'apps' and 'Apps'"),
    ],
)
def test_what_is_not_a_pod_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadManifest) as caught:
        podmanifest.parse(data)
    assert str(caught.value).startswith(message)


def places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += places(value[key])
    return found


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_changed_pod_is_read_or_refused(data: st.DataObject) -> None:
    obj = copy.deepcopy(EXAMPLE)
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    values = scalars | st.text(max_size=6) | st.sampled_from(["host", "empty", "/", ID, "a", [], {}, [None]])
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(obj)
        if not found:
            break
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        if data.draw(st.booleans()):
            container[key] = copy.deepcopy(data.draw(values))
        else:
            del container[key]
    try:
        pod = parse(obj)
    except BadManifest as error:
        assert "\n" not in str(error)
        return
    assert podmanifest.parse(podmanifest.dump(pod).encode()) == pod


@given(st.binary())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadManifest):
        podmanifest.parse(data)
