"""`--net`, and net-info.json."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rkt_py.aci.errors import RktError
from rkt_py.runtime import network
from rkt_py.runtime.errors import NetworkError, UsageError
from rkt_py.runtime.network import NetInfo, NetworkChoice
from rkt_py.runtime.network.attachment import is_running
from rkt_py.runtime.paths import Paths

UUID = "0c5b9c1e-8d0a-4d86-9a57-1f2f3c1f7e10"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], NetworkChoice("contained", ("default",), ("",))),
        ([""], NetworkChoice("contained", ("default",), ("",))),
        (["default"], NetworkChoice("contained", ("default",), ("",))),
        (["default:"], NetworkChoice("contained", ("default",), ("",))),
        (["default:IP=172.16.28.9"], NetworkChoice("contained", ("default",), ("IP=172.16.28.9",))),
        (["none"], NetworkChoice("none")),
        (["host"], NetworkChoice("host")),
        (["all"], NetworkChoice("contained", ("default", "other"), ("", ""))),
        (["other", "default"], NetworkChoice("contained", ("other", "default"), ("", ""))),
        (["other:A=1;B=2,default"], NetworkChoice("contained", ("other", "default"), ("A=1;B=2", ""))),
        (["all,other:A=1"], NetworkChoice("contained", ("default", "other"), ("", "A=1"))),
    ],
)
def test_net_flags_are_read_as_rkt_reads_them(values: list[str], expected: NetworkChoice) -> None:
    assert network.parse(values, known=("default", "other")) == expected


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (["host:IP=1.2.3.4"], UsageError, 'arguments are not supported by special netname "host"'),
        (["none:"], UsageError, 'arguments are not supported by special netname "none"'),
        (["all:A=1"], UsageError, 'arguments are not supported by special netname "all"'),
        (["default,default"], UsageError, 'found duplicate netname "default"'),
        (["default", "default"], UsageError, 'found duplicate netname "default"'),
        (["default,"], UsageError, "netname must not be empty"),
        (["default:A=1:B=2"], UsageError, 'network "default" provided with invalid arguments: "A=1:B=2"'),
        (["host,default"], UsageError, 'netname "host" cannot be combined with "default"'),
        (["none", "host"], UsageError, 'netname "none" cannot be combined with "host"'),
        (["all,host"], UsageError, 'netname "host" cannot be combined with "all"'),
        (["lan"], NetworkError, 'there is no network "lan"'),
        (["default,../etc"], NetworkError, 'there is no network "../etc"'),
    ],
)
def test_net_flags_against_the_rules_are_refused(
    values: list[str], error: type[RktError], message: str
) -> None:
    with pytest.raises(error) as raised:
        network.parse(values)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["none", "host"])
def test_none_and_host_change_nothing(name: str, tmp_path: Path) -> None:
    paths = Paths(data=str(tmp_path / "data"), run=str(tmp_path / "run"))
    assert network.setup(paths, UUID, network.parse([name]), -1) == ()
    network.teardown(paths, UUID)
    assert list(tmp_path.iterdir()) == []


def test_ports_are_refused_while_they_cannot_be_forwarded(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="8080"):
        network.setup(Paths(run=str(tmp_path)), UUID, network.parse([]), -1, ports=["8080"])


INFO = NetInfo("default", "", "bridge", "eth0", "172.16.28.2", "", "255.255.255.0")
TEXT = (
    '[{"netName":"default","netConf":"","pluginPath":"bridge","ifName":"eth0","ip":"172.16.28.2",'
    '"args":"","mask":"255.255.255.0"}]\n'
)


def test_net_info_has_the_shape_of_rkts() -> None:
    assert network.to_json([INFO]) == TEXT
    assert network.from_json(TEXT.encode()) == (INFO,)
    assert network.from_json(network.to_json([]).encode()) == ()
    assert INFO.summary == "default:ip4=172.16.28.2"


def test_net_info_of_rkt_is_read() -> None:
    # As rkt 1.30 writes it: without a plugin path, and with a key of its own.
    text = (
        b'[{"netName":"default","netConf":"net/99-default.conf","ifName":"eth0","ip":"172.16.28.2",'
        b'"args":"","mask":"255.255.255.0","dns":{}}]'
    )
    assert network.from_json(text) == (
        NetInfo("default", "net/99-default.conf", "", "eth0", "172.16.28.2", "", "255.255.255.0"),
    )


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"null", b'[{"ip":', b"[" * 100_000])
def test_net_info_that_is_none_is_refused_in_a_sentence(text: bytes) -> None:
    with pytest.raises(RktError, match=r"net-info\.json"):
        network.from_json(text)


def test_a_pod_is_running_while_its_directory_is_locked(tmp_path: Path) -> None:
    paths = Paths(data=str(tmp_path))
    assert not is_running(paths.data, UUID)
    os.makedirs(paths.pod("run", UUID))
    assert not is_running(paths.data, UUID)
    fd = os.open(paths.pod("run", UUID), os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert is_running(paths.data, UUID)
    os.close(fd)
    assert not is_running(paths.data, UUID)


# `os` with what it needs, and C modules that are a millisecond together.
ALLOWED = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc"} | {
    "__future__",
    "_json",
    "_socket",
}


def test_choosing_and_leaving_no_network_import_nothing_that_costs() -> None:
    program = (
        "import sys; sys.path.insert(0, '.'); before = set(sys.modules)\n"
        "from rkt_py.runtime import network\n"
        "from rkt_py.runtime.network import dns\n"
        "from rkt_py.runtime.paths import Paths\n"
        "paths = Paths(run='/nonexistent')\n"
        "network.setup(paths, 'u', network.parse(['none']), -1); network.teardown(paths, 'u')\n"
        "network.parse([]); network.from_json(network.to_json([]).encode())\n"
        "dns.resolv_conf(); dns.resolv_conf(['1.1.1.1']); dns.hosts(['::1=a'], hostname='h')\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    imported = set(run.stdout.split())
    assert {name for name in imported if not name.startswith("rkt_py")} <= ALLOWED
    assert "rkt_py.runtime.network.attachment" not in imported
