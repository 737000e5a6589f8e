"""Building: what goes into an image comes out of it, the same each time, and nothing half-written stays."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rkt_py.aci import build as build_
from rkt_py.aci import compressor, imagemanifest, tar
from rkt_py.aci.build import Built, build, manifest_for
from rkt_py.aci.compressor import Compression
from rkt_py.aci.errors import BadManifest, BuildError

ROOT = Path(__file__).parents[2]
MANIFEST = manifest_for("example.com/hello", version="1.0.0", arch="amd64", exec=["/bin/sh"])
MANIFEST_BYTES = imagemanifest.dump(MANIFEST).encode()
COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd", "xz", "bzip2", "none")
TIME = 1_500_000_000_123_456_789
BLOCK = 4096

# struct vfs_cap_data of linux/capability.h, revision 2, effective: CAP_NET_RAW.
NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def write_holes(path: Path, size: int, parts: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)


def make_tree(root: Path, *, seed: int = 0, devices: bool = True) -> Path:
    """Make a tree with one of everything, its directories filled in an order that `seed` chooses."""

    def a_file(path: Path) -> None:
        path.write_bytes(b"hello\n")
        os.chmod(path, 0o640)

    def big(path: Path) -> None:
        path.write_bytes(random.Random(1).randbytes(3 * 1024 * 1024 + 17))

    def links(path: Path) -> None:
        path.mkdir()
        (path / "first").write_bytes(b"linked")
        os.link(path / "first", path / "second")
        os.link(path / "first", path / "z-third")
        (path / "symlink").symlink_to("first")
        os.link(path / "symlink", path / "symlink-again", follow_symlinks=False)

    def attributes(path: Path) -> None:
        path.mkdir()
        (path / "file").write_bytes(b"x")
        os.setxattr(path / "file", "user.empty", b"")
        os.setxattr(path / "file", "user.binary", b"\0\n=\xff user.x=1\n")
        os.setxattr(path, "user.of.a.directory", b"yes")
        if devices:
            (path / "ping").write_bytes(b"x")
            os.setxattr(path / "ping", "security.capability", NET_RAW)

    def holes(path: Path) -> None:
        path.mkdir()
        write_holes(path / "all", 10 * BLOCK, {})
        write_holes(path / "unaligned", 7 * BLOCK + 5, {})
        write_holes(path / "middle", 20 * BLOCK, {0: b"a", 19 * BLOCK: b"b" * BLOCK})
        write_holes(path / "ends", 40 * BLOCK + 7, {10 * BLOCK + 1: b"c", 40 * BLOCK: b"tail"})
        write_holes(path / "huge", 1 << 40, {1 << 39: b"far"})
        write_holes(path / "at the last byte", 3 * BLOCK + 1, {3 * BLOCK: b"e"})

    def names(path: Path) -> None:
        path.mkdir()
        for name in (
            b"caf\xc3\xa9",
            b"\xff\xfe",
            b" ",
            b"new\nline",
            b"-rf",
            b"*",
            b"a" * 255,
            b"\xe9" * 200,
        ):
            Path(os.fsdecode(os.fsencode(path) + b"/" + name)).write_bytes(name)
        (path / "short").symlink_to("x" * 300)
        Path(os.fsdecode(os.fsencode(path) + b"/raw")).symlink_to(os.fsdecode(b"\xff" * 150))
        write_holes(Path(os.fsdecode(os.fsencode(path) + b"/" + b"\xee" * 120)), 9 * BLOCK, {0: b"z"})
        deep = path
        for part in ("directory" * 5, "directory" * 9, "directory" * 12):
            deep = deep / part
            deep.mkdir()
        (deep / "file").write_bytes(b"deep")
        os.link(deep / "file", deep / "link")

    def order(path: Path) -> None:
        path.mkdir()
        for name in ("a", "a-b", "a.d"):
            (path / name).mkdir()
        (path / "a" / "x").write_bytes(b"")
        (path / "a-b" / "x").write_bytes(b"")
        (path / "a0").write_bytes(b"")

    def modes(path: Path) -> None:
        path.mkdir()
        for mode in (0o000, 0o777, 0o4755, 0o2755, 0o6711):
            (path / f"{mode:o}").write_bytes(b"")
            os.chmod(path / f"{mode:o}", mode)
        (path / "tmp").mkdir()
        os.chmod(path / "tmp", 0o1777)
        if devices:
            (path / "owned").write_bytes(b"")
            os.chown(path / "owned", 1000, 2000)
            (path / "far").write_bytes(b"")
            os.chown(path / "far", 4294967294, 2097152)
            (path / "link").symlink_to("x")
            os.chown(path / "link", 5, 6, follow_symlinks=False)

    def special(path: Path) -> None:
        path.mkdir()
        os.mkfifo(path / "fifo", 0o620)
        if devices:
            os.mknod(path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            os.mknod(path / "loop", 0o660 | stat.S_IFBLK, os.makedev(7, 1048575))

    def times(path: Path) -> None:
        path.mkdir()
        for name in ("old", "future", "second", "tenth"):
            (path / name).write_bytes(b"")

    makers: dict[str, Callable[[Path], None]] = {
        "a file": a_file,
        "big": big,
        "links": links,
        "attributes": attributes,
        "holes": holes,
        "names": names,
        "order": order,
        "modes": modes,
        "special": special,
        "times": times,
        "empty": lambda path: path.mkdir(),
    }
    root.mkdir()
    order_of_making = sorted(makers)
    random.Random(seed).shuffle(order_of_making)
    for name in order_of_making:
        makers[name](root / name)
    for directory, subdirectories, files in os.walk(os.fsencode(root), topdown=False):
        for name_ in sorted(subdirectories + files):
            path_ = os.path.join(directory, name_)
            os.utime(path_, ns=(TIME, TIME + len(name_)), follow_symlinks=False)
    # Whole seconds before 1970: bsdtar reads -1.5 as -0.5.
    old = {
        "old": -2_000_000_000,
        "future": (1 << 33) * 10**9 + 1,
        "second": 5 * 10**9,
        "tenth": 5_100_000_000,
    }
    for name, nanoseconds in old.items():
        os.utime(root / "times" / name, ns=(0, nanoseconds))
    os.utime(root / "times", ns=(0, TIME))
    os.utime(root, ns=(0, TIME))
    return root


def extents(path: bytes, size: int) -> tuple[tuple[int, int], ...]:
    found = []
    fd = os.open(path, os.O_RDONLY)
    try:
        end = 0
        while end < size:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, end))
    finally:
        os.close(fd)
    return tuple(found)


def digest(path: bytes, size: int) -> str:
    found = hashlib.sha256(b"%d" % size)
    with open(path, "rb") as file:
        for start, end in extents(path, size):
            file.seek(start)
            while start < end and (data := file.read(min(end - start, 1 << 20)).rstrip(b"\0")):
                found.update(b"%d" % start + data)
                start = file.tell()
    return found.hexdigest()


def snapshot(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that an image keeps of a tree, by name."""
    top = os.fsencode(root)
    links: dict[tuple[int, int], bytes] = {}
    seen: dict[bytes, tuple[object, ...]] = {}
    for directory, subdirectories, files in os.walk(top):
        subdirectories.sort()
        for name in (b".", *sorted(subdirectories + files)):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, top)
            if relative in seen:
                continue
            what = os.lstat(path)
            content: object = None
            if stat.S_ISREG(what.st_mode):
                content = (what.st_size, digest(path, what.st_size), extents(path, what.st_size))
            elif stat.S_ISLNK(what.st_mode):
                content = os.readlink(path)
            elif stat.S_ISCHR(what.st_mode) or stat.S_ISBLK(what.st_mode):
                content = what.st_rdev
            xattrs = () if stat.S_ISLNK(what.st_mode) else tuple(sorted(os.listxattr(path)))
            first = relative
            if stat.S_ISREG(what.st_mode):
                first = links.setdefault((what.st_dev, what.st_ino), relative)
            seen[relative] = (
                oct(what.st_mode),
                what.st_uid,
                what.st_gid,
                what.st_mtime_ns,
                content,
                tuple((name, os.getxattr(path, name)) for name in xattrs),
                first,
            )
    return seen


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("build") / "rootfs", devices=os.geteuid() == 0)


