from __future__ import annotations

import json
from typing import Any

import pytest

from rkt_py.aci import isolator, quantity
from rkt_py.aci.errors import BadManifest
from rkt_py.aci.isolator import (
    AppArmorProfile,
    CapabilitySet,
    Isolator,
    Resource,
    SeccompSet,
    SELinuxContext,
)

q = quantity.parse

GOOD: list[tuple[str, str, object]] = [
    # appc spec, ace: the example of each isolator
    (
        "os/linux/seccomp-remove-set",
        '{"errno": "ENOTSUP", "set": ["clock_adjtime", "clock_settime", "reboot"]}',
        SeccompSet(("clock_adjtime", "clock_settime", "reboot"), "ENOTSUP"),
    ),
    (
        "os/linux/seccomp-retain-set",
        '{"errno": "", "set": ["accept", "bind"]}',
        SeccompSet(("accept", "bind"), ""),
    ),
    (
        "os/linux/selinux-context",
        '{"user": "system_u", "role": "system_r", "type": "dhcpc_t", "level": "s0"}',
        SELinuxContext("system_u", "system_r", "dhcpc_t", "s0"),
    ),
    (
        "os/linux/capabilities-remove-set",
        '{"set": ["CAP_SYS_CHROOT", "CAP_MKNOD"]}',
        CapabilitySet(("CAP_SYS_CHROOT", "CAP_MKNOD")),
    ),
    ("os/linux/capabilities-retain-set", '{"set": ["CAP_NET_ADMIN"]}', CapabilitySet(("CAP_NET_ADMIN",))),
    ("os/linux/no-new-privileges", "true", True),
    ("resource/block-bandwidth", '{"default": true, "limit": "2M"}', Resource(q("2M"), None, True)),
    ("resource/block-iops", '{"default": true, "limit": "1000"}', Resource(q("1000"), None, True)),
    ("resource/cpu", '{"request": "250m", "limit": "500m"}', Resource(q("500m"), q("250m"))),
    ("resource/memory", '{"request": "1G", "limit": "2G"}', Resource(q("2G"), q("1G"))),
    ("resource/network-bandwidth", '{"default": true, "limit": "1G"}', Resource(q("1G"), None, True)),
    ("os/unix/sysctl", '{"net.ipv4.tcp_mtu_probing": "1"}', {"net.ipv4.tcp_mtu_probing": "1"}),
    # and the rest
    ("os/linux/seccomp-remove-set", '{"set": ["@appc.io/empty"]}', SeccompSet(("@appc.io/empty",))),
    ("os/linux/seccomp-remove-set", '{"set": ["chmod"], "errno": null}', SeccompSet(("chmod",))),
    ("os/linux/seccomp-retain-set", '{"set": ["chmod"], "errno": "E2BIG"}', SeccompSet(("chmod",), "E2BIG")),
    ("os/linux/selinux-context", '{"user":"u","role":"r","type":"t"}', SELinuxContext("u", "r", "t")),
    (
        "os/linux/selinux-context",
        '{"user":"u","role":"r","type":"t","level":"s0:c1,c2"}',
        SELinuxContext("u", "r", "t", "s0:c1,c2"),
    ),
    ("os/linux/apparmor-profile", '{"profile": "docker-default"}', AppArmorProfile("docker-default")),
    ("os/linux/capabilities-retain-set", '{"set": ["CAP_PONIES"]}', CapabilitySet(("CAP_PONIES",))),
    ("os/linux/no-new-privileges", "false", False),
    ("os/linux/oom-score-adj", "-1000", -1000),
    ("os/linux/oom-score-adj", "1000", 1000),
    ("os/linux/cpu-shares", "2", 2),
    ("os/linux/cpu-shares", "262144", 262144),
    ("os/unix/sysctl", "{}", {}),
    ("resource/cpu", '{"default": false, "request": null, "limit": "1"}', Resource(q("1"))),
    ("resource/cpu", '{"request": "30m", "limit": "1m"}', Resource(q("1m"), q("30m"))),
    ("resource/cpu", '{"limit": 2}', Resource(q("2"))),
    ("resource/cpu", '{"limit": 0.5}', Resource(q("500m"))),
    ("resource/cpu", '{"limit": " 1 "}', Resource(q("1"))),
    ("resource/memory", '{"Request": "1G", "LIMIT": "2Gi", "other": 1}', Resource(q("2Gi"), q("1G"))),
    ("resource/memory", "{}", Resource()),
]

