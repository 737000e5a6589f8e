"""Hostile archives: tar, header by header, with anything in any field."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard

END = bytes(1024)
POSIX = b"ustar\x0000"
GNU = b"ustar  \x00"
MANIFEST = b'{"acKind":"ImageManifest"}\n'


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(number: int, width: int) -> bytes:
    assert number < 8 ** (width - 1)
    return b"%0*o\x00" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """GNU's form of large and of negative numbers."""
    first = b"\xff" if number < 0 else b"\x80"
    return first + (number % (1 << 8 * (width - 1))).to_bytes(width - 1, "big")


def checksummed(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\x00 " % sum(blank) + blank[156:]


def header(
    name: bytes | str,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes | str = b"",
    magic: bytes = POSIX,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    tail: bytes = b"",
) -> bytes:
    """Return a header block. A number is octal; bytes go in as they are. `tail` is all from the prefix on."""

    def number(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\x00") if isinstance(value, bytes) else octal(value, width)

    def text(value: bytes | str) -> bytes:
        value = value.encode() if isinstance(value, str) else value
        assert len(value) <= 100
        return value.ljust(100, b"\x00")

    block = b"".join(
        [
            text(name),
            number(mode, 8),
            number(uid, 8),
            number(gid, 8),
            number(size, 12),
            number(mtime, 12),
            bytes(8),
            kind,
            text(link),
            magic,
            bytes(64),
            number(major, 8),
            number(minor, 8),
            tail.ljust(167, b"\x00"),
        ]
    )
    assert len(block) == 512
    return checksummed(block)


def regular(name: bytes | str, data: bytes = b"", **fields: object) -> bytes:
    return header(name, **{"size": len(data), **fields}) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes | str, mode: int = 0o755, **fields: object) -> bytes:
    return header(name, b"5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: bytes | str, target: bytes | str) -> bytes:
    return header(name, b"2", link=target, mode=0o777)


def hard_link(name: bytes | str, target: bytes | str) -> bytes:
    return header(name, b"1", link=target)


def record(key: bytes, value: bytes) -> bytes:
    """One record of a pax header, whose length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def pax(*records: tuple[str, bytes | str], kind: bytes = b"x") -> bytes:
    data = b"".join(
        [record(key.encode(), value.encode() if isinstance(value, str) else value) for key, value in records]
    )
    return pax_raw(data, kind=kind)


def pax_raw(data: bytes, kind: bytes = b"x") -> bytes:
    return regular("PaxHeaders/0", data, kind=kind)


def gnu_long(kind: bytes, name: bytes) -> bytes:
    return regular("././@LongLink", name + b"\x00", kind=kind, magic=GNU)


def gnu_sparse(extents: list[tuple[int, int]], real_size: int, *, extended: bool = False) -> bytes:
    """The tail of an old GNU header of a sparse file."""
    pieces = b"".join([octal(offset, 12) + octal(size, 12) for offset, size in extents]).ljust(96, b"\x00")
    return bytes(41) + pieces + (b"\x01" if extended else b"\x00") + octal(real_size, 12)


TOP = regular("manifest", MANIFEST) + directory("rootfs")


def aci(*members: bytes, top: bytes = TOP, end: bytes = END) -> bytes:
    return top + b"".join(members) + end


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@dataclass(frozen=True)
class Case:
    """An archive and the sentence it is refused with; "OUTSIDE" in it is a directory to leave alone."""

    name: str
    archive: Callable[[bytes], bytes]
    sentence: str
    limits: dict[str, int] = field(default_factory=dict)


def case(name: str, archive: bytes | Callable[[bytes], bytes], sentence: str, **limits: int) -> Case:
    make = archive if callable(archive) else (lambda outside, data=archive: data)
    return Case(name, make, sentence, limits)


LONG = b"rootfs/" + b"n" * 200 + b"/" + b"x" * 200
ONLY = 'an image has "manifest" and "rootfs", and nothing else'
NOT_TAR = "it is not an image: neither a tar archive nor one compressed by gzip, bzip2, xz or zstd"
BEHIND = "there is data behind the end of the archive"
NO_END = "the archive is truncated: it has no two end blocks"
TWO_KINDS = "two headers of different kinds for one entry are in the archive"
PAX_LENGTH = "an extended header in the archive has a record of wrong length"
PAX_RECORD = "an extended header in the archive has a record that is not KEY=VALUE"
PAX_VALUE = "an extended header in the archive has a wrong value for"
GLOBAL = "a global header in the archive sets a path, link, size or attribute for all entries"
MAP = "its sparse map overlaps itself or ends behind the file"

NAMES = [
    case("absolute name", lambda out: aci(regular(out + b"/new", b"x")), "OUTSIDE/new: an absolute name"),
    case("name of root", aci(directory("/")), "/: an absolute name"),
    case("two slashes first", aci(regular("//rootfs/f")), "//rootfs/f: an absolute name"),
    case("dot dot first", aci(regular("../new")), '../new: a name with ".." in it'),
    case("dot dot in rootfs", aci(regular("rootfs/../../new")), 'rootfs/../../new: a name with ".." in it'),
    case("dot dot that stays inside", aci(regular("rootfs/a/../b")), 'rootfs/a/../b: a name with ".." in it'),
    case("dot dot last", aci(directory("rootfs/..")), 'rootfs/..: a name with ".." in it'),
    case("dot dot behind dot", aci(regular("./../new")), './../new: a name with ".." in it'),
    case("dot dot in prefix", aci(header("new", tail=b"rootfs/..")), 'rootfs/../new: a name with ".." in it'),
    case("empty name", aci(header("")), "an empty name is in the archive"),
    case("the top as a file", aci(header(".")), "./: it is not a directory"),
    case("the top twice", aci(directory("./"), directory(".")), "./: it is in the archive twice"),
    case(
        "file with a slash last",
        aci(header("rootfs/f/")),
        "rootfs/f: the name of a directory, but it is none",
    ),
    case("pax path absolute", aci(pax(("path", "/new")), header("rootfs/f")), "/new: an absolute name"),
    case(
        "pax path dot dot",
        aci(pax(("path", "rootfs/../x")), header("a")),
        'rootfs/../x: a name with ".." in it',
    ),
    case("pax path empty", aci(pax(("path", "")), header("rootfs/f")), "an empty name is in the archive"),
    case(
        "pax path with NUL",
        aci(pax(("path", b"rootfs/a\0b")), header("a")),
        "rootfs/a: a name with a NUL byte in it",
    ),
    case(
        "GNU name dot dot",
        aci(gnu_long(b"L", b"rootfs/../x"), header("a")),
        'rootfs/../x: a name with ".." in it',
    ),
    case(
        "GNU name with NUL",
        aci(gnu_long(b"L", b"rootfs/a\0b"), header("a")),
        "rootfs/a: a name with a NUL byte in it",
    ),
    case("GNU name empty", aci(gnu_long(b"L", b""), header("rootfs/a")), "an empty name is in the archive"),
    case(
        "path of 5,000 bytes",
        aci(pax(("path", "rootfs/" + "d/" * 2500)), directory("a")),
        f"rootfs/{'d/' * 46}d...: a name of 5007 bytes; 4095 are allowed",
    ),
    case(
        "component of 256 bytes",
        aci(pax(("path", "rootfs/" + "n" * 256)), header("a")),
        f"rootfs/{'n' * 256}: cannot make it: File name too long",
    ),
    case(
        "600 directories deep",
        aci(pax(("path", "rootfs/" + "d/" * 600 + "f")), header("a")),
        f"rootfs/{('d/' * 200)[:393]}...: more than 510 directories deep",
    ),
    case(
        "control characters",
        aci(header(b"rootfs/\x1b[31m\n\xff\\/..")),
        'rootfs/\\x1b[31m\\x0a\\xff\\\\/..: a name with ".." in it',
    ),
]

LAYOUT = [
    case("no manifest", aci(top=directory("rootfs")), "the archive has no manifest"),
    case("no rootfs", aci(top=regular("manifest", MANIFEST)), "the archive has no rootfs"),
    case("nothing", END, "the archive has no manifest"),
    case("third top-level file", aci(regular("etc/passwd")), f"etc/passwd: {ONLY}"),
    case("third top-level directory", aci(directory("rootfs2")), f"rootfs2: {ONLY}"),
    case("name that begins like rootfs", aci(regular("rootfsx/f")), f"rootfsx/f: {ONLY}"),
    case("name that begins like manifest", aci(regular("manifest/f")), f"manifest/f: {ONLY}"),
    case("manifest a directory", aci(top=directory("manifest")), "manifest: it is not an ordinary file"),
    case(
        "manifest a symbolic link",
        lambda out: aci(top=symlink("manifest", out + b"/secret")),
        "manifest: it is not an ordinary file",
    ),
    case("manifest a fifo", aci(top=header("manifest", b"6")), "manifest: it is not an ordinary file"),
    case(
        "manifest a device",
        aci(top=header("manifest", b"3", major=1, minor=5)),
        "manifest: it is not an ordinary file",
    ),
    case(
        "manifest a hard link",
        aci(top=directory("rootfs") + regular("rootfs/f") + hard_link("manifest", "rootfs/f")),
        "manifest: it is not an ordinary file",
    ),
    case(
        "manifest sparse",
        aci(top=header("manifest", b"S", magic=GNU, tail=gnu_sparse([], 1 << 30))),
        "manifest: it is not an ordinary file",
    ),
    case(
        "manifest of 100 MB",
        aci(top=header("manifest", size=100_000_000)),
        "manifest: 100000000 bytes; 4194304 are allowed",
    ),
    case("manifest over the limit", aci(), f"manifest: {len(MANIFEST)} bytes; 10 are allowed", manifest=10),
    case("manifest twice", aci(regular("manifest", b"{}")), "manifest: it is in the archive twice"),
    case(
        "manifest again as ./manifest",
        aci(regular("./manifest", b"{}")),
        "manifest: it is in the archive twice",
    ),
    case("rootfs a file", aci(top=header("rootfs")), "rootfs: it is not a directory"),
    case(
        "rootfs a symbolic link",
        lambda out: aci(regular("rootfs/new", b"x"), top=symlink("rootfs", out)),
        "rootfs: it is not a directory",
    ),
    case("rootfs twice", aci(directory("rootfs/")), "rootfs: it is in the archive twice"),
]

DUPLICATES = [
    case("file twice", aci(regular("rootfs/f"), regular("rootfs/f")), "rootfs/f: it is in the archive twice"),
    case(
        "file twice in two spellings",
        aci(regular("rootfs/f"), regular("./rootfs/.//f")),
        "rootfs/f: it is in the archive twice",
    ),
    case(
        "directory twice",
        aci(directory("rootfs/d"), directory("rootfs/d")),
        "rootfs/d: it is in the archive twice",
    ),
    case(
        "directory twice after its child",
        aci(regular("rootfs/d/f"), directory("rootfs/d"), directory("rootfs/d")),
        "rootfs/d: it is in the archive twice",
    ),
    case(
        "directory twice, far apart",
        aci(directory("rootfs/d"), regular("rootfs/e/f"), directory("rootfs/d/")),
        "rootfs/d: it is in the archive twice",
    ),
    case(
        "symbolic link twice",
        aci(symlink("rootfs/l", "a"), symlink("rootfs/l", "b")),
        "rootfs/l: it is in the archive twice",
    ),
    case(
        "fifo twice",
        aci(header("rootfs/p", b"6"), header("rootfs/p", b"6")),
        "rootfs/p: it is in the archive twice",
    ),
    case(
        "hard link over a file",
        aci(regular("rootfs/a"), regular("rootfs/b"), hard_link("rootfs/b", "rootfs/a")),
        "rootfs/b: it is in the archive twice",
    ),
    case(
        "file, then directory",
        aci(regular("rootfs/x"), directory("rootfs/x")),
        "rootfs/x: it is in the archive twice",
    ),
    case(
        "directory, then file",
        aci(directory("rootfs/x"), regular("rootfs/x")),
        "rootfs/x: it is in the archive twice",
    ),
    case(
        "directory, then symbolic link",
        lambda out: aci(directory("rootfs/x"), symlink("rootfs/x", out), regular("rootfs/x/new")),
        "rootfs/x: it is in the archive twice",
    ),
    case(
        "parent not in the archive, then a link of its name",
        lambda out: aci(regular("rootfs/x/f"), symlink("rootfs/x", out)),
        "rootfs/x: it is in the archive twice",
    ),
    case(
        "symbolic link, then directory",
        lambda out: aci(symlink("rootfs/x", out), directory("rootfs/x", 0o777)),
        "rootfs/x: it is in the archive twice",
    ),
    case(
        "symbolic link, then file",
        lambda out: aci(symlink("rootfs/x", out + b"/secret"), regular("rootfs/x", b"new")),
        "rootfs/x: it is in the archive twice",
    ),
]

LINKS = [
    case(
        "file through a symbolic link",
        lambda out: aci(symlink("rootfs/x", out), regular("rootfs/x/new", b"x")),
        "rootfs/x/new: rootfs/x is not a directory",
    ),
    case(
        "directory through a symbolic link",
        lambda out: aci(symlink("rootfs/x", out), directory("rootfs/x/sub")),
        "rootfs/x/sub: rootfs/x is not a directory",
    ),
    case(
        "file through two symbolic links",
        aci(symlink("rootfs/a", ".."), symlink("rootfs/b", "a/.."), regular("rootfs/b/new", b"x")),
        "rootfs/b/new: rootfs/b is not a directory",
    ),
    case(
        "file through a symbolic link to the top",
        aci(symlink("rootfs/a", ".."), regular("rootfs/a/manifest", b"x")),
        "rootfs/a/manifest: rootfs/a is not a directory",
    ),
    case(
        "file through a link to itself",
        aci(symlink("rootfs/a", "a"), regular("rootfs/a/f")),
        "rootfs/a/f: rootfs/a is not a directory",
    ),
    case(
        "file in a file",
        aci(regular("rootfs/a"), regular("rootfs/a/f")),
        "rootfs/a/f: rootfs/a is not a directory",
    ),
    case(
        "file in a fifo",
        aci(header("rootfs/a", b"6"), header("rootfs/a/f")),
        "rootfs/a/f: rootfs/a is not a directory",
    ),
    case(
        "symbolic link to nothing",
        aci(symlink("rootfs/l", "")),
        "rootfs/l: a symbolic link to a name that is empty, too long or has a NUL byte in it",
    ),
    case(
        "symbolic link with NUL",
        aci(pax(("linkpath", b"a\0b")), symlink("rootfs/l", "x")),
        "rootfs/l: a symbolic link to a name that is empty, too long or has a NUL byte in it",
    ),
    case(
        "symbolic link of 5,000 bytes",
        aci(pax(("linkpath", "a" * 5000)), symlink("rootfs/l", "x")),
        "rootfs/l: a symbolic link to a name that is empty, too long or has a NUL byte in it",
    ),
    case(
        "hard link to an absolute name",
        lambda out: aci(hard_link("rootfs/l", out + b"/secret")),
        "OUTSIDE/secret: an absolute link target",
    ),
    case(
        "hard link to dot dot",
        aci(hard_link("rootfs/l", "rootfs/../../outside/secret")),
        'rootfs/../../outside/secret: a link target with ".." in it',
    ),
    case("hard link to nothing", aci(hard_link("rootfs/l", "")), "an empty link target is in the archive"),
    case(
        "hard link to the manifest",
        aci(hard_link("rootfs/l", "manifest")),
        "rootfs/l: a hard link to manifest, which is not in rootfs",
    ),
    case(
        "hard link to rootfs",
        aci(hard_link("rootfs/l", "rootfs")),
        "rootfs/l: a hard link to rootfs, which is not in rootfs",
    ),
    case(
        "hard link to a symbolic link",
        lambda out: aci(symlink("rootfs/s", out + b"/secret"), hard_link("rootfs/l", "rootfs/s")),
        "rootfs/l: a hard link to rootfs/s, which is no file that came before it",
    ),
    case(
        "hard link through a symbolic link",
        lambda out: aci(symlink("rootfs/s", out), hard_link("rootfs/l", "rootfs/s/secret")),
        "rootfs/l: a hard link to rootfs/s/secret, which is no file that came before it",
    ),
    case(
        "hard link through a symbolic link to a directory of the archive",
        aci(regular("rootfs/d/e/f"), symlink("rootfs/s", "d"), hard_link("rootfs/l", "rootfs/s/e/f")),
        "rootfs/l: a hard link to rootfs/s/e/f, which is no file that came before it",
    ),
    case(
        "hard link to a directory",
        aci(directory("rootfs/d"), hard_link("rootfs/l", "rootfs/d")),
        "rootfs/l: a hard link to rootfs/d, which is no file that came before it",
    ),
    case(
        "hard link to a device",
        aci(header("rootfs/n", b"3", major=1, minor=3), hard_link("rootfs/l", "rootfs/n")),
        "rootfs/l: a hard link to rootfs/n, which is no file that came before it",
    ),
    case(
        "hard link to what comes later",
        aci(hard_link("rootfs/l", "rootfs/f"), regular("rootfs/f")),
        "rootfs/l: a hard link to rootfs/f, which is no file that came before it",
    ),
    case(
        "hard link to itself",
        aci(hard_link("rootfs/l", "rootfs/l")),
        "rootfs/l: a hard link to rootfs/l, which is no file that came before it",
    ),
    case(
        "hard link with data",
        aci(regular("rootfs/f"), header("rootfs/l", b"1", link="rootfs/f", size=5), padded(b"hello")),
        "rootfs/l: a size of 5, but it is not a file",
    ),
]

KINDS = [
    case("socket", aci(header("rootfs/s", b"s")), 'rootfs/s: an entry of type "s", which is not allowed'),
    case(
        "GNU multi-volume",
        aci(header("rootfs/s", b"M")),
        'rootfs/s: an entry of type "M", which is not allowed',
    ),
    case(
        "GNU dump directory",
        aci(header("rootfs/s", b"D")),
        'rootfs/s: an entry of type "D", which is not allowed',
    ),
    case(
        "volume name", aci(header("rootfs/s", b"V")), 'rootfs/s: an entry of type "V", which is not allowed'
    ),
    case(
        "Solaris header",
        aci(header("rootfs/s", b"X")),
        'rootfs/s: an entry of type "X", which is not allowed',
    ),
    case(
        "unprintable type",
        aci(header("rootfs/s", b"\x1b")),
        'rootfs/s: an entry of type "\\x1b", which is not allowed',
    ),
    case(
        "whiteout device",
        aci(header("rootfs/w", b"3")),
        "rootfs/w: character device 0:0, which an overlay takes for a deleted file",
    ),
    case(
        "device number too large",
        aci(header("rootfs/n", b"3", major=4096)),
        "rootfs/n: its device number is too large",
    ),
    case(
        "device number negative",
        aci(header("rootfs/n", b"4", minor=base256(-1, 8))),
        "rootfs/n: its device number is negative or too large",
    ),
    case(
        "directory with data",
        aci(header("rootfs/d", b"5", size=512), bytes(512)),
        "rootfs/d: a size of 512, but it is not a file",
    ),
    case(
        "fifo with data",
        aci(header("rootfs/p", b"6", size=1), padded(b"x")),
        "rootfs/p: a size of 1, but it is not a file",
    ),
    case(
        "symbolic link with data",
        aci(header("rootfs/l", b"2", link="x", size=1), padded(b"x")),
        "rootfs/l: a size of 1, but it is not a file",
    ),
]

NUMBERS = [
    case(
        "size negative",
        aci(header("rootfs/f", size=base256(-1, 12))),
        "rootfs/f: its size is negative or too large",
    ),
    case(
        "size of 2^63",
        aci(header("rootfs/f", size=base256(1 << 63, 12))),
        "rootfs/f: its size is negative or too large",
    ),
    case(
        "size of 2^64",
        aci(header("rootfs/f", size=base256(1 << 64, 12))),
        "rootfs/f: its size is negative or too large",
    ),
    case(
        "size of 2^63 - 1",
        aci(header("rootfs/f", size=base256((1 << 63) - 1, 12))),
        "rootfs/f: with it the archive unpacks to more than 34359738368 bytes",
    ),
    case(
        "size with a wrong first byte",
        aci(header("rootfs/f", size=b"\x81" + bytes(11))),
        "rootfs/f: its size is negative or too large",
    ),
    case(
        "size with minus", aci(header("rootfs/f", size=b"-0000000001")), "rootfs/f: its size is not a number"
    ),
    case("size decimal", aci(header("rootfs/f", size=b"00000000009")), "rootfs/f: its size is not a number"),
    case(
        "size with digits behind a space",
        aci(header("rootfs/f", size=b"0000 000001")),
        "rootfs/f: its size is not a number",
    ),
    case("mode not a number", aci(header("rootfs/f", mode=b"rwxr-xr")), "rootfs/f: its mode is not a number"),
    case(
        "mode negative",
        aci(header("rootfs/f", mode=base256(-1, 8))),
        "rootfs/f: its mode is negative or too large",
    ),
    case(
        "time not a number", aci(header("rootfs/f", mtime=b"yesterday")), "rootfs/f: its time is not a number"
    ),
    case("uid -1", aci(header("rootfs/f", uid=base256(-1, 8))), "rootfs/f: its uid is negative or too large"),
    case(
        "uid 4294967295",
        aci(header("rootfs/f", uid=base256(4294967295, 8))),
        "rootfs/f: its uid is 4294967295; at most 4294967294 is allowed",
    ),
    case(
        "gid 2^32",
        aci(header("rootfs/f", gid=base256(1 << 32, 8))),
        "rootfs/f: its gid is 4294967296; at most 4294967294 is allowed",
    ),
    case(
        "pax uid 4294967295",
        aci(pax(("uid", "4294967295")), header("rootfs/f")),
        "rootfs/f: its uid is 4294967295; at most 4294967294 is allowed",
    ),
    case("pax gid negative", aci(pax(("gid", "-1")), header("rootfs/f")), f"{PAX_VALUE} gid: -1"),
    case("pax size negative", aci(pax(("size", "-1")), header("rootfs/f")), f"{PAX_VALUE} size: -1"),
    case("pax size empty", aci(pax(("size", "")), header("rootfs/f")), f"{PAX_VALUE} size: "),
    case("pax size hexadecimal", aci(pax(("size", "0x10")), header("rootfs/f")), f"{PAX_VALUE} size: 0x10"),
    case(
        "pax size of 2^63",
        aci(pax(("size", str(1 << 63))), header("rootfs/f")),
        f"{PAX_VALUE} size: {1 << 63}",
    ),
    case(
        "pax size of 30 digits",
        aci(pax(("size", "9" * 30)), header("rootfs/f")),
        f"{PAX_VALUE} size: {'9' * 30}",
    ),
    case("pax size with NUL", aci(pax(("size", b"1\x000")), header("rootfs/f")), f"{PAX_VALUE} size: 1"),
    case(
        "pax time of two points",
        aci(pax(("mtime", "1.2.3")), header("rootfs/f")),
        f"{PAX_VALUE} mtime: 1.2.3",
    ),
    case("pax time not a number", aci(pax(("mtime", "nan")), header("rootfs/f")), f"{PAX_VALUE} mtime: nan"),
    case(
        "pax size past the end",
        aci(pax(("size", "4096")), regular("rootfs/f", b"x")),
        "the archive is truncated: it ends within rootfs/f",
    ),
]

HEADERS = [
    case(
        "checksum wrong",
        aci(header("rootfs/f")[:-1] + b"x"),
        "the archive is corrupt: a header has a wrong checksum, that of rootfs/f",
    ),
    case(
        "checksum of the first header wrong",
        b"M" + aci()[1:],
        "the archive is corrupt: a header has a wrong checksum, that of Manifest",
    ),
    case(
        "no magic",
        aci(header("rootfs/f", magic=bytes(8))),
        "the archive is corrupt: no header where one should be, after rootfs",
    ),
    case("pax length of 0", aci(pax_raw(b"0 path=x\n"), header("rootfs/f")), PAX_LENGTH),
    case("pax length past the header", aci(pax_raw(b"99 path=x\n"), header("rootfs/f")), PAX_LENGTH),
    case("pax length too short", aci(pax_raw(b"4 a=b\n"), header("rootfs/f")), PAX_LENGTH),
    case(
        "pax length of 2^64 + 10",
        aci(pax_raw(b"18446744073709551626 path=x\n"), header("rootfs/f")),
        PAX_LENGTH,
    ),
    case("pax length without space", aci(pax_raw(b"9path=abc\n"), header("rootfs/f")), PAX_LENGTH),
    case("pax record without newline", aci(pax_raw(b"10 path=abx"), header("rootfs/f")), PAX_RECORD),
    case("pax record without equals sign", aci(pax_raw(b"10 pathxx\n"), header("rootfs/f")), PAX_RECORD),
    case("pax record without key", aci(pax_raw(b"9 =value\n"), header("rootfs/f")), PAX_RECORD),
    case("pax header twice", aci(pax(("uid", "1")), pax(("gid", "1")), header("rootfs/f")), TWO_KINDS),
    case("pax and GNU header", aci(pax(("size", "9")), gnu_long(b"L", LONG), header("rootfs/f")), TWO_KINDS),
    case(
        "GNU and pax header",
        aci(gnu_long(b"L", LONG), pax(("path", "rootfs/x")), header("rootfs/f")),
        TWO_KINDS,
    ),
    case(
        "GNU long name twice",
        aci(gnu_long(b"L", LONG), gnu_long(b"L", b"x"), header("a")),
        "two headers (long name) for one entry are in the archive",
    ),
    case(
        "pax header of nothing",
        aci(pax(("path", "rootfs/f"))),
        "the archive ends with a header for an entry that is not there",
    ),
    case(
        "GNU long name of nothing",
        aci(gnu_long(b"L", LONG)),
        "the archive ends with a header for an entry that is not there",
    ),
    case(
        "pax header of 2 MiB",
        aci(pax(("comment", b"c" * (2 << 20))), header("rootfs/f")),
        "a header (pax) of 2097169 bytes is in the archive; 1048576 are allowed",
    ),
    case(
        "pax header of negative size",
        aci(header("x", b"x", size=base256(-512, 12))),
        "the archive is corrupt: a header has a wrong size, that of x",
    ),
    case(
        "GNU long name of 1 TiB",
        aci(header("x", b"L", size=base256(1 << 40, 12), magic=GNU)),
        "a header (long name) of 1099511627776 bytes is in the archive; 1048576 are allowed",
    ),
    case("global path", aci(pax(("path", "rootfs/f"), kind=b"g"), header("rootfs/g")), GLOBAL),
    case("global link path", aci(pax(("linkpath", "/etc/shadow"), kind=b"g"), header("rootfs/g")), GLOBAL),
    case("global size", aci(pax(("size", "0"), kind=b"g"), header("rootfs/g")), GLOBAL),
    case("global attribute", aci(pax(("SCHILY.xattr.user.a", "1"), kind=b"g"), header("rootfs/g")), GLOBAL),
    case("global sparse", aci(pax(("GNU.sparse.size", "1"), kind=b"g"), header("rootfs/g")), GLOBAL),
    case(
        "global uid of nobody",
        aci(pax(("uid", "4294967295"), kind=b"g"), header("rootfs/g")),
        "rootfs/g: its uid is 4294967295; at most 4294967294 is allowed",
    ),
    case(
        "global header behind a pax header",
        aci(pax(("uid", "1")), pax(("uid", "2"), kind=b"g"), header("rootfs/g")),
        TWO_KINDS,
    ),
    case(
        "attribute base64 wrong",
        aci(pax(("LIBARCHIVE.xattr.user.a", "?")), header("rootfs/f")),
        f"{PAX_VALUE} LIBARCHIVE.xattr.user.a: ?",
    ),
    case(
        "attribute name wrong",
        aci(pax(("LIBARCHIVE.xattr.user.%zz", "YQ==")), header("rootfs/f")),
        f"{PAX_VALUE} LIBARCHIVE.xattr.user.%zz: YQ==",
    ),
    case(
        "attribute without name",
        aci(pax(("SCHILY.xattr.", "x")), header("rootfs/f")),
        f"{PAX_VALUE} SCHILY.xattr.: x",
    ),
    case(
        "200 attributes",
        aci(pax(*[(f"SCHILY.xattr.user.{n}", "x") for n in range(200)]), header("rootfs/f")),
        "a file of more than 128 extended attributes is in the archive",
    ),
    case(
        "attribute of 65537 bytes",
        aci(pax(("SCHILY.xattr.user.a", b"x" * 65537)), header("rootfs/f")),
        "rootfs/f: cannot set its attribute user.a: Argument list too long",
    ),
    case(
        "capability that is none",
        aci(pax(("SCHILY.xattr.security.capability", "root")), header("rootfs/f")),
        "rootfs/f: cannot set its attribute security.capability: Invalid argument",
    ),
]


def sparse_1_0(name: str, real_size: int, data: bytes) -> bytes:
    records = [("major", "1"), ("minor", "0"), ("name", name), ("realsize", str(real_size))]
    return pax(*[(f"GNU.sparse.{key}", value) for key, value in records]) + regular("GNUSparseFile.0/f", data)


def sparse_0(*records: tuple[str, str], data: bytes = b"") -> bytes:
    return pax(*[(f"GNU.sparse.{key}", value) for key, value in records]) + regular("rootfs/f", data)


def old_sparse(
    extents: list[tuple[int, int]], real_size: int, data: bytes, *, extended: bool = False
) -> bytes:
    tail = gnu_sparse(extents, real_size, extended=extended)
    return header("rootfs/f", b"S", magic=GNU, size=len(data), tail=tail)


SPARSE = [
    case(
        "old GNU, overlapping",
        aci(old_sparse([(0, 512), (256, 512)], 4096, bytes(1024)), bytes(1024)),
        f"rootfs/f: {MAP}",
    ),
    case(
        "old GNU, backwards",
        aci(old_sparse([(1024, 512), (0, 512)], 4096, bytes(1024)), bytes(1024)),
        f"rootfs/f: {MAP}",
    ),
    case(
        "old GNU, behind the end",
        aci(old_sparse([(4096, 512)], 4096, bytes(512)), bytes(512)),
        f"rootfs/f: {MAP}",
    ),
    case(
        "old GNU, more data than the map",
        aci(old_sparse([(0, 512)], 4096, bytes(1024)), bytes(1024)),
        "rootfs/f: its sparse map is of 512 bytes, the archive has 1024",
    ),
    case(
        "old GNU, size negative",
        aci(header("rootfs/f", b"S", magic=GNU, tail=bytes(41 + 97) + base256(-1, 12))),
        "rootfs/f: its size is negative or too large",
    ),
    case(
        "old GNU, offset negative",
        aci(header("rootfs/f", b"S", magic=GNU, tail=bytes(41) + base256(-1, 12) + octal(0, 12))),
        "rootfs/f: its sparse map is negative or too large",
    ),
    case(
        "old GNU, map without end",
        aci(old_sparse([], 0, b"", extended=True), end=checksummed(bytes(504) + b"\x01" + bytes(7))),
        "the archive is truncated: it ends within the sparse map of rootfs/f",
    ),
    case(
        "old GNU in a POSIX header",
        aci(header("rootfs/f", b"S", tail=gnu_sparse([], 512))),
        "rootfs/f: a sparse file in two formats",
    ),
    case(
        "old GNU of 1 EiB",
        aci(header("rootfs/f", b"S", magic=GNU, tail=bytes(41 + 97) + base256(1 << 60, 12))),
        "rootfs/f: with it the archive unpacks to more than 34359738368 bytes",
    ),
    case(
        "0.0, offset without size",
        aci(sparse_0(("size", "512"), ("offset", "0"))),
        "an extended header in the archive has a sparse offset without its size",
    ),
    case(
        "0.0, two offsets",
        aci(sparse_0(("size", "512"), ("offset", "0"), ("offset", "1"))),
        f"{PAX_VALUE} GNU.sparse.offset: 1",
    ),
    case(
        "0.0, wrong count",
        aci(sparse_0(("size", "512"), ("numblocks", "2"), ("offset", "0"), ("numbytes", "0"))),
        "rootfs/f: a sparse file with a map of 1 pieces instead of 2",
    ),
    case(
        "0.1, odd map",
        aci(sparse_0(("size", "512"), ("map", "0,512,1024"))),
        f"{PAX_VALUE} GNU.sparse.map: 0,512,1024",
    ),
    case(
        "0.1, negative",
        aci(sparse_0(("size", "512"), ("map", "-1,512"))),
        f"{PAX_VALUE} GNU.sparse.map: -1,512",
    ),
    case(
        "0.1, sum that wraps",
        aci(sparse_0(("size", "512"), ("map", f"{(1 << 63) - 1},{(1 << 63) - 1}"))),
        f"rootfs/f: {MAP}",
    ),
    case("without size", aci(sparse_0(("map", "0,0"))), "rootfs/f: a sparse file without its size"),
    case(
        "1.0, not a number",
        aci(sparse_1_0("rootfs/f", 512, padded(b"x\n"))),
        "rootfs/f: its sparse map is not one",
    ),
    case(
        "1.0, map longer than the data",
        aci(sparse_1_0("rootfs/f", 512, padded(b"9\n0\n1\n"))),
        "rootfs/f: its sparse map is not one",
    ),
    case("1.0, no data", aci(sparse_1_0("rootfs/f", 512, b"")), "rootfs/f: its sparse map is not one"),
    case(
        "1.0, map without its padding",
        aci(sparse_1_0("rootfs/f", 512, b"0\n")),
        "rootfs/f: its sparse map is not one",
    ),
    case(
        "1.0, number of 40 digits",
        aci(sparse_1_0("rootfs/f", 512, padded(b"1" * 40 + b"\n"))),
        "rootfs/f: its sparse map is not one",
    ),
    case(
        "1.0, a million pieces",
        aci(sparse_1_0("rootfs/f", 512, padded(b"1000000\n" + b"0\n" * 2_000_000))),
        "a sparse file of more than 131072 pieces is in the archive",
    ),
    case("1.0, name outside", aci(sparse_1_0("/new", 0, padded(b"0\n"))), "/new: an absolute name"),
    case(
        "1.0, unknown version",
        aci(sparse_0(("major", "2"), ("size", "0"))),
        f"{PAX_VALUE} GNU.sparse.major: 2",
    ),
    case(
        "directory",
        aci(pax(("GNU.sparse.size", "512")), directory("rootfs/d")),
        "rootfs/d: a sparse file that is none",
    ),
]

BIG = aci(regular("rootfs/zeros", bytes(3_000_000)))
STREAMS = [
    case("empty", b"", "it is empty"),
    case("one byte", b"\x1f", "it is not an image: too short for a tar archive"),
    case("text", b"#!/bin/sh\necho hello\n" * 100, NOT_TAR),
    case("zip", b"PK\x03\x04" + bytes(1000), NOT_TAR),
    case("text in gzip", gzip.compress(b"hello\n" * 1000), "what is compressed in it is not a tar archive"),
    case("nothing in gzip", gzip.compress(b""), "it is empty"),
    case(
        "gzip in gzip",
        gzip.compress(gzip.compress(aci() + bytes(9999))),
        "it is not an image: too short for a tar archive",
    ),
    case(
        "gzip of text behind a magic",
        b"\x1f\x8b" + b"x" * 1000,
        "the archive is corrupt: bytes that are not gzip in its gzip stream",
    ),
    case(
        "bzip2 magic only",
        b"BZh9" + b"x" * 1000,
        "the archive is corrupt: wrong CRC or bad data in its bzip2 stream",
    ),
    case("xz magic only", b"\xfd7zXZ\0" + b"x" * 1000, "the archive is corrupt: bad data in its xz stream"),
    case(
        "zstd magic only",
        b"\x28\xb5\x2f\xfd" + b"\xff" * 1000,
        "the archive is corrupt: Unsupported frame parameter in its zstd stream",
    ),
    case("no end blocks", aci(end=b""), NO_END),
    case("one end block", aci(end=bytes(512)), NO_END),
    case("one end block and some", aci(end=bytes(1000)), NO_END),
    case("one end block, then an entry", aci(end=bytes(512) + regular("rootfs/f") + END), BEHIND),
    case("an archive behind the end", aci() + aci(), BEHIND),
    case("one byte behind the end", aci() + b"x", BEHIND),
    case("one byte behind 1 MB of padding", aci() + bytes(1_000_000) + b"\n", BEHIND),
    case(
        "data behind the end in a gzip member of its own", gzip.compress(aci()) + gzip.compress(b"x"), BEHIND
    ),
    case(
        "text behind gzip",
        gzip.compress(aci()) + b"hello, world",
        "the archive is corrupt: bytes that are not gzip in its gzip stream",
    ),
    case(
        "zeros behind gzip",
        gzip.compress(aci()) + bytes(512),
        "the archive is corrupt: bytes that are not gzip in its gzip stream",
    ),
    case(
        "text behind bzip2",
        bz2.compress(aci()) + b"hello, world",
        "the archive is corrupt: bytes that are not bzip2 in its bzip2 stream",
    ),
    case(
        "text behind xz",
        lzma.compress(aci()) + b"hello, world",
        "the archive is corrupt: bad data in its xz stream",
    ),
    case(
        "text behind zstd",
        COMPRESSORS["zstd"](aci()) + b"hello, world",
        "the archive is corrupt: Unknown frame descriptor in its zstd stream",
    ),
    case(
        "gzip CRC",
        gzip.compress(aci())[:-8] + b"abcd" + gzip.compress(aci())[-4:],
        "the archive is corrupt: wrong CRC or length in its gzip stream",
    ),
    case(
        "gzip length",
        gzip.compress(aci())[:-4] + b"abcd",
        "the archive is corrupt: wrong CRC or length in its gzip stream",
    ),
    case(
        "CRC of the second gzip member",
        gzip.compress(aci()) + gzip.compress(bytes(512))[:-8] + bytes(8),
        "the archive is corrupt: wrong CRC or length in its gzip stream",
    ),
    case(
        "gzip data",
        gzip.compress(aci())[:10] + b"\x07" + gzip.compress(aci())[11:],
        "the archive is corrupt: bad data in its gzip stream",
    ),
    case(
        "zstd checksum",
        COMPRESSORS["zstd"](aci())[:-4] + b"abcd",
        "the archive is corrupt: Restored data doesn't match checksum in its zstd stream",
    ),
    case(
        "more entries than allowed",
        aci(*[regular(f"rootfs/{n}") for n in range(20)]),
        "the archive has more than 10 entries",
        entries=10,
    ),
    case(
        "more headers than allowed",
        aci(*[pax(("comment", "x"), kind=b"g") for _ in range(20)]),
        "the archive has more than 10 entries",
        entries=10,
    ),
    case(
        "a file larger than allowed",
        aci(regular("rootfs/f", bytes(4000))),
        "rootfs/f: with it the archive unpacks to more than 3000 bytes",
        size=3000,
    ),
    case(
        "an archive larger than allowed",
        aci(regular("rootfs/f", bytes(2900))),
        "the archive unpacks to more than 3000 bytes",
        size=3000,
    ),
    case(
        "bomb of gzip",
        gzip.compress(BIG),
        "rootfs/zeros: with it the archive unpacks to more than 1000000 bytes",
        size=1_000_000,
    ),
    case(
        "bomb of bzip2",
        bz2.compress(BIG),
        "rootfs/zeros: with it the archive unpacks to more than 1000000 bytes",
        size=1_000_000,
    ),
    case(
        "bomb of xz",
        lzma.compress(BIG),
        "rootfs/zeros: with it the archive unpacks to more than 1000000 bytes",
        size=1_000_000,
    ),
    case(
        "bomb of zstd",
        COMPRESSORS["zstd"](BIG),
        "rootfs/zeros: with it the archive unpacks to more than 1000000 bytes",
        size=1_000_000,
    ),
    case(
        "bomb behind the end",
        gzip.compress(aci() + bytes(20_000_000)),
        "the archive unpacks to more than 1000000 bytes",
        size=1_000_000,
    ),
    case(
        "bomb of a sparse file",
        aci(old_sparse([], 1 << 32, b"")),
        "rootfs/f: with it the archive unpacks to more than 1000000 bytes",
        size=1_000_000,
    ),
    case(
        "xz dictionary of 1.5 GiB",
        lzma.compress(aci(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 << 20}]),
        "the archive is corrupt: a dictionary of more than 128 MiB in its xz stream",
    ),
    case(
        "zstd window of 2 GiB",
        # A frame without content size, with a window of exponent 21 (RFC 8878, 3.1.1.1.2); an empty block.
        b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00",
        "the archive is corrupt: Frame requires too much memory for decoding in its zstd stream",
    ),
]

REFUSED = [
    *NAMES,
    *LAYOUT,
    *DUPLICATES,
    *LINKS,
    *KINDS,
    *NUMBERS,
    *HEADERS,
    *[Case(f"sparse {case.name}", case.archive, case.sentence, case.limits) for case in SPARSE],
    *STREAMS,
]
