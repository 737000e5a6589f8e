"""What a bridge network decides, without a network."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from rkt_py.runtime.network import bridge, conf
from rkt_py.runtime.network.bridge import Bridge

UUID = "0c5b9c1e-8d0a-4d86-9a57-1f2f3c1f7e10"


def row(interface: str, network: str, flags: int = 1) -> str:
    parsed = IPv4Network(network)
    destination, mask = (
        f"{int.from_bytes(address.packed, sys.byteorder):08X}"
        for address in (parsed.network_address, parsed.netmask)
    )
    return f"{interface}\t{destination}\t00000000\t{flags:04X}\t0\t0\t0\t{mask}\t0\t0\t0   \n"


@pytest.mark.parametrize(
    ("rows", "clash"),
    [
        ("", ""),
        (row("eth0", "0.0.0.0/0", 3), ""),
        (row("tun0", "0.0.0.0/1") + row("tun0", "128.0.0.0/1"), ""),
        (row("eth0", "192.0.2.0/24"), ""),
        (row("eth0", "172.16.27.0/24") + row("eth0", "172.16.29.0/24"), ""),
        (row("rktpy0", "172.16.28.0/24"), ""),
        (row("*", "172.16.0.0/12", 0x201), ""),
        (row("eth1", "172.16.28.0/24"), "has a route to 172.16.28.0/24 by eth1"),
        (row("eth0", "0.0.0.0/0", 3) + row("vpn", "172.16.0.0/12"), "has a route to 172.16.0.0/12 by vpn"),
        (row("eth1", "172.16.28.128/25"), "has a route to 172.16.28.128/25 by eth1"),
        (row("eth1", "172.16.28.9/32"), "has a route to 172.16.28.9/32 by eth1"),
    ],
)
def test_only_a_route_that_shares_addresses_is_a_clash(rows: str, clash: str) -> None:
    table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" + rows
    assert bridge.overlapping_route(table, conf.DEFAULT.network, "rktpy0") == clash


def test_the_kernels_own_table_is_read() -> None:
    text = Path("/proc/net/route").read_text()
    seen = [line.split()[1] for line in text.splitlines()[1:] if int(line.split()[7], 16)]
    for destination in seen:
        address = IPv4Address(int(destination, 16).to_bytes(4, sys.byteorder))
        assert bridge.overlapping_route(text, IPv4Network(f"{address}/32"), "none")
    assert bridge.overlapping_route(text, IPv4Network("233.252.0.0/24"), "none") == ""


@pytest.mark.parametrize("ifname", ["eth0", "eth7", "eth42"])
def test_names_of_host_interfaces_tell_the_pod_and_fit(ifname: str) -> None:
    name = bridge.host_ifname(UUID, ifname)
    assert name == f"rkt0c5b9c1e8-{ifname[3:]}"
    assert len(name) <= 15


def test_hardware_addresses_go_with_addresses() -> None:
    assert bridge.pod_address("172.16.28.2") == "0a:58:ac:10:1c:02"


def test_two_installations_do_not_take_each_others_bridge_for_their_own() -> None:
    mine, other = (Bridge(conf.DEFAULT, directory).address for directory in ("/run/a", "/run/b"))
    assert mine != other
    assert mine == Bridge(conf.DEFAULT, "/run/./a").address
    assert int(mine[:2], 16) & 3 == 2  # locally administered, and not a group's
