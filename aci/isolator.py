"""Isolators: what holds an app or a pod to its share, and the shapes of their values.

An isolator this module does not know is kept as it is, and `known` says so: an executor may ignore
it, but must tell the user (appc spec, ace: Isolators).
"""

from __future__ import annotations

from rkt_py.aci import name as names
from rkt_py.aci import quantity
from rkt_py.aci.errors import BadManifest, BadName
from rkt_py.aci.strictjson import Fields, kind_of, texts_by_key, whole
from rkt_py.aci.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from rkt_py.aci.quantity import Quantity

    Scope = Literal["app", "pod", "app/pod", ""]

BLOCK_BANDWIDTH = "resource/block-bandwidth"
BLOCK_IOPS = "resource/block-iops"
CPU = "resource/cpu"
MEMORY = "resource/memory"
NETWORK_BANDWIDTH = "resource/network-bandwidth"
CAPABILITIES_RETAIN_SET = "os/linux/capabilities-retain-set"
CAPABILITIES_REMOVE_SET = "os/linux/capabilities-remove-set"
SECCOMP_RETAIN_SET = "os/linux/seccomp-retain-set"
SECCOMP_REMOVE_SET = "os/linux/seccomp-remove-set"
NO_NEW_PRIVILEGES = "os/linux/no-new-privileges"
OOM_SCORE_ADJ = "os/linux/oom-score-adj"
CPU_SHARES = "os/linux/cpu-shares"
SELINUX_CONTEXT = "os/linux/selinux-context"
APPARMOR_PROFILE = "os/linux/apparmor-profile"
SYSCTL = "os/unix/sysctl"


@value
class Resource:
    """The value of `resource/...`: how much is guaranteed, and how much there can be at most."""

    limit: Quantity | None = None
    request: Quantity | None = None
    default: bool = False


@value
class CapabilitySet:
    """The value of `os/linux/capabilities-...-set`: names of capabilities, CAP_ and all."""

    set: tuple[str, ...]


@value
class SeccompSet:
    """The value of `os/linux/seccomp-...-set`: system calls, or @wildcards, and what they return."""

    set: tuple[str, ...]
    errno: str = ""


@value
class SELinuxContext:
    """The value of `os/linux/selinux-context`."""

    user: str
    role: str
    type: str
    level: str = ""


@value
class AppArmorProfile:
    """The value of `os/linux/apparmor-profile`."""

    profile: str


@value
class Isolator:
    """An isolator: its name, and its value in the shape that the name has.

    no-new-privileges is a bool, oom-score-adj and cpu-shares are an int, sysctl is a dict of
    strings, the others are the classes above; the value of an unknown one is its JSON.
    """

    name: str
    value: object
    json: object = None
    """The value as the manifest has it, which is how it is written again."""

    @property
    def known(self) -> bool:
        """Tell whether this is one of the spec's isolators."""
        return self.name in _SHAPES

    @property
    def scope(self) -> Scope:
        """Tell what the isolator holds: an app, a pod, either; nothing known if it is unknown."""
        return _SHAPES[self.name][1] if self.name in _SHAPES else ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Isolator):
            return NotImplemented
        return self.name == other.name and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.name)


def make(name: str, json: object, field: str = "") -> Isolator:
    """Return the isolator of a name whose value is given as JSON; `field` is its path in errors."""
    shape = _SHAPES.get(name)
    if shape is None:
        return Isolator(name, json, json)
    path = f"{field}.value" if field else name
    if json is None:
        raise BadManifest("is missing", path)
    return Isolator(name, shape[0](json, path), json)


def parse(obj: object, field: str) -> Isolator:
    """Return the isolator that an item of an `isolators` list holds."""
    fields = Fields(obj, field)
    return make(fields.text("name", names.check_identifier), fields.get("value"), field)


def parse_list(items: Iterable[tuple[str, object]]) -> tuple[Isolator, ...]:
    """Return the isolators of a list, given as paths and items, if they go together."""
    result = []
    seen: set[str] = set()
    for path, item in items:
        isolator = parse(item, path)
        if isolator.name in seen and isolator.name in _SINGLE:
            raise BadManifest(f"there is an isolator {isolator.name} before this one", path)
        other = _CONFLICTS.get(isolator.name)
        if other in seen:
            raise BadManifest(f"{isolator.name} cannot be together with {other}", path)
        seen.add(isolator.name)
        result.append(isolator)
    return tuple(result)


def dump(isolator: Isolator) -> dict[str, object]:
    """Return the JSON of an isolator."""
    json = isolator.json
    if json is None:
        json = _json_of(isolator.value)
    return {"name": isolator.name, "value": json}


def _json_of(item: object) -> object:
    if isinstance(item, Resource):
        # Go's order, and its nulls.
        return {
            "default": item.default,
            "request": None if item.request is None else str(item.request),
            "limit": None if item.limit is None else str(item.limit),
        }
    if isinstance(item, CapabilitySet):
        return {"set": list(item.set)}
    if isinstance(item, SeccompSet):
        return {"set": list(item.set), "errno": item.errno}
    if isinstance(item, SELinuxContext):
        return {"user": item.user, "role": item.role, "type": item.type, "level": item.level}
    if isinstance(item, AppArmorProfile):
        return {"profile": item.profile}
    return item


