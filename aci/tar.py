"""Tar: the headers of an archive's entries, in the POSIX pax format.

What does not fit the fixed fields of a ustar header (nanoseconds, long names, large numbers, extended
attributes, holes) goes before it in a pax header, as GNU tar, bsdtar, Go and Python write and read it.
A name that fits is in the ustar header as its bytes are. No user or group names: images are numeric.
"""

from __future__ import annotations

from struct import Struct

from rkt_py.aci.value import value

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
_PAX = b"x"

_MAX_NAME = 100
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777
_SECOND = 10**9

#       name mode uid gid size mtime checksum type link magic+version uname gname major minor prefix
_USTAR = Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")
_NO_DEVICE = b"0000000\0"


@value
class Entry:
    """One entry: what its header says. `size` is that of the data in the archive; times are nanoseconds."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    real_size: int | None = None  # of a file with holes, whose data begins with their map


def header(entry: Entry) -> bytes:
    """Write everything that goes before an entry's data."""
    records = _records(entry)
    name = entry.name if entry.real_size is None else _sparse_name(entry.name)
    seconds = entry.mtime // _SECOND
    block = _ustar(
        name[:_MAX_NAME],
        entry.type,
        mode=entry.mode,
        uid=entry.uid if entry.uid <= _MAX_ID else 0,
        gid=entry.gid if entry.gid <= _MAX_ID else 0,
        size=entry.size if entry.size <= _MAX_NUMBER else 0,
        mtime=min(max(seconds, 0), _MAX_NUMBER),
        link=entry.link[:_MAX_NAME],
        device=entry.device,
    )
    return _pax(entry.name, records) + block if records else block


def sparse_map(extents: list[tuple[int, int]], size: int) -> bytes:
    """Write where the data of a file with holes is, as (offset, length): GNU's sparse format 1.0."""
    if not extents or sum(extents[-1]) < size:
        extents = [*extents, (size, 0)]  # how GNU tar says that a hole is at the end
    text = b"%d\n" % len(extents) + b"".join([b"%d\n%d\n" % extent for extent in extents])
    return text + bytes(padding(len(text)))


def padding(size: int) -> int:
    """Return how many zeros follow this many bytes of data."""
    return -size % BLOCK


def _records(entry: Entry) -> list[tuple[bytes, bytes]]:
    records: list[tuple[bytes, bytes]] = []
    if entry.real_size is not None:
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", entry.name),
            (b"GNU.sparse.realsize", b"%d" % entry.real_size),
        ]
    elif len(entry.name) > _MAX_NAME:
        records.append((b"path", entry.name))
    if len(entry.link) > _MAX_NAME:
        records.append((b"linkpath", entry.link))
    if records and not all(_is_utf8(what) for _, what in records):
        # Values are UTF-8 unless this comes first: then they are the bytes they are.
        records.insert(0, (b"hdrcharset", b"BINARY"))
    if entry.size > _MAX_NUMBER:
        records.append((b"size", b"%d" % entry.size))
    if entry.uid > _MAX_ID:
        records.append((b"uid", b"%d" % entry.uid))
    if entry.gid > _MAX_ID:
        records.append((b"gid", b"%d" % entry.gid))
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND <= _MAX_NUMBER:
        records.append((b"mtime", _time(entry.mtime)))
    records += [(b"SCHILY.xattr." + name, what) for name, what in entry.xattrs]
    return records


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _time(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    text = b"%d.%09d" % (seconds, rest)
    return (b"-" if nanoseconds < 0 else b"") + text.rstrip(b"0").rstrip(b".")


def _sparse_name(name: bytes) -> bytes:
    """Name a file with holes for readers that do not know them, as GNU tar does but for its process id."""
    directory, _, base = name.rpartition(b"/")
    return directory + b"/GNUSparseFile.0/" + base


def _pax(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    data = b"".join([_record(key, what) for key, what in records])
    shown = b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2]
    block = _ustar(shown[:_MAX_NAME], _PAX, mode=0o644, uid=0, gid=0, size=len(data), mtime=0)
    return block + data + bytes(padding(len(data)))


def _record(key: bytes, what: bytes) -> bytes:
    """Write a pax record, which begins with its own length."""
    rest = len(key) + len(what) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, what)


def _ustar(
    name: bytes,
    type: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes = b"",
    device: tuple[int, int] | None = None,
) -> bytes:
    block = _USTAR.pack(
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b"        ",
        type,
        link,
        b"ustar\00000",
        b"",
        b"",
        _NO_DEVICE if device is None else b"%07o\0" % device[0],
        _NO_DEVICE if device is None else b"%07o\0" % device[1],
        b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
