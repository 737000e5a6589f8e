"""Attachments: the networks of a pod, joined and left as one.

    /run/rkt-py/networks/       locked (flock) by who changes anything of this, or of the host
        .pods/UUID              what to undo for a pod: written before anything is done
        .forwarding             what to put back when the last pod has left (forwarding.py)
        NAME/                   leases (ipam.py)

Whatever a process was doing when it was killed, `teardown` finds it in the record.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from rkt_py.runtime.errors import NetworkError
from rkt_py.runtime.network import NetInfo, NetworkChoice, conf, forwarding, ipam, netlink, record
from rkt_py.runtime.network.bridge import Bridge
from rkt_py.runtime.network.conf import NetConf
from rkt_py.runtime.paths import Paths


class Network(Protocol):
    """A way of making a network: one class a `type` of configuration."""

    conf: NetConf

    def attach(self, uuid: str, ifname: str, netns_fd: int, args: str) -> str:
        """Give a pod the interface `ifname`, and return its address; on failure `detach` is called."""
        ...

    def detach(self, uuid: str, ifname: str, ip: str) -> None:
        """Undo `attach`, however far it came (`ip` is "" if it did not return) and however often."""
        ...


_NEW = ".new"
_TYPES: dict[str, Callable[[NetConf, str], Network]] = {"bridge": Bridge}


@dataclass(frozen=True)
class Attachment:
    """A pod on a network, with the configuration of that day."""

    conf: NetConf
    ifname: str
    args: str
    ip: str = ""


@dataclass(frozen=True)
class Record:
    """What a pod has joined, and where the pod is: installations share the host's networks."""

    data: str
    attachments: tuple[Attachment, ...]


def setup(paths: Paths, uuid: str, choice: NetworkChoice, netns_fd: int) -> tuple[NetInfo, ...]:
    """Join the networks of a choice: all, or none."""
    wanted = tuple(
        Attachment(conf.find(name), f"eth{number}", args)
        for number, (name, args) in enumerate(zip(choice.names, choice.args, strict=True))
    )
    return netlink.apart(lambda: _setup(paths, uuid, wanted, netns_fd))


def teardown(paths: Paths, uuid: str) -> None:
    """Leave the networks on a pod's record, if it has one."""

    def work() -> None:
        with _locked(paths):
            _leave(paths, uuid)

    netlink.apart(work)


def is_running(data: str, uuid: str) -> bool:
    """Tell whether somebody holds the lock of a pod under a data directory."""
    try:
        fd = os.open(Paths(data=data).pod("run", uuid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the pod.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _setup(paths: Paths, uuid: str, wanted: tuple[Attachment, ...], netns_fd: int) -> tuple[NetInfo, ...]:
    data = os.path.abspath(paths.data)
    with _locked(paths), ExitStack() as undo:
        undo.callback(_leave, paths, uuid)
        _write_record(paths, uuid, Record(data, wanted))
        try:
            joined = _join(paths, uuid, wanted, netns_fd)
        except ipam.SubnetFull:
            _leave_dead(paths, uuid)
            joined = _join(paths, uuid, wanted, netns_fd)
        _write_record(paths, uuid, Record(data, joined))
        undo.pop_all()
    return tuple(_info(attachment) for attachment in joined)


def _join(paths: Paths, uuid: str, wanted: tuple[Attachment, ...], netns_fd: int) -> tuple[Attachment, ...]:
    joined: list[Attachment] = []
    with ExitStack() as undo:
        for item in wanted:
            network = _network(paths, item.conf)
            undo.callback(network.detach, uuid, item.ifname, "")
            ip = network.attach(uuid, item.ifname, netns_fd, item.args)
            joined.append(Attachment(item.conf, item.ifname, item.args, ip))
        undo.pop_all()
    return tuple(joined)


def _leave(paths: Paths, uuid: str) -> None:
    """Undo a record, the last attachment first, each whatever becomes of the others.

    The record goes when all of it is undone; until then, whoever comes next tries again.
    """
    with ExitStack() as undo:
        for item in _read_record(paths, uuid).attachments:
            undo.callback(_network(paths, item.conf).detach, uuid, item.ifname, item.ip)
    last = set(os.listdir(_records(paths))) <= {uuid}
    if last:
        forwarding.restore(paths.networks)
    with suppress(FileNotFoundError):
        os.unlink(record(paths, uuid))
    if last:
        _remove_directories(paths)


def _remove_directories(paths: Paths) -> None:
    with suppress(FileNotFoundError):
        os.unlink(f"{paths.networks}/{_NEW}")
    os.rmdir(_records(paths))
    # What somebody else has put under /run/rkt-py stays.
    with suppress(OSError):
        os.rmdir(paths.networks)
        os.rmdir(paths.run)


def _leave_dead(paths: Paths, uuid: str) -> None:
    """Undo the records of pods that have ended: nobody collected them yet, but their addresses are due."""
    for other in os.listdir(_records(paths)):
        if other != uuid and not is_running(_read_record(paths, other).data, other):
            _leave(paths, other)


def _network(paths: Paths, conf: NetConf) -> Network:
    try:
        return _TYPES[conf.type](conf, paths.networks)
    except KeyError:
        raise NetworkError(f'network "{conf.name}" is of the unknown type "{conf.type}"') from None


def _info(item: Attachment) -> NetInfo:
    mask = str(item.conf.network.netmask)
    return NetInfo(item.conf.name, "", item.conf.type, item.ifname, item.ip, item.args, mask)


@contextmanager
def _locked(paths: Paths) -> Iterator[None]:
    """Hold the lock of all networks; what the files and the host refuse becomes a sentence."""
    try:
        fd = _lock(paths)
        try:
            yield
        finally:
            os.close(fd)
    except OSError as error:
        raise NetworkError(f"cannot change the host's networks: {error}") from error


def _lock(paths: Paths) -> int:
    while True:
        # The last pod to leave takes the directories along, maybe between any two of these lines.
        with suppress(FileNotFoundError):
            os.makedirs(paths.networks, 0o755, exist_ok=True)
            fd = os.open(paths.networks, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(fd), os.stat(paths.networks)):
                    os.makedirs(_records(paths), 0o755, exist_ok=True)
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)


def _records(paths: Paths) -> str:
    return os.path.dirname(record(paths, ""))


def _write_record(paths: Paths, uuid: str, content: Record) -> None:
    temporary = f"{paths.networks}/{_NEW}"
    with open(temporary, "w") as file:
        json.dump(asdict(content), file)
    os.rename(temporary, record(paths, uuid))


def _read_record(paths: Paths, uuid: str) -> Record:
    try:
        with open(record(paths, uuid)) as file:
            content = json.load(file)
        attachments = [
            Attachment(**{**item, "conf": NetConf(**item["conf"])}) for item in content["attachments"]
        ]
        return Record(content["data"], tuple(attachments))
    except FileNotFoundError:
        return Record("", ())
    except (ValueError, TypeError, KeyError) as error:
        raise NetworkError(f"{record(paths, uuid)} is not a record of networks: {error}") from None
