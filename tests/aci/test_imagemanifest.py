from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkt_py.aci import imagemanifest
from rkt_py.aci.errors import BadManifest
from rkt_py.aci.imagemanifest import (
    Annotation,
    App,
    Dependency,
    EnvironmentVariable,
    EventHandler,
    ImageManifest,
    MountPoint,
    Port,
)
from rkt_py.aci.isolator import CapabilitySet, Isolator, Resource, SeccompSet
from rkt_py.aci.name import Label
from rkt_py.aci.quantity import parse as q

# appc spec 0.8.11, examples/image.json
EXAMPLE: dict[str, Any] = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": "example.com/reduce-worker",
    "labels": [
        {"name": "version", "value": "1.0.0"},
        {"name": "arch", "value": "amd64"},
        {"name": "os", "value": "linux"},
    ],
    "app": {
        "exec": ["/usr/bin/reduce-worker", "--quiet"],
        "user": "100",
        "group": "300",
        "eventHandlers": [
            {"exec": ["/usr/bin/data-downloader"], "name": "pre-start"},
            {"exec": ["/usr/bin/deregister-worker", "--verbose"], "name": "post-stop"},
        ],
        "environment": [{"name": "REDUCE_WORKER_DEBUG", "value": "true"}],
        "isolators": [
            {"name": "resource/cpu", "value": {"limit": "20m"}},
            {"name": "resource/memory", "value": {"limit": "1G"}},
            {
                "name": "os/linux/capabilities-retain-set",
                "value": {"set": ["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"]},
            },
            {"name": "os/linux/no-new-privileges", "value": True},
            {
                "name": "os/linux/seccomp-remove-set",
                "value": {"errno": "EACCESS", "set": ["clock_settime", "clock_adjtime", "reboot"]},
            },
        ],
        "mountPoints": [{"name": "database", "path": "/var/lib/db", "readOnly": False}],
        "ports": [{"name": "health", "port": 4000, "protocol": "tcp", "socketActivated": True}],
    },
    "dependencies": [
        {
            "imageName": "example.com/reduce-worker-base",
            "imageID": "sha512-...",
            "labels": [{"name": "os", "value": "linux"}, {"name": "env", "value": "canary"}],
        }
    ],
    "pathWhitelist": [
        "/etc/ca/example.com/crt",
        "/usr/bin/map-reduce-worker",
        "/opt/libs/reduce-toolkit.so",
        "/etc/reduce-worker.conf",
        "/etc/systemd/system/",
    ],
    "annotations": [
        {"name": "authors", "value": "Carly Container <carly@example.com>, Nat Network <nat@example.com>"},
        {"name": "created", "value": "2014-10-27T19:32:27.67021798Z"},
        {"name": "documentation", "value": "https://example.com/docs"},
        {"name": "homepage", "value": "https://example.com"},
        {"name": "appc.io/executor/supports-systemd-notify", "value": "false"},
    ],
}

VALUE = ImageManifest(
    name="example.com/reduce-worker",
    ac_version="0.8.11",
    labels=(Label("version", "1.0.0"), Label("arch", "amd64"), Label("os", "linux")),
    app=App(
        exec=("/usr/bin/reduce-worker", "--quiet"),
        user="100",
        group="300",
        event_handlers=(
            EventHandler("pre-start", ("/usr/bin/data-downloader",)),
            EventHandler("post-stop", ("/usr/bin/deregister-worker", "--verbose")),
        ),
        environment=(EnvironmentVariable("REDUCE_WORKER_DEBUG", "true"),),
        isolators=(
            Isolator("resource/cpu", Resource(q("20m"))),
            Isolator("resource/memory", Resource(q("1G"))),
            Isolator(
                "os/linux/capabilities-retain-set", CapabilitySet(("CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"))
            ),
            Isolator("os/linux/no-new-privileges", True),
            Isolator(
                "os/linux/seccomp-remove-set",
                SeccompSet(("clock_settime", "clock_adjtime", "reboot"), "EACCESS"),
            ),
        ),
        mount_points=(MountPoint("database", "/var/lib/db"),),
        ports=(Port("health", "tcp", 4000, 1, True),),
    ),
    annotations=(
        Annotation("authors", "Carly Container <carly@example.com>, Nat Network <nat@example.com>"),
        Annotation("created", "2014-10-27T19:32:27.67021798Z"),
        Annotation("documentation", "https://example.com/docs"),
        Annotation("homepage", "https://example.com"),
        Annotation("appc.io/executor/supports-systemd-notify", "false"),
    ),
    dependencies=(
        Dependency(
            "example.com/reduce-worker-base", "sha512-...", (Label("os", "linux"), Label("env", "canary"))
        ),
    ),
    path_whitelist=(
        "/etc/ca/example.com/crt",
        "/usr/bin/map-reduce-worker",
        "/opt/libs/reduce-toolkit.so",
        "/etc/reduce-worker.conf",
        "/etc/systemd/system/",
    ),
)

