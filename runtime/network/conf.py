"""Network configurations, as data: what a network is, apart from how it is made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from rkt_py.runtime.errors import NetworkError


@dataclass(frozen=True)
class NetConf:
    """One network; the fields are those of the CNI plugins' configuration of the same type."""

    name: str
    type: str
    subnet: str
    bridge: str = ""
    is_gateway: bool = True
    is_default_gateway: bool = True
    ip_masq: bool = True
    mtu: int = 0

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.subnet)

    @property
    def gateway(self) -> str:
        return str(self.network[1])


# rkt's own subnet, so that firewall rules people have for it go on matching. Not rkt's name for a
# bridge: a host may have both.
DEFAULT = NetConf(name="default", type="bridge", subnet="172.16.28.0/24", bridge="rktpy0")


def find(name: str) -> NetConf:
    """Return the configuration of a network by its name."""
    if name != DEFAULT.name:
        raise NetworkError(f'there is no network "{name}"')
    return DEFAULT
