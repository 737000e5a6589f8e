"""The head of a filter's program: what libseccomp has no words for, decided before its part begins.

- Calls that are younger than libseccomp. All architectures number them alike, so one table is for all.
- "Any ioctl but these": conditions of libseccomp are on all 64 bits of an argument, the kernel looks at the
  lower 32, so that a condition "not TIOCSTI" lets TIOCSTI | 1 << 32 through (CVE-2019-10063).
"""

from __future__ import annotations

import struct
import sys

from rkt_py.aci.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# linux/bpf_common.h
_LD_W_ABS, _ALU_AND_K, _JA, _JEQ_K, _JGE_K, _RET_K = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06

# struct seccomp_data
_NR, _ARCH, _ARGUMENT_1 = 0, 4, 24 if sys.byteorder == "little" else 28

_X32_BIT = 0x40000000
_BODY = "body"

# asm-generic/ioctls.h: what is typed on a terminal, put there by a program (CVE-2017-5226).
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX


@value
class Architecture:
    """An architecture as a filter sees it: AUDIT_ARCH_..., and calls that are its own affair."""

    audit: int
    has_x32: bool = False
    ioctl: tuple[int, ...] = ()
    """Numbers of ioctl, where its request is to be looked at."""
    actions: tuple[tuple[int, int], ...] = ()
    """Numbers of calls, and what becomes of them."""


class _Assembler:
    """Instructions whose jumps are names of places further down."""

    def __init__(self) -> None:
        self.instructions: list[tuple[int, str, str, int]] = []
        self.places: dict[str, int] = {}

    def add(self, code: int, k: int = 0, *, true: str = "", false: str = "") -> None:
        """Append an instruction; a jump without a name goes to the next one."""
        self.instructions.append((code, true, false, k))

    def place(self, name: str) -> None:
        self.places[name] = len(self.instructions)

    def finish(self) -> bytes:
        self.place(_BODY)
        program = bytearray()
        for index, (code, true, false, k) in enumerate(self.instructions):
            jumps = [self.places[name] - index - 1 if name else 0 for name in (true, false)]
            if code == _JA:
                jumps, k = [0, 0], jumps[0]
            program += struct.pack("=HBBI", code, *jumps, k)
        return bytes(program)


def head(
    architectures: Sequence[Architecture], first: int, shared: Sequence[int | None], terminal: int | None
) -> bytes:
    """Return instructions to stand before a program, which goes on with it where they decide nothing.

    `shared` has what becomes of the calls numbered from `first` on everywhere, None for the program's word;
    `terminal` what becomes of the requests of ioctl that feed a terminal.
    """
    nothing_shared = not any(action is not None for action in shared)
    if nothing_shared and terminal is None and not any(item.actions for item in architectures):
        return b""
    assembler = _Assembler()
    actions: set[int] = set()

    def to(action: int | None) -> str:
        if action is None:
            return _BODY
        actions.add(action)
        return f"return {action:x}"

    assembler.add(_LD_W_ABS, _ARCH)
    for item in architectures:
        assembler.add(_JEQ_K, item.audit, true=f"architecture {item.audit:x}")
    assembler.add(_JA, true=_BODY)
    for item in architectures:
        assembler.place(f"architecture {item.audit:x}")
        assembler.add(_LD_W_ABS, _NR)
        for number in item.ioctl if terminal is not None else ():
            assembler.add(_JEQ_K, number, true="ioctl")
        for number, action in item.actions:
            assembler.add(_JEQ_K, number, true=to(action))
        if item.has_x32:
            assembler.add(_ALU_AND_K, ~_X32_BIT & 0xFFFFFFFF)
        assembler.add(_JGE_K, first + len(shared), true=_BODY)
        assembler.add(_JGE_K, first, true="shared", false=_BODY)
    assembler.place("shared")
    _tree(assembler, [(start, to(action)) for start, action in _runs(first, shared)])
    assembler.place("ioctl")
    assembler.add(_LD_W_ABS, _ARGUMENT_1)
    for request in TERMINAL_INPUT if terminal is not None else ():
        assembler.add(_JEQ_K, request, true=to(terminal))
    assembler.add(_JA, true=_BODY)
    for action in sorted(actions):
        assembler.place(f"return {action:x}")
        assembler.add(_RET_K, action)
    return assembler.finish()


def _runs(first: int, shared: Sequence[int | None]) -> list[tuple[int, int | None]]:
    """Return where stretches of calls begin that share one fate."""
    runs: list[tuple[int, int | None]] = []
    for number, action in enumerate(shared, first):
        if not runs or runs[-1][1] != action:
            runs.append((number, action))
    return runs


def _tree(assembler: _Assembler, runs: list[tuple[int, str]]) -> None:
    if len(runs) == 1:
        assembler.add(_JA, true=runs[0][1])
        return
    middle = len(runs) // 2
    start = runs[middle][0]
    assembler.add(_JGE_K, start, true=f"from {start}")
    _tree(assembler, runs[:middle])
    assembler.place(f"from {start}")
    _tree(assembler, runs[middle:])
