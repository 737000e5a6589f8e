"""The default network, in the kernel.

Every test runs in a child process with a network namespace of its own as its host, and there in
namespaces below it as pods: this machine's interfaces and rules are never touched.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import functools
import inspect
import os
import signal
import socket
import subprocess
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import pytest

from rkt_py.runtime import network
from rkt_py.runtime.errors import NetworkError
from rkt_py.runtime.network import NetInfo, forwarding, masquerade, netlink
from rkt_py.runtime.network.netlink import Netlink
from rkt_py.runtime.paths import Paths

pytestmark = pytest.mark.root

P = ParamSpec("P")

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
GATEWAY = "172.16.28.1"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_libc = ctypes.CDLL(None, use_errno=True)


# The laboratory


def in_own_host(test: Callable[Concatenate[Lab, P], None]) -> Callable[..., None]:
    """Run a test in a child with its own network, and demand that it leaves that as it found it."""

    def body(tmp_path: Path, *args: P.args, **named: P.kwargs) -> None:
        check(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
        check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        command("ip", "link", "set", "lo", "up")
        with Lab(tmp_path) as lab:
            test(lab, *args, **named)

    @functools.wraps(test)
    def run(tmp_path: Path, *args: P.args, **named: P.kwargs) -> None:
        status, output = in_child(lambda: body(tmp_path, *args, **named))
        if status:
            pytest.fail(output, pytrace=False)

    # For pytest, which passes arguments by their names.
    signature = inspect.signature(test)
    others = [parameter for name, parameter in signature.parameters.items() if name != "lab"]
    own = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Path)
    run.__signature__ = signature.replace(parameters=[own, *others])  # type: ignore[attr-defined]
    return run


def in_child(work: Callable[[], object]) -> tuple[int, str]:
    """Run `work` in a fork; return its wait status and what it raised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            signal.alarm(60)
            work()
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, errors="replace") as output:
        text = output.read()
    return os.waitpid(pid, 0)[1], text


def check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def command(*args: str) -> str:
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout


def new_namespace() -> int:
    """Make a network namespace that lives as long as the descriptor returned."""

    def make() -> int:
        check(_libc.unshare(CLONE_NEWNET))
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        command("ip", "link", "set", "lo", "up")
        return fd

    return netlink.apart(make)


class Pod:
    """A namespace, and the directory and lock that tell that a pod runs."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.uuid = str(uuid.uuid4())
        self.netns = new_namespace()
        os.makedirs(paths.pod("run", self.uuid))
        self.lock = os.open(paths.pod("run", self.uuid), os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def end(self) -> None:
        for fd in (self.netns, self.lock):
            os.close(fd)

    def setup(self, *values: str) -> NetInfo:
        (info,) = network.setup(self.paths, self.uuid, network.parse(values), self.netns)
        return info

    def teardown(self) -> None:
        network.teardown(self.paths, self.uuid)

    def command(self, *args: str) -> str:
        return netlink.apart(lambda: command(*args), self.netns)

    def socket(self) -> socket.socket:
        return udp(self.netns)


class Lab:
    """A host with what a test made on it; leaving it compares the host with how it was."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(data=str(directory / "data"), run=str(directory / "run"))
        self.before = observe(self.paths)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.check_clean()

    def check_clean(self) -> None:
        assert observe(self.paths) == self.before

    def pod(self) -> Pod:
        return Pod(self.paths)


def observe(paths: Paths) -> dict[str, str]:
    """Return all that a network may have changed."""
    observed = {
        "links": command("ip", "-details", "link"),
        "addresses": command("ip", "address"),
        "routes": command("ip", "route", "show", "table", "all"),
        "rules": command("nft", "list", "ruleset"),
        "run": str(sorted(str(path) for path in Path(paths.run).glob("**/*"))),
    }
    for path in sorted(Path("/proc/sys/net/ipv4").glob("**/*")):
        if path.name in ("ip_forward", "forwarding", "accept_redirects", "route_localnet", "rp_filter"):
            observed[str(path)] = path.read_text()
    return observed