@pytest.fixture(scope="module")
def images(tree: Path) -> dict[Compression, tuple[Path, Built]]:
    made = {}
    for compression in COMPRESSIONS:
        path = tree.parent / f"hello.{compression}.aci"
        made[compression] = path, build(tree, MANIFEST, path, compression=compression)
    return made


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    root.mkdir()
    (root / "file").write_bytes(b"hello\n")
    return root


def entries(image: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(image) as archive:
        return archive.getmembers()


def left(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


# --- what comes out


READERS = {
    "GNU tar": [
        "tar",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--warning=no-unknown-keyword",
        "-xpf",
    ],
    "bsdtar": ["bsdtar", "--xattrs", "--numeric-owner", "-xpf"],
}


@pytest.mark.root
@pytest.mark.parametrize("reader", READERS)
def test_other_tars_extract_the_same_tree(
    tree: Path, images: dict[Compression, tuple[Path, Built]], tmp_path: Path, reader: str
) -> None:
    command = [*READERS[reader], str(images["zstd"][0]), "-C", str(tmp_path)]
    # bsdtar converts names by the locale, and C.UTF-8 is the one every Debian has.
    subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True)
    assert left(tmp_path) == ["manifest", "rootfs"]
    assert (tmp_path / "manifest").read_bytes() == MANIFEST_BYTES
    expected = snapshot(tree)
    got = snapshot(tmp_path / "rootfs")
    assert got.keys() == expected.keys()
    assert {path: got[path] for path in got if got[path] != expected[path]} == {}


@pytest.mark.parametrize("time", [-1_500_000_000, -1, 1, 10**9, (1 << 33) * 10**9 + 7])
def test_gnu_tar_reads_any_time(small: Path, tmp_path: Path, time: int) -> None:
    os.utime(small / "file", ns=(0, time))
    kept = (small / "file").stat().st_mtime_ns
    build(small, MANIFEST, tmp_path / "o")
    (tmp_path / "out").mkdir()
    command = ["tar", "-xpf", "o", "-C", "out", "--warning=no-timestamp"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "out/rootfs/file").stat().st_mtime_ns == kept == time


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_holds_the_same_archive(
    images: dict[Compression, tuple[Path, Built]], compression: Compression
) -> None:
    commands = {"gzip": "gzip", "zstd": "zstd", "xz": "xz", "bzip2": "bzip2", "none": "cat"}
    path, built = images[compression]
    command = [commands[compression], *([] if compression == "none" else ["-d", "-c"])]
    with path.open("rb") as image:
        archive = subprocess.run(command, stdin=image, check=True, capture_output=True).stdout
    assert hashlib.sha512(archive).hexdigest() == built.sha512
    assert built.key == "sha512-" + built.sha512[:64]
    assert len(archive) == built.size
    assert path.stat().st_size == built.compressed_size
    assert built.sha512 == images["none"][1].sha512


def test_manifest_is_first_and_names_are_sorted_by_their_bytes(
    images: dict[Compression, tuple[Path, Built]],
) -> None:
    with tarfile.open(images["none"][0], encoding="utf-8", errors="surrogateescape") as archive:
        names = [os.fsencode(item.name) + (b"/" if item.isdir() else b"") for item in archive]
    assert names[:2] == [b"manifest", b"rootfs/"]
    assert names[1:] == sorted(names[1:])
    assert len(names) == len(set(names))
    inside = [name for name in names if name.startswith(b"rootfs/order/")]
    assert [name.removeprefix(b"rootfs/order/") for name in inside] == [
        b"", b"a-b/", b"a-b/x", b"a.d/", b"a/", b"a/x", b"a0",
    ]  # fmt: skip


def test_no_name_of_a_user_group_or_host_is_in_the_archive(
    images: dict[Compression, tuple[Path, Built]],
) -> None:
    assert {(item.uname, item.gname) for item in entries(images["none"][0])} == {("", "")}


def test_holes_are_not_stored(images: dict[Compression, tuple[Path, Built]]) -> None:
    assert images["none"][1].size < 4 << 20, "a tebibyte of zeros is in the tree"


def test_manifest_bytes_are_kept_as_they_are(small: Path, tmp_path: Path) -> None:
    manifest = json.dumps(json.loads(MANIFEST_BYTES), indent=7).encode() + b"\n\n"
    build(small, manifest, tmp_path / "o", compression="none")
    with tarfile.open(tmp_path / "o") as archive:
        file = archive.extractfile("manifest")
        assert file is not None and file.read() == manifest


def test_socket_is_left_out_with_a_warning(small: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(small / "listening"))
    built = build(small, MANIFEST, tmp_path / "o")
    assert built.warnings == (f"{small}/listening: a socket, which an image cannot hold, is left out",)
    assert [item.name for item in entries(tmp_path / "o")] == ["manifest", "rootfs", "rootfs/file"]


def test_links_to_files_are_links_and_to_others_copies(images: dict[Compression, tuple[Path, Built]]) -> None:
    types = {item.name: (item.type, item.linkname) for item in entries(images["none"][0])}
    where = "rootfs/links"
    assert types[f"{where}/first"] == (tarfile.REGTYPE, "")
    assert types[f"{where}/second"] == types[f"{where}/z-third"] == (tarfile.LNKTYPE, f"{where}/first")
    assert types[f"{where}/symlink"] == types[f"{where}/symlink-again"] == (tarfile.SYMTYPE, "first")


def test_file_linked_from_outside_the_tree_is_a_file(small: Path, tmp_path: Path) -> None:
    os.link(small / "file", tmp_path / "outside")
    build(small, MANIFEST, tmp_path / "o")
    assert [item.isreg() for item in entries(tmp_path / "o")] == [True, False, True]


def test_owner_goes_before_the_owners_of_files(small: Path, tmp_path: Path) -> None:
    build(small, MANIFEST, tmp_path / "o", owner=(7, 4294967294))
    assert {(item.uid, item.gid) for item in entries(tmp_path / "o")} == {(7, 4294967294)}


@pytest.mark.parametrize("owner", [(-1, 0), (0, 4294967295), (1 << 40, 0)])
def test_owner_that_is_no_id_is_refused(small: Path, tmp_path: Path, owner: tuple[int, int]) -> None:
    with pytest.raises(BuildError, match="is not a user or group id"):
        build(small, MANIFEST, tmp_path / "o", owner=owner)
    assert left(tmp_path) == ["rootfs"]


def test_root_may_be_a_symlink_and_links_in_the_tree_are_not_followed(small: Path, tmp_path: Path) -> None:
    (small / "link").symlink_to("/etc")
    (tmp_path / "alias").symlink_to(small)
    build(tmp_path / "alias", MANIFEST, tmp_path / "o")
    assert [item.name for item in entries(tmp_path / "o") if item.issym()] == ["rootfs/link"]


def test_tree_may_be_deeper_than_pythons_stack(tmp_path: Path) -> None:
    code = """
        import os, resource, sys
        from rkt_py.aci.build import build, manifest_for
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
        sys.setrecursionlimit(150)
        os.chdir(sys.argv[1])
        os.mkdir("rootfs")
        os.chdir("rootfs")
        for _ in range(300):
            os.mkdir("directory")
            os.chdir("directory")
        os.chdir(sys.argv[1])
        try:
            build("rootfs", manifest_for("a"), "o", compression="none")
        except OSError as error:
            print(error.errno, len(error.filename), os.listdir())
        """
    for limit, output in ((400, ""), (100, None)):
        shutil.rmtree(tmp_path / "rootfs", ignore_errors=True)
        said = python(code, str(tmp_path), str(limit)).stdout
        if output is not None:
            assert said == output
            names = [item.name for item in entries(tmp_path / "o")]
            assert names[-1] == "rootfs" + "/directory" * 300
            (tmp_path / "o").unlink()
        else:
            number, length, rest = said.split(maxsplit=2)
            assert int(number) == errno.EMFILE
            assert int(length) > 700
            assert rest == "['rootfs']\n"


# --- the same bytes


def python(
    code: str, *args: str, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=60)
    assert done.returncode <= 0, done.stderr
    return done


BUILD = f"""
    import os, sys
    from rkt_py.aci.build import build
    rootfs, output, compression, umask = sys.argv[1:]
    os.umask(int(umask, 8))
    build(rootfs, {MANIFEST_BYTES!r}, output, compression=compression)
    """


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_same_tree_gives_the_same_bytes(
    tree: Path, images: dict[Compression, tuple[Path, Built]], tmp_path: Path, compression: Compression
) -> None:
    copy = make_tree(tmp_path / "elsewhere", seed=5, devices=os.geteuid() == 0)
    environment = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "tr_TR", "PYTHONHASHSEED": "1"}
    # On one processor, where compressors have one thread.
    one = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    python(BUILD, str(copy), str(tmp_path / "o"), compression, "077", prefix=one, env=environment)
    assert (tmp_path / "o").read_bytes() == images[compression][0].read_bytes()
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o600


