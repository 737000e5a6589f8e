"""The programs of C, as they are built: what they need of a machine, and how they are hardened."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

BIN = Path(__file__).parent.parent / "rkt_py" / "bin"
PT_INTERP, PT_GNU_STACK, PT_GNU_RELRO = 3, 0x6474E551, 0x6474E552
ET_DYN = 3


def segments(path: Path) -> tuple[int, dict[int, int]]:
    """Return an ELF file's type, and its program headers: type to flags (elf(5))."""
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02"
    kind = struct.unpack_from("<H", data, 16)[0]
    offset, size, count = (
        struct.unpack_from("<Q", data, 32)[0],
        *struct.unpack_from("<HH", data, 54),
    )
    found = (struct.unpack_from("<II", data, offset + index * size) for index in range(count))
    return kind, dict(found)


@pytest.mark.parametrize("name", ["supervisor", "rkt-py"])
def test_what_is_in_a_pod_or_starts_it_needs_no_library(name: str) -> None:
    _, found = segments(BIN / name)
    assert PT_INTERP not in found


@pytest.mark.parametrize("name", ["supervisor", "unpack"])
def test_what_meets_hostile_input_is_at_a_random_address(name: str) -> None:
    kind, _ = segments(BIN / name)
    assert kind == ET_DYN


@pytest.mark.parametrize("name", ["supervisor", "rkt-py", "unpack"])
def test_no_stack_is_executable(name: str) -> None:
    _, found = segments(BIN / name)
    assert found[PT_GNU_STACK] & 1 == 0


@pytest.mark.parametrize("name", ["supervisor", "unpack"])
def test_relocations_are_read_only(name: str) -> None:
    _, found = segments(BIN / name)
    assert PT_GNU_RELRO in found