MINIMAL: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "a"}
APP: dict[str, Any] = {"exec": ["/bin/sh"], "user": "0", "group": "0"}


def parse(obj: object) -> ImageManifest:
    return imagemanifest.parse(json.dumps(obj).encode())


def with_app(**fields: object) -> dict[str, Any]:
    return {**MINIMAL, "app": {**APP, **fields}}


def refusal(obj: object) -> BadManifest:
    with pytest.raises(BadManifest) as caught:
        parse(obj)
    return caught.value


def test_the_example_of_the_spec_is_read() -> None:
    assert parse(EXAMPLE) == VALUE


def test_the_example_of_the_spec_in_the_text_is_read() -> None:
    # appc spec 0.8.11, aci: Image Manifest Schema, where it differs from the other example
    example = copy.deepcopy(EXAMPLE)
    example["acVersion"] = "0.5.2"
    example["app"]["workingDirectory"] = "/opt/work"
    example["app"]["isolators"][0]["value"] = {"request": "250", "limit": "500"}
    example["app"]["ports"].append({"name": "ftp-data", "port": 20000, "count": 1000, "protocol": "tcp"})
    example["dependencies"][0]["size"] = 22017258
    found = parse(example)
    assert found.app is not None
    assert found.app.working_directory == "/opt/work"
    assert found.app.ports[1] == Port("ftp-data", "tcp", 20000, 1000)
    assert found.dependencies[0].size == 22017258


def test_a_manifest_needs_only_its_kind_version_and_name() -> None:
    assert parse(MINIMAL) == ImageManifest("a")
    assert imagemanifest.dump(ImageManifest("a")) == json.dumps(MINIMAL, separators=(",", ":"))


def test_labels_annotations_and_isolators_are_found_by_name() -> None:
    manifest = parse(EXAMPLE)
    assert manifest.label("arch") == "amd64"
    assert manifest.label("env") is None
    assert manifest.annotation("homepage") == "https://example.com"
    assert manifest.annotation("none") is None
    assert manifest.app is not None
    assert manifest.app.isolator("resource/cpu") == Isolator("resource/cpu", Resource(q("20m")))
    assert manifest.app.isolator("os/unix/sysctl") is None


def test_the_last_isolator_of_a_name_counts() -> None:
    manifest = parse(
        with_app(isolators=[{"name": "resource/cpu", "value": {"limit": limit}} for limit in ("1", "2")])
    )
    assert manifest.app is not None
    assert manifest.app.isolator("resource/cpu") == Isolator("resource/cpu", Resource(q("2")))


def test_an_app_of_all_fields_is_read() -> None:
    manifest = parse(
        with_app(
            exec=[],
            supplementaryGIDs=[0, 4294967294],
            workingDirectory="/",
            environment=[{"name": "A"}, {"name": "B", "value": "x=y\n"}],
            mountPoints=[{"name": "m", "path": "relative", "readOnly": True}],
            userAnnotations={"any key": "v"},
            userLabels={"A": "1", "a": "2"},
        )
    )
    assert manifest.app == App(
        (),
        "0",
        "0",
        (0, 4294967294),
        working_directory="/",
        environment=(EnvironmentVariable("A", ""), EnvironmentVariable("B", "x=y\n")),
        mount_points=(MountPoint("m", "relative", True),),
        user_annotations={"any key": "v"},
        user_labels={"A": "1", "a": "2"},
    )


def test_keys_match_in_any_case_as_in_go() -> None:
    assert parse(
        {"ACKIND": "ImageManifest", "acversion": "0.8.11", "Name": "a", "APP": None}
    ) == ImageManifest("a")