@pytest.mark.root
def test_copy_on_another_file_system_gives_the_same_bytes(
    tree: Path, images: dict[Compression, tuple[Path, Built]], tmp_path: Path
) -> None:
    script = f"""
        set -e
        mount -t tmpfs none {tmp_path}
        cp -a --sparse=always {tree} {tmp_path}/copy
        {sys.executable} -c {json.dumps("import sys; exec(sys.argv.pop(1))")} "$1" {tmp_path}/copy \\
            {tmp_path}/o zstd 022
        cmp {tmp_path}/o {images["zstd"][0]}
        """
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", textwrap.dedent(BUILD)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_gzip_header_tells_nothing(images: dict[Compression, tuple[Path, Built]]) -> None:
    assert images["gzip"][0].read_bytes()[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_times_after_the_epoch_become_it(small: Path, tmp_path: Path) -> None:
    (small / "old").write_bytes(b"")
    os.utime(small / "old", ns=(0, 5_500_000_000))
    os.utime(small / "file", ns=(0, 10_000_000_001))
    build(small, MANIFEST, tmp_path / "o", source_date_epoch=10)
    times = {item.name: item.pax_headers.get("mtime", str(item.mtime)) for item in entries(tmp_path / "o")}
    assert times == {"manifest": "10", "rootfs": "10", "rootfs/file": "10", "rootfs/old": "5.5"}


def test_epoch_is_that_of_the_environment(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "77")
    build(small, MANIFEST, tmp_path / "o")
    assert {item.mtime for item in entries(tmp_path / "o")} == {77}
    build(small, MANIFEST, tmp_path / "p", source_date_epoch=5)
    assert {item.mtime for item in entries(tmp_path / "p")} == {5}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    build(small, MANIFEST, tmp_path / "q")
    assert {item.mtime for item in entries(tmp_path / "q")}.isdisjoint({5, 77})


@pytest.mark.parametrize("text", ["now", "-1", "1.5", " 1", "٣"])
def test_epoch_that_is_no_number_is_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH"):
        build(small, MANIFEST, tmp_path / "o")
    assert left(tmp_path) == ["rootfs"]


@pytest.mark.parametrize("parts", [{}, {0: b"a"}, {5 * BLOCK: b"a"}, {BLOCK: b"b" * BLOCK, 9 * BLOCK: b"c"}])
def test_zeros_in_a_file_with_holes_are_holes(small: Path, tmp_path: Path, parts: dict[int, bytes]) -> None:
    """Copies on file systems with larger units have more of them written out."""
    write_holes(small / "file", 64 * BLOCK, parts)
    os.utime(small / "file", ns=(0, TIME))
    os.utime(small, ns=(0, TIME))
    build(small, MANIFEST, tmp_path / "o")
    write_holes(small / "file", 64 * BLOCK, {8 * BLOCK: bytes(4 * BLOCK), 0: bytes(BLOCK), **parts})
    os.utime(small / "file", ns=(0, TIME))
    os.utime(small, ns=(0, TIME))
    assert len(extents(os.fsencode(small / "file"), 64 * BLOCK)) > 0
    build(small, MANIFEST, tmp_path / "p")
    assert (tmp_path / "o").read_bytes() == (tmp_path / "p").read_bytes()


# --- bad input


@pytest.mark.parametrize(
    ("rootfs", "output", "error", "names"),
    [
        ("missing", "o", FileNotFoundError, "missing"),
        ("rootfs/file", "o", NotADirectoryError, "rootfs/file"),
        ("fifo", "o", NotADirectoryError, "fifo"),
        ("rootfs", "there", FileExistsError, "there"),
        ("rootfs", "link", FileExistsError, "link"),
        ("rootfs", "nowhere/o", FileNotFoundError, "nowhere"),
        ("rootfs", "there/o", NotADirectoryError, "there"),
        ("rootfs", "directory", IsADirectoryError, "directory"),
        ("rootfs", "directory/", IsADirectoryError, "directory/"),
        ("rootfs", "rootfs/o", BuildError, "rootfs/o"),
        ("rootfs", "rootfs/sub/o", BuildError, "rootfs/sub/o"),
        ("rootfs", "into/o", BuildError, "into/o"),
    ],
)
def test_bad_place_is_refused_by_name_and_nothing_is_written(
    small: Path, tmp_path: Path, rootfs: str, output: str, error: type[Exception], names: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "there").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "directory").mkdir()
    (tmp_path / "into").symlink_to("rootfs/sub")
    (small / "sub").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(error) as caught:
        build(str(tmp_path / rootfs), MANIFEST, f"{tmp_path}/{output}")
    assert f"{tmp_path}/{names}" in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("output", ["directory", "fifo", "device"])
