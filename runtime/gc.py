"""Garbage collection: pods that ended to nothing.

First what ended is marked, by a rename; what was marked long enough ago goes: its cgroups, its networks,
its directory, in this order, so that what says what to undo outlives the undoing. A kill at any point
leaves a pod that the next collection goes on with; two at once share the pods between them by locks.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator

from rkt_py.aci.errors import RktError
from rkt_py.runtime import network
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.imagestore import ImageStore
from rkt_py.runtime.paths import Paths
from rkt_py.runtime.pod import EMBRYO, EXITED_GARBAGE, GARBAGE, PREPARE, PREPARED, RUN, Pod, walk
from rkt_py.runtime.remove import remove_tree

Teardown = Callable[[Paths, str], None]
Report = Callable[[str], None]

_OURS = "rkt-py"  # the directory every cgroup of ours is below
_PATIENCE = 1.0  # seconds that the processes of a pod may still need to leave its cgroups


def collect(
    paths: Paths,
    *,
    grace_period: float,
    expire_prepared: float,
    report: Report,
    mark_only: bool = False,
    teardown: Teardown = network.teardown,
) -> None:
    """Mark the pods that ended; remove those marked for `grace_period` seconds and what nobody finished."""
    _mark(paths, report)
    if mark_only:
        return
    for pod in _taken(paths, PREPARED, older_than=expire_prepared):
        report(f'moving expired prepared pod "{pod.uuid}" to garbage')
        _unless_lost(pod.to_garbage)
    _empty(paths, EXITED_GARBAGE, grace_period, report, teardown)
    _empty(paths, GARBAGE, 0, report, teardown)
    for name in ImageStore(paths).sweep():
        report(f'removed "{name}", which nobody finished')


def remove(pod: Pod, *, teardown: Teardown = network.teardown) -> None:
    """Remove a pod that is not running, grace period or not; nobody else may be at it."""
    if not _lock(pod):
        return
    if pod.directory == RUN:
        pod.to_exited_garbage()
    elif pod.directory in (EMBRYO, PREPARE, PREPARED):
        pod.to_garbage()
    _delete(pod, teardown)


def _lock(pod: Pod) -> bool:
    """Take the pod's lock; False when the pod is gone."""
    refused = {
        "embryo": "being prepared",
        "preparing": "being prepared",
        "running": "running",
        "deleting": "being deleted",
        "exited deleting": "being deleted",
    }
    end = time.monotonic() + _PATIENCE
    while not pod.lock():
        state = pod.state
        # Who asks for a state holds the lock for a moment, so only the second look counts.
        if time.monotonic() > end or state == "running":
            raise PodError(f'pod "{pod.uuid}" is currently {refused.get(state, "in use")}')
        if not os.path.isdir(pod.path):
            return False
        time.sleep(0.01)
    return True


def _mark(paths: Paths, report: Report) -> None:
    for pod in _taken(paths, RUN):
        report(f'moving pod "{pod.uuid}" to garbage')
        _unless_lost(pod.to_exited_garbage)
    for directory in (EMBRYO, PREPARE):
        for pod in _taken(paths, directory):
            report(f'moving failed prepare "{pod.uuid}" to garbage')
            _unless_lost(pod.to_garbage)


def _empty(paths: Paths, directory: str, grace_period: float, report: Report, teardown: Teardown) -> None:
    """Delete what is old enough."""
    for pod in walk(paths, (directory,)):
        if grace_period > 0 and _age(pod) < grace_period:
            report(f'pod "{pod.uuid}" not removed: still within grace period ({_duration(grace_period)})')
        elif pod.lock():
            report(f'Garbage collecting pod "{pod.uuid}"')
            try:
                _delete(pod, teardown)
            except (OSError, RktError) as error:
                report(f'pod "{pod.uuid}" not removed: {error}')


def _delete(pod: Pod, teardown: Teardown) -> None:
    """Undo what a locked pod in the garbage left, and then delete it."""
    for path in _cgroups(pod):
        _remove_cgroup(path)
        _remove_parent(path, pod.paths)
    teardown(pod.paths, pod.uuid)
    if pod.directory == EXITED_GARBAGE:
        # From here on it is not a pod any more, whoever finds half of it.
        pod.to_garbage()
    dirfd = os.open(pod.paths.pods(pod.directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(dirfd, pod.uuid)
    finally:
        os.close(dirfd)


def _taken(paths: Paths, directory: str, *, older_than: float = 0) -> Iterator[Pod]:
    """Walk over the pods of a directory that nobody holds, holding each."""
    for pod in walk(paths, (directory,)):
        if (older_than <= 0 or _age(pod) >= older_than) and pod.lock():
            yield pod


def _unless_lost(move: Callable[[], None]) -> None:
    try:
        move()
    except PodError:
        pass  # somebody was faster


def _age(pod: Pod) -> float:
    """How long the pod has been where it is: a rename sets the ctime."""
    return time.time() - os.fstat(pod.lock_fd).st_ctime


def _cgroups(pod: Pod) -> list[str]:
    try:
        text = os.fsdecode(pod.read("subcgroup"))
    except (FileNotFoundError, PodError):
        return []
    return [line for line in text.splitlines() if _is_ours(line)]


def _is_ours(path: str) -> bool:
    first, *parts = path.split("/")
    return first == "" and not {"", ".", ".."} & set(parts) and _OURS in parts[:-1]


def _remove_cgroup(path: str) -> None:
    """Remove a cgroup and those below it; the files in them are the kernel's and go along."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            for directory, _, _ in os.walk(path, topdown=False):
                os.rmdir(directory)
            return
        except FileNotFoundError:
            pass  # somebody else is at it: look again at what is left
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _remove_parent(path: str, paths: Paths) -> None:
    """After the last pod, remove the directory that held the pods' cgroups.

    A pod that starts at this moment makes it again.
    """
    try:
        with os.scandir(paths.pods(RUN)) as running:
            if next(running, None) is not None:
                return
    except FileNotFoundError:
        pass
    try:
        os.rmdir(path[: path.rindex(f"/{_OURS}/") + len(_OURS) + 1])
    except OSError:
        pass  # others are still in it, maybe another installation's, or it is gone


def _duration(seconds: float) -> str:
    """Write seconds as Go does: 30m0s, 1h0m0s, 1.5s, 250ms."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