def test_unknown_keys_are_ignored() -> None:
    manifest = with_app(unknown={"a": [1]}, environment=[{"name": "A", "comment": 1}])
    manifest["x"] = {"Name": 1, "name": 2}
    assert parse(manifest).app is not None


def test_null_is_the_same_as_absent() -> None:
    empty = dict.fromkeys(["labels", "app", "annotations", "dependencies", "pathWhitelist"])
    assert parse({**MINIMAL, **empty}) == ImageManifest("a")
    nulls = dict.fromkeys(
        ["eventHandlers", "supplementaryGIDs", "workingDirectory", "environment", "mountPoints", "ports",
         "isolators", "userAnnotations", "userLabels"]
    )  # fmt: skip
    assert parse(with_app(**nulls)) == parse(with_app())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acKind": None}, "acKind: is missing"),
        ({"acKind": "PodManifest"}, "acKind: must be ImageManifest, not 'PodManifest'"),
        ({"acKind": "imagemanifest"}, "acKind: must be ImageManifest, not 'imagemanifest'"),
        ({"acKind": 1}, "acKind: must be a string, not a number"),
        ({"acVersion": None}, "acVersion: is missing"),
        ({"acVersion": "0.8"}, "acVersion: '0.8' is not a version of the form 0.8.11"),
        ({"acVersion": "0.0.0"}, "acVersion: '0.0.0' is not a version of the appc spec"),
        ({"acVersion": "1.0.0"}, "acVersion: '1.0.0' is not a version of the appc spec that"),
        ({"acVersion": ""}, "acVersion: '' is not a version"),
        ({"name": None}, "name: is missing"),
        ({"name": ""}, "name: '' is not an AC identifier: it is empty"),
        ({"name": "Example.com/a"}, "name: 'Example.com/a' is not an AC identifier"),
        ({"name": "../../etc"}, "name: '../../etc' is not an AC identifier"),
        ({"Name": "a"}, "the manifest has both 'name' and 'Name'"),
        ({"labels": {}}, "labels: must be a list, not an object"),
        ({"labels": ["a"]}, "labels[0]: must be an object, not a string"),
        ({"labels": [{"value": "a"}]}, "labels[0].name: is missing"),
        ({"labels": [{"name": "A", "value": "a"}]}, "labels[0].name: 'A' is not an AC identifier"),
        ({"labels": [{"name": "a", "value": 1}]}, "labels[0].value: must be a string, not a number"),
        ({"labels": [{"name": "name", "value": "a"}]}, "labels: a label may not be named 'name'"),
        ({"labels": [{"name": "a"}, {"name": "a"}]}, "labels: there are two labels of the name 'a'"),
        ({"labels": [{"name": "os", "value": "plan9"}]}, "labels: the os 'plan9' is none of linux"),
        (
            {"labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "x86_64"}]},
            "labels: the arch 'x86_64' is none that linux has",
        ),
        ({"annotations": [{"name": "A_B"}]}, "annotations[0].name: 'A_B' is not an AC identifier"),
        (
            {"annotations": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]},
            "annotations[1]: there is an annotation 'a' before this one",
        ),
        ({"annotations": [{"name": "a", "value": {}}]}, "annotations[0].value: must be a string, not an"),
        (
            {"annotations": [{"name": "created", "value": "today"}]},
            "annotations[0].value: 'today' is not a time",
        ),
        ({"annotations": [{"name": "created"}]}, "annotations[0].value: must not be empty"),
        ({"annotations": [{"name": "homepage", "value": "x"}]}, "annotations[0].value: 'x' is not a URL of"),
        (
            {"annotations": [{"name": "documentation", "value": "ftp://a"}]},
            "annotations[0].value: 'ftp://a' is not a URL of http or https",
        ),
        ({"dependencies": [{}]}, "dependencies[0].imageName: is missing"),
        ({"dependencies": [{"app": "a"}]}, "dependencies[0].imageName: is missing"),
        ({"dependencies": [{"imageName": ""}]}, "dependencies[0].imageName: '' is not an AC identifier"),
        (
            {"dependencies": [{"imageName": "a", "imageID": "sha256-aa"}]},
            "dependencies[0].imageID: 'sha256-aa' is not an image ID: it must begin with sha512-",
        ),
        (
            {"dependencies": [{"imageName": "a", "imageID": "sha512-../../x"}]},
            "dependencies[0].imageID: 'sha512-../../x' is not an image ID: it has other characters",
        ),
        (
            {"dependencies": [{"imageName": "a", "size": -1}]},
            "dependencies[0].size: must be from 0 to 9223372036854775807, not -1",
        ),
        (
            {"dependencies": [{"imageName": "a", "size": "1"}]},
            "dependencies[0].size: must be a whole number, not a string",
        ),
        (
            {"dependencies": [{"imageName": "a", "labels": [{"name": "name"}]}]},
            "dependencies[0].labels: a label may not be named 'name'",
        ),
        ({"pathWhitelist": "/a"}, "pathWhitelist: must be a list, not a string"),
        ({"pathWhitelist": ["/a", 1]}, "pathWhitelist[1]: must be a string, not a number"),
        ({"pathWhitelist": ["a/b"]}, "pathWhitelist[0]: 'a/b' is not an absolute path"),
        ({"pathWhitelist": ["/a\0b"]}, "pathWhitelist[0]: '/a\\x00b' has a NUL character"),
        ({"app": []}, "app: must be an object, not a list"),
    ],
)
def test_a_manifest_against_the_rules_is_refused_by_its_field(change: dict[str, Any], message: str) -> None:
    error = refusal({**MINIMAL, **change})
    assert str(error).startswith(message)
    if error.field:
        assert str(error).startswith(error.field + ": ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exec": "/bin/sh"}, "app.exec: must be a list, not a string"),
        ({"exec": [1]}, "app.exec[0]: must be a string, not a number"),
        ({"exec": [None]}, "app.exec[0]: must be a string, not null"),
        ({"exec": [""]}, "app.exec[0]: must not be empty"),
        ({"exec": ["/bin/sh", "a\0b"]}, "app.exec[1]: 'a\\x00b' has a NUL character"),
        ({"user": None}, "app.user: is missing"),
        ({"user": ""}, "app.user: must not be empty"),
        ({"user": 0}, "app.user: must be a string, not a number"),
        ({"user": "a\0"}, "app.user: 'a\\x00' has a NUL character"),
        ({"group": None}, "app.group: is missing"),
        ({"group": ""}, "app.group: must not be empty"),
        ({"supplementaryGIDs": [1, -1]}, "app.supplementaryGIDs[1]: must be from 0 to 4294967294, not -1"),
        ({"supplementaryGIDs": [2**32 - 1]}, "app.supplementaryGIDs[0]: must be from 0 to 4294967294"),
        ({"supplementaryGIDs": ["1"]}, "app.supplementaryGIDs[0]: must be a whole number, not a string"),
        ({"workingDirectory": "a"}, "app.workingDirectory: 'a' is not an absolute path"),
        ({"workingDirectory": "/a\0"}, "app.workingDirectory: '/a\\x00' has a NUL character"),
        ({"eventHandlers": [{}]}, "app.eventHandlers[0].name: is missing"),
        (
            {"eventHandlers": [{"name": "post-start"}]},
            "app.eventHandlers[0].name: must be pre-start or post-stop, not 'post-start'",
        ),
        (
            {"eventHandlers": [{"name": "pre-start"}, {"name": "post-stop"}, {"name": "pre-start"}]},
            "app.eventHandlers[2]: there is a pre-start handler before this one",
        ),
        (
            {"eventHandlers": [{"name": "pre-start", "exec": [""]}]},
            "app.eventHandlers[0].exec[0]: must not be empty",
        ),
        ({"environment": {"A": "1"}}, "app.environment: must be a list, not an object"),
        ({"environment": [{"value": "1"}]}, "app.environment[0].name: is missing"),
        ({"environment": [{"name": ""}]}, "app.environment[0].name: '' is not the name of"),
        ({"environment": [{"name": "0A"}]}, "app.environment[0].name: '0A' is not the name of"),
        ({"environment": [{"name": "A=B"}]}, "app.environment[0].name: 'A=B' is not the name of"),
        ({"environment": [{"name": "A", "value": "\0"}]}, "app.environment[0].value: '\\x00' has a NUL"),
        (
            {"environment": [{"name": "A"}, {"name": "A"}]},
            "app.environment[1]: there is a variable 'A' before this one",
        ),
        ({"mountPoints": [{"path": "/a"}]}, "app.mountPoints[0].name: is missing"),
        (
            {"mountPoints": [{"name": "a.b", "path": "/a"}]},
            "app.mountPoints[0].name: 'a.b' is not an AC name",
        ),
        ({"mountPoints": [{"name": "a"}]}, "app.mountPoints[0].path: is missing"),
        ({"mountPoints": [{"name": "a", "path": ""}]}, "app.mountPoints[0].path: must not be empty"),
        (
            {"mountPoints": [{"name": "a", "path": "/a", "readOnly": "true"}]},
            "app.mountPoints[0].readOnly: must be true or false, not a string",
        ),
        ({"isolators": [{"name": "resource/cpu"}]}, "app.isolators[0].value: is missing"),
        (
            {"isolators": [{"name": "resource/cpu", "value": {"limit": "x"}}]},
            "app.isolators[0].value.limit: 'x' is not a quantity",
        ),
        ({"userAnnotations": {"a": 1}}, "app.userAnnotations['a']: must be a string, not a number"),
        ({"userLabels": {"a\nb": None}}, "app.userLabels['a\\nb']: must be a string, not null"),
        ({"userLabels": [1]}, "app.userLabels: must be an object, not a list"),
        ({"User": "1"}, "app: has both 'user' and 'User'"),
    ],
)
def test_an_app_against_the_rules_is_refused_by_its_field(change: dict[str, Any], message: str) -> None:
    error = refusal(with_app(**change))
    assert str(error).startswith(message)
    assert str(error).startswith(error.field + ": ")


