"""Compression of archives: found by the first bytes, never by the name; undone as a stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha512
from typing import Any, BinaryIO

from rkt_py.aci.errors import BadImage

BLOCK = 1 << 20
MAX_DECODER_MEMORY = 128 << 20

MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


def detect(head: bytes) -> str:
    """Name the compression of an archive by its first bytes: gzip, bzip2, xz, zstd or none."""
    return next((name for magic, name in MAGIC if head.startswith(magic)), "none")


def _open(file: BinaryIO, compression: str) -> Any:
    if compression == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=file)
    if compression == "bzip2":
        import bz2

        return bz2.BZ2File(file)
    if compression == "xz":
        import lzma

        return lzma.LZMAFile(file)
    if compression == "zstd":
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_DECODER_MEMORY)
        return decompressor.stream_reader(file, read_across_frames=True)
    return file


def decompress(source: str, write: Callable[[bytes], object]) -> str:
    """Give the uncompressed bytes of a file to `write` in blocks; return their sha512 in hex.

    Raises BadImage when they cannot be read to their end, OSError.
    """
    digest = sha512()
    with open(source, "rb") as file:
        compression = detect(file.read(8))
        file.seek(0)
        stream = _open(file, compression)
        while True:
            try:
                block = stream.read(BLOCK)
            except (OSError, EOFError, ValueError, MemoryError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise BadImage(f"{source}: the {compression} stream is damaged: {error}") from None
            except Exception as error:  # zlib.error, lzma.LZMAError, ZstdError: they share no other class
                raise BadImage(f"{source}: the {compression} stream is damaged: {error}") from None
            if not block:
                return digest.hexdigest()
            digest.update(block)
            write(block)


def decompress_file(source: str, target: str, *, sha512: str) -> None:
    """Write the uncompressed bytes of `source` to a new file, there only when whole and of this hash.

    Raises BadImage, OSError.
    """
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None
    try:
        with os.fdopen(fd, "wb") as file:
            found = decompress(source, file.write)
            if found != sha512:
                raise BadImage(f"{source} is damaged: its hash is sha512-{found}, not sha512-{sha512}")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, target) from None
        raise