BAD: list[tuple[str, str, str]] = [
    ("resource/cpu", "null", "i.value: is missing"),
    ("resource/cpu", '"1"', "i.value: must be an object, not a string"),
    ("resource/cpu", '{"default": true, "limit": "1"}', "i.value.default: must be false"),
    ("resource/memory", '{"default": true, "limit": "1G"}', "i.value.default: must be false"),
    ("resource/memory", '{"default": 0}', "i.value.default: must be true or false, not a number"),
    ("resource/memory", '{"limit": "1X"}', "i.value.limit: '1X' is not a quantity"),
    ("resource/memory", '{"request": ""}', "i.value.request: '' is not a quantity"),
    ("resource/memory", '{"limit": true}', "i.value.limit: must be a quantity, not true or false"),
    ("resource/memory", '{"limit": "-1"}', "i.value.limit: must not be negative, as -1 is"),
    ("resource/memory", '{"limit": "1G", "Limit": "2G"}', "i.value: has both 'limit' and 'Limit'"),
    ("resource/block-bandwidth", '{"default": false, "limit": "1"}', "i.value.default: must be true"),
    ("resource/block-bandwidth", '{"limit": "1"}', "i.value.default: must be true"),
    ("resource/block-iops", '{"limit": "1"}', "i.value.default: must be true"),
    (
        "resource/block-iops",
        '{"default": true, "request": "1"}',
        "i.value.request: must not be set",
    ),
    ("resource/network-bandwidth", '{"limit": "1"}', "i.value.default: must be true"),
    (
        "resource/network-bandwidth",
        '{"default": true, "request": "1"}',
        "i.value.request: must not be set",
    ),
    ("os/linux/capabilities-retain-set", '{"set": []}', "i.value.set: must not be empty"),
    ("os/linux/capabilities-remove-set", "{}", "i.value.set: must not be empty"),
    ("os/linux/capabilities-retain-set", '{"set": [""]}', "i.value.set: has an empty name"),
    ("os/linux/capabilities-retain-set", '{"set": "CAP_KILL"}', "i.value.set: must be a list, not a string"),
    ("os/linux/capabilities-retain-set", '{"set": [1]}', "i.value.set[0]: must be a string, not a number"),
    ("os/linux/capabilities-retain-set", '["CAP_KILL"]', "i.value: must be an object, not a list"),
    ("os/linux/seccomp-remove-set", '{"errno": "EPERM"}', "i.value.set: must not be empty"),
    ("os/linux/seccomp-retain-set", '{"set": []}', "i.value.set: must not be empty"),
    ("os/linux/seccomp-remove-set", '{"set": ["a"], "errno": "-EPERM"}', "i.value.errno: '-EPERM' is not"),
    ("os/linux/seccomp-remove-set", '{"set": ["a"], "errno": "eperm"}', "i.value.errno: 'eperm' is not"),
    ("os/linux/seccomp-remove-set", '{"set": ["a"], "errno": "PERM"}', "i.value.errno: 'PERM' is not"),
    ("os/linux/seccomp-remove-set", '{"set": ["a"], "errno": 1}', "i.value.errno: must be a string"),
    ("os/linux/no-new-privileges", "123", "i.value: must be true or false, not a number"),
    ("os/linux/no-new-privileges", '"true"', "i.value: must be true or false, not a string"),
    ("os/linux/no-new-privileges", '{"set": ["CAP_KILL"]}', "i.value: must be true or false, not an object"),
    ("os/linux/oom-score-adj", "-1001", "i.value: must be from -1000 to 1000, not -1001"),
    ("os/linux/oom-score-adj", "1001", "i.value: must be from -1000 to 1000, not 1001"),
    ("os/linux/oom-score-adj", '"250"', "i.value: must be a whole number, not a string"),
    ("os/linux/oom-score-adj", "1.0", "i.value: must be a whole number"),
    ("os/linux/cpu-shares", "1", "i.value: must be from 2 to 262144, not 1"),
    ("os/linux/cpu-shares", "262145", "i.value: must be from 2 to 262144, not 262145"),
    ("os/linux/cpu-shares", "true", "i.value: must be a whole number, not true or false"),
    ("os/linux/selinux-context", '{"role": "r", "type": "t"}', "i.value.user: is missing"),
    ("os/linux/selinux-context", '{"user": "", "role": "r", "type": "t"}', "i.value.user: '' must not be"),
    ("os/linux/selinux-context", '{"user": "u", "role": "r:s", "type": "t"}', "i.value.role: 'r:s' must"),
    ("os/linux/selinux-context", '{"user": "u", "role": "r", "type": ":"}', "i.value.type: ':' must"),
    (
        "os/linux/selinux-context",
        '{"user": "u", "role": "r", "type": "t\\u0000"}',
        "i.value.type: 't\\x00' has",
    ),
    ("os/linux/apparmor-profile", "{}", "i.value.profile: is missing"),
    ("os/linux/apparmor-profile", '{"profile": ""}', "i.value.profile: must not be empty"),
    ("os/unix/sysctl", '{"net.ipv4.tcp_rfc1337": 1}', "i.value['net.ipv4.tcp_rfc1337']: must be a string"),
    ("os/unix/sysctl", '["net.ipv4.tcp_rfc1337"]', "i.value: must be an object, not a list"),
    ("Resource/cpu", "{}", "i.name: 'Resource/cpu' is not an AC identifier"),
    ("", "{}", "i.name: '' is not an AC identifier"),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_isolators(name: str, text: str, value: object) -> None:
    found = isolator.parse({"name": name, "value": json.loads(text)}, "i")
    assert found == Isolator(name, value)
    assert found.value == value
    assert type(found.value) is type(value)
    assert found.known
    assert isolator.dump(found) == {"name": name, "value": json.loads(text)}


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_isolators_against_the_rules_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(BadManifest) as caught:
        isolator.parse({"name": name, "value": json.loads(text)}, "i")
    assert str(caught.value).startswith(message)
    assert caught.value.field == message.split(": ")[0]


def test_every_isolator_is_in_both_tables() -> None:
    assert {name for name, _, _ in GOOD} == isolator.KNOWN
    assert isolator.KNOWN <= {name for name, _, _ in BAD}
    assert len(isolator.KNOWN) == 15


@pytest.mark.parametrize("value", [None, 0, "1G", {"Limit": 1, "limit": 2}, [1, {"a": None}], 1.5])
def test_an_unknown_isolator_is_kept_and_told_apart(value: Any) -> None:
    found = isolator.parse({"name": "resource/network-ponies", "value": value}, "i")
    assert not found.known
    assert found.scope == ""
    assert found.value == value
    assert isolator.dump(found) == {"name": "resource/network-ponies", "value": value}


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "i.name: is missing"),
        ({"value": 1}, "i.name: is missing"),
        ({"name": 1}, "i.name: must be a string, not a number"),
        ([], "i: must be an object, not a list"),
        (None, "i: must be an object, not null"),
        ("resource/cpu", "i: must be an object, not a string"),
    ],
)
def test_what_is_not_an_isolator_is_refused(obj: object, message: str) -> None:
    with pytest.raises(BadManifest) as caught:
        isolator.parse(obj, "i")
    assert str(caught.value) == message


