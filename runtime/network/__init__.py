"""Networks: which ones a pod joins, and joining and leaving them.

    --net=none        a network namespace with loopback in it, and nothing else
    --net=host        the caller's network namespace
    --net=default     a bridge with a way out: conf.py has it as data

On the way of every `run`: only what a contained network needs imports pyroute2, and only then.
docs/network.md says what is on the host and in the pod while a network is up.
"""

from __future__ import annotations

import os

from rkt_py.aci import strictjson
from rkt_py.aci.value import value
from rkt_py.runtime.errors import NetworkError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from rkt_py.runtime.paths import Paths

    Kind = Literal["none", "host", "contained"]

BUILTIN = ("default",)
_SPECIAL = ("none", "host", "all")


@value
class NetworkChoice:
    """What `--net` asked for: `names` in the order of their interfaces, `args` beside them."""

    kind: Kind
    names: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


@value
class NetInfo:
    """One network a pod has joined; `plugin` without a slash in it is one of rkt-py's own."""

    name: str
    conf: str
    plugin: str
    ifname: str
    ip: str
    args: str
    mask: str

    @property
    def summary(self) -> str:
        return f"{self.name}:ip4={self.ip}"


def parse(values: Sequence[str], *, known: Sequence[str] = BUILTIN) -> NetworkChoice:
    """Read the values of all `--net` flags; no flag, and a flag without a value, mean default."""
    chosen: dict[str, str] = {}
    for text in values or ("",):
        for item in (text or "default").split(","):
            name, colon, args = item.partition(":")
            if not name:
                raise UsageError(f'netname must not be empty: "--net={text}"')
            if name in chosen:
                raise UsageError(f'found duplicate netname "{name}"')
            if colon and name in _SPECIAL:
                raise UsageError(f'arguments are not supported by special netname "{name}"')
            if ":" in args:
                raise UsageError(f'network "{name}" provided with invalid arguments: "{args}"')
            chosen[name] = args
    for name in ("none", "host"):
        if name in chosen and len(chosen) > 1:
            others = ", ".join(f'"{other}"' for other in chosen if other != name)
            raise UsageError(f'netname "{name}" cannot be combined with {others}')
    if "none" in chosen:
        return NetworkChoice("none")
    if "host" in chosen:
        return NetworkChoice("host")
    if "all" in chosen:
        chosen = {name: chosen.get(name, "") for name in (*known, *chosen) if name != "all"}
    for name in chosen:
        if name not in known:
            raise NetworkError(f'there is no network "{name}": known are {", ".join(known)}, none and host')
    return NetworkChoice("contained", tuple(chosen), tuple(chosen.values()))


def setup(
    paths: Paths, uuid: str, choice: NetworkChoice, netns_fd: int, *, ports: Sequence[object] = ()
) -> tuple[NetInfo, ...]:
    """Join the chosen networks with the namespace behind `netns_fd`: all of them, or none.

    The caller holds the lock of pods/run/UUID, and it is held as long as the pod runs: a pod whose
    lock is free counts as ended, and loses its address to others when no more are free.
    """
    if ports:
        raise NetworkError(f"port {ports[0]} cannot be forwarded: rkt-py does not forward ports yet")
    if choice.kind != "contained":
        return ()
    from rkt_py.runtime.network import attachment

    return attachment.setup(paths, uuid, choice, netns_fd)


def teardown(paths: Paths, uuid: str) -> None:
    """Leave every network the pod joined, also half-way; a pod without one costs one stat()."""
    if not os.path.exists(record(paths, uuid)):
        return
    from rkt_py.runtime.network import attachment

    attachment.teardown(paths, uuid)


def record(paths: Paths, uuid: str) -> str:
    """Return the file that says what to undo for a pod: it is there before there is anything."""
    return f"{paths.networks}/.pods/{uuid}"


# rkt's key and our field, in rkt's order.
_KEYS = (
    ("netName", "name"),
    ("netConf", "conf"),
    ("pluginPath", "plugin"),
    ("ifName", "ifname"),
    ("ip", "ip"),
    ("args", "args"),
    ("mask", "mask"),
)


def to_json(infos: Sequence[NetInfo]) -> str:
    """Write net-info.json as rkt does: an array on one line."""
    return strictjson.dumps([{key: getattr(info, field) for key, field in _KEYS} for info in infos]) + "\n"


def from_json(data: bytes) -> tuple[NetInfo, ...]:
    """Read net-info.json; keys of other versions are passed over, as Go does."""
    items = strictjson.loads(data, what="net-info.json")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise NetworkError("net-info.json is not an array of objects")
    return tuple(NetInfo(**{field: str(item.get(key) or "") for key, field in _KEYS}) for item in items)