def udp(netns: int, address: str = "0.0.0.0") -> socket.socket:
    """Open a UDP socket in a namespace (-1: this one); it stays there."""

    def open_it() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, 0))
        opened.settimeout(5)
        return opened

    return netlink.apart(open_it, netns)


def seen_source(sender: socket.socket, receiver: socket.socket, address: str) -> str:
    """Send a packet and its answer; return the address the receiver saw."""
    sender.sendto(b"ping", (address, receiver.getsockname()[1]))
    data, source = receiver.recvfrom(100)
    assert data == b"ping"
    receiver.sendto(b"pong", source)
    assert sender.recvfrom(100)[0] == b"pong"
    return str(source[0])


def outside() -> int:
    """Make a machine 198.51.100.9 on a wire to the host, 198.51.100.1; it has no route to pods."""
    netns = new_namespace()
    command("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire1")
    command("ip", "address", "add", "198.51.100.1/24", "dev", "wire")
    command("ip", "link", "set", "wire", "up")

    def configure() -> None:
        command("ip", "address", "add", "198.51.100.9/24", "dev", "wire1")
        command("ip", "link", "set", "wire1", "up")

    command("ip", "link", "set", "wire1", "netns", f"/proc/{os.getpid()}/fd/{netns}")
    netlink.apart(configure, netns)
    return netns


def neighbours(pods: list[tuple[Pod, NetInfo]]) -> None:
    """Check that each pod reaches the next one, the last the first, with its own address."""
    sockets = [pod.socket() for pod, _ in pods]
    with ExitStack() as stack:
        for opened in sockets:
            stack.enter_context(opened)
        for at, (_, info) in enumerate(pods):
            to = (at + 1) % len(pods)
            assert seen_source(sockets[at], sockets[to], pods[to][1].ip) == info.ip


# What a pod has


@in_own_host
def test_a_pod_gets_an_address_a_route_and_a_gateway(lab: Lab) -> None:
    pod = lab.pod()
    info = pod.setup("default")
    assert info == NetInfo("default", "", "bridge", "eth0", "172.16.28.2", "", "255.255.255.0")
    assert "inet 172.16.28.2/24 scope global eth0" in pod.command("ip", "address", "show", "eth0")
    assert "default via 172.16.28.1 dev eth0" in pod.command("ip", "route")
    assert "172.16.28.0/24 dev eth0" in pod.command("ip", "route")
    with pod.socket() as inner, udp(-1) as outer:
        assert seen_source(inner, outer, GATEWAY) == "172.16.28.2"
        assert seen_source(outer, inner, info.ip) == GATEWAY
    pod.teardown()


@in_own_host
def test_the_hosts_end_is_named_after_the_pod_and_nobody_on_the_bridge_speaks_ipv6(lab: Lab) -> None:
    pod = lab.pod()
    pod.setup()
    assert f"rkt{pod.uuid.replace('-', '')[:9]}-0" in command("ip", "link", "show", "master", "rktpy0")
    assert "inet6" not in command("ip", "address", "show", "rktpy0")
    assert "inet6" not in pod.command("ip", "address", "show", "eth0")
    pod.teardown()


@in_own_host
def test_a_pod_gets_the_address_it_asks_for(lab: Lab) -> None:
    pod, second = lab.pod(), lab.pod()
    info = pod.setup("default:IP=172.16.28.77")
    assert (info.ip, info.args) == ("172.16.28.77", "IP=172.16.28.77")
    for args, message in (
        ("IP=172.16.28.77", f"172.16.28.77 belongs to pod {pod.uuid}"),
        ("IP=192.0.2.1", "192.0.2.1 is not an address for a pod"),
        ("COLOUR=red", 'knows the argument IP=ADDRESS, and not "COLOUR=red"'),
        ("IP", 'and not "IP"'),
    ):
        with pytest.raises(NetworkError) as raised:
            second.setup(f"default:{args}")
        assert message in str(raised.value)
    neighbours([(pod, info), (second, second.setup())])
    pod.teardown()
    second.teardown()


