"""The kernel's part in seccomp: what a filter's program says of a call, without loading it."""

from __future__ import annotations

import struct
from typing import NamedTuple

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000

X86_64, I386, ARM64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
X32_BIT = 0x40000000


class Instruction(NamedTuple):
    """struct sock_filter"""

    code: int
    true: int
    false: int
    k: int


def instructions(program: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]


def run(code: list[Instruction], arch: int, number: int, *arguments: int) -> int:
    """Return the action for a call: the instructions that the kernel's checker lets a filter have."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
    at = value = 0
    memory = [0] * 16
    while True:
        instruction = code[at]
        at += 1
        k = instruction.k
        match instruction.code:
            case 0x20:  # LD | W | ABS
                assert k % 4 == 0 and k + 4 <= len(data)
                value = int.from_bytes(data[k : k + 4], "little")
            case 0x54:  # ALU | AND | K
                value &= k
            case 0x02:  # ST
                memory[k] = value
            case 0x60:  # LD | MEM
                value = memory[k]
            case 0x05:  # JMP | JA
                at += k
            case 0x15:  # JMP | JEQ | K
                at += instruction.true if value == k else instruction.false
            case 0x25:  # JMP | JGT | K
                at += instruction.true if value > k else instruction.false
            case 0x35:  # JMP | JGE | K
                at += instruction.true if value >= k else instruction.false
            case 0x06:  # RET | K
                return k
            case other:
                raise AssertionError(f"instruction {other:#x}")


def meaning(action: int) -> str | int:
    """Return an action in short: "allow", "kill", or an errno."""
    if action == ALLOW:
        return "allow"
    if action == KILL_PROCESS:
        return "kill"
    assert action & 0xFFFF0000 == 0x00050000, hex(action)
    return action & 0xFFFF