def _quantity(fields: Fields, key: str) -> Quantity | None:
    item = fields.get(key)
    if item is None:
        return None
    if type(item) is int or type(item) is float:
        # Kubernetes reads a bare number as if it stood in quotes.
        item = str(item)
    if type(item) is not str:
        raise BadManifest(f"must be a quantity, not {kind_of(item)}", fields.at(key))
    try:
        result = quantity.parse(item.strip(" "))
    except BadManifest as error:
        raise BadManifest(str(error), fields.at(key)) from None
    if result.nano < 0:
        raise BadManifest(f"must not be negative, as {item} is", fields.at(key))
    return result


def _resource(json: object, path: str) -> Resource:
    fields = Fields(json, path)
    if fields.flag("default"):
        raise BadManifest("must be false", fields.at("default"))
    return Resource(_quantity(fields, "limit"), _quantity(fields, "request"))


def _default_resource(json: object, path: str) -> Resource:
    fields = Fields(json, path)
    if not fields.flag("default"):
        raise BadManifest("must be true", fields.at("default"))
    if fields.get("request") is not None:
        raise BadManifest("must not be set", fields.at("request"))
    return Resource(_quantity(fields, "limit"), None, True)


def _set(fields: Fields) -> tuple[str, ...]:
    items = fields.texts("set")
    if not items:
        raise BadManifest("must not be empty", fields.at("set"))
    if "" in items:
        raise BadManifest("has an empty name", fields.at("set"))
    return items


def _capability_set(json: object, path: str) -> CapabilitySet:
    return CapabilitySet(_set(Fields(json, path)))


def _seccomp_set(json: object, path: str) -> SeccompSet:
    fields = Fields(json, path)
    errno = fields.text("errno", default="")
    if errno and (errno[0] != "E" or errno.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")):
        raise BadManifest(
            f"{names.quoted(errno)} is not the name of an error, such as EPERM", fields.at("errno")
        )
    return SeccompSet(_set(fields), errno)


def _boolean(json: object, path: str) -> bool:
    if type(json) is not bool:
        raise BadManifest(f"must be true or false, not {kind_of(json)}", path)
    return json


def _oom_score_adj(json: object, path: str) -> int:
    return whole(json, -1000, 1000, path)


def _cpu_shares(json: object, path: str) -> int:
    return whole(json, 2, 262144, path)


def _selinux_context(json: object, path: str) -> SELinuxContext:
    fields = Fields(json, path)
    return SELinuxContext(
        fields.text("user", _check_selinux_part),
        fields.text("role", _check_selinux_part),
        fields.text("type", _check_selinux_part),
        fields.text("level", names.check_c_string, default=""),
    )


def _check_selinux_part(text: str) -> str:
    if not text or ":" in text:
        raise BadName(f"{names.quoted(text)} must not be empty, and have no colon")
    return names.check_c_string(text)


def _apparmor_profile(json: object, path: str) -> AppArmorProfile:
    fields = Fields(json, path)
    profile = fields.text("profile", names.check_c_string)
    if not profile:
        raise BadManifest("must not be empty", fields.at("profile"))
    return AppArmorProfile(profile)


_SHAPES: dict[str, tuple[Callable[[object, str], object], Scope]] = {
    BLOCK_BANDWIDTH: (_default_resource, "app/pod"),
    BLOCK_IOPS: (_default_resource, "app/pod"),
    CPU: (_resource, "app/pod"),
    MEMORY: (_resource, "app/pod"),
    NETWORK_BANDWIDTH: (_default_resource, "app/pod"),
    CAPABILITIES_RETAIN_SET: (_capability_set, "app"),
    CAPABILITIES_REMOVE_SET: (_capability_set, "app"),
    SECCOMP_RETAIN_SET: (_seccomp_set, "app"),
    SECCOMP_REMOVE_SET: (_seccomp_set, "app"),
    NO_NEW_PRIVILEGES: (_boolean, "app"),
    OOM_SCORE_ADJ: (_oom_score_adj, "app"),
    CPU_SHARES: (_cpu_shares, "app"),
    SELINUX_CONTEXT: (_selinux_context, "app/pod"),
    APPARMOR_PROFILE: (_apparmor_profile, "app/pod"),
    SYSCTL: (texts_by_key, "pod"),
}

# appc spec, ace: the notes of each isolator. Of the others, the last of a name counts.
_SINGLE = frozenset(
    (
        SECCOMP_RETAIN_SET,
        SECCOMP_REMOVE_SET,
        OOM_SCORE_ADJ,
        CPU_SHARES,
        SELINUX_CONTEXT,
        APPARMOR_PROFILE,
        SYSCTL,
    )
)
_CONFLICTS = {
    SECCOMP_RETAIN_SET: SECCOMP_REMOVE_SET,
    SECCOMP_REMOVE_SET: SECCOMP_RETAIN_SET,
    CAPABILITIES_RETAIN_SET: CAPABILITIES_REMOVE_SET,
    CAPABILITIES_REMOVE_SET: CAPABILITIES_RETAIN_SET,
}

KNOWN = frozenset(_SHAPES)