def test_what_is_no_file_is_not_overwritten(small: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    target = Path("/dev/null") if output == "device" else tmp_path / output
    before = os.lstat(target)
    with pytest.raises((BuildError, IsADirectoryError), match=str(target)):
        build(small, MANIFEST, target, overwrite=True)
    assert os.path.samestat(before, os.lstat(target))
    assert left(tmp_path) == ["directory", "fifo", "rootfs"]


@pytest.mark.parametrize("there", [None, "file", "link"])
def test_overwrite_replaces_the_output(small: Path, tmp_path: Path, there: str | None) -> None:
    (tmp_path / "other").write_bytes(b"other")
    if there == "file":
        (tmp_path / "o").write_bytes(b"old")
    elif there == "link":
        (tmp_path / "o").symlink_to("other")
    build(small, MANIFEST, tmp_path / "o", overwrite=True)
    assert len(entries(tmp_path / "o")) == 3
    assert not (tmp_path / "o").is_symlink()
    assert (tmp_path / "other").read_bytes() == b"other"
    assert left(tmp_path) == ["o", "other", "rootfs"]


def test_output_may_be_a_name_alone(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build("rootfs", MANIFEST, "o")
    assert left(tmp_path) == ["o", "rootfs"]


@pytest.mark.parametrize(
    ("manifest", "word"),
    [(b"", "manifest"), (b"{", "manifest"), (b'{"acKind": "PodManifest"}', "acKind"), (b"[]", "manifest")],
)
def test_bad_manifest_is_refused(small: Path, tmp_path: Path, manifest: bytes, word: str) -> None:
    with pytest.raises(BadManifest, match=word):
        build(small, manifest, tmp_path / "o")
    assert left(tmp_path) == ["rootfs"]


@pytest.mark.parametrize(
    ("compression", "level"),
    [("gzip", 0), ("gzip", 10), ("zstd", 0), ("zstd", 23), ("xz", 10), ("xz", -1), ("bzip2", 0), ("none", 1)],
)
def test_level_that_is_none_is_refused(
    small: Path, tmp_path: Path, compression: Compression, level: int
) -> None:
    with pytest.raises(BuildError, match=f"{level} is not one of {compression}"):
        build(small, MANIFEST, tmp_path / "o", compression=compression, level=level)
    assert left(tmp_path) == ["rootfs"]


def test_compression_that_is_none_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="'lzip' is not one of gzip"):
        build(small, MANIFEST, tmp_path / "o", compression="lzip")  # type: ignore[arg-type]


@pytest.mark.root
@pytest.mark.parametrize("locked", ["file", "directory"])
def test_what_cannot_be_read_is_named(tmp_path: Path, locked: str) -> None:
    code = """
        import os, sys
        from rkt_py.aci.build import build, manifest_for
        os.umask(0)
        os.chdir(sys.argv[1])
        os.mkdir("rootfs")
        os.mkdir("rootfs/in")
        os.mkdir("rootfs/in/directory", 0o755)
        open("rootfs/in/file", "w").close()
        os.chmod("rootfs/in/" + sys.argv[2], 0)
        os.chmod(".", 0o777)
        os.setgid(65534)
        os.setuid(65534)
        try:
            build("rootfs", manifest_for("a"), "o")
        except PermissionError as error:
            print(error.filename, os.listdir())
        """
    for parent in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(parent, 0o755)
    assert python(code, str(tmp_path), locked).stdout == f"rootfs/in/{locked} ['rootfs']\n"


@pytest.mark.root
def test_attributes_that_mean_something_elsewhere_are_left_out(small: Path, tmp_path: Path) -> None:
    for name in ("user.kept", "user.overlay.opaque", "trusted.overlay.opaque", "trusted.x"):
        os.setxattr(small, name, b"y")
    build(small, MANIFEST, tmp_path / "o")
    root = next(item for item in entries(tmp_path / "o") if item.isdir())
    assert [key for key in root.pax_headers if "xattr" in key] == ["SCHILY.xattr.user.kept"]


def test_attribute_whose_name_no_archive_can_hold_is_refused(small: Path, tmp_path: Path) -> None:
    os.setxattr(small / "file", "user.a=b", b"x")
    with pytest.raises(BuildError, match="rootfs/file.*user.a=b"):
        build(small, MANIFEST, tmp_path / "o")
    assert left(tmp_path) == ["rootfs"]


@pytest.mark.root
def test_whiteout_is_refused(small: Path, tmp_path: Path) -> None:
    os.mknod(small / "gone", stat.S_IFCHR, 0)
    with pytest.raises(BuildError, match="rootfs/gone: character device 0:0"):
        build(small, MANIFEST, tmp_path / "o")
    assert left(tmp_path) == ["rootfs"]


# --- a tree that changes while it is read


class Meddler(build_._Blocks):
    """Does something to the tree at a moment of its reading."""

    def __init__(self, output: build_._Output, moment: str, meddle: Callable[[], object]) -> None:
        super().__init__(compressor.make("none"), output)
        self.moment = moment
        self.meddle = meddle

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.moment == "header" and b"/middle" in data:
            self.once()

    def copy(self, fd: int, size: int) -> bool:
        if self.moment == "before":
            self.once()
        done = super().copy(fd, size)
        if self.moment == "after":
            self.once()
        return done

    def once(self) -> None:
        meddle, self.meddle = self.meddle, lambda: None
        meddle()


def rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def swap(path: Path, make: Callable[[Path], None]) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    make(path)


MEDDLING: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a file grows": ("before", lambda root: rewrite(root / "middle/file", b"x" * 200), "middle/file"),
    "a file shrinks": ("before", lambda root: rewrite(root / "middle/file", b"x"), "middle/file"),
    "a file is emptied": ("before", lambda root: rewrite(root / "middle/file", b""), "middle/file"),
    "a file is written": ("after", lambda root: rewrite(root / "middle/file", b"y" * 100), "middle/file"),
    "a mode changes": ("after", lambda root: os.chmod(root / "middle/file", 0o600), "middle/file"),
    "a file comes": ("after", lambda root: rewrite(root / "middle/new", b""), "middle"),
    "a file goes": ("before", lambda root: os.unlink(root / "middle/zzz"), "middle/zzz"),
    "a file goes before it is listed": ("header", lambda root: os.unlink(root / "middle/zzz"), "middle"),
    "a link takes a file's place": (
        "after",
        lambda root: swap(root / "middle/zzz", lambda path: path.symlink_to("/etc/shadow")),
        "middle",
    ),
    "a link takes a directory's place": (
        "after",
        lambda root: swap(root / "middle/yyy", lambda path: path.symlink_to("/etc")),
        "middle/yyy",
    ),
    "a fifo takes a directory's place": (
        "after",
        lambda root: swap(root / "middle/yyy", os.mkfifo),
        "middle/yyy",
    ),
    "a directory takes a file's place": (
        "after",
        lambda root: swap(root / "middle/zzz", os.mkdir),
        "middle/zzz",
    ),
    "a file comes to the top": ("after", lambda root: rewrite(root / "new", b""), ""),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_tree_that_changes_is_refused_by_name(tmp_path: Path, what: str) -> None:
    moment, meddle, name = MEDDLING[what]
    root = tmp_path / "rootfs"
    (root / "middle/yyy").mkdir(parents=True)
    (root / "middle/file").write_bytes(b"x" * 100)
    (root / "middle/zzz").write_bytes(b"z")
    fd = os.open(root, os.O_RDONLY)
    with build_._Output(str(tmp_path / "o"), overwrite=False) as output:
        with Meddler(output, moment, lambda: meddle(root)) as blocks:
            walk = build_._Tree(blocks, str(root), epoch=None, owner=None)
            with pytest.raises(BuildError) as caught:
                walk.add_root(fd)
    where = f"{root}/{name}".rstrip("/")
    assert str(caught.value) == f"{where}: changed while the image was built"
    assert left(tmp_path) == ["rootfs"]


def test_tree_that_does_not_change_is_not_refused(small: Path, tmp_path: Path) -> None:
    """What the tests above rely on: it is the meddling that is noticed."""
    fd = os.open(small, os.O_RDONLY)
    with build_._Output(str(tmp_path / "o"), overwrite=False) as output:
        with Meddler(output, "before", lambda: None) as blocks:
            build_._Tree(blocks, str(small), epoch=None, owner=None).add_root(fd)


# --- nothing is left


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
    assert [thread.name for thread in threading.enumerate() if thread.name in ("sha512", "compress")] == []


@pytest.mark.root
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_full_disk_leaves_what_was_there(tmp_path: Path, compression: Compression, overwrite: bool) -> None:
    code = f"""
        import os, subprocess, sys
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", sys.argv[1]], check=True)
        os.chdir(sys.argv[1])
        from rkt_py.aci.build import build, manifest_for
        if {overwrite}:
            open("o", "w").write("mine")
        try:
            build(sys.argv[2], manifest_for("a"), "o", compression={compression!r}, overwrite={overwrite})
        except OSError as error:
            print(error.errno, error.filename, os.listdir(), {overwrite} and open("o").read())
            print(os.statvfs(".").f_bfree * os.statvfs(".").f_bsize > (1 << 20))
        """
    (tmp_path / "mount").mkdir()
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "file").write_bytes(random.Random(1).randbytes(6 << 20))
    prefix = ("unshare", "-m", "--propagation", "private")
    done = python(code, str(tmp_path / "mount"), str(tmp_path / "rootfs"), prefix=prefix)
    rest = "['o'] mine" if overwrite else "[] False"
    assert done.stdout == f"{errno.ENOSPC} o {rest}\nTrue\n", done.stderr
    assert left(tmp_path / "mount") == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_build_leaves_what_was_there(tmp_path: Path, overwrite: bool) -> None:
    code = f"""
        import resource, signal, sys
        from rkt_py.aci.build import build, manifest_for
        # The kernel kills what writes more than that.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
        build(sys.argv[1], manifest_for("a"), sys.argv[2], compression="none", overwrite={overwrite})
        """
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "file").write_bytes(bytes(range(256)) * (5 << 12))
    if overwrite:
        (tmp_path / "o").write_bytes(b"mine")
    done = python(code, str(tmp_path / "rootfs"), str(tmp_path / "o"))
    assert done.returncode == -signal.SIGXFSZ
    assert left(tmp_path) == (["o", "rootfs"] if overwrite else ["rootfs"])
    assert not overwrite or (tmp_path / "o").read_bytes() == b"mine"


