"""Bad input of every kind: one sentence, exit code 254, nothing left, and the next run works."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard

import rkt_py
from tests.system import harm
from tests.system.harm import Site, archive, assert_one_sentence, entry, manifest, small_disk

pytestmark = pytest.mark.root

Make = Callable[[Path], "list[str | Path]"]
RUN = ["--insecure-options=image", "run", "--net=none"]
UUID = "0d6a4a5e-0000-4000-8000-000000000000"
ABSENT = "sha512-" + 64 * "0"


class Good(NamedTuple):
    """An installation with one good image in its store."""

    site: Site
    image: str


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Good]:
    directory = tmp_path_factory.mktemp("good")
    (directory / "good.aci").write_bytes(archive(about=manifest(name="example.com/good")))
    site = Site(directory / "data")
    image = site.ok("--insecure-options=image", "fetch", "--full", directory / "good.aci").strip()
    site.ok("run", "--net=none", image)
    site.collect()
    yield Good(site, image)
    site.close()


class Case(NamedTuple):
    """A command line that cannot be carried out, and what its error must name."""

    name: str
    make: Make
    says: tuple[str, ...]
    verb: str = "run"
    # Some things are known only when the pod starts: it is then a pod that ended.
    exited: bool = False


def image(name: str, data: bytes | Callable[[], bytes], *says: str) -> Case:
    """An archive that is no image, or an image that is no app: the error names it."""
    return Case(name, lambda directory: _write(directory, data), ("bad.aci", *says))


def refused(name: str, data: bytes | Callable[[], bytes], *says: str) -> Case:
    """An image whose app cannot be run, which is known before there is a pod."""
    return started(name, data, *says, exited=False)


def started(name: str, data: bytes | Callable[[], bytes], *says: str, exited: bool = True) -> Case:
    """An image that can be stored and not be run."""
    return Case(name, lambda directory: _write(directory, data), says, exited=exited)


def _write(directory: Path, data: bytes | Callable[[], bytes]) -> list[str | Path]:
    (directory / "bad.aci").write_bytes(data() if callable(data) else data)
    return [*RUN, directory / "bad.aci"]


def about(name: str, text: bytes | dict[str, Any] | Callable[[], bytes], *says: str) -> Case:
    """An image with this manifest."""
    return image(name, lambda: bare(text=text() if callable(text) else as_bytes(text)), *says)


def command(name: str, args: list[str], *says: str, verb: str = "", exited: bool = False) -> Case:
    """A command line; GOOD in it is the good image, HERE a directory of the test's."""

    def make(directory: Path) -> list[str | Path]:
        return [text.replace("HERE", str(directory)) for text in args]

    plain = [text for text in args if not text.startswith("-")]
    return Case(name, make, says, verb or plain[0], exited)


def run(name: str, args: list[str], *says: str, exited: bool = False) -> Case:
    return command(name, [*RUN, *args], *says, verb="run", exited=exited)


# Containers of bytes


def as_bytes(manifest: bytes | dict[str, Any]) -> bytes:
    return manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()