VALUES: dict[str, Any] = {
    "seccomp": {"set": ["a"]},
    "capabilities": {"set": ["CAP_KILL"]},
    "selinux": {"user": "u", "role": "r", "type": "t"},
    "apparmor": {"profile": "p"},
}


def listed(*pairs: tuple[str, Any]) -> tuple[Isolator, ...]:
    items = [(f"i[{index}]", {"name": name, "value": value}) for index, (name, value) in enumerate(pairs)]
    return isolator.parse_list(items)


@pytest.mark.parametrize(
    ("one", "two", "value"),
    [
        ("os/linux/seccomp-retain-set", "os/linux/seccomp-remove-set", VALUES["seccomp"]),
        ("os/linux/seccomp-remove-set", "os/linux/seccomp-retain-set", VALUES["seccomp"]),
        ("os/linux/capabilities-retain-set", "os/linux/capabilities-remove-set", VALUES["capabilities"]),
        ("os/linux/capabilities-remove-set", "os/linux/capabilities-retain-set", VALUES["capabilities"]),
    ],
)
def test_retain_and_remove_sets_exclude_each_other(one: str, two: str, value: object) -> None:
    assert len(listed((one, value))) == 1
    with pytest.raises(BadManifest) as caught:
        listed((one, value), (two, value))
    assert str(caught.value) == f"i[1]: {two} cannot be together with {one}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("os/linux/seccomp-retain-set", VALUES["seccomp"]),
        ("os/linux/seccomp-remove-set", VALUES["seccomp"]),
        ("os/linux/oom-score-adj", 1),
        ("os/linux/cpu-shares", 2),
        ("os/linux/selinux-context", VALUES["selinux"]),
        ("os/linux/apparmor-profile", VALUES["apparmor"]),
        ("os/unix/sysctl", {}),
    ],
)
def test_some_isolators_are_there_once(name: str, value: object) -> None:
    with pytest.raises(BadManifest, match=rf"^i\[1\]: there is an isolator {name} before this one$"):
        listed((name, value), (name, value))