@pytest.mark.parametrize(
    ("change", "port"),
    [
        ({}, Port("p", "tcp", 80)),
        ({"port": 1}, Port("p", "tcp", 1)),
        ({"port": 65535}, Port("p", "tcp", 65535)),
        ({"port": 65535, "count": 1}, Port("p", "tcp", 65535)),
        ({"port": 1, "count": 65535}, Port("p", "tcp", 1, 65535)),
        ({"count": 0}, Port("p", "tcp", 80)),
        ({"protocol": "sctp"}, Port("p", "sctp", 80)),
        ({"socketActivated": True}, Port("p", "tcp", 80, 1, True)),
    ],
)
def test_ports(change: dict[str, Any], port: Port) -> None:
    app = parse(with_app(ports=[{"name": "p", "protocol": "tcp", "port": 80, **change}])).app
    assert app is not None
    assert app.ports == (port,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"port": None}, "app.ports[0].port: is missing"),
        ({"port": 0}, "app.ports[0].port: must be from 1 to 65535, not 0"),
        ({"port": 65536}, "app.ports[0].port: must be from 1 to 65535, not 65536"),
        ({"port": -1}, "app.ports[0].port: must be from 1 to 65535, not -1"),
        ({"port": "80"}, "app.ports[0].port: must be a whole number, not a string"),
        ({"port": 80.0}, "app.ports[0].port: must be a whole number, not a number with a fraction"),
        ({"port": True}, "app.ports[0].port: must be a whole number, not true or false"),
        ({"count": -1}, "app.ports[0].count: must be from 0 to 65535, not -1"),
        ({"port": 65535, "count": 2}, "app.ports[0].count: 2 ports from 65535 on end after 65535"),
        ({"name": "p_q"}, "app.ports[0].name: 'p_q' is not an AC name"),
        ({"name": None}, "app.ports[0].name: is missing"),
        ({"protocol": None}, "app.ports[0].protocol: is missing"),
        ({"protocol": ""}, "app.ports[0].protocol: must not be empty"),
        ({"socketActivated": 1}, "app.ports[0].socketActivated: must be true or false, not a number"),
    ],
)
def test_ports_against_the_rules_are_refused(change: dict[str, Any], message: str) -> None:
    error = refusal(with_app(ports=[{"name": "p", "protocol": "tcp", "port": 80, **change}]))
    assert str(error).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image manifest is not JSON: it is empty"),
        (b"[]", "the manifest must be an object, not a list"),
        (b"null", "the manifest must be an object, not null"),
        (b'{"name": "a", "name": "b"}', "the image manifest has the key 'name' twice in one object"),
        (b'{"acKind": "ImageManifest"', "the image manifest is not JSON: expecting ',' delimiter at line 1"),
        (b"[" * 100_000, "the image manifest is nested deeper than 64 levels"),
        (b" " * (5 << 20), "the image manifest is larger than 4194304 bytes"),
    ],
)
def test_what_is_not_a_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadManifest) as caught:
        imagemanifest.parse(data)
    assert str(caught.value).startswith(message)