@in_own_host
def test_what_leaves_the_host_has_the_hosts_address_and_nothing_else_has(lab: Lab) -> None:
    # Seen from a machine which knows no route to pods: without masquerading no answer comes back.
    pods = [lab.pod(), lab.pod()]
    infos = [pod.setup() for pod in pods]
    peer = outside()
    with pods[0].socket() as inner, udp(peer) as far, udp(-1) as host:
        assert seen_source(inner, far, "198.51.100.9") == "198.51.100.1"
        assert seen_source(inner, host, "198.51.100.1") == infos[0].ip
    neighbours(list(zip(pods, infos)))
    assert command("nft", "list", "ruleset").split("\n") == [
        "table ip rkt-py {",
        "\tchain masquerade-default {",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        '\t\tip saddr 172.16.28.0/24 oifname != "rktpy0" masquerade',
        "\t}",
        "}",
        "",
    ]
    for pod in pods:
        pod.teardown()
    command("ip", "link", "delete", "wire")


# The host before and after


@in_own_host
def test_forwarding_is_put_back_with_all_that_it_overwrites(lab: Lab) -> None:
    command("ip", "link", "add", "wan", "type", "bridge")
    conf = Path("/proc/sys/net/ipv4/conf")
    FORWARD.write_text("0")
    for path, value in {
        "all/accept_redirects": "0",
        "wan/forwarding": "1",
        "default/forwarding": "1",
        "lo/forwarding": "0",
    }.items():
        (conf / path).write_text(value)
    before = observe(lab.paths)
    first, second = lab.pod(), lab.pod()
    first.setup()
    second.setup()
    assert FORWARD.read_text() == "1\n"
    first.teardown()
    assert FORWARD.read_text() == "1\n"
    second.teardown()
    assert observe(lab.paths) == before
    lab.before = before


@in_own_host
def test_forwarding_that_was_on_stays_on(lab: Lab) -> None:
    FORWARD.write_text("1")
    lab.before = observe(lab.paths)
    pod = lab.pod()
    pod.setup()
    pod.teardown()
    assert FORWARD.read_text() == "1\n"


@in_own_host
def test_tables_of_others_stay_and_ours_comes_back_after_a_flush(lab: Lab) -> None:
    pods = [lab.pod(), lab.pod()]
    pods[0].setup()
    ours = command("nft", "list", "ruleset")
    command("nft", "flush", "ruleset")
    command("nft", "add table ip theirs; add chain ip theirs forward")
    theirs = command("nft", "list", "ruleset")
    pods[1].setup()
    assert command("nft", "list", "ruleset") == theirs + ours
    for pod in pods:
        pod.teardown()
    assert command("nft", "list", "ruleset") == theirs
    command("nft", "flush", "ruleset")


@in_own_host
def test_teardown_may_come_often_late_or_for_nothing(lab: Lab) -> None:
    pod = lab.pod()
    pod.teardown()
    pod.setup()
    pod.end()  # the kernel takes the interfaces away, at a time of its own
    for _ in range(3):
        pod.teardown()
        lab.check_clean()


@in_own_host
def test_an_interface_deleted_by_hand_is_no_matter(lab: Lab) -> None:
    pod, second = lab.pod(), lab.pod()
    pod.setup()
    command("ip", "link", "delete", "rktpy0")
    info = second.setup()  # with a bridge again
    with second.socket() as inner, udp(-1) as outer:
        assert seen_source(inner, outer, GATEWAY) == info.ip
    command("ip", "link", "delete", "rktpy0")
    second.teardown()
    pod.teardown()


CLASHES = {
    "bridge": ([["link", "add", "rktpy0", "type", "bridge"]], "the name rktpy0"),
    "veth": ([["link", "add", "rktpy0", "type", "veth"]], "the name rktpy0"),
    "route": (
        [
            ["link", "add", "lan", "type", "veth"],
            ["link", "set", "lan", "up"],
            ["route", "add", "172.16.0.0/16", "dev", "lan"],
        ],
        "needs 172.16.28.0/24, but the host already has a route to 172.16.0.0/16 by lan",
    ),
    "address": (
        [
            ["link", "add", "lan", "type", "veth"],
            ["address", "add", "172.16.28.9/32", "dev", "lan"],
        ],
        "needs 172.16.28.0/24, but the host already has the address 172.16.28.9/32",
    ),
}


