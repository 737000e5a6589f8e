"""Users and groups, and images whose passwd wants more than to name them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Pods

pytestmark = pytest.mark.root

ID = "id -u; id -g"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--user=user", "--group=user"), "1000 1000"),
        (("--user=1000", "--group=2000"), "1000 2000"),
        (("--user=12345", "--group=54321"), "12345 54321"),
        (("--user=0", "--group=0"), "0 0"),
        (("--user=daemon", "--group=extra"), "1 2000"),
        (("--user=/home/user", "--group=/home/user"), "1000 2000"),
        (("--user=4294967294", "--group=4294967294"), "4294967294 4294967294"),
        (("--user=0001000", "--group=1000"), "1000 1000"),
    ],
)
def test_users_are_names_numbers_or_owners_of_files(
    pods: Pods, owned: str, flags: tuple[str, str], expected: str
) -> None:
    done = pods.sh(ID, *flags, image=owned)
    assert " ".join(done.lines) == expected, done


@pytest.fixture
def owned(build: Callable[..., str], rootfs: Path, tmp_path: Path) -> str:
    root = tmp_path / "owned"
    shutil.copytree(rootfs, root, symlinks=True)
    os.chown(root / "home/user", 1000, 2000)
    return build(root, {"exec": ["/bin/sh"], "user": "0", "group": "0"})


def test_number_is_never_looked_up_as_a_name(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    """CVE-2016-3697."""
    image = with_passwd(build, rootfs, tmp_path, lambda path: path.write_text("1000:x:0:0::/:/bin/sh\n"))
    assert pods.sh(ID, "--user=1000", "--group=1000", image=image).lines == ["1000", "1000"]


@pytest.mark.parametrize(
    "user",
    [
        "nobody-of-that-name",
        "-1",
        "4294967295",
        "4294967296",
        "0x0",
        "+0",
        "1 000",
        "/no/such/file",
        "1e3",
        "٣",
    ],
)
@pytest.mark.parametrize("which", ["user", "group"])
def test_user_that_cannot_be_is_refused(own_pods: Pods, user: str, which: str) -> None:
    done = own_pods.sh("echo ran", f"--{which}={user}")
    assert (done.code, done.out) == (254, b"")
    assert done.errors.startswith("run: ")
    assert which in done.errors


def with_passwd(
    build: Callable[..., str],
    rootfs: Path,
    tmp_path: Path,
    make: Callable[[Path], object],
    name: str = "passwd",
) -> str:
    root = tmp_path / "root"
    shutil.copytree(rootfs, root, symlinks=True)
    (root / "etc" / name).unlink()
    make(root / "etc" / name)
    return build(root, {"exec": ["/bin/sh"], "user": "0", "group": "0"})


def test_passwd_that_is_a_fifo_does_not_hold_us_up(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    image = with_passwd(build, rootfs, tmp_path, os.mkfifo)
    done = pods.sh(ID, "--user=user", "--group=user", image=image)
    assert done.code == 254
    assert "/etc/passwd is not a regular file" in done.errors


@pytest.mark.parametrize("to", ["../../../../../../etc/passwd", "/etc/passwd-own", "/outside/etc/passwd-own"])
def test_passwd_that_is_a_link_is_the_images(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path, to: str
) -> None:
    def link(path: Path) -> None:
        path.with_name("passwd-own").write_text("inside:x:77:77::/:/bin/sh\n")
        path.symlink_to(to)

    image = with_passwd(build, rootfs, tmp_path, link)
    if to.endswith("passwd-own"):
        assert pods.sh(ID, "--user=inside", "--group=77", image=image).lines == ["77", "77"]
    else:
        # It leads to itself, and not to the host's: `nobody` is there.
        done = pods.sh(ID, "--user=nobody", "--group=0", image=image)
        assert (done.code, done.out) == (254, b"")


def test_passwd_that_is_huge_is_refused(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    def write(path: Path) -> None:
        with path.open("w") as file:
            file.write("root:x:0:0::/root:/bin/sh\n")
            file.truncate(100 << 20)

    image = with_passwd(build, rootfs, tmp_path, write)
    done = pods.sh(ID, "--user=root", "--group=root", image=image)
    assert done.code == 254
    assert "/etc/passwd is larger than 1 MiB" in done.errors


@pytest.mark.parametrize(
    "lines", ["root:x:-1:0::/:\n", "root:x:0x0:0::/:\n", "root\n", ":::\n", "root:x::0::/\n"]
)
def test_lines_of_passwd_that_are_none_name_nobody(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path, lines: str
) -> None:
    image = with_passwd(build, rootfs, tmp_path, lambda path: path.write_text(lines))
    done = pods.sh(ID, "--user=root", "--group=0", image=image)
    assert (done.code, done.out) == (254, b"")


def test_home_and_shell_of_passwd_cannot_be_another_variable(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    entry = "evil:x:1000:1000::/home\x01LD_PRELOAD=/x:/bin/\x7fsh\n"
    image = with_passwd(build, rootfs, tmp_path, lambda path: path.write_text(entry))
    done = pods("run", "--net=none", image, "--exec=/bin/env", "--user=evil", "--group=1000")
    assert "HOME=/" in done.lines
    assert "SHELL=/bin/sh" in done.lines


def test_image_without_passwd_has_its_root(
    pods: Pods, build: Callable[..., str], rootfs: Path, tmp_path: Path
) -> None:
    image = with_passwd(build, rootfs, tmp_path, lambda path: None)
    assert pods.sh(f"{ID}; echo $USER $HOME", image=image).lines == ["0", "0", "root /root"]
    done = pods.sh(ID, "--user=user", "--group=0", image=image)
    assert (done.code, done.out) == (254, b"")
    assert "in the image's /etc/passwd" in done.errors


def test_users_of_the_host_are_nobody_in_an_image(pods: Pods) -> None:
    assert any(line.startswith("www-data:") for line in Path("/etc/passwd").read_text().splitlines())
    assert pods.sh(ID, "--user=www-data", "--group=0", image=BUSYBOX).code == 254