def test_interrupted_build_leaves_nothing(tmp_path: Path, small: Path) -> None:
    class Interrupted(build_._Blocks):
        def copy(self, fd: int, size: int) -> bool:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with build_._Output(str(tmp_path / "o"), overwrite=False) as output:
            with Interrupted(compressor.make("gzip"), output) as blocks:
                build_._Tree(blocks, "r", epoch=None, owner=None).add_root(os.open(small, os.O_RDONLY))
    assert left(tmp_path) == ["rootfs"]


def test_output_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    for unnamed in (True, False):
        target = tmp_path / f"o{unnamed}"
        with pytest.raises(FileExistsError, match=str(target)):
            with build_._Output(str(target), overwrite=False, unnamed=unnamed) as output:
                output.write(b"new")
                target.write_bytes(b"theirs")
                output.publish()
        assert target.read_bytes() == b"theirs"
    assert left(tmp_path) == ["oFalse", "oTrue"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_output_where_a_file_must_have_a_name(tmp_path: Path, overwrite: bool, fails: bool) -> None:
    """On file systems without O_TMPFILE: NFS, FUSE."""
    if overwrite:
        (tmp_path / "o").write_bytes(b"old")
    with build_._Output(str(tmp_path / "o"), overwrite=overwrite, unnamed=False) as output:
        output.write(b"new")
        assert len(left(tmp_path)) == 1 + overwrite
        if not fails:
            output.publish()
    assert left(tmp_path) == (["o"] if overwrite or not fails else [])
    if overwrite or not fails:
        assert (tmp_path / "o").read_bytes() == (b"old" if fails else b"new")


def test_directory_that_cannot_be_written_is_named(tmp_path: Path, small: Path) -> None:
    with pytest.raises(OSError) as caught:
        build(small, MANIFEST, "/proc/o")
    assert caught.value.filename == "/proc"


# --- compressors


def read_zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=100_000) | st.just(bytes(50_000)), max_size=6), st.integers(1, 9))
@example([], 6)
@example([b"a" * 40_000, b"b", b"a" * 40_000], 9)
def test_gzip_of_blocks_is_the_gzip_of_all(blocks: list[bytes], level: int) -> None:
    stream = compressor.make("gzip", level)
    data = b"".join([stream.compress(block) for block in blocks]) + stream.flush()
    assert gzip.decompress(data) == b"".join(blocks)
    whole = zlib.decompressobj(31)
    whole.decompress(data)
    assert whole.eof and whole.unused_data == b"", "one member, nothing after it"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bytes_do_not_depend_on_the_number_of_processors(compression: Compression) -> None:
    data = random.Random(1)
    blocks = [data.randbytes(1 << 19) + b"text " * (1 << 16) + bytes(1 << 18) for _ in range(5)]
    allowed = os.sched_getaffinity(0)
    results = set()
    try:
        for processors in ({min(allowed)}, allowed):
            os.sched_setaffinity(0, processors)
            for _ in range(2):
                stream = compressor.make(compression)
                results.add(b"".join([stream.compress(block) for block in blocks]) + stream.flush())
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(results) == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_zstd_frame_is_the_same_for_any_number_of_threads(threads: int) -> None:
    import zstandard

    data = random.Random(2).randbytes(6 << 20) + b"text " * (4 << 20)
    stream = compressor.make("zstd")
    ours = stream.compress(data) + stream.flush()
    other = zstandard.ZstdCompressor(
        level=3, write_checksum=True, write_content_size=False, threads=threads
    ).compressobj()
    assert other.compress(data) + other.flush() == ours
    parameters = zstandard.get_frame_parameters(ours)
    assert parameters.has_checksum
    assert read_zstd(ours) == data


