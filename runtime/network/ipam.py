"""Leases of addresses, as CNI's host-local keeps them.

    /run/rkt-py/networks/NAME/
        172.16.28.2             the UUID of the pod which has the address
        last_reserved_ip.0      where the next search starts

The caller holds the lock of the networks (attachment.py). Addresses go round: one that was given
back is the last to be given again, so that nobody's caches mistake a new pod for an old one.
"""

from __future__ import annotations

import ipaddress
import os
from contextlib import suppress

from rkt_py.runtime.errors import NetworkError

_LAST = "last_reserved_ip.0"
_NEW = ".new"


class SubnetFull(NetworkError):
    """Every address of a subnet is leased."""


def reserve(
    directory: str, subnet: ipaddress.IPv4Network, uuid: str, *, taken: str = "", wanted: str = ""
) -> str:
    """Lease an address to a pod: the `wanted` one, else the next free one; `taken` is never given."""
    os.makedirs(directory, 0o755, exist_ok=True)
    leased = {*addresses(directory), taken}
    ip = _wanted(directory, subnet, leased, wanted) if wanted else _next(directory, subnet, leased)
    _write(directory, ip, uuid)
    if not wanted:
        _write(directory, _LAST, ip)
    return ip


def release(directory: str, uuid: str, ip: str = "") -> None:
    """Give back a pod's lease; without `ip`, whichever it has."""
    for address in (ip,) if ip else addresses(directory):
        if _read(directory, address) == uuid:
            os.unlink(f"{directory}/{address}")


def clear(directory: str) -> None:
    """Remove what is left of a network without leases."""
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_LAST}")
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_NEW}")
    # Somebody may have put something of theirs there.
    with suppress(OSError):
        os.rmdir(directory)


def addresses(directory: str) -> list[str]:
    """List the leased addresses."""
    try:
        return [name for name in os.listdir(directory) if name[:1].isdigit()]
    except FileNotFoundError:
        return []


def _next(directory: str, subnet: ipaddress.IPv4Network, leased: set[str]) -> str:
    # Without the addresses of the network and of broadcast, as host-local does.
    first, last = int(subnet[1]), int(subnet[-2])
    text = _read(directory, _LAST)
    try:
        previous = int(ipaddress.IPv4Address(text))
    except ValueError:
        previous = last
    if not first <= previous <= last:
        previous = last
    for number in (*range(previous + 1, last + 1), *range(first, previous + 1)):
        ip = str(ipaddress.IPv4Address(number))
        if ip not in leased:
            return ip
    raise SubnetFull(f"no address is free in {subnet}: {last - first} pods have one each")


def _wanted(directory: str, subnet: ipaddress.IPv4Network, leased: set[str], wanted: str) -> str:
    try:
        address = ipaddress.IPv4Address(wanted)
    except ValueError:
        raise NetworkError(f'"IP={wanted}" is not an IPv4 address') from None
    if address not in subnet or address in (subnet[0], subnet[-1]):
        raise NetworkError(f"{address} is not an address for a pod in {subnet}")
    if str(address) in leased:
        holder = _read(directory, str(address))
        raise NetworkError(f"{address} belongs to {f'pod {holder}' if holder else 'the gateway'}")
    return str(address)


def _read(directory: str, name: str) -> str:
    try:
        with open(f"{directory}/{name}") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _write(directory: str, name: str, text: str) -> None:
    # By rename: a lease without a holder could never be given back.
    temporary = f"{directory}/{_NEW}"
    with open(temporary, "w") as file:
        file.write(f"{text}\n")
    os.rename(temporary, f"{directory}/{name}")
