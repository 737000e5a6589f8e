"""Pods of a command line: UUIDs or their beginnings, or a file that holds one."""

from __future__ import annotations

from rkt_py.runtime import pod as pods
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.pod import Pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


def pods_of(invocation: Invocation, report: Callable[[str], None]) -> Iterator[Pod | None]:
    """Open the pods of a command line one by one: None for one that cannot be found, which is reported."""
    for uuid in uuids_of(invocation):
        try:
            yield pods.find(invocation.paths, uuid)
        except PodError as error:
            report(f"cannot get pod: {error}")
            yield None