def test_dump_writes_the_keys_in_the_order_of_actool() -> None:
    text = imagemanifest.dump(VALUE)
    assert list(json.loads(text)) == [
        "acKind", "acVersion", "name", "labels", "app", "annotations", "dependencies", "pathWhitelist",
    ]  # fmt: skip
    app = json.loads(text)["app"]
    assert list(app) == [
        "exec", "eventHandlers", "user", "group", "environment", "mountPoints", "ports", "isolators",
    ]  # fmt: skip
    assert app["mountPoints"] == [{"name": "database", "path": "/var/lib/db"}]
    assert app["ports"] == [
        {"name": "health", "protocol": "tcp", "port": 4000, "count": 1, "socketActivated": True}
    ]
    assert "\\u003ccarly@example.com\\u003e" in text
    assert "\n" not in text


def test_dump_indents_by_tabs_as_rkt_does() -> None:
    text = imagemanifest.dump(ImageManifest("a", labels=(Label("os", "linux"),)), indent="\t")
    assert text == (
        '{\n\t"acKind": "ImageManifest",\n\t"acVersion": "0.8.11",\n\t"name": "a",\n\t"labels": [\n'
        '\t\t{\n\t\t\t"name": "os",\n\t\t\t"value": "linux"\n\t\t}\n\t]\n}'
    )