def test_others_may_be_there_again() -> None:
    assert len(listed(("resource/cpu", {"limit": "1"}), ("resource/cpu", {"limit": "2"}))) == 2
    assert len(listed(("x/y", 1), ("x/y", 1))) == 2


@pytest.mark.parametrize(
    ("name", "json_value"),
    [
        ("resource/memory", {"default": False, "request": "1G", "limit": "2Gi"}),
        ("resource/memory", {"default": False, "request": None, "limit": "2Gi"}),
        ("os/linux/capabilities-retain-set", {"set": ["CAP_KILL"]}),
        ("os/linux/seccomp-retain-set", {"set": ["read"], "errno": "EPERM"}),
        ("os/linux/selinux-context", {"user": "u", "role": "r", "type": "t", "level": "s0"}),
        ("os/linux/apparmor-profile", {"profile": "p"}),
        ("os/linux/no-new-privileges", True),
        ("os/linux/cpu-shares", 1024),
        ("os/unix/sysctl", {"net.a": "1"}),
    ],
)
def test_an_isolator_made_of_a_value_is_written_as_one_that_was_read(name: str, json_value: object) -> None:
    read = isolator.make(name, json_value)
    made = Isolator(name, read.value)
    assert made == read
    assert hash(made) == hash(read)
    assert isolator.dump(made) == isolator.dump(read)


def test_an_isolator_made_by_name_is_checked() -> None:
    assert isolator.make("resource/memory", {"limit": "1G"}).value == Resource(q("1G"))
    with pytest.raises(BadManifest, match=r"^resource/memory\.limit: '1Z' is not a quantity"):
        isolator.make("resource/memory", {"limit": "1Z"})


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("resource/cpu", "app/pod"),
        ("os/linux/capabilities-retain-set", "app"),
        ("os/linux/selinux-context", "app/pod"),
        ("os/unix/sysctl", "pod"),
    ],
)
def test_isolators_have_a_scope(name: str, scope: str) -> None:
    assert Isolator(name, None).scope == scope


def test_isolators_differ_by_name_and_value() -> None:
    assert Isolator("a", 1) == Isolator("a", 1, 2)
    assert Isolator("a", 1) != Isolator("a", 2)
    assert Isolator("a", 1) != Isolator("b", 1)
    assert Isolator("a", 1) != "a"
