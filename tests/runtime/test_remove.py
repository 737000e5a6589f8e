"""Deleting trees: all of it, nothing else."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkt_py.runtime.remove import remove_tree
from tests.runtime.state import Child

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def chain(directory: Path, depth: int, name: str = "d") -> None:
    """Make directories deeper than any path can say, with a file in each."""
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_everything_in_a_tree_goes_and_nothing_else(tmp_path: Path, parent: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "link").symlink_to(outside)
    (tree / "a/up").symlink_to("../../outside")
    (tree / "hard").hardlink_to(outside / "kept")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(tree / "socket"))
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo", "empty directory"])
def test_whatever_the_name_is_it_goes(tmp_path: Path, parent: int, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "file":
        path.touch()
    elif kind == "symlink":
        path.symlink_to(".")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    remove_tree(parent, "it")
    assert os.listdir(tmp_path) == []


def test_what_is_gone_is_no_error(parent: int) -> None:
    remove_tree(parent, "it")


def test_a_link_put_in_the_place_of_a_directory_is_not_followed(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside/below").mkdir(parents=True)
    (tmp_path / "outside/kept").touch()
    (tmp_path / "tree/d").mkdir(parents=True)

    def swap_and_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "d" and not (tmp_path / "tree/d").is_symlink():
            (tmp_path / "tree/d").rmdir()
            (tmp_path / "tree/d").symlink_to(tmp_path / "outside")
        return real(path, flags, mode, dir_fd=dir_fd)

    real = os.open
    monkeypatch.setattr("os.open", swap_and_open)
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == ["outside"]
    assert sorted(os.listdir(tmp_path / "outside")) == ["below", "kept"]


def test_names_are_bytes(tmp_path: Path, parent: int) -> None:
    tree = os.fsencode(tmp_path / "tree")
    os.mkdir(tree)
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"x" * 255, b"...", b" "):
        os.mkdir(tree + b"/" + name)
        os.close(os.open(tree + b"/" + name + b"/" + name, os.O_CREAT))
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["d", "x" * 255])
def test_depth_costs_no_descriptors(tmp_path: Path, parent: int, name: str) -> None:
    chain(tmp_path / "tree", 3000, name)

    def remove() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        remove_tree(parent, "tree")

    assert Child(remove).wait() == 0
    assert os.listdir(tmp_path) == []


def test_several_may_remove_one_tree(tmp_path: Path, parent: int) -> None:
    for number in range(500):
        (tmp_path / f"tree/{number}/below").mkdir(parents=True)
        (tmp_path / f"tree/{number}/below/file").touch()
    children = [Child(lambda: remove_tree(parent, "tree")) for _ in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert os.listdir(tmp_path) == []


def set_flags(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x40086602, array.array("l", [flags]))  # FS_IOC_SETFLAGS
    finally:
        os.close(fd)


@pytest.mark.root
@pytest.mark.parametrize("flags", [0x10, 0x20], ids=["immutable", "append-only"])
@pytest.mark.parametrize("name", ["tree", "tree/below", "tree/below/file"])
def test_flags_keep_nothing(tmp_path: Path, parent: int, flags: int, name: str) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/file").touch()
    set_flags(tmp_path / name, flags)
    with pytest.raises(PermissionError):
        os.rename(tmp_path / name, tmp_path / "other")
    remove_tree(parent, "tree")
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_modes_keep_nothing_of_ones_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "tree/shut/read-only").mkdir(parents=True)
    (home / "tree/shut/read-only/file").touch()
    for path in (home, *home.rglob("*")):
        os.chown(path, 1000, 1000)
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)

    def remove() -> None:
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        for name, mode in (("tree/shut/read-only", 0o500), ("tree/shut", 0), ("tree", 0o300)):
            os.chmod(name, mode, dir_fd=fd)
        remove_tree(fd, "tree")

    assert Child(remove).wait() == 0
    os.close(fd)
    assert os.listdir(home) == []


MOUNTED = """
import errno, os, subprocess, sys
from rkt_py.runtime.remove import remove_tree
os.chdir(sys.argv[1])
os.makedirs("tree/a/mounted")
os.makedirs("tree/b/c")
os.makedirs("outside/directory")
for path in ("outside/kept", "outside/directory/kept", "tree/b/file", "tree/a/file"):
    open(path, "w").close()
subprocess.run(["mount", *sys.argv[2:], "tree/a/mounted"], check=True)
if "tmpfs" in sys.argv:
    open("tree/a/mounted/kept", "w").close()
before = sorted(os.listdir("tree/a/mounted"))
parent = os.open(".", os.O_RDONLY)
try:
    remove_tree(parent, "tree")
except OSError as error:
    assert error.errno == errno.EBUSY, error
    assert error.filename == "tree/a/mounted", error.filename
else:
    sys.exit("not refused")
assert sorted(os.listdir("tree/a/mounted")) == before != [], before
assert os.listdir("tree") == ["a"] and os.listdir("tree/a") == ["mounted"]
subprocess.run(["umount", "tree/a/mounted"], check=True)
remove_tree(parent, "tree")
assert sorted(os.listdir(".")) == ["outside"]
assert sorted(os.listdir("outside")) == ["directory", "kept"]
"""


@pytest.mark.root
@pytest.mark.parametrize("mount", [("-t", "tmpfs", "none"), ("--bind", "outside")], ids=["tmpfs", "bind"])
def test_what_is_mounted_below_stays(tmp_path: Path, mount: tuple[str, ...]) -> None:
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", MOUNTED, str(tmp_path)]
    done = subprocess.run([*command, *mount], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failure_is_told_with_its_path(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/z").mkdir()

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == "b":
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        real(name, dir_fd=dir_fd)

    real = os.rmdir
    monkeypatch.setattr("os.rmdir", refuse)
    with pytest.raises(OSError, match="tree/a/b") as caught:
        remove_tree(parent, "tree")
    assert caught.value.errno == errno.EIO
    assert os.listdir(tmp_path / "tree") == ["a"]
