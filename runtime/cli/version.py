"""`rkt-py version`."""

from __future__ import annotations

import os
import sys

import rkt_py
from rkt_py.aci.imagemanifest import AC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt_py.runtime.cli.options import Invocation


def version(_invocation: Invocation) -> int:
    """Print the versions of the program, of the appc spec and of Python."""
    machine = os.uname().machine
    python = sys.version_info
    print(f"rkt-py Version: {rkt_py.__version__}")
    print(f"appc Version: {AC_VERSION}")
    print(f"Python Version: {python.major}.{python.minor}.{python.micro}")
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    print(f"Python OS/Arch: {sys.platform}/{arch}")
    return 0
