"""Compressors: streams of blocks to streams of bytes that depend on nothing but the blocks and the level.

The bytes do not tell the time, the machine or how many processors it has. Another version of zlib or libzstd
may find other bytes for the same data, so it is the hash of the archive that names an image, not of the file.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol

from rkt_py.aci.errors import BuildError

Compression = Literal["gzip", "zstd", "xz", "bzip2", "none"]
Block = bytes | bytearray | memoryview

# The lowest, the highest and the default level.
LEVELS: dict[str, tuple[int, int, int]] = {
    "gzip": (1, 9, 6),
    "zstd": (1, 22, 3),
    "xz": (0, 9, 6),
    "bzip2": (1, 9, 9),
    "none": (0, 0, 0),
}

_WINDOW = 32768  # of deflate: how far back it may refer


class Compressor(Protocol):
    def compress(self, data: Block, /) -> bytes:
        """Take a block, give what is ready."""
        ...

    def flush(self) -> bytes:
        """Give all the rest, after the last block."""
        ...


def make(compression: Compression, level: int | None = None) -> Compressor:
    """Make a compressor; the same blocks give the same bytes."""
    if compression not in LEVELS:
        raise BuildError(f"compression {compression!r} is not one of {', '.join(LEVELS)}")
    low, high, default = LEVELS[compression]
    level = default if level is None else level
    if not low <= level <= high:
        raise BuildError(f"compression level {level} is not one of {compression}'s, {low} to {high}")
    return _MAKERS[compression](level)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


class _None:
    def compress(self, data: Block, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """gzip, the blocks compressed side by side as pigz does it.

    Each block starts from the window the one before it left, and ends at a byte; so the whole is one
    ordinary stream, and the same one for any number of threads.
    """

    # Magic, deflate, no flags (so no name), no time, no extra flags, system unknown (as Go writes it).
    HEADER = bytes.fromhex("1f8b08 00 00000000 00 ff")
    LAST_BLOCK = b"\x03\x00"  # empty

    def __init__(self, level: int) -> None:
        self.level = level
        self.ready: list[bytes] = [self.HEADER]
        self.crc = 0
        self.size = 0
        self.window = b""
        self.ahead = processors() + 1
        self.pool = ThreadPoolExecutor(processors(), "gzip")
        self.jobs: deque[Future[bytes]] = deque()

    def compress(self, data: Block, /) -> bytes:
        self.jobs.append(self.pool.submit(self.deflate, data, self.window))
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        self.window = bytes(data[-_WINDOW:])
        while len(self.jobs) > self.ahead:
            self.ready.append(self.jobs.popleft().result())
        return self.taken()

    def deflate(self, data: Block, window: bytes) -> bytes:
        if window:
            stream = zlib.compressobj(self.level, wbits=-15, zdict=window)
        else:
            stream = zlib.compressobj(self.level, wbits=-15)
        return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)

    def flush(self) -> bytes:
        self.ready += [job.result() for job in self.jobs]
        self.pool.shutdown()
        trailer = self.crc.to_bytes(4, "little") + (self.size % 2**32).to_bytes(4, "little")
        self.ready += [self.LAST_BLOCK, trailer]
        return self.taken()

    def taken(self) -> bytes:
        ready, self.ready = self.ready, []
        return b"".join(ready)


def _zstd(level: int) -> Compressor:
    import zstandard

    # Threads split the frame where one thread would not, but any number of them at the same places.
    return zstandard.ZstdCompressor(
        level=level, write_checksum=True, write_content_size=False, threads=processors()
    ).compressobj()


def _xz(level: int) -> Compressor:
    import lzma

    return lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=level)


def _bzip2(level: int) -> Compressor:
    import bz2

    return bz2.BZ2Compressor(level)


_MAKERS: dict[str, Callable[[int], Compressor]] = {
    "gzip": _Gzip,
    "zstd": _zstd,
    "xz": _xz,
    "bzip2": _bzip2,
    "none": lambda level: _None(),
}
