from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import random
import re
import select
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from rkt_py.aci.errors import BadImage
from rkt_py.runtime.unpack import PROGRAM, Limits, Unpacked, unpack
from tests.runtime import hostile
from tests.runtime.hostile import (
    COMPRESSORS,
    END,
    GNU,
    MANIFEST,
    REFUSED,
    TOP,
    Case,
    aci,
    base256,
    directory,
    gnu_long,
    gnu_sparse,
    hard_link,
    header,
    padded,
    pax,
    regular,
    symlink,
)

pytestmark = pytest.mark.root

CSRC = Path(__file__).parents[2] / "csrc"


def snapshot(path: Path) -> dict[str, tuple[object, ...]]:
    """All there is to know of a tree, but for what only its history explains."""
    links: dict[int, int] = {}
    tree: dict[str, tuple[object, ...]] = {}
    for entry in sorted([path, *path.rglob("*")]):
        st = entry.lstat()
        content: object = None
        if stat.S_ISREG(st.st_mode):
            content = hashlib.sha1(entry.read_bytes()).hexdigest()
        elif stat.S_ISLNK(st.st_mode):
            content = os.readlink(entry)
        device = st.st_rdev if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode) else 0
        names = os.listxattr(entry, follow_symlinks=False)
        xattrs = tuple((name, os.getxattr(entry, name, follow_symlinks=False)) for name in sorted(names))
        group = links.setdefault(st.st_ino, len(links)) if not stat.S_ISDIR(st.st_mode) else None
        tree[os.fspath(entry.relative_to(path))] = (
            *(oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns),
            *(device, content, xattrs, group),
        )
    return tree


@dataclass
class Box:
    """A directory to extract into, and one beside it that must stay as it is."""

    into: Path
    outside: Path
    program: str = PROGRAM

    def unpack(
        self, archive: bytes | Path, limits: Limits | None = None, keep: Path | None = None
    ) -> Unpacked:
        if isinstance(archive, bytes):
            path = self.into.with_name("archive")
            path.write_bytes(archive)
            archive = path
        shutil.rmtree(self.into, ignore_errors=True)
        self.into.mkdir()
        source = os.open(archive, os.O_RDONLY)
        into = os.open(self.into, os.O_RDONLY | os.O_DIRECTORY)
        kept = None if keep is None else os.open(keep, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            return unpack(
                source, into, keep_fd=kept, sync=False, limits=limits or Limits(), program=self.program
            )
        finally:
            for fd in (source, into, *([] if kept is None else [kept])):
                os.close(fd)

    @property
    def rootfs(self) -> Path:
        return self.into / "rootfs"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    outside = tmp_path / "outside"
    outside.mkdir(0o750)
    (outside / "secret").write_text("secret\n")
    (outside / "secret").chmod(0o600)
    os.utime(outside, ns=(0, 1))
    before = snapshot(outside)
    yield Box(tmp_path / "into", outside)
    assert snapshot(outside) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"into", "outside", "archive", "kept"}


def refuse(box: Box, case: Case) -> None:
    outside = os.fsencode(box.outside)
    with pytest.raises(BadImage) as caught:
        box.unpack(case.archive(outside), Limits(**case.limits))
    assert str(caught.value).replace(os.fspath(box.outside), "OUTSIDE") == case.sentence


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_hostile_archive_is_refused(case: Case, box: Box) -> None:
    refuse(box, case)


def test_each_hostile_archive_has_a_name_of_its_own() -> None:
    assert len({case.name for case in REFUSED}) == len(REFUSED) > 150


# What extraction of a tar can change outside by following a link; none of these is refused, and none does.
HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "symbolic links to outside": lambda out: aci(
        symlink("rootfs/a", out), symlink("rootfs/b", out + b"/secret"), symlink("rootfs/c", "../../outside")
    ),
    "attributes of a symbolic link": lambda out: aci(
        header("rootfs/a", b"2", link=out, mode=0o4777, uid=12, gid=12, mtime=12),
        pax(("SCHILY.xattr.user.a", "b")),
        header("rootfs/b", b"2", link=out + b"/secret", mode=0, uid=12, gid=12, mtime=12),
    ),
    "deferred attributes of directories": lambda out: aci(
        directory("rootfs/d", 0o777, uid=12, mtime=12),
        regular("rootfs/d/f"),
        symlink("rootfs/s", out),
        directory("rootfs/e", 0o777, uid=12, mtime=12),
    ),
    "hard link to a file, then both names": lambda out: aci(
        regular("rootfs/a", b"x"), hard_link("rootfs/b", "./rootfs//a"), symlink("rootfs/c", out)
    ),
}


