"""The bridge network: pods on one bridge, the host as their router.

host                                            pod
eth0 -- masquerade -- rktpy0 172.16.28.1
                        |-- rktUUID-0 ========= eth0 172.16.28.2, default by 172.16.28.1
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import sys

from rkt_py.runtime.errors import NetworkError
from rkt_py.runtime.network import forwarding, ipam, masquerade, netlink
from rkt_py.runtime.network.conf import NetConf
from rkt_py.runtime.network.netlink import Link, Netlink

_RTF_REJECT = 0x200


class Bridge:
    """A network of type bridge; `directory` has its leases, `shared` is the directory of all networks."""

    def __init__(self, conf: NetConf, shared: str) -> None:
        self.conf = conf
        self.shared = shared
        self.directory = f"{shared}/{conf.name}"

    def attach(self, uuid: str, ifname: str, netns_fd: int, args: str) -> str:
        """Give a pod an interface of this network, and return its address."""
        conf, subnet = self.conf, self.conf.network
        wanted = _wanted_ip(conf.name, args)
        ip = ipam.reserve(self.directory, subnet, uuid, taken=conf.gateway, wanted=wanted)
        with Netlink() as host:
            bridge = self._ready(host)
            if conf.ip_masq:
                masquerade.enable(conf.name, subnet, conf.bridge)
            if conf.is_gateway:
                forwarding.enable(self.shared)
            host.add_veth(
                host_ifname(uuid, ifname),
                master=bridge,
                peer=ifname,
                peer_address=pod_address(ip),
                netns_fd=netns_fd,
                mtu=conf.mtu,
            )
        netlink.apart(lambda: self._configure_pod(ifname, ip), netns_fd)
        return ip

    def detach(self, uuid: str, ifname: str, ip: str) -> None:
        """Take a pod's interface and lease away, and with the last lease all of the network."""
        with Netlink() as host:
            # The kernel would take it away with the pod's namespace, but in its own time.
            host.delete(host_ifname(uuid, ifname))
            ipam.release(self.directory, uuid, ip)
            if ipam.addresses(self.directory):
                return
            link = host.link(self.conf.bridge)
            if link is not None and self._is_ours(link):
                host.delete(self.conf.bridge)
        if self.conf.ip_masq:
            masquerade.disable(self.conf.name)
        ipam.clear(self.directory)

    @property
    def address(self) -> str:
        """The bridge's hardware address, by which we know it as ours.

        It is there from the bridge's first moment, unlike whatever could be noted down elsewhere;
        and one that is set stays, where else it would follow the least of the ports', and the pods
        lose their gateway for as long as they remember another.
        """
        digest = hashlib.sha256(os.path.abspath(self.directory).encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))

    def _is_ours(self, link: Link) -> bool:
        return link.kind == "bridge" and link.address == self.address

    def _ready(self, host: Netlink) -> int:
        """Make what is missing of the bridge, and return its index."""
        conf = self.conf
        link = host.link(conf.bridge)
        if link is None:
            self._check_clash(host, 0)
            host.add_bridge(conf.bridge, address=self.address, mtu=conf.mtu)
            link = host.link(conf.bridge)
            assert link is not None
        elif not self._is_ours(link):
            raise NetworkError(
                f'network "{conf.name}" needs the name {conf.bridge} for its bridge, but the host already has'
                " an interface of that name which is not this network's"
            )
        elif not link.up:
            # Somebody was killed half-way.
            self._check_clash(host, link.index)
        if conf.is_gateway:
            host.add_address(link.index, conf.gateway, conf.network.prefixlen)
        if not link.up:
            _without_ipv6(conf.bridge)
            host.set_up(link.index)
        return link.index

    def _check_clash(self, host: Netlink, own_index: int) -> None:
        """Refuse a subnet that something else on the host already has, or part of it."""
        conf = self.conf
        with open("/proc/thread-self/net/route") as table:
            clash = overlapping_route(table.read(), conf.network, conf.bridge)
        for index, address, prefix in host.addresses():
            if index != own_index and ipaddress.IPv4Address(address) in conf.network:
                clash = clash or f"has the address {address}/{prefix}"
        if clash:
            raise NetworkError(f'network "{conf.name}" needs {conf.subnet}, but the host already {clash}')

    def _configure_pod(self, ifname: str, ip: str) -> None:
        conf = self.conf
        with Netlink() as pod:
            link = pod.link(ifname)
            if link is None:
                raise NetworkError(f"the interface {ifname} has not arrived in the pod's network namespace")
            _without_ipv6(ifname)
            pod.add_address(link.index, ip, conf.network.prefixlen)
            pod.set_up(link.index)
            if conf.is_default_gateway:
                pod.add_default_route(conf.gateway)


def host_ifname(uuid: str, ifname: str) -> str:
    """Return the name of the host's end of a pod's interface: 15 characters at most."""
    return f"rkt{uuid.replace('-', '')[:9]}-{ifname.removeprefix('eth')[:2]}"


def pod_address(ip: str) -> str:
    """Return a hardware address that goes with an address, so that no neighbour's memory is ever stale."""
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *ipaddress.IPv4Address(ip).packed))


def overlapping_route(table: str, subnet: ipaddress.IPv4Network, bridge: str) -> str:
    """Tell which route of a /proc/net/route table has addresses of a subnet; "" if none."""
    for line in table.splitlines()[1:]:
        interface, destination, _, flags, _, _, _, mask, *_ = line.split()
        network = ipaddress.IPv4Network((_address(destination), str(_address(mask))))
        # The default route (or a tunnel's halves of it) is for what has no better one, and a route
        # that refuses keeps private addresses in: a bridge's own route is meant to be better.
        if interface == bridge or network.prefixlen <= 1 or int(flags, 16) & _RTF_REJECT:
            continue
        if network.overlaps(subnet):
            return f"has a route to {network} by {interface}"
    return ""


def _address(text: str) -> ipaddress.IPv4Address:
    # In the table the number is in the machine's byte order.
    return ipaddress.IPv4Address(int(text, 16).to_bytes(4, sys.byteorder))


def _wanted_ip(name: str, args: str) -> str:
    """Read the arguments of `--net=NAME:KEY=VALUE;...`, of which there is one."""
    wanted = ""
    for pair in filter(None, args.split(";")):
        key, _, wanted = pair.partition("=")
        if key != "IP" or not wanted:
            raise NetworkError(f'network "{name}" knows the argument IP=ADDRESS, and not "{pair}"')
    return wanted


def _without_ipv6(ifname: str) -> None:
    # The network has none, so nobody on it may hand any out: a pod that sends router advertisements
    # would otherwise become the host's router (CVE-2020-10749), or another pod's.
    try:
        with open(f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6", "w") as file:
            file.write("1")
    except FileNotFoundError:
        return
