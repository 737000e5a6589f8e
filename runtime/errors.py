"""Errors of the runtime.

RktError
├── UsageError       the command line: unknown flag, missing argument, flags in conflict
├── StoreError       the image store: no such image, ambiguous prefix
├── PodError         a pod: none or several match, wrong state for the verb
├── PrepareError     a pod cannot be made from these images and options
├── PlanError        the pod manifest asks for what cannot be done: no such user, volume, file
├── NetworkError     a network cannot be set up
└── KernelError      a step of the C core failed: `.step`, `.errno`
"""

from __future__ import annotations

from rkt_py.aci.errors import RktError


class UsageError(RktError):
    """The command line cannot be understood. `command` is the path of the verb whose help may be shown."""

    def __init__(self, message: str, command: tuple[str, ...] = (), exit_code: int = 254) -> None:
        super().__init__(message)
        self.command = command
        self.exit_code = exit_code


class StoreError(RktError):
    """The image store has no such image, or several."""


class PodError(RktError):
    """No pod matches, several do, or the pod's state does not allow the verb."""


class PrepareError(RktError):
    """A pod cannot be prepared from these images and options."""


class PlanError(RktError):
    """The pod asks for what this image or host cannot give."""


class NetworkError(RktError):
    """A network cannot be set up or taken down."""


class KernelError(RktError):
    """A step of the C core failed."""

    def __init__(self, message: str, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno
