"""Child processes of one step: a program that does one thing, and is waited for."""

from __future__ import annotations

import os

# Not from `signal`, whose import makes enums (docs/architecture.md, the hot path).
SIGKILL = 9


def end(pid: int) -> None:
    """Kill a child of ours, unless it was waited for: then its number may be another's."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
    except ChildProcessError:
        pass
