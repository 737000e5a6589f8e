"""Leases, as host-local gives them."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from rkt_py.runtime.errors import NetworkError
from rkt_py.runtime.network import ipam

SMALL = IPv4Network("10.9.8.0/29")  # .1 is the gateway: .2 to .6 are for pods


def reserve(directory: Path, uuid: str, wanted: str = "") -> str:
    return ipam.reserve(str(directory), SMALL, uuid, taken="10.9.8.1", wanted=wanted)


def test_leases_are_files_with_the_pods_uuid(tmp_path: Path) -> None:
    assert reserve(tmp_path / "net", "pod") == "10.9.8.2"
    assert {path.name: path.read_text() for path in (tmp_path / "net").iterdir()} == {
        "10.9.8.2": "pod\n",
        "last_reserved_ip.0": "10.9.8.2\n",
    }


def test_addresses_go_round_before_one_is_given_again(tmp_path: Path) -> None:
    given = []
    for number in range(7):
        given.append(reserve(tmp_path, f"pod{number}"))
        ipam.release(str(tmp_path), f"pod{number}")
    assert given == [f"10.9.8.{last}" for last in (2, 3, 4, 5, 6, 2, 3)]


def test_a_full_subnet_is_refused_and_a_freed_address_is_found(tmp_path: Path) -> None:
    given = [reserve(tmp_path, f"pod{number}") for number in range(5)]
    assert len(set(given)) == 5
    with pytest.raises(ipam.SubnetFull, match=r"10\.9\.8\.0/29"):
        reserve(tmp_path, "late")
    ipam.release(str(tmp_path), "pod2")
    assert reserve(tmp_path, "late") == given[2]


@pytest.mark.parametrize("ip", ["", "10.9.8.2"])
def test_only_the_holders_lease_is_released(tmp_path: Path, ip: str) -> None:
    reserve(tmp_path, "pod")
    ipam.release(str(tmp_path), "other", ip)
    assert ipam.addresses(str(tmp_path)) == ["10.9.8.2"]
    for _ in range(2):
        ipam.release(str(tmp_path), "pod", ip)
        assert ipam.addresses(str(tmp_path)) == []


@pytest.mark.parametrize("last", ["", "nonsense", "192.0.2.1", "10.9.8.7", "10.9.8.0"])
def test_a_strange_last_address_starts_from_the_first(tmp_path: Path, last: str) -> None:
    (tmp_path / "last_reserved_ip.0").write_text(last)
    assert reserve(tmp_path, "pod") == "10.9.8.2"


def test_a_wanted_address_is_given_and_changes_no_order(tmp_path: Path) -> None:
    assert reserve(tmp_path, "a", "10.9.8.5") == "10.9.8.5"
    assert [reserve(tmp_path, name) for name in "bcde"] == ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.6"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("10.9.8.4", "10.9.8.4 belongs to pod first"),
        ("10.9.8.1", "10.9.8.1 belongs to the gateway"),
        ("10.9.8.0", "10.9.8.0 is not an address for a pod"),
        ("10.9.8.7", "10.9.8.7 is not an address for a pod"),
        ("10.9.9.2", "10.9.9.2 is not an address for a pod"),
        ("10.9.8", "IP=10.9.8"),
        ("::1", "IP=::1"),
        ("../../etc/passwd", "IP=../../etc/passwd"),
    ],
)
def test_a_wanted_address_that_cannot_be_had_is_refused(tmp_path: Path, wanted: str, message: str) -> None:
    reserve(tmp_path, "first", "10.9.8.4")
    with pytest.raises(NetworkError) as raised:
        reserve(tmp_path, "second", wanted)
    assert message in str(raised.value)
    assert ipam.addresses(str(tmp_path)) == ["10.9.8.4"]