@pytest.mark.parametrize("archive", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_link_is_made_and_never_followed(archive: Callable[[bytes], bytes], box: Box) -> None:
    box.unpack(archive(os.fsencode(box.outside)))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The extractor under two sanitizers, which end it at what they find."""
    program = tmp_path_factory.mktemp("sanitized") / "unpack"
    flags = "-std=gnu11 -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
    libraries = "-pthread -lz -lzstd -llzma -lbz2 -lcrypto"
    sources = sorted(CSRC.glob("unpack*.c"))
    subprocess.run(["gcc", *flags.split(), *sources, "-o", program, *libraries.split()], check=True)
    return os.fspath(program)


def test_sanitizers_find_nothing_in_hostile_archives(sanitized: str, box: Box) -> None:
    box.program = sanitized
    for case in REFUSED:
        refuse(box, case)
    for archive in HARMLESS.values():
        box.unpack(archive(os.fsencode(box.outside)))


RICH = aci(
    directory("rootfs/etc"),
    regular("rootfs/etc/passwd", b"root:x:0:0::/:/bin/sh\n" * 40, mode=0o4755),
    hard_link("rootfs/etc/passwd-", "rootfs/etc/passwd"),
    symlink("rootfs/lib", "usr/lib"),
    pax(("path", "rootfs/ü" * 20), ("mtime", "-1.5"), ("SCHILY.xattr.user.a", b"\0\1")),
    regular("a", b"x" * 700),
    gnu_long(b"L", b"rootfs/" + b"n" * 150),
    header("a", magic=GNU),
    header("rootfs/s", b"S", magic=GNU, size=512, tail=gnu_sparse([(4096, 512)], 8192)),
    b"s" * 512,
    pax(("GNU.sparse.size", "2048"), ("GNU.sparse.map", "0,4,1024,4")),
    regular("rootfs/t", b"sparsely"),
    hostile.sparse_1_0("rootfs/u", 4096, padded(b"1\n1024\n4\n") + b"data"),
    header("rootfs/null", b"3", mode=0o666, major=1, minor=3),
)


def test_sanitizers_find_nothing_in_broken_archives(sanitized: str, box: Box) -> None:
    """Bits flipped, pieces exchanged, ends cut off; seeded, so that a failure comes again."""
    box.program = sanitized
    box.unpack(RICH)
    packed = [compress(RICH) for compress in COMPRESSORS.values()]
    for seed in range(120):
        chance = random.Random(seed)
        broken = bytearray(packed[seed % len(packed)])
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(broken))
            action = chance.randrange(4)
            if action == 0:
                broken[at] ^= 1 << chance.randrange(8)
            elif action == 1:
                broken[at : at + chance.randrange(16)] = chance.randbytes(chance.randrange(16))
            elif action == 2:
                block = chance.randrange(len(RICH) // 512) * 512
                broken[at // 512 * 512 : at // 512 * 512 + 512] = RICH[block : block + 512]
            else:
                del broken[at + 1 :]
        # Checksums are no obstacle to whoever means harm.
        if broken[257:262] == b"ustar":
            for start in range(0, len(broken) - 511, 512):
                if broken[start + 257 : start + 262] == b"ustar":
                    broken[start : start + 512] = hostile.checksummed(bytes(broken[start : start + 512]))
        try:
            box.unpack(bytes(broken), Limits(size=1 << 24))
        except BadImage as error:
            assert "extractor" not in str(error), (seed, str(error))


def cuts(archive: bytes) -> list[int]:
    blocks = [block + more for block in range(0, len(archive), 512) for more in (0, 1, 511)]
    return sorted({at for at in blocks if 0 < at < len(TOP) + 1024} | set(range(1, len(archive), 997)))


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_an_archive_cut_anywhere_is_refused(compression: str, box: Box) -> None:
    data = b"".join([hashlib.sha512(b"%d" % n).digest() for n in range(500)])
    whole = COMPRESSORS[compression](aci(regular("rootfs/f", data), directory("rootfs/d")))
    box.unpack(whole)
    for at in cuts(whole):
        with pytest.raises(BadImage, match="truncated|too short"):
            box.unpack(whole[:at])


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_the_report_tells_hash_sizes_and_compression(compression: str, box: Box) -> None:
    archive = aci(regular("rootfs/f", b"x" * 100_000), regular("rootfs/g"))
    packed = COMPRESSORS[compression](archive)
    kept = box.into.with_name("kept")
    assert box.unpack(packed, keep=kept) == Unpacked(
        sha512=hashlib.sha512(archive).hexdigest(),
        size=len(archive),
        compressed_size=len(packed),
        compression=compression,
        entries=4,
    )
    assert kept.read_bytes() == packed
    assert (box.into / "manifest").read_bytes() == MANIFEST
    assert (box.into / "manifest").stat().st_mode == stat.S_IFREG | 0o644


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_padding_behind_the_end_is_hashed(compression: str, box: Box) -> None:
    archive = aci() + bytes(10_001)
    assert box.unpack(COMPRESSORS[compression](archive)).sha512 == hashlib.sha512(archive).hexdigest()


SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"
MANY = {
    "gzip members": lambda parts: b"".join([gzip.compress(part) for part in parts]),
    "bzip2 streams": lambda parts: b"".join([bz2.compress(part) for part in parts]),
    "xz streams, padded": lambda parts: b"".join([lzma.compress(part) + bytes(8) for part in parts]),
    "zstd frames": lambda parts: b"".join([zstandard.compress(part) for part in parts]),
    "zstd frames and a skippable one": lambda parts: (
        SKIPPABLE + b"".join([zstandard.compress(part) + SKIPPABLE for part in parts])
    ),
    "gzip members with names, comments and header CRCs": lambda parts: b"".join(
        [
            b"\x1f\x8b\x08\x1c"
            + bytes(6)
            + b"\x03\x00abc"
            + b"name\x00"
            + b"comment\x00"
            + gzip.compress(part)[10:]
            for part in parts
        ]
    ),
}


@pytest.mark.parametrize("compress", MANY.values(), ids=MANY.keys())
@pytest.mark.parametrize("size", [100, 1000, 300_000])
def test_a_stream_may_have_many_parts(compress: Callable[[list[bytes]], bytes], size: int, box: Box) -> None:
    data = random.Random(size).randbytes(700 if size < 1000 else 1_000_000) + bytes(5000)
    archive = aci(regular("rootfs/f", data))
    parts = [archive[at : at + size] for at in range(0, len(archive), size)]
    assert box.unpack(compress(parts)).sha512 == hashlib.sha512(archive).hexdigest()
    assert (box.rootfs / "f").read_bytes() == data


@pytest.mark.parametrize("compress", MANY.values(), ids=MANY.keys())
def test_a_stream_may_come_byte_by_byte(compress: Callable[[list[bytes]], bytes], box: Box) -> None:
    archive = aci(regular("rootfs/f", random.Random(1).randbytes(300)))
    packed = compress([archive[:700], archive[700:]])
    # Sockets of datagrams keep what is written apart, as a pipe would not.
    reading, writing = os.pipe2(os.O_DIRECT)
    into = open_directory(box.into)
    command = [PROGRAM, "--source", str(reading), "--into", str(into)]
    with subprocess.Popen(command, pass_fds=(reading, into), stdout=subprocess.PIPE, text=True) as process:
        os.close(reading)
        os.close(into)
        for at in range(len(packed)):
            os.write(writing, packed[at : at + 1])
        os.close(writing)
        report, _ = process.communicate()
    assert process.returncode == 0, report
    assert f"sha512={hashlib.sha512(archive).hexdigest()}\n" in report


@pytest.fixture
def zlib_box(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A box whose extractor has no libisal, as on a machine without it."""
    script = tmp_path_factory.mktemp("zlib") / "unpack"
    script.write_text(f'#!/bin/sh\nexec "{PROGRAM}" --zlib "$@"\n')
    script.chmod(0o755)
    box.program = os.fspath(script)
    return box


GZIPPED = [case for case in REFUSED if case.archive(b"").startswith(b"\x1f\x8b")]


@pytest.mark.parametrize("case", GZIPPED, ids=[case.name for case in GZIPPED])
def test_zlib_refuses_what_isal_does(case: Case, zlib_box: Box) -> None:
    refuse(zlib_box, case)


@pytest.mark.parametrize("kind", [kind for kind in MANY if "gzip" in kind])
@pytest.mark.parametrize("size", [100, 1000, 300_000])
def test_zlib_reads_what_isal_does(kind: str, size: int, zlib_box: Box) -> None:
    data = random.Random(size).randbytes(700 if size < 1000 else 1_000_000) + bytes(5000)
    archive = aci(regular("rootfs/f", data))
    parts = [archive[at : at + size] for at in range(0, len(archive), size)]
    assert zlib_box.unpack(MANY[kind](parts)).sha512 == hashlib.sha512(archive).hexdigest()


def test_zlib_finds_every_truncation(zlib_box: Box) -> None:
    whole = gzip.compress(aci(regular("rootfs/f", random.Random(5).randbytes(300))), mtime=0)
    for length in range(3, len(whole), 7):
        with pytest.raises(BadImage, match="truncated"):
            zlib_box.unpack(whole[:length])


def open_directory(path: Path) -> int:
    path.mkdir(exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


# Fidelity: what GNU tar makes of an archive is what we make of it.


def make_tree(rootfs: Path) -> None:
    """Make one of everything an image can have."""
    rootfs.mkdir(parents=True)
    for name in ("a", "a/b", "a/b/c", "empty", "sticky", "setgid", "closed"):
        (rootfs / name).mkdir()
    for number in range(40):
        (rootfs / f"a/file{number}").write_bytes(b"%d\n" % number * number * 37)
    (rootfs / "a/b/large").write_bytes(random.Random(0).randbytes(3_000_001))
    (rootfs / "a/b/exact").write_bytes(bytes(range(256)) * 2)
    os.link(rootfs / "a/file1", rootfs / "a/b/c/linked")
    os.link(rootfs / "a/file1", rootfs / "zlinked")
    for mode in (0o4755, 0o2755, 0o6711, 0o1644, 0o000, 0o777):
        (rootfs / f"mode{mode:o}").write_text("x")
        os.chown(rootfs / f"mode{mode:o}", 1000 + mode, 65534)
        (rootfs / f"mode{mode:o}").chmod(mode)
    (rootfs / "dangling").symlink_to("/nowhere/at/all")
    (rootfs / "up").symlink_to("../../..")
    (rootfs / "far").symlink_to("x/" * 300)
    os.chown(rootfs / "dangling", 7, 8, follow_symlinks=False)
    os.mkfifo(rootfs / "fifo", 0o620)
    os.mknod(rootfs / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(rootfs / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.chown(rootfs / "block", 0, 6)
    (rootfs / ("l" * 255)).write_text("long")
    deep = rootfs / "/".join(["d" * 50] * 8)
    deep.mkdir(parents=True)
    (deep / "f").write_text("deep")
    os.symlink("deep", deep / "l")
    for name in ("naïve ☃", "-dash", "quote'\"\\", "new\nline", "tab\t", " spaces "):
        (rootfs / name).write_text(name)
    Path(os.fsdecode(os.fsencode(rootfs) + b"/bytes\xff\xfe\x80")).write_text("bytes")
    with (rootfs / "sparse").open("wb") as file:
        for at in (0, 1 << 20, 5 << 20, 9 << 20):
            file.seek(at)
            file.write(b"data" * 2048)
        file.truncate(10 << 20)
    with (rootfs / "hole").open("wb") as file:
        file.truncate(1 << 20)
    with (rootfs / "comb").open("wb") as file:
        for at in range(0, 100 << 13, 1 << 13):
            file.seek(at)
            file.write(b"\1" * 4096)
    os.setxattr(rootfs / "a/file2", "user.mime", b"text/plain")
    os.setxattr(rootfs / "a/file2", "user.bytes", b"\0=\n\xff")
    os.setxattr(rootfs / "a/file3", "user.empty", b"")
    os.setxattr(rootfs / "a/file3", "user.a=b%", b"in the name")
    os.setxattr(rootfs / "empty", "user.of", b"a directory")
    capability = bytes.fromhex("01000002 00200000 00000000 00000000 00000000")  # cap_net_raw+ep
    os.setxattr(rootfs / "mode777", "security.capability", capability)
    (rootfs / "sticky").chmod(0o1777)
    os.chown(rootfs / "setgid", 5, 6)
    (rootfs / "setgid").chmod(0o2775)
    (rootfs / "setgid/inside").write_text("not of its group")
    os.chown(rootfs / "setgid/inside", 0, 0)
    (rootfs / "setgid/sub").mkdir()
    os.chown(rootfs / "setgid/sub", 0, 0)
    (rootfs / "setgid/sub").chmod(0o755)
    (rootfs / "closed/f").write_text("closed")
    (rootfs / "closed").chmod(0)
    chance = random.Random(2)
    for path in sorted(rootfs.rglob("*"), reverse=True):
        when = chance.randrange(10**18, 17 * 10**17)
        os.utime(path, ns=(when, when), follow_symlinks=False)
    os.utime(rootfs / "a/file4", ns=(0, 0))
    os.utime(rootfs / "a/file5", ns=(0, -3 * 10**9))
    os.utime(rootfs, ns=(10**18, 10**18))


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    make_tree(top / "rootfs")
    (top / "manifest").write_bytes(MANIFEST)
    return top


def gnu_tar_extracts(archive: Path, into: Path) -> None:
    into.mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"]
    subprocess.run(
        [*command, "--numeric-owner", "--same-owner", "-xpf", archive, "-C", into],
        check=True,
        stderr=subprocess.PIPE,
    )


def holes(path: Path) -> dict[str, int]:
    found = [entry for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink()]
    return {os.fspath(entry.relative_to(path)): entry.stat().st_blocks for entry in found}


XATTRS = ["--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability"]
GNU_TAR = {
    "gnu": ["--format=gnu"],
    "oldgnu, sparse": ["--format=oldgnu", "--sparse"],
    "pax": ["--format=pax", *XATTRS],
    "pax, sparse 0.0": ["--format=pax", "--sparse", "--sparse-version=0.0", *XATTRS],
    "pax, sparse 0.1": ["--format=pax", "--sparse", "--sparse-version=0.1", *XATTRS],
    "pax, sparse 1.0": ["--format=pax", "--sparse", "--sparse-version=1.0", *XATTRS],
    "pax, names from .": ["--format=pax", *XATTRS, "--transform=flags=rh;s,^,./,"],
    "pax, zstd": ["--format=pax", "--zstd", *XATTRS],
    "gnu, gzip, by blocks of 1 MiB": ["--format=gnu", "--gzip", "--record-size=1M"],
}


@pytest.mark.parametrize("options", GNU_TAR.values(), ids=GNU_TAR.keys())
def test_a_tree_is_what_gnu_tar_makes_of_the_archive(
    options: list[str], tree: Path, box: Box, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("gnu")
    archive, theirs = place / "aci", place / "theirs"
    members = ["rootfs", "manifest"]
    subprocess.run(["tar", *options, "--numeric-owner", "-cf", archive, "-C", tree, *members], check=True)
    box.unpack(archive)
    gnu_tar_extracts(archive, theirs)
    assert snapshot(box.rootfs) == snapshot(theirs / "rootfs")
    if "--format=pax" in options:
        assert snapshot(box.rootfs) == snapshot(tree / "rootfs")
    if "--sparse" in options:
        assert holes(box.rootfs) == holes(theirs / "rootfs")
    shutil.rmtree(theirs)


def test_a_tree_is_what_bsdtar_wrote(tree: Path, box: Box) -> None:
    archive = box.into.with_name("archive")
    subprocess.run(["bsdtar", "--format=pax", "-cf", archive, "-C", tree, "manifest", "rootfs"], check=True)
    box.unpack(archive)
    assert snapshot(box.rootfs) == snapshot(tree / "rootfs")


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_a_tree_is_what_python_wrote(kind: int, tree: Path, box: Box) -> None:
    archive = box.into.with_name("archive")
    with tarfile.open(archive, "w", format=kind) as tar:
        tar.add(tree / "manifest", "manifest")
        tar.add(tree / "rootfs", "rootfs")
    box.unpack(archive)

    def plain(path: Path) -> dict[str, tuple[object, ...]]:
        """Without attributes, which it knows nothing of, and with times as precise as its floats."""
        unit = 10**9 if kind == tarfile.GNU_FORMAT else 1000
        return {
            name: (*entry[:3], int(str(entry[3])) // unit, *entry[4:6], entry[7])
            for name, entry in snapshot(path).items()
        }

    ours, real = plain(box.rootfs), plain(tree / "rootfs")
    assert ours.keys() == real.keys()
    for name, entry in ours.items():
        assert entry[:3] == real[name][:3]
        assert entry[4:] == real[name][4:]
        assert abs(int(str(entry[3])) - int(str(real[name][3]))) <= 1


@pytest.mark.parametrize("directory", ["/etc", "/usr/sbin", "/dev"])
def test_a_real_tree_is_what_gnu_tar_makes_of_it(
    directory: str, box: Box, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("real")
    (place / "manifest").write_bytes(MANIFEST)
    rename = f"--transform=flags=rh;s,^{directory[1:]},rootfs,"
    options = [
        "--format=pax",
        *XATTRS,
        "--one-file-system",
        "--exclude=/dev/shm/*",
        "--numeric-owner",
        rename,
    ]
    command: list[str | Path] = [
        "tar",
        *options,
        "-cf",
        place / "aci",
        "-C",
        place,
        "manifest",
        "-C",
        "/",
        directory[1:],
    ]
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    box.unpack(place / "aci")
    gnu_tar_extracts(place / "aci", place / "theirs")
    ours, theirs = snapshot(box.rootfs), snapshot(place / "theirs/rootfs")
    assert ours == theirs
    assert len(ours) > 50
    shutil.rmtree(place)


def test_a_directory_may_come_after_what_is_in_it(box: Box) -> None:
    box.unpack(
        aci(
            regular("rootfs/a/b/f", b"x", mtime=5),
            directory("rootfs/a/b", 0o711, uid=3, gid=4, mtime=6),
            regular("rootfs/c/f"),
            directory("rootfs/a", 0o2750, mtime=7),
            regular("rootfs/a/b/g", b"y"),
            directory("rootfs", 0o700, mtime=8),
            top=regular("manifest", MANIFEST),
        )
    )
    tree = snapshot(box.rootfs)
    assert tree["a/b"][:4] == ("0o40711", 3, 4, 6 * 10**9)
    assert tree["a"][:4] == ("0o42750", 0, 0, 7 * 10**9)
    assert tree["."][:4] == ("0o40700", 0, 0, 8 * 10**9)


def test_parents_that_the_archive_does_not_have_are_roots_and_old(box: Box) -> None:
    box.unpack(aci(regular("rootfs/a/b/c", uid=5), top=regular("manifest", MANIFEST)))
    tree = snapshot(box.rootfs)
    for name in (".", "a", "a/b"):
        assert tree[name][:4] == ("0o40755", 0, 0, 0)


# A version, then tag, rights and id of each entry, little-endian: nothing for anyone but user 7
# (linux/posix_acl_xattr.h).
DEFAULT_ACL = struct.pack(
    "<I" + "HHI" * 5,
    *(2, 0x01, 0, 0xFFFFFFFF, 0x02, 7, 7, 0x04, 0, 0xFFFFFFFF, 0x10, 0, 0xFFFFFFFF, 0x20, 0, 0xFFFFFFFF),
)


def test_the_caller_cannot_change_what_is_made(box: Box) -> None:
    """Neither by the mask and group of the process, nor by the directory's setgid bit and default ACL."""
    archive = aci(
        regular("rootfs/f", mode=0o666), directory("rootfs/d", 0o777), regular("rootfs/d/f", mode=0o660)
    )
    box.unpack(archive)
    expected = snapshot(box.rootfs)
    path = box.into.with_name("archive")
    for number, group in enumerate([0, 12]):
        into = box.into / f"{number}"
        into.mkdir()
        os.chown(into, 0, 99)
        into.chmod(0o2777)
        os.setxattr(into, "system.posix_acl_default", DEFAULT_ACL)
        fd = os.open(into, os.O_RDONLY)
        source = os.open(path, os.O_RDONLY)
        subprocess.run(
            [PROGRAM, "--source", str(source), "--into", str(fd)],
            pass_fds=(source, fd),
            umask=0o077,
            group=group,
            extra_groups=[],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        os.close(fd)
        os.close(source)
        assert snapshot(into / "rootfs") == expected


def test_only_attributes_that_are_the_files_own_are_set(box: Box) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    records = [
        ("SCHILY.xattr.user.a", b"schily"),
        ("LIBARCHIVE.xattr.user.b%20c", b"bGliYXJjaGl2ZQ"),
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/"),
        ("LIBARCHIVE.xattr.user.overlay.whiteout", b"eQ=="),
        ("SCHILY.xattr.trusted.a", b"b"),
        ("SCHILY.xattr.security.selinux", b"unconfined"),
        ("SCHILY.xattr.security.ima", b"hash"),
        ("SCHILY.xattr.system.posix_acl_access", b"acl"),
        ("SCHILY.acl.access", b"user::rwx"),
    ]
    box.unpack(aci(pax(*records), regular("rootfs/f"), pax(*records), directory("rootfs/d")))
    kept = (("security.capability", capability), ("user.a", b"schily"), ("user.b c", b"libarchive"))
    assert snapshot(box.rootfs)["f"][6] == kept
    assert snapshot(box.rootfs)["d"][6] == kept


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1", 10**9),
        ("1.", 10**9),
        ("1.5", 15 * 10**8),
        ("1.123456789", 1_123_456_789),
        ("1.1234567899", 1_123_456_789),
        ("1.000000001", 1_000_000_001),
        ("-1", -(10**9)),
        ("-0.25", -25 * 10**7),
        ("-1.000000001", -1_000_000_001),
        ("4294967296.5", 4_294_967_296_500_000_000),
    ],
)
def test_a_time_has_nanoseconds_and_may_be_before_1970(text: str, nanoseconds: int, box: Box) -> None:
    box.unpack(aci(pax(("mtime", text)), regular("rootfs/f"), pax(("mtime", text)), directory("rootfs/d")))
    assert (box.rootfs / "f").stat().st_mtime_ns == nanoseconds
    assert (box.rootfs / "d").stat().st_mtime_ns == nanoseconds


def test_numbers_may_be_in_base_256(box: Box) -> None:
    fields = {"uid": base256(4294967294, 8), "gid": base256(3_000_000_000, 8), "mtime": base256(-86400, 12)}
    box.unpack(aci(header("rootfs/f", size=base256(3, 12), **fields), padded(b"abc")))
    st = (box.rootfs / "f").stat()
    assert (st.st_size, st.st_uid, st.st_gid, st.st_mtime) == (3, 4294967294, 3_000_000_000, -86400)


def test_a_global_header_gives_owner_and_time(box: Box) -> None:
    box.unpack(
        aci(
            pax(("uid", "7"), ("comment", "git archive writes one"), ("mtime", "1.5"), kind=b"g"),
            regular("rootfs/f", uid=1, gid=2),
            pax(("uid", "8")),
            regular("rootfs/g", uid=1),
        )
    )
    assert snapshot(box.rootfs)["f"][:4] == ("0o100644", 7, 2, 1_500_000_000)
    assert snapshot(box.rootfs)["g"][:4] == ("0o100644", 8, 0, 1_500_000_000)


def test_pax_size_counts_and_not_that_of_the_header(box: Box) -> None:
    box.unpack(aci(pax(("size", "3")), header("rootfs/f", size=0), padded(b"abc"), regular("rootfs/g")))
    assert (box.rootfs / "f").read_bytes() == b"abc"
    assert (box.rootfs / "g").exists()


def test_a_sparse_file_costs_what_is_in_it(box: Box) -> None:
    size = 7 << 30
    tail = gnu_sparse([(1 << 30, 4096), (6 << 30, 4096)], size)
    box.unpack(aci(header("rootfs/f", b"S", magic=GNU, size=8192, tail=tail) + b"s" * 8192))
    st = (box.rootfs / "f").stat()
    assert st.st_size == size
    assert st.st_blocks * 512 <= 64 << 10


def test_names_up_to_the_limits_of_linux(box: Box) -> None:
    deep = "rootfs/" + "/".join(["d"] * 500)
    wide = "rootfs/" + "/".join(["w" * 255] * 15) + "/" + "e" * 240
    assert len(wide) < 4096
    box.unpack(
        aci(pax(("path", deep + "/f")), regular("a", b"deep"), pax(("path", wide)), regular("a", b"wide"))
    )
    assert (box.into / deep / "f").read_bytes() == b"deep"
    fd = os.open(box.into, os.O_RDONLY)
    for part in wide.split("/")[:-1]:
        inner = os.open(part, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    assert os.stat("e" * 240, dir_fd=fd).st_size == 4
    os.close(fd)


# The program: its limits, its confinement, its end.


def peak_memory(archive: Path, into: Path) -> int:
    """The kernel counts what a process was before exec, too: ours would be that of all tests so far."""
    code = """if True:
        import os, sys
        source, into = os.open(sys.argv[2], os.O_RDONLY), os.open(sys.argv[3], os.O_RDONLY)
        arguments = [sys.argv[1], "--source", str(source), "--into", str(into), "--report", "2"]
        shared = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (source, into)]
        pid = os.posix_spawn(arguments[0], arguments, {}, file_actions=shared)
        _, status, usage = os.wait4(pid, 0)
        assert status == 0
        print(usage.ru_maxrss)
    """
    into.mkdir()
    command: list[str | Path] = [sys.executable, "-I", "-S", "-c", code, PROGRAM, archive, into]
    return int(subprocess.check_output(command, stderr=subprocess.PIPE)) << 10


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "bzip2", "xz"])
def test_memory_is_bounded(compression: str, box: Box) -> None:
    data = random.Random(3).randbytes(1 << 20) + bytes(24 << 20)
    files = b"".join([regular(f"rootfs/{number}", data) for number in range(2)])
    many = b"".join([regular(f"rootfs/d{number % 9}/{number}") for number in range(3000)])
    archive = box.into.with_name("archive")
    archive.write_bytes(COMPRESSORS[compression](aci(files, many)))
    assert peak_memory(archive, box.into) <= 40 << 20


def test_a_full_disk_is_a_sentence(box: Box) -> None:
    box.into.mkdir()
    archive = box.into.with_name("archive")
    archive.write_bytes(aci(regular("rootfs/a"), regular("rootfs/large", b"x" * (2 << 20))))
    line = 'mount -t tmpfs -o size=1m tmpfs "$2" && exec "$0" --source 3 --into 4 3<"$1" 4<"$2"'
    command: list[str | Path] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        line,
        PROGRAM,
        archive,
        box.into,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "error=rootfs/large: cannot write it: No space left on device\nerrno=28\n"


def test_a_copy_that_cannot_be_written_is_a_sentence(box: Box) -> None:
    with pytest.raises(BadImage, match="^cannot write the copy of the archive: No space left on device$"):
        box.unpack(aci(), keep=Path("/dev/full"))


def test_an_archive_that_cannot_be_read_is_a_sentence(box: Box) -> None:
    with pytest.raises(BadImage, match="^cannot read the archive: Is a directory$"):
        box.unpack(box.outside)


def test_a_directory_that_is_not_empty_is_refused(box: Box) -> None:
    (box.outside.with_name("archive")).write_bytes(aci())
    into = open_directory(box.into)
    (box.into / "rootfs").symlink_to(box.outside)
    source = os.open(box.outside.with_name("archive"), os.O_RDONLY)
    with pytest.raises(BadImage, match="^cannot extract: rootfs: File exists$"):
        unpack(source, into)
    os.close(into)
    os.close(source)


def test_descriptors_may_have_any_numbers_and_stay_open(box: Box) -> None:
    (box.outside.with_name("archive")).write_bytes(aci())
    source, into = os.open(box.outside.with_name("archive"), os.O_RDONLY), open_directory(box.into)
    high = os.dup2(source, 200, inheritable=False)
    assert unpack(high, into, sync=True).entries == 2
    for fd in (source, into, high):
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_a_program_that_is_not_there_is_an_os_error(box: Box) -> None:
    fd = open_directory(box.into)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        unpack(fd, fd, program="/nonexistent/unpack")
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--source", "3"],
        ["--source", "3", "--into", "-1"],
        ["--source", "3", "--into", "4x"],
        ["--source", "3", "--into", "4", "--max-size", ""],
        ["--source", "3", "--into", "99999999999"],
        ["--source", "3", "--into", "4", "more"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: unpack" in done.stderr


def test_only_root_can_extract(box: Box) -> None:
    into = open_directory(box.into)
    program = os.open(PROGRAM, os.O_RDONLY)  # the way to it may be closed to others
    done = subprocess.run(
        [f"/proc/self/fd/{program}", "--source", "0", "--into", str(into)],
        pass_fds=(into, program),
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    os.close(into)
    os.close(program)
    assert done.stdout == "error=cannot extract an image: only root can: Operation not permitted\nerrno=1\n"


@dataclass
class Waiting:
    """An extractor in the middle of an archive."""

    process: subprocess.Popen[bytes]
    writing: int

    def status(self, task: str) -> dict[str, str]:
        lines = Path(f"/proc/{self.process.pid}/task/{task}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in [line.partition(":") for line in lines]}


@pytest.fixture
def waiting(box: Box) -> Iterator[Waiting]:
    reading, writing = os.pipe()
    into = open_directory(box.into)
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    process = subprocess.Popen(
        [PROGRAM, "--source", str(reading), "--into", str(into)],
        pass_fds=(reading, into, leaked),
        stdout=subprocess.DEVNULL,
    )
    for fd in (reading, into, leaked):
        os.close(fd)
    half = gzip.compress(aci(regular("rootfs/f", random.Random(4).randbytes(2_000_000))))[:1_500_000]
    os.write(writing, half)
    deadline = time.monotonic() + 10
    # It is at work, with all its threads, once there is something of the file.
    while not (box.rootfs / "f").exists() or (box.rootfs / "f").stat().st_size == 0:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    yield Waiting(process, writing)
    os.close(writing)
    process.kill()
    process.wait()


CAPABILITIES = (
    1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31
)  # CHOWN DAC_OVERRIDE FOWNER FSETID MKNOD SETFCAP


def test_it_is_confined_before_it_looks_at_the_archive(waiting: Waiting, box: Box) -> None:
    pid = waiting.process.pid
    assert Path(os.readlink(f"/proc/{pid}/root")) == box.into
    assert Path(os.readlink(f"/proc/{pid}/cwd")) == box.into
    open_files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert "/etc/passwd" not in open_files
    tasks = os.listdir(f"/proc/{pid}/task")
    assert len(tasks) == 4
    for task in tasks:
        status = waiting.status(task)
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == CAPABILITIES
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_it_ends_with_its_parent(box: Box) -> None:
    box.into.mkdir()
    code = """if True:
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from rkt_py.runtime import unpack
        spawn = os.posix_spawn
        def spawn_and_tell(*arguments, **options):
            pid = spawn(*arguments, **options)
            print(pid, flush=True)
            return pid
        os.posix_spawn = spawn_and_tell
        unpack.unpack(int(sys.argv[3]), os.open(sys.argv[2], os.O_RDONLY))
    """
    reading, writing = os.pipe()  # `writing` is ours: the archive does not end with the parent
    command: list[str | Path] = [sys.executable, "-c", code, CSRC.parent, box.into, str(reading)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[reading]) as parent:
        os.close(reading)
        assert parent.stdout
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        os.write(writing, aci())
        deadline = time.monotonic() + 10
        while not box.rootfs.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert select.select([pidfd], [], [], 0) == ([], [], [])
        parent.kill()
    assert select.select([pidfd], [], [], 10)[0] == [pidfd]
    os.close(pidfd)
    os.close(writing)


def test_it_does_not_start_for_a_parent_that_is_gone(box: Box) -> None:
    box.into.mkdir()
    line = '"$0" --source 3 --into 4 --parent 1 3</dev/null 4<"$1"'
    done = subprocess.run(["sh", "-c", line, PROGRAM, box.into], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot go on without its parent" in done.stdout


def test_an_extractor_that_was_killed_is_an_error(box: Box) -> None:
    script = box.into.with_name("archive")
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    fd = open_directory(box.into)
    with pytest.raises(BadImage, match="^the extractor was killed by signal 9$"):
        unpack(fd, fd, program=os.fspath(script))
    script.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(BadImage, match=r"^the extractor failed \(3\)$"):
        unpack(fd, fd, program=os.fspath(script))
    os.close(fd)


def test_it_needs_no_file_but_libc() -> None:
    """libisal is loaded before the root is changed, where there is one; and nothing is, later."""
    needed = subprocess.check_output(["objdump", "-p", PROGRAM], text=True)
    assert set(re.findall(r"NEEDED +(\S+)", needed)) == {"libc.so.6"}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_an_archive_is_refused_before_the_rest_of_it_comes(compression: str, box: Box) -> None:
    """A writer into a pipe is not left waiting: the pipe breaks."""
    reading, writing = os.pipe()
    into = open_directory(box.into)
    packed = COMPRESSORS[compression](aci(regular("etc/passwd"), random.Random(5).randbytes(60_000)))
    os.write(writing, packed[:-1])
    with pytest.raises(BadImage, match="^etc/passwd: "):
        unpack(reading, into)
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        os.write(writing, END)
    os.close(writing)
    os.close(into)