@pytest.mark.parametrize("name", CLASHES)
@in_own_host
def test_a_host_that_has_the_name_or_the_subnet_is_left_alone(lab: Lab, name: str) -> None:
    commands, message = CLASHES[name]
    for args in commands:
        command("ip", *args)
    lab.before = observe(lab.paths)
    pod = lab.pod()
    with pytest.raises(NetworkError) as raised:
        pod.setup()
    assert message in str(raised.value)
    lab.check_clean()
    pod.teardown()


@in_own_host
def test_a_full_subnet_takes_the_addresses_of_the_dead_but_not_of_the_living(lab: Lab) -> None:
    dead, living = lab.pod(), lab.pod()
    dead_info, living_info = dead.setup(), living.setup()
    leases = Path(lab.paths.networks, "default")
    for last in range(2, 255):
        if f"172.16.28.{last}" not in (dead_info.ip, living_info.ip):
            (leases / f"172.16.28.{last}").write_text(f"{living.uuid}\n")
    late = lab.pod()
    with pytest.raises(NetworkError, match=r"no address is free in 172\.16\.28\.0/24"):
        late.setup()
    # Another installation's pods count by their own directory.
    other = Pod(Paths(data=f"{lab.paths.data}-other", run=lab.paths.run))
    with pytest.raises(NetworkError, match="no address is free"):
        other.setup()
    dead.end()
    info = other.setup()
    assert info.ip == dead_info.ip
    neighbours([(living, living_info), (other, info)])
    for path in leases.glob("172.16.28.*"):
        if path.name not in (info.ip, living_info.ip):
            path.unlink()
    for pod in (other, living, dead, late):
        pod.teardown()


# Many at once


@in_own_host
def test_twenty_pods_at_once_in_processes(lab: Lab) -> None:
    pods = [lab.pod() for _ in range(20)]
    in_parallel([pod.setup for pod in pods])
    infos = [info_of(pod) for pod in pods]
    assert len({info.ip for info in infos}) == 20
    neighbours(list(zip(pods, infos)))
    # Half of them leave while others come.
    late = [lab.pod() for _ in range(5)]
    in_parallel([*(pod.teardown for pod in pods[:10]), *(pod.setup for pod in late)])
    staying = pods[10:] + late
    neighbours([(pod, info_of(pod)) for pod in staying])
    in_parallel([pod.teardown for pod in staying])


@in_own_host
def test_pods_at_once_in_threads_of_one_process(lab: Lab) -> None:
    pods = [lab.pod() for _ in range(6)]
    found: dict[str, NetInfo] = {}
    failures: list[BaseException] = []

    def work(pod: Pod) -> None:
        try:
            found[pod.uuid] = pod.setup()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(pod,)) for pod in pods]
    namespace = os.stat("/proc/self/ns/net").st_ino
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert os.stat("/proc/self/ns/net").st_ino == namespace
    neighbours([(pod, found[pod.uuid]) for pod in pods])
    for pod in pods:
        pod.teardown()


@in_own_host
def test_a_caller_with_an_event_loop_is_served(lab: Lab) -> None:
    pod = lab.pod()

    async def main() -> NetInfo:
        return pod.setup()

    assert asyncio.run(main()).ip == "172.16.28.2"
    pod.teardown()


@in_own_host
def test_who_waited_for_a_lock_that_went_with_its_directory_waits_for_the_new_one(lab: Lab) -> None:
    directory = Path(lab.paths.networks)
    directory.mkdir(parents=True)
    old = locked(directory)
    pod = lab.pod()
    results: list[tuple[int, str]] = []
    setup = threading.Thread(target=lambda: results.append(in_child(pod.setup)))
    setup.start()
    wait_for_waiter(directory, setup)
    directory.rename(directory.with_name("gone"))  # what the last pod to leave does, but for the name
    directory.mkdir()
    new = locked(directory)
    fcntl.flock(old, fcntl.LOCK_UN)  # not close(): the child has the descriptor too
    wait_for_waiter(directory, setup)
    assert "rktpy0" not in command("ip", "link")
    fcntl.flock(new, fcntl.LOCK_UN)
    setup.join()
    assert results == [(0, "")]
    pod.teardown()
    directory.with_name("gone").rmdir()
    directory.parent.rmdir()


