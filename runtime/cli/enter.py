"""`rkt-py enter`."""

from __future__ import annotations

import os

from rkt_py.runtime import enter as entering
from rkt_py.runtime import pod as pods
from rkt_py.runtime import stage1
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.errors import PodError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt_py.runtime.cli.options import Invocation

DEFAULT = ("/bin/bash",)


def enter(invocation: Invocation) -> int:
    """Become the supervisor of one more process in a pod."""
    uuid, *argv = invocation.args
    with pods.find(invocation.paths, uuid) as pod:
        if pod.state != "running":
            raise PodError(f'pod "{pod.uuid}" isn\'t currently running')
        manifest = pod.manifest()
        app = entering.choose_app(manifest, invocation.string("app"))
        pidfd = entering.target(pod, manifest, app)
        if not argv:
            complain(f'enter: no command specified, assuming "{DEFAULT[0]}"')
            argv = list(DEFAULT)
        plan = entering.make_plan(pod, app, argv, terminal=os.isatty(0))
        stage1.run(plan, pod_fd=-1, target_fd=pidfd)
    raise AssertionError("run() does not return")
