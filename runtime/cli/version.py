"""`rkt-py version`."""

from __future__ import annotations

import os
import sys

import rkt_py
from rkt_py.aci.imagemanifest import AC_VERSION
from rkt_py.runtime.cli.options import Invocation


def version(_invocation: Invocation) -> int:
    """Print the versions of the program, of the appc spec and of Python."""
    # `platform` would say it in fewer words, and imports `re`.
    machine = os.uname().machine
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    print(f"rkt-py Version: {rkt_py.__version__}")
    print(f"appc Version: {AC_VERSION}")
    print(f"Python Version: {'.'.join(map(str, sys.version_info[:3]))}")
    print(f"Python OS/Arch: {sys.platform}/{architecture}")
    return 0