@pytest.mark.parametrize("obj", [EXAMPLE, MINIMAL, with_app(exec=[], userLabels={"a": "b"})])
def test_what_is_written_is_read_again(obj: dict[str, Any]) -> None:
    manifest = parse(obj)
    for indent in (None, "\t"):
        assert imagemanifest.parse(imagemanifest.dump(manifest, indent=indent).encode()) == manifest


def test_isolators_are_written_as_they_were() -> None:
    isolators = [
        {"name": "resource/memory", "value": {"limit": "1000M", "x": 1}},
        {"name": "example.com/own", "value": [1, 2.5, None]},
    ]
    text = imagemanifest.dump(parse(with_app(isolators=isolators)))
    assert json.loads(text)["app"]["isolators"] == isolators


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["linux", "a", "sha512-ab", "/", "0.8.11", "1Gi", "created", "CAP_KILL"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys or indices."""
    found: list[tuple[Any, Any]] = []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += places(value[key])
    return found


@st.composite
def mutated(draw: st.DrawFn, example: dict[str, Any]) -> dict[str, Any]:
    obj = copy.deepcopy(example)
    for _ in range(draw(st.integers(1, 3))):
        found = places(obj)
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["replace", "delete", "copy"])):
            case "replace":
                container[key] = draw(JSON)
            case "delete":
                del container[key]
            case "copy" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case _:
                container[key.upper() if draw(st.booleans()) else draw(st.text(max_size=3))] = container[key]
        if not obj:
            break
    return obj


@given(mutated(EXAMPLE))
@settings(max_examples=400, deadline=None)
def test_a_changed_manifest_is_read_or_refused(obj: dict[str, Any]) -> None:
    try:
        manifest = parse(obj)
    except BadManifest as error:
        assert "\n" not in str(error)
        return
    assert imagemanifest.parse(imagemanifest.dump(manifest).encode()) == manifest


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadManifest):
        imagemanifest.parse(data)


def test_reading_manifests_imports_nothing_that_is_slow() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "from rkt_py.aci import imagemanifest, podmanifest\n"
        "imagemanifest.dump(imagemanifest.parse(sys.argv[2].encode()), indent='  ')\n"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('rkt_py')))"
    )
    root = imagemanifest.__file__.rpartition("/rkt_py/")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, root, json.dumps(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["__future__", "_json"]