def locked(directory: Path) -> int:
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def wait_for_waiter(directory: Path, thread: threading.Thread) -> None:
    """Wait until /proc/locks shows that somebody waits for a directory."""
    inode = f":{directory.stat().st_ino} "
    deadline = time.monotonic() + 10
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert thread.is_alive(), "it did not wait"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def in_parallel(work: list[Callable[[], object]]) -> None:
    """Run each in a process of its own."""
    results: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda one=one: results.append(in_child(one))) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [output for status, output in results if status] == []


def info_of(pod: Pod) -> NetInfo:
    """Read from the pod itself what it got: another process set it up."""
    (line,) = (line for line in pod.command("ip", "-oneline", "-4", "address").splitlines() if "eth0" in line)
    ip = line.split()[3].partition("/")[0]
    return NetInfo("default", "", "bridge", "eth0", ip, "", "255.255.255.0")


# Failing, and being killed, at every step

# Whatever setup and teardown do to the host or to files goes through one of these.
STEPS: list[tuple[Any, str]] = [
    (os, "rename"),
    (os, "unlink"),
    (os, "rmdir"),
    (Netlink, "add_bridge"),
    (Netlink, "add_veth"),
    (Netlink, "add_address"),
    (Netlink, "set_up"),
    (Netlink, "add_default_route"),
    (Netlink, "delete"),
    (masquerade, "_transaction"),
    (forwarding, "_write"),
]


@contextmanager
def stopping(at: int, how: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Do `how` instead of the step number `at`; yields how to ask for the steps done."""
    count = 0
    originals = [(owner, name, getattr(owner, name)) for owner, name in STEPS]

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                how()
            return original(*args, **named)

        return step

    try:
        for owner, name, original in originals:
            setattr(owner, name, counted(original))
        yield lambda: count
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@in_own_host
def test_setup_that_fails_at_any_step_leaves_nothing(lab: Lab) -> None:
    failed = 0
    for at in range(1, 100):
        pod = lab.pod()
        with stopping(at, fail) as steps:
            try:
                pod.setup()
            except NetworkError as error:
                assert "No space left on device" in str(error)
                assert steps() >= at
                failed += 1
        if failed < at:
            pod.teardown()
            break
        lab.check_clean()
        pod.end()
    assert 10 < failed < 99, "the steps are not counted"


@in_own_host
def test_setup_killed_at_any_step_harms_nobody_and_is_undone(lab: Lab) -> None:
    survived = False
    for at in range(1, 100):
        pod, next_pod = lab.pod(), lab.pod()
        survived = not killed_at(at, pod.setup)
        if survived:
            pod.teardown()
            assert at > 10
            break
        info = next_pod.setup()
        with next_pod.socket() as inner, udp(-1) as outer:
            assert seen_source(inner, outer, GATEWAY) == info.ip
        next_pod.teardown()
        pod.teardown()
        lab.check_clean()
        pod.end()
        next_pod.end()
    assert survived


@in_own_host
def test_teardown_killed_at_any_step_is_finished_by_the_next(lab: Lab) -> None:
    survived = False
    for at in range(1, 100):
        pod = lab.pod()
        pod.setup()
        survived = not killed_at(at, pod.teardown)
        pod.teardown()
        if survived:
            assert at > 5
            break
        # Killed when its record was gone already, it leaves directories to the end of the next pod.
        assert {**observe(lab.paths), "run": ""} == {**lab.before, "run": ""}
        next_pod = lab.pod()
        next_pod.setup()
        next_pod.teardown()
        lab.check_clean()
        pod.end()
        next_pod.end()
    assert survived


def killed_at(at: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that is killed at a step; False if it ended before that."""

    def child() -> None:
        with stopping(at, die):
            work()

    status, output = in_child(child)
    assert status in (0, signal.SIGKILL), output
    return status != 0