# --- headers


NAMES = st.binary(min_size=1, max_size=300).map(
    lambda raw: b"rootfs/" + raw.replace(b"\0", b"_").strip(b"/") + b"x"
)
IDS = st.integers(0, 2**32 - 2) | st.sampled_from([0o7777777, 0o7777777 + 1])
TIMES = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, -1, 1, 10**9, -(10**9), -(10**9) - 1, 0o77777777777 * 10**9, 0o100000000000 * 10**9]
)
SIZES = st.integers(0, 2**63 - 1) | st.sampled_from([0o77777777777, 0o100000000000])
ATTRIBUTES = st.dictionaries(
    st.text("abc.é%", min_size=1).map(lambda name: b"user." + name.encode()),
    st.binary(max_size=600),
    max_size=3,
)


@given(NAMES, IDS, IDS, TIMES, SIZES, st.integers(0, 0o7777), ATTRIBUTES)
@settings(max_examples=300)
def test_header_is_read_by_tarfile_as_it_was_meant(
    name: bytes, uid: int, gid: int, mtime: int, size: int, mode: int, attributes: dict[bytes, bytes]
) -> None:
    entry = tar.Entry(
        name, tar.REGULAR, mode, uid, gid, mtime, size, xattrs=tuple(sorted(attributes.items()))
    )
    data = tar.header(entry)
    assert len(data) % tar.BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        item = archive.next()
    assert item is not None
    assert (os.fsencode(item.name), item.uid, item.gid, item.size, item.mode) == (name, uid, gid, size, mode)
    seconds, _, fraction = item.pax_headers.get("mtime", str(int(item.mtime))).partition(".")
    nanoseconds = int(fraction.ljust(9, "0")) if fraction else 0
    assert int(seconds) * 10**9 + (-nanoseconds if seconds.startswith("-") else nanoseconds) == mtime
    read = {
        key.removeprefix("SCHILY.xattr.").encode(): what.encode("utf-8", "surrogateescape")
        for key, what in item.pax_headers.items()
        if key.startswith("SCHILY.xattr.")
    }
    assert read == attributes


