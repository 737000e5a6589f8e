"""`rkt-py stop`."""

from __future__ import annotations

import os

from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.cli.uuids import each_pod
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.pod import Pod

SIGKILL, SIGTERM = 9, 15


def stop(invocation: Invocation) -> int:
    """Ask pods to end, or with --force end them; print the UUID of each."""
    force = invocation.flag("force")
    return each_pod(invocation, lambda pod: stop_pod(pod, force=force), doing="stop")


def stop_pod(pod: Pod, *, force: bool = False) -> None:
    """Signal a pod's pid 1, by a pidfd that is sure to be its own. Raises PodError."""
    if pod.state != "running":
        raise PodError(f'error stopping pod: pod "{pod.uuid}" is not running')
    pid = pod.pid
    if pid is None:
        raise PodError(f'error stopping pod: pod "{pod.uuid}" is only starting: try again')
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The pid was the pod's before we opened it, and it still is while the pod's lock is held.
        if pod.state == "running":
            import signal

            signal.pidfd_send_signal(pidfd, SIGKILL if force else SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
