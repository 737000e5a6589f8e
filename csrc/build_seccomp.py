"""Builds `rkt_py.runtime._seccomp`: libseccomp, for `runtime/seccomp.py` when a filter is not cached."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

ffi = FFI()
ffi.cdef((Path(__file__).parent / "seccomp_core.h").read_text())
ffi.set_source(
    "rkt_py.runtime._seccomp",
    '#include <stdint.h>\n#include "seccomp_core.h"',
    sources=["csrc/seccomp_core.c"],
    include_dirs=["csrc"],
    depends=["csrc/seccomp_core.h"],
    libraries=["seccomp"],
)