@given(NAMES, NAMES, st.sampled_from([tar.SYMLINK, tar.HARD_LINK]))
def test_header_of_a_link_is_read_by_tarfile(name: bytes, link: bytes, type: bytes) -> None:
    data = tar.header(tar.Entry(name, type, 0o777, 0, 0, 0, link=link))
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        item = archive.next()
    assert item is not None
    assert (os.fsencode(item.name), os.fsencode(item.linkname)) == (name, link)


def test_header_of_a_plain_file_is_one_block() -> None:
    entry = tar.Entry(b"rootfs/" + b"n" * 93, tar.REGULAR, 0o755, 0o7777777, 0, 10**18, 0o77777777777)
    assert len(tar.header(entry)) == tar.BLOCK


@pytest.mark.parametrize("length", range(1, 1100, 7))
def test_length_of_a_pax_record_counts_itself(length: int) -> None:
    record = tar._record(b"path", b"x" * length)
    assert int(record.split(b" ")[0]) == len(record)


# --- random trees


PARTS = st.binary(min_size=1, max_size=60).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
CONTENTS = st.recursive(
    st.binary(max_size=2000) | st.just(b"x" * 1024),
    lambda inner: st.dictionaries(PARTS, inner, max_size=4),
    max_leaves=12,
)
Content = bytes | dict[bytes, "Content"]


def write_tree(where: bytes, content: dict[bytes, Content]) -> None:
    os.mkdir(where)
    for name, inner in content.items():
        if isinstance(inner, dict):
            write_tree(where + b"/" + name, inner)
        else:
            with open(where + b"/" + name, "wb") as file:
                file.write(inner)