def elf(machine: int) -> bytes:
    """The head of a 64-bit program for this machine, and nothing behind it."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + head + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120, 120, 4096)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data),
}
NOISE = random.Random(1).randbytes(60_000)
GOOD_TEXT = json.dumps(manifest()).encode()
HEAD = len(entry("manifest", GOOD_TEXT))


def bare(*entries: bytes, text: bytes = GOOD_TEXT) -> bytes:
    """An archive that has a manifest, an empty rootfs and these entries."""
    return archive(entry("rootfs", kind="directory"), *entries, about=text, rootfs=False)


def headless(*entries: bytes) -> bytes:
    return b"".join([*entries, entry("rootfs", kind="directory"), harm.END_OF_TAR])


SMALL = bare(entry("rootfs/file", NOISE))


def shortened(data: bytes, at: float) -> bytes:
    return data[: int(len(data) * at)]


def spoiled(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 3]) + data[middle + 3 :]


ARCHIVES = [
    image("an empty file", b"", "empty"),
    image("a file of zeros", bytes(10_240), "no manifest"),
    image("a text", b"This is not an image.\n" * 100, "not an image"),
    image("random bytes", NOISE[:4096], "not an image"),
    image("a program", harm.BUSYBOX.read_bytes, "not an image"),
    image("a zip", b"PK\x03\x04" + bytes(2000), "not an image"),
    image("a tar cut in its first header", SMALL[:300], "too short"),
    image("a tar cut behind its first header", SMALL[:512], "manifest"),
    image("a tar cut in the manifest", SMALL[:600], "manifest"),
    image("a tar cut between two entries", SMALL[:HEAD], "truncated"),
    image("a tar cut in a file", SMALL[: len(SMALL) // 2], "rootfs/file"),
    image("a tar without its end", SMALL[: -len(harm.END_OF_TAR)], "end"),
    *[
        image(f"{name} cut at {at}", shortened(compress(SMALL), at))
        for name, compress in COMPRESSORS.items()
        for at in (0.0002, 0.01, 0.5, 0.99, 0.9999)
    ],
    *[image(f"{name} of garbage", compress(NOISE), "not a tar") for name, compress in COMPRESSORS.items()],
    *[image(f"{name} of nothing", compress(b"")) for name, compress in COMPRESSORS.items()],
    *[image(f"{name} that is spoiled", spoiled(compress(SMALL))) for name, compress in COMPRESSORS.items()],
    *[
        image(f"data after the end of {name}", compress(SMALL) + b"more")
        for name, compress in COMPRESSORS.items()
    ],
    image("garbage that begins like gzip", b"\x1f\x8b\x08\x00" + NOISE, "gzip"),
    image("garbage that begins like bzip2", b"BZh9" + NOISE, "bzip2"),
    image("garbage that begins like xz", b"\xfd7zXZ\x00" + NOISE, "xz"),
    image("garbage that begins like zstd", b"\x28\xb5\x2f\xfd" + NOISE, "zstd"),
    image("gzip in gzip", gzip.compress(gzip.compress(SMALL, 1), 1), "not a tar"),
    image("an old compression", b"\x1f\x9d\x90" + NOISE, "not an image"),
    image("data after the end of the tar", SMALL + b"more" * 200),
    image("a second tar after the first", SMALL + SMALL),
    image("a file beside the two", bare(entry("evil", b"x")), "evil"),
    image("a directory beside the two", bare(entry("rootfs2", kind="directory")), "rootfs2"),
    image("no rootfs", archive(rootfs=False), "no rootfs"),
    image("a rootfs that is a file", archive(entry("rootfs", b"x"), rootfs=False), "rootfs"),
    image(
        "a rootfs that is a link", archive(entry("rootfs", kind="symlink", link="/"), rootfs=False), "rootfs"
    ),
    image("no manifest", headless(), "no manifest"),
    image("a manifest that is a fifo", headless(entry("manifest", kind="fifo")), "manifest"),
    image("a manifest that is a directory", headless(entry("manifest", kind="directory")), "manifest"),
    image(
        "a manifest that is a link to the host's passwd",
        headless(entry("manifest", kind="symlink", link="/etc/passwd")),
        "manifest",
    ),
    image("two manifests", bare(entry("manifest", GOOD_TEXT)), "manifest", "twice"),
    image("an entry with ..", bare(entry("rootfs/../../x", b"x")), ".."),
    image("an absolute entry", bare(entry("/etc/x", b"x")), "/etc/x"),
    image(
        "an entry below a link",
        bare(entry("rootfs/out", kind="symlink", link="/tmp"), entry("rootfs/out/x", b"x")),
        "rootfs/out",
    ),
    image(
        "a hard link to the outside", bare(entry("rootfs/passwd", kind="link", link="/etc/passwd")), "passwd"
    ),
    image("a name with terminal escapes", bare(entry("rootfs/\x1b]0;owned\x07/../x")), r"\x1b]0;owned\x07"),
    image("a name that is not UTF-8", bare(entry("rootfs/\udcff\udcfe/../x")), r"\xff\xfe"),
]

MANIFESTS = [
    about("an empty manifest", b"", "manifest"),
    about("a manifest that is not JSON", b"acKind: ImageManifest\n", "manifest"),
    about("a manifest that is not UTF-8", b'{"acKind": "\xff"}', "manifest"),
    about("a manifest that is a list", b"[]", "manifest"),
    about("a manifest with a key twice", b'{"acKind": "ImageManifest", "acKind": "ImageManifest"}', "acKind"),
    about("a manifest of 100 MB", lambda: GOOD_TEXT[:-1] + b" " * 100_000_000 + b"}", "manifest", "100000"),
    about(
        "a manifest nested 100,000 deep",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "manifest",
        "nest",
    ),
    about("a manifest cut short", GOOD_TEXT[:-1], "manifest"),
    about("a manifest with more behind it", GOOD_TEXT + b"{}", "manifest"),
    about("a manifest with NaN", b'{"acKind": NaN}', "manifest"),
    about("a manifest with a lone surrogate", b'{"acKind": "ImageManifest", "name": "\\ud800"}', "manifest"),
    about("a manifest with a number of 100,000 digits", b'{"acKind": ' + b"1" * 100_000 + b"}", "manifest"),
    about("a manifest of a pod", manifest(acKind="PodManifest"), "acKind", "PodManifest"),
    about("a manifest of appc 1.0.0", manifest(acVersion="1.0.0"), "acVersion", "1.0.0"),
    *[
        about(f"a manifest without {key}", manifest(without=key), key)
        for key in ("acKind", "acVersion", "name")
    ],
    *[
        about(f"an image that is called {name!r}", manifest(name=name), "name")
        for name in ("", "UPPER", "a/../../b", "a b", "-a", "a\n", "\u00e4", "a//b", 7)
    ],
    about(
        "an image with terminal escapes for a name",
        manifest(name="\x1b[2J\x07\u202e\u200b"),
        r"\x1b[2J",
        r"\u202e",
    ),
    about(
        "two labels of one name",
        manifest(labels=[{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]),
        "labels",
    ),
    about("a label that is a number", manifest(labels=[{"name": "version", "value": 1}]), "labels[0].value"),
    about("an exec that is a text", manifest(app={"exec": "/bin/true"}), "app.exec"),
    about("an exec with NUL", manifest(app={"exec": ["/bin/true\0"]}), "app.exec"),
    about("no user", manifest(app={"user": ""}), "app.user"),
    about("a relative working directory", manifest(app={"workingDirectory": "tmp"}), "app.workingDirectory"),
    about(
        "an environment with =", manifest(app={"environment": [{"name": "A=B", "value": ""}]}), "environment"
    ),
    about("a supplementary group of -1", manifest(app={"supplementaryGIDs": [-1]}), "app.supplementaryGIDs"),
    about(
        "a memory limit of words",
        manifest(app={"isolators": [{"name": "resource/memory", "value": {"limit": "lots"}}]}),
        "app.isolators",
        "lots",
    ),
]

OTHER, OTHER_ELF = {"x86_64": ("aarch64", 183), "aarch64": ("amd64", 62)}[os.uname().machine]
SECCOMP = "os/linux/seccomp-retain-set"
ETC = entry("rootfs/etc", kind="directory")


def labels(**pairs: str) -> dict[str, Any]:
    return manifest(labels=[{"name": name, "value": value} for name, value in pairs.items()])


def passwd(file: bytes) -> bytes:
    return bare(ETC, file, text=as_bytes(manifest(app={"user": "somebody"})))


def program(*entries: bytes, **app: Any) -> bytes:
    return bare(*entries, text=as_bytes(manifest(app={"exec": ["/bin/app"], **app})))


def linked(name: str) -> bytes:
    return bare(entry(f"rootfs/{name}", kind="symlink", link=f"/{name}"))


APPS = [
    image("no app section", bare(text=as_bytes(manifest(without="app"))), "--exec"),
    image("an empty exec", bare(text=as_bytes(manifest(app={"exec": []}))), "--exec"),
    started(
        "another operating system",
        bare(text=as_bytes(labels(os="darwin", arch="x86_64"))),
        "darwin",
        exited=False,
    ),
    started("another architecture", bare(text=as_bytes(labels(os="linux", arch=OTHER))), OTHER, exited=False),
    started("a program that is not there", program(), '"/bin/app"', "No such file"),
    started(
        "a program that is a directory", program(entry("rootfs/bin/app", kind="directory")), '"/bin/app"'
    ),
    started("a program that is a fifo", program(entry("rootfs/bin/app", kind="fifo")), '"/bin/app"'),
    started(
        "a program that may not be executed", program(entry("rootfs/bin/app", b"x", mode=0o644)), '"/bin/app"'
    ),
    started(
        "a program that links to itself",
        program(entry("rootfs/bin/app", kind="symlink", link="app")),
        '"/bin/app"',
    ),
    started(
        "a program without its interpreter",
        program(entry("rootfs/bin/app", b"#!/bin/nope\n")),
        '"/bin/app"',
        "interpreter",
    ),
    started("an empty program", program(entry("rootfs/bin/app")), '"/bin/app"', "format"),
    started(
        "a program for another machine",
        program(entry("rootfs/bin/app", elf(OTHER_ELF))),
        '"/bin/app"',
        "format",
    ),
    started("a program by a name nobody has", program(exec=["nope"]), '"nope"', "No such file"),
    refused("an unknown user", program(user="nobody-there"), "nobody-there"),
    refused("an unknown group", program(group="nobody-there"), "nobody-there"),
    *[
        refused(f"the user {user}", program(user=user), user)
        for user in ("-1", "4294967295", "4294967296", "0x0", "1e3", "/nope")
    ],
    *[refused(f"the group {group}", program(group=group), group) for group in ("-1", "4294967296")],
    refused("a passwd that is a fifo", passwd(entry("rootfs/etc/passwd", kind="fifo")), "/etc/passwd"),
    refused(
        "a passwd that is a directory", passwd(entry("rootfs/etc/passwd", kind="directory")), "/etc/passwd"
    ),
    refused(
        "a passwd that is /dev/zero",
        passwd(entry("rootfs/etc/passwd", kind="character device", device=(1, 5))),
        "/etc/passwd",
    ),
    refused(
        "a passwd that never ends", passwd(entry("rootfs/etc/passwd", b"a:b:c\n" * 200_000)), "/etc/passwd"
    ),
    refused(
        "a passwd that is the host's",
        passwd(entry("rootfs/etc/passwd", kind="symlink", link="../../../../../../etc/passwd")),
        "/etc/passwd",
    ),
    refused("a passwd that is not text", passwd(entry("rootfs/etc/passwd", NOISE)), "somebody"),
    *[
        started(f"a /{name} that is a link", linked(name), f"/{name}", "symbolic link")
        for name in ("dev", "proc", "sys")
    ],
    *[
        started(f"a /{name} that is a file", bare(entry(f"rootfs/{name}", b"x")), f"/{name}")
        for name in ("dev", "proc", "sys")
    ],
    refused("a /etc that is a file", bare(entry("rootfs/etc", b"x")), "/etc"),
    refused("a /etc that is a link", linked("etc"), "/etc"),
    started("a working directory that is not there", program(workingDirectory="/nope"), "/nope"),
    started(
        "a working directory that is a file",
        program(ETC, entry("rootfs/etc/x", b"x"), workingDirectory="/etc/x"),
        "/etc/x",
        "Not a dir",
    ),
    started("a working directory outside", program(workingDirectory="/proc/self/fd/3"), "/proc/self/fd/3"),
    image(
        "a seccomp set of no calls",
        program(isolators=[{"name": SECCOMP, "value": {"set": []}}]),
        "app.isolators[0].value.set",
    ),
]

POD = {"acVersion": "0.8.11", "acKind": "PodManifest", "apps": [], "volumes": []}
APP = {"name": "a", "image": {"id": ABSENT}}


def pod(name: str, text: bytes | dict[str, Any], *says: str, exited: bool = False) -> Case:
    def make(directory: Path) -> list[str | Path]:
        (directory / "pod.json").write_bytes(as_bytes(text))
        return ["run", "--net=none", f"--pod-manifest={directory / 'pod.json'}"]

    return Case(name, make, says, exited=exited)


PODS = [
    pod("a pod manifest that is not JSON", b"apps: []", "pod.json"),
    pod("a pod manifest of an image", {**POD, "acKind": "ImageManifest"}, "pod.json", "acKind"),
    pod("a pod manifest without apps", POD, "pod.json", "without apps"),
    pod("a pod of an image nobody has", {**POD, "apps": [APP]}, ABSENT),
    pod("a pod with two apps of one name", {**POD, "apps": [APP, APP]}, "pod.json", "apps[1]"),
    pod(
        "a pod with a mount of no volume",
        {**POD, "apps": [{**APP, "image": {"id": "GOOD"}, "mounts": [{"volume": "v", "path": "/x"}]}]},
        '"v"',
    ),
]

VOLUME = ["--volume=v,kind=host,source=HERE"]
MOUNT = "--mount=volume=v,target=/x"
BUILD = ["image", "build", "--name=a", "--exec=/a"]

COMMANDS = [
    run("an image that is not there", ["HERE/nope.aci"], "HERE/nope.aci"),
    run("an image that is a directory", ["HERE"], "HERE", "directory"),
    run("an image that is a device", ["/dev/null"], "/dev/null"),
    run("an image by a name nobody has", ["example.com/nope"], "example.com/nope"),
    run("an image by an ID nobody has", [ABSENT], ABSENT),
    run("an image by a hash that is none", ["sha512-xyz"], "sha512-xyz"),
    run("an image from the network", ["https://example.com/x.aci"], "https://example.com/x.aci"),
    run("an image by a name against the rules", ["A B"], "A B"),
    run("an image with escapes in its path", ["HERE/\x1b[31m\x07.aci"], r"\x1b[31m\x07.aci"),
    run("an image whose path is not UTF-8", ["HERE/\udcff.aci"], r"\udcff.aci"),
    command("a file without a signature", ["run", "HERE/../good.aci"], "good.aci.asc"),
    run("a memory limit in thousandths", ["GOOD", "--memory=16m"], "memory limit", "1 bytes"),
    run("a memory limit of nothing", ["GOOD", "--memory=0"], "--memory"),
    run("a negative memory limit", ["GOOD", "--memory=-1G"], "-1G"),
    run("a CPU limit of words", ["GOOD", "--cpu=all"], "all"),
    run("a user of words nobody has", ["GOOD", "--user=nobody-there"], "nobody-there"),
    run("the user -1", ["GOOD", "--user=-1"], "-1"),
    run(
        "a volume whose source is not there",
        ["--volume=v,kind=host,source=HERE/nope", MOUNT, "GOOD"],
        "HERE/nope",
    ),
    run("a volume whose source is relative", ["--volume=v,kind=host,source=tmp", "GOOD"], "source"),
    run(
        "a volume whose source is a link",
        ["--volume=v,kind=host,source=/proc/self", MOUNT, "GOOD"],
        "/proc/self",
    ),
    run("a volume of no kind", ["--volume=v", "GOOD"], '"v"'),
    run("a volume of an unknown kind", ["--volume=v,kind=nfs", "GOOD"], "nfs"),
    run("a mount of no volume", [MOUNT, "GOOD"], '"v"', "/x"),
    run(
        "a volume on /",
        [*VOLUME, "--mount=volume=v,target=/", "GOOD"],
        '"/"',
    ),
    run(
        "a volume on /proc",
        [*VOLUME, "--mount=volume=v,target=/proc/x", "GOOD"],
        "/proc/x",
    ),
    run(
        "a volume through ..",
        [*VOLUME, "--mount=volume=v,target=/bin/../../proc", "GOOD"],
        "/proc",
    ),
    run(
        "a volume of a directory on a file",
        [*VOLUME, "--mount=volume=v,target=/bin/busybox", "GOOD"],
        "/bin/busybox",
        exited=True,
    ),
    run("two apps of one name", ["GOOD", "GOOD"], '"good"'),
    run("an app name against the rules", ["GOOD", "--name=A/B"], "A/B"),
    run("a file of environments that is not there", ["--set-env-file=HERE/nope", "GOOD"], "HERE/nope"),
    run("a capability nobody knows", ["GOOD", "--caps-retain=CAP_NOPE"], "CAP_NOPE"),
    run("a system call nobody knows", ["GOOD", "--seccomp=mode=retain,nope"], "nope"),
    command("a network nobody has", ["run", "--net=nope", "GOOD"], "nope"),
    run(
        "a UUID file that cannot be written",
        ["--uuid-file-save=HERE/nope/uuid", "GOOD"],
        "HERE/nope/uuid",
        exited=True,
    ),
    run("a hostname that is too long", [f"--hostname={'a' * 65}", "GOOD"], "a" * 65, "64"),
    run("a hostname of two lines", ["--hostname=a\n127.0.0.1 b", "GOOD"], r"a\n127.0.0.1 b"),
    run("a hostname that is not UTF-8", ["--hostname=\udcff", "GOOD"], r"\udcff"),
    run("two apps and one terminal", ["--interactive", "GOOD", "GOOD", "--name=b"], "interactive"),
    command("a UUID nobody has", ["status", UUID], UUID),
    command("a beginning of a UUID nobody has", ["status", "0d6a"], "0d6a"),
    command("a UUID that is a path", ["status", "../../etc"], "../../etc"),
    command("a UUID with escapes", ["cat-manifest", "\x1b[31m"], r"\x1b[31m"),
    command("logs of a UUID nobody has", ["logs", UUID], UUID),
    command("enter a UUID nobody has", ["enter", UUID, "/bin/sh"], UUID),
    command("run a prepared UUID nobody has", ["run-prepared", UUID], UUID),
    command(
        "a manifest of an image nobody has",
        ["image", "cat-manifest", "example.com/nope"],
        "nope",
        verb="cat-manifest",
    ),
    command("export an image nobody has", ["image", "export", ABSENT, "HERE/out"], ABSENT, verb="export"),
    command(
        "export into a directory that is not there",
        ["image", "export", "GOOD", "HERE/nope/out"],
        "HERE/nope/out",
        verb="export",
    ),
    command("export over a file", ["image", "export", "GOOD", "HERE/../good.aci"], "good.aci", verb="export"),
    command(
        "build of a directory that is not there",
        [*BUILD, "HERE/nope", "HERE/out"],
        "HERE/nope",
        verb="build",
    ),
    command(
        "build into a directory that is not there",
        [*BUILD, "HERE", "HERE/../nope/out"],
        "nope",
        verb="build",
    ),
    command(
        "build of a name against the rules",
        ["image", "build", "--name=A B", "--exec=/a", "HERE", "HERE/../out"],
        "A B",
        verb="build",
    ),
    command(
        "build with a manifest that is not there",
        ["image", "build", "--manifest=HERE/nope", "HERE", "HERE/../out"],
        "HERE/nope",
        verb="build",
    ),
]

CASES = [*ARCHIVES, *MANIFESTS, *APPS, *PODS, *COMMANDS]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_bad_input_is_one_sentence_and_leaves_nothing(case: Case, good: Good, tmp_path: Path) -> None:
    here = tmp_path / "bad"
    here.mkdir()
    (tmp_path / "good.aci").touch()
    args = [os.fspath(arg).replace("GOOD", good.image) for arg in case.make(here)]
    for file in here.glob("*.json"):
        file.write_text(file.read_text().replace("GOOD", good.image))
    if good.site.pods():
        good.site.collect()  # the test before this one failed
    outside, before = harm.files(tmp_path), stored(good.site)

    result = good.site(*args)

    assert_one_sentence(result, case.verb, *(text.replace("HERE", str(here)) for text in case.says))
    assert set(good.site.pods()) == ({"run"} if case.exited else set())
    if case.exited:
        good.site.collect()
        good.site.assert_clean()
    assert not harm.files(good.site.data / "cas/tmp")
    assert harm.files(tmp_path) == outside
    # What a pod was begun of is an image; what is none has not got into the store.
    assert len(stored(good.site) - before) <= (1 if case in APPS else 0)
    assert rkt_py.run(good.image, paths=rkt_py.Paths(data=str(good.site.data))).exit_code == 0


def stored(site: Site) -> set[str]:
    return set(os.listdir(site.data / "cas/image"))


USAGE = [
    (["nope"], 'unknown command "nope"'),
    (["imgae"], 'unknown command "imgae"'),
    (["image", "nope"], 'unknown command "nope"'),
    (["\x1b[31mnope"], r"\x1b[31mnope"),
    (["run"], "at least one image"),
    (["run", "--nope", "x"], "unknown flag: --nope"),
    (["run", "--interctive", "x"], "did you mean --interactive?"),
    (["run", "-x"], "-x"),
    (["run", "--\x1b[31m"], r"\x1b[31m"),
    (["run", "--memory"], "memory"),
    (["run", "--", "a"], "an image is required"),
    (["run", "--exec=/a", "x"], "exec"),
    (["run", "x", "--environment==y"], "=y"),
    (["run", "x", "--oom-score-adj=lots"], "lots"),
    (["run", "--ipc=nope", "x"], "nope"),
    (["run", "--private-users", "x"], "private-users"),
    (["--insecure-options=nope", "version"], "nope"),
    (["gc", "--grace-period=soon"], "soon"),
    (["gc", "extra"], "extra"),
    (["status"], "status"),
    (["rm"], "rm"),
    (["image", "build", "x"], "ROOTFS OUTPUT"),
    (["image", "build", "--compression=rar", "x", "y"], "rar"),
    (["image", "build", "x", "y"], "--name"),
    (["image", "list", "--sort=nope"], "nope"),
]


@pytest.mark.parametrize("args, says", [pytest.param(args, says, id=" ".join(args)) for args, says in USAGE])
def test_a_command_line_nobody_understands_gets_help_and_one_sentence(
    args: list[str], says: str, good: Good
) -> None:
    result = good.site(*args)
    assert result.code == 254, result
    assert result.stdout.startswith("NAME:\n"), result
    assert result.stderr.count("\n") == 1 and result.stderr[:-1].isprintable(), result
    assert says in result.stderr, result
    assert not good.site.pods()


def test_no_command_at_all_gets_the_help_of_the_program(good: Good) -> None:
    result = good.site()
    assert (result.code, result.stdout[:6], result.stderr) == (2, "NAME:\n", "Error: missing command\n")


@pytest.mark.parametrize("verb", ["rm", "stop"])
def test_each_uuid_nobody_has_is_named(verb: str, good: Good) -> None:
    other = UUID.replace("0d6a", "0d6b")
    result = good.site(verb, UUID, other)
    assert (result.code, result.stdout) == (254, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{verb}: ") for line in lines), result
    assert UUID in lines[0] and other in lines[1] and "failed" in lines[2]


def test_images_nobody_has_are_named(good: Good) -> None:
    result = good.site("image", "rm", ABSENT)
    assert (result.code, result.stdout) == (254, "")
    assert result.stderr.splitlines() == [
        f'rm: no image "{ABSENT}" in the store',
        "rm: 1 image(s) cannot be removed",
    ]


@pytest.mark.parametrize("where", ["exec", "workingDirectory"])
def test_errors_of_a_pod_are_escaped_too(where: str, good: Good, tmp_path: Path) -> None:
    strange = "/\x1b]0;owned\x07\n\u202e\u0085"
    app = {"exec": [strange]} if where == "exec" else {"workingDirectory": strange}
    (tmp_path / "strange.aci").write_bytes(bare(text=as_bytes(manifest(app=app))))
    result = good.site(*RUN, tmp_path / "strange.aci")
    good.site.collect()
    assert_one_sentence(result, "run", r"/\x1b]0;owned\x07\x0a")
    assert result.stderr[:-1].isascii()


@pytest.mark.parametrize(
    "args",
    [
        ["--exec=/bin/cat", "--", "\udcff"],
        ["--exec=\udcff"],
        ["--environment=A=\udcff"],
        ["--working-dir=/\udcff"],
    ],
    ids=lambda args: ascii(args[-1]),
)
def test_what_is_not_utf8_cannot_be_in_a_manifest(args: list[str], good: Good) -> None:
    result = good.site("run", "--net=none", good.image, *args)
    assert_one_sentence(result, "run", r"\udcff", "not UTF-8")
    assert not good.site.pods()


# What an image has instead of directories and files that the runtime writes to


@pytest.fixture
def host_directory(tmp_path: Path) -> Path:
    """A directory of the host that nothing of a pod may get into."""
    directory = tmp_path / "of the host"
    directory.mkdir()
    (directory / "resolv.conf").write_text("the host's\n")
    return directory


def fingerprint(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in a directory and itself, by what any change would change."""
    paths = [directory, *sorted(directory.iterdir())]
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in paths
    }


