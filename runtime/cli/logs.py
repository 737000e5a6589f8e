"""`rkt-py logs`."""

from __future__ import annotations

import os
import sys

from rkt_py.runtime import log
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.cli.uuids import pod_of


def logs(invocation: Invocation) -> int:
    """Print what the apps of a pod wrote: their stdout to ours, their stderr to ours."""
    with pod_of(invocation) as pod:
        if invocation.flag("follow") and os.geteuid() == 0:
            from rkt_py.runtime import resident

            # As long as the pod lives, and what is read is an app's: its user is all this needs.
            resident.settle("rkt-py logs")
        for line in log.read(pod, invocation.string("app") or None, follow=invocation.flag("follow")):
            stream = sys.stderr if line.stream == "stderr" else sys.stdout
            text = line.text if line.partial else f"{line.text}\n"
            stream.buffer.write(text.encode("utf-8", "surrogateescape"))
            stream.buffer.flush()
    return 0
