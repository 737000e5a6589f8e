"""Builds `rkt_py.runtime._core` from rkt.h and core.c: `runtime/kernel.py` is the one that imports it."""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).parent


def declarations(header: str) -> str:
    """Return a header as cffi reads it: without include guards and #includes, whole in everything else."""
    guard = r"^[ \t]*#[ \t]*(?:include|ifndef|endif|pragma|define[ \t]+\w+[ \t]*$).*\n"
    return re.sub(guard, "", header, flags=re.MULTILINE)


ffi = FFI()
ffi.cdef(declarations((CSRC / "rkt.h").read_text()))
ffi.set_source(
    "rkt_py.runtime._core",
    '#include "rkt.h"',
    sources=["csrc/core.c"],
    include_dirs=["csrc"],
    depends=["csrc/rkt.h", "csrc/open_in_root.h"],
)
