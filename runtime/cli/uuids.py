"""Pods of a command line: UUIDs or their beginnings, or a file that holds one."""

from __future__ import annotations

from rkt_py.aci.errors import RktError
from rkt_py.runtime import pod as pods
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.pod import Pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def uuids_of(invocation: Invocation) -> tuple[str, ...]:
    """Return the UUIDs given as arguments, or by --uuid-file."""
    path = invocation.answers.get("uuid-file")
    if not path:
        return invocation.args
    with open(str(path), encoding="utf-8", errors="replace") as file:
        text = file.read(4096).strip()
    if not text:
        raise PodError(f"{path} holds no UUID")
    return (text,)


def pod_of(invocation: Invocation) -> Pod:
    """Open the one pod of a command line."""
    return pods.find(invocation.paths, uuids_of(invocation)[0])


def each_pod(invocation: Invocation, act: Callable[[Pod], None], *, doing: str) -> int:
    """Do something to each pod of a command line and print its UUID; what fails does not keep the others.

    `doing` is the verb for the last word on it, "remove". Returns the exit code.
    """
    verb = invocation.command.path[-1]
    failed = False
    for uuid in uuids_of(invocation):
        try:
            pod = pods.find(invocation.paths, uuid)
        except PodError as error:
            complain(f"{verb}: cannot get pod: {error}")
            failed = True
            continue
        with pod:
            try:
                act(pod)
            except RktError as error:
                complain(f"{verb}: {error}")
                failed = True
                continue
        print(f'"{pod.uuid}"', flush=True)
    if failed:
        complain(f"{verb}: failed to {doing} one or more pods")
        return 254
    return 0
