"""--net: pods that reach each other and the host, in a host of the test's own."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rkt import Rkt
from tests.system.pods import BUSYBOX, Done, Pods

pytestmark = pytest.mark.root

READY = "echo ready; exec sleep 1000"
ADDRESS = "ip -4 -o addr show eth0 | awk '{print $4}'"


class Host:
    """Namespaces that stand for a host: a network without interfaces, and a /run to write to."""

    def __init__(self) -> None:
        script = "mount -t tmpfs none /run; ip link set lo up; echo ready; exec sleep 1000"
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation=private", "sh", "-ec", script],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self.process.pid}", "--net", "--mount", "--", *command]

    def run(self, *command: str) -> str:
        return subprocess.run(self.inside(*command), capture_output=True, text=True, check=True).stdout

    def interfaces(self) -> set[str]:
        return {item["ifname"] for item in json.loads(self.run("ip", "-j", "link"))}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class RktThere(Rkt):
    """The installed command, run in such a host."""

    def __init__(self, data: Path, host: Host) -> None:
        super().__init__(data)
        self.host = host

    def command(self, *args: str | Path) -> list[str]:
        return self.host.inside(*super().command(*args))


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture
def there(host: Host, installation: Rkt, tmp_path: Path) -> Iterator[Pods]:
    """An installation of the test's own, in a host of its own."""
    rkt = RktThere(tmp_path / "data", host)
    rkt.ok("--insecure-options=image", "fetch", installation.data.parent / "busybox.aci")
    pods = Pods(rkt, tmp_path)
    yield pods
    pods.close()
    rkt.close()


def networks(pods: Pods, uuid: str) -> str:
    status = dict(line.split("=", 1) for line in pods.ok("status", uuid).splitlines())
    return status.get("networks", "")


def test_pod_has_an_address_of_the_default_network(there: Pods) -> None:
    running = there.start_sh(f"{ADDRESS}; {READY}", "--net=default")
    address = ipaddress.ip_interface(running.out.decode().splitlines()[0])
    assert networks(there, running.uuid) == f"default:ip4={address.ip}"
    assert address.network == ipaddress.ip_network("172.16.28.0/24")
    row = there.ok("list", "--no-legend").split("\t")
    assert row[-1].strip() == f"default:ip4={address.ip}"
    (info,) = json.loads(there.ok("status", "--format=json", running.uuid))["networks"]
    assert (info["netName"], info["ifName"], info["ip"]) == ("default", "eth0", str(address.ip))


def test_network_is_the_default_one_without_a_flag(there: Pods) -> None:
    done = there("run", BUSYBOX, "--exec=/bin/sh", "--", "-c", ADDRESS)
    assert done.text.startswith("172.16.28.")


def test_pods_reach_each_other_and_the_host(there: Pods, host: Host) -> None:
    first = there.start_sh(f"{ADDRESS}; {READY}", "--net=default")
    address = str(ipaddress.ip_interface(first.out.decode().splitlines()[0]).ip)
    ping = f"ping -c1 -W5 {address} >/dev/null && ping -c1 -W5 172.16.28.1 >/dev/null && echo both"
    second = there.sh(f"{ping}; {ADDRESS}", "--net=default")
    assert second.lines[0] == "both"
    assert second.lines[1] != f"{address}/24"
    host.run("ping", "-c1", "-W5", address)


def test_network_goes_with_the_pod(there: Pods, host: Host) -> None:
    running = there.start_sh(READY, "--net=default")
    assert len(host.interfaces()) == 3  # lo, the bridge, the pod's
    running.end(signal.SIGTERM)
    there.ok("gc", "--grace-period=0s")
    assert host.interfaces() == {"lo"}
    assert "rkt" not in host.run("nft", "list", "ruleset")
    assert host.run("find", "/run", "-type", "f", "-path", "*rkt-py*") == ""


def test_failed_start_leaves_no_network(there: Pods, host: Host) -> None:
    assert there.sh("true", "--net=default", "--working-dir=/missing").code == 254
    there.ok("gc", "--grace-period=0s")
    assert host.interfaces() == {"lo"}


def test_many_at_once_have_addresses_of_their_own(there: Pods) -> None:
    started = [there.start(*there.command(f"{ADDRESS}; {READY}", "--net=default")) for _ in range(4)]
    for running in started:
        running.until("ready")
    assert len({running.out for running in started}) == 4


def test_network_none_is_loopback_alone(there: Pods) -> None:
    assert there.sh("ls /sys/class/net; ip route | wc -l").lines == ["lo", "0"]


def test_network_host_is_the_callers(there: Pods, host: Host) -> None:
    host.run("ip", "link", "add", "of-host", "type", "bridge")
    assert "of-host" in there.sh("ip link", "--net=host").text
    mine = set(os.listdir("/sys/class/net"))
    assert "of-host" not in mine


def test_prepared_pod_joins_when_it_is_run(there: Pods, host: Host) -> None:
    uuid = there.ok("prepare", BUSYBOX, "--exec=/bin/sh", "--", "-c", ADDRESS).strip()
    assert host.interfaces() == {"lo"}
    assert there("run-prepared", "--net=default", uuid).text.startswith("172.16.28.")


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--net=nowhere", 'there is no network "nowhere"'),
        ("--net=none,host", 'netname "none" cannot be combined'),
        ("--net=default,default", 'duplicate netname "default"'),
    ],
)
def test_networks_that_cannot_be_are_refused_before_there_is_a_pod(
    own_pods: Pods, flag: str, text: str
) -> None:
    done = own_pods("run", flag, BUSYBOX)
    assert (done.code, done.out) != (0, b"")
    assert text in done.errors
    assert own_pods("list", "--no-legend") == Done(0, b"", b"")


def test_app_cannot_change_its_network_by_default(there: Pods) -> None:
    done = there.sh("ip link set eth0 down; ip addr add 10.0.0.1/8 dev eth0", "--net=default")
    assert done.code != 0
    assert done.errors.count("Operation not permitted") == 2