@pytest.mark.parametrize("levels", [0, 1, 12])
@pytest.mark.parametrize("name", ["etc", "dev", "proc", "sys", "tmp"])
def test_a_directory_that_is_a_link_to_the_hosts_leads_nowhere(
    name: str, levels: int, good: Good, host_directory: Path
) -> None:
    link = "../" * levels + str(host_directory)[1 if levels else 0 :]
    data = archive(entry(f"rootfs/{name}", kind="symlink", link=link))
    (host_directory.parent / "bad.aci").write_bytes(data)
    before = fingerprint(host_directory), fingerprint(Path("/etc"))
    result = good.site(*RUN, host_directory.parent / "bad.aci")
    good.site.collect()
    assert (fingerprint(host_directory), fingerprint(Path("/etc"))) == before
    if name != "tmp":
        assert_one_sentence(result, "run", f"/{name}")


@pytest.mark.parametrize("name", ["resolv.conf", "hosts", "hostname", "mtab"])
def test_a_file_of_etc_that_is_a_link_to_the_hosts_is_replaced(
    name: str, good: Good, host_directory: Path
) -> None:
    target = host_directory / "resolv.conf"
    links = [
        entry(f"rootfs/etc/{name}", kind="symlink", link=link)
        for link in [f"../../../../../../../..{target}"]
    ]
    app = {"exec": ["/bin/sh", "-c", f"echo x > /etc/{name}; true"]}
    (host_directory.parent / "bad.aci").write_bytes(archive(ETC, *links, about=manifest(app=app)))
    before = fingerprint(host_directory)
    result = good.site(
        *RUN, "--dns=192.0.2.1", "--hosts-entry=192.0.2.2=a", host_directory.parent / "bad.aci"
    )
    good.site.collect()
    assert result.code == 0, result
    assert fingerprint(host_directory) == before
    assert target.read_text() == "the host's\n"


