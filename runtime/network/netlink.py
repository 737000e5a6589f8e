"""The kernel's interfaces, addresses and routes: the few requests networks make, by pyroute2."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from rkt_py.runtime.errors import NetworkError

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
IFF_UP = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Link:
    index: int
    kind: str
    address: str
    up: bool


def apart(work: Callable[[], T], netns_fd: int = -1) -> T:
    """Run `work` in a thread of its own, in a network namespace if one is given.

    A namespace belongs to a thread, so a failure cannot leave the caller in the wrong one; and
    pyroute2 runs an event loop, which a thread that has one already could not.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            if netns_fd >= 0:
                _enter(netns_fd)
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="rkt-py network")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _enter(netns_fd: int) -> None:
    # os.setns() came with Python 3.12.
    if _libc.setns(netns_fd, CLONE_NEWNET) < 0:
        raise NetworkError(f"cannot enter the pod's network namespace: {os.strerror(ctypes.get_errno())}")


@contextmanager
def _doing(what: str, *, unless: int = 0) -> Iterator[None]:
    """Turn the kernel's refusal into a sentence; `unless` is the refusal that is as good as success."""
    try:
        yield
    except NetlinkError as error:
        if error.code != unless:
            raise NetworkError(f"cannot {what}: {os.strerror(error.code)}") from None


class Netlink:
    """A socket to the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._socket: Any = IPRoute()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def link(self, name: str) -> Link | None:
        """Find an interface by its name."""
        found: list[Any] = []
        with _doing(f"look up the interface {name}", unless=errno.ENODEV):
            found.extend(self._socket.link("get", ifname=name))
        if not found:
            return None
        info = found[0].get_attr("IFLA_LINKINFO")
        return Link(
            index=found[0]["index"],
            kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
            address=found[0].get_attr("IFLA_ADDRESS") or "",
            up=bool(found[0]["flags"] & IFF_UP),
        )

    def add_bridge(self, name: str, *, address: str, mtu: int) -> None:
        with _doing(f"make the bridge {name}"):
            self._socket.link("add", ifname=name, kind="bridge", address=address, **_mtu(mtu))

    def add_veth(
        self, name: str, *, master: int, peer: str, peer_address: str, netns_fd: int, mtu: int
    ) -> None:
        """Make a pair: `name` here, up, in the bridge `master`; `peer` in another namespace, down."""
        there = {"ifname": peer, "address": peer_address, "net_ns_fd": netns_fd, **_mtu(mtu)}
        here = {"ifname": name, "master": master, "flags": IFF_UP, "change": IFF_UP, **_mtu(mtu)}
        with _doing(f"make the interface {name}"):
            self._socket.link("add", kind="veth", peer=there, **here)

    def add_address(self, index: int, address: str, prefix: int) -> None:
        with _doing(f"give an interface the address {address}/{prefix}", unless=errno.EEXIST):
            self._socket.addr("add", index=index, address=address, prefixlen=prefix)

    def set_up(self, index: int) -> None:
        with _doing("set an interface up"):
            self._socket.link("set", index=index, flags=IFF_UP, change=IFF_UP)

    def add_default_route(self, gateway: str) -> None:
        with _doing(f"add the route to {gateway}"):
            self._socket.route("add", dst="default", gateway=gateway)

    def delete(self, name: str) -> None:
        """Delete an interface, if it is there."""
        with _doing(f"delete the interface {name}", unless=errno.ENODEV):
            self._socket.link("del", ifname=name)

    def addresses(self) -> list[tuple[int, str, int]]:
        """List the IPv4 addresses here: interface index, address, prefix length."""
        with _doing("list addresses"):
            return [
                (item["index"], item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS"), item["prefixlen"])
                for item in self._socket.addr("dump", family=2)
            ]


def _mtu(mtu: int) -> dict[str, int]:
    return {"mtu": mtu} if mtu else {}
