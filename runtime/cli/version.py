"""`rkt-py version`."""

from __future__ import annotations

import platform
import sys

import rkt_py
from rkt_py.aci.imagemanifest import AC_VERSION
from rkt_py.runtime.cli.options import Invocation


def version(_invocation: Invocation) -> int:
    """Print the versions of the program, of the appc spec and of Python."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    print(f"rkt-py Version: {rkt_py.__version__}")
    print(f"appc Version: {AC_VERSION}")
    print(f"Python Version: {platform.python_version()}")
    print(f"Python OS/Arch: {sys.platform}/{machine}")
    return 0