# The data directory


def test_a_data_directory_that_is_a_file_is_named(good: Good, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("mine")
    for args in (["run", "--net=none", str(tmp_path / "x.aci")], ["fetch", str(tmp_path / "x.aci")]):
        (tmp_path / "x.aci").write_bytes(SMALL)
        result = Site(data)("--insecure-options=image", *args)
        assert_one_sentence(result, args[0], str(data))
    for verb in (["list"], ["gc"], ["image", "list"]):
        result = Site(data)(*verb)
        assert "Traceback" not in result.stderr and "internal error" not in result.stderr, result
    assert data.read_text() == "mine"


def test_a_data_directory_that_is_read_only_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as site:
        (site.seen / "small.aci").write_bytes(archive())
        key = site.ok("--insecure-options=image", "fetch", "--full", site.data.parent / "small.aci").strip()
        remount = [
            "nsenter",
            "-t",
            str(site.namespace),
            "-m",
            "mount",
            "-o",
            "remount,ro",
            str(tmp_path / "disk"),
        ]
        subprocess.run(remount, check=True)
        for args in (
            ["fetch", str(site.data.parent / "small.aci")],
            ["run", "--net=none", key],
            ["prepare", key],
        ):
            result = site("--insecure-options=image", *args)
            assert_one_sentence(result, args[0], str(site.data), "Read-only file system")
        assert key[:19] in site.ok("image", "list")
        assert site.ok("list")


def test_a_data_directory_of_somebody_else_keeps_what_is_theirs(tmp_path: Path) -> None:
    """A directory that has such names, and other things in them, is used and not emptied."""
    data = tmp_path / "data"
    theirs = [
        "pods/notes.txt",
        "pods/run/notes",
        "pods/garbage/README",
        "cas/image/sha512-x/file",
        "cas/tmp/keep",
        "keep",
    ]
    for name in theirs:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("theirs")
    (data / "pods/run" / UUID).write_text("a file with a pod's name")
    (data / "pods/garbage" / UUID.replace("0d", "0e")).symlink_to(tmp_path)
    (tmp_path / "good.aci").write_bytes(archive())
    site = Site(data)
    assert site("--insecure-options=image", "run", "--net=none", tmp_path / "good.aci") == (0, "", "")
    site.collect()
    assert [name for name in theirs if (data / name).read_text() != "theirs"] == []
    assert (data / "pods/run" / UUID).is_file()
    assert (tmp_path / "good.aci").exists()
    assert site.ok("list")
    assert site.ok("image", "list")