def flat(content: dict[bytes, Content], path: bytes) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {path: None}
    for name, inner in content.items():
        found |= flat(inner, path + b"/" + name) if isinstance(inner, dict) else {path + b"/" + name: inner}
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(PARTS, CONTENTS, max_size=5), st.sampled_from(COMPRESSIONS[:1] + COMPRESSIONS[2:]))
def test_any_tree_is_read_back_by_tarfile(
    tmp_path: Path, content: dict[bytes, Content], compression: Compression
) -> None:
    root = tmp_path / "rootfs"
    shutil.rmtree(os.fsencode(root), ignore_errors=True)
    write_tree(os.fsencode(root), content)
    build(root, MANIFEST, tmp_path / "o", compression=compression, overwrite=True)
    with tarfile.open(tmp_path / "o", encoding="utf-8", errors="surrogateescape") as archive:
        read: dict[bytes, bytes | None] = {}
        for item in archive:
            file = archive.extractfile(item) if item.isreg() else None
            read[os.fsencode(item.name)] = None if file is None else file.read()
    assert read.pop(b"manifest") == MANIFEST_BYTES
    assert read == flat(content, b"rootfs")


# --- manifests


def test_manifest_holds_what_it_is_told() -> None:
    manifest = manifest_for(
        "example.com/web",
        version="2.1",
        os="linux",
        arch="aarch64",
        exec=["/bin/web", "--port", "80"],
        user="www",
        group="/etc/group",
        supplementary_gids=[1, 2],
        working_directory="/srv",
        environment=[("A", "b=c"), ("D", "")],
        mounts=["data,path=/srv/data", "conf,path=/etc/web,readOnly=true"],
        ports=["http,port=80", "many,port=100,count=5,protocol=udp,socketActivated=true"],
        labels=[("channel", "beta")],
        annotations=[("authors", "A. Person")],
        isolators=[("resource/memory", '{"limit": "1G"}'), ("os/linux/no-new-privileges", "true")],
    )
    got = json.loads(imagemanifest.dump(manifest))
    assert got == {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/web",
        "labels": [
            {"name": "version", "value": "2.1"},
            {"name": "os", "value": "linux"},
            {"name": "arch", "value": "aarch64"},
            {"name": "channel", "value": "beta"},
        ],
        "app": {
            "exec": ["/bin/web", "--port", "80"],
            "user": "www",
            "group": "/etc/group",
            "supplementaryGIDs": [1, 2],
            "workingDirectory": "/srv",
            "environment": [{"name": "A", "value": "b=c"}, {"name": "D", "value": ""}],
            "mountPoints": [
                {"name": "data", "path": "/srv/data"},
                {"name": "conf", "path": "/etc/web", "readOnly": True},
            ],
            "ports": [
                {"name": "http", "protocol": "tcp", "port": 80, "count": 1, "socketActivated": False},
                {"name": "many", "protocol": "udp", "port": 100, "count": 5, "socketActivated": True},
            ],
            "isolators": [
                {"name": "resource/memory", "value": {"limit": "1G"}},
                {"name": "os/linux/no-new-privileges", "value": True},
            ],
        },
        "annotations": [{"name": "authors", "value": "A. Person"}],
    }


def test_manifest_of_a_name_alone_is_for_this_machine() -> None:
    manifest = manifest_for("example.com/a")
    machine = os.uname().machine
    assert manifest.label("arch") == {"x86_64": "amd64"}.get(machine, machine)
    assert manifest.label("os") == "linux"
    assert manifest.label("version") is None
    assert manifest.app is not None and (manifest.app.user, manifest.app.group) == ("0", "0")


def test_manifest_may_be_for_any_machine() -> None:
    assert manifest_for("a", os="-", arch="-").labels == ()


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"name": "Bad Name"}, BadManifest, "name"),
        ({"arch": "z80"}, BadManifest, "z80"),
        ({"labels": [("version", "2")], "version": "1"}, BadManifest, "version"),
        ({"user": ""}, BadManifest, "app.user"),
        ({"environment": [("A", "1"), ("A", "2")]}, BadManifest, r"app.environment\[1\]"),
        ({"environment": [("1A", "1")]}, BadManifest, "app.environment"),
        ({"working_directory": "srv"}, BadManifest, "app.workingDirectory"),
        ({"mounts": ["data"]}, BadManifest, r"app.mountPoints\[0\]"),
        ({"mounts": ["data,target=/x"]}, BuildError, "target=/x"),
        ({"mounts": ["data,path=/x,path=/y"]}, BuildError, "path=/y"),
        ({"mounts": ["data,path=/x,readOnly=maybe"]}, BuildError, "maybe"),
        ({"mounts": ["data,path"]}, BuildError, "path"),
        ({"ports": ["http"]}, BadManifest, r"app.ports\[0\]"),
        ({"ports": ["http,port=eighty"]}, BuildError, "eighty"),
        ({"ports": ["http,port=0"]}, BadManifest, r"app.ports\[0\].port"),
        ({"ports": ["http,port=70000"]}, BadManifest, r"app.ports\[0\].port"),
        ({"ports": ["HTTP,port=80"]}, BadManifest, r"app.ports\[0\].name"),
        ({"isolators": [("resource/memory", "1G")]}, BadManifest, "resource/memory"),
        ({"isolators": [("resource/memory", "{")]}, BadManifest, "resource/memory"),
        ({"annotations": [("homepage", "gopher://x")]}, BadManifest, "annotations"),
        ({"supplementary_gids": [-1]}, BadManifest, "supplementaryGIDs"),
    ],
)
def test_bad_manifest_options_are_refused(
    options: dict[str, object], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        manifest_for(**{"name": "example.com/a", **options})  # type: ignore[arg-type]
