"""The image store: whole images or none, whoever else is at it and whatever is killed."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rkt_py.aci import name
from rkt_py.aci.errors import BadImage, BadManifest, RktError
from rkt_py.runtime.errors import StoreError
from rkt_py.runtime.imagestore import Image, ImageStore
from rkt_py.runtime.paths import Paths
from tests.runtime.state import Child, archive, directory, entry, manifest, put, unpack

ROOT = Path(__file__).parents[2]
FILES = [
    directory("rootfs/bin"),
    entry("rootfs/bin/hello", b"#!/bin/sh\n", mode=0o4755),
    entry("rootfs/a", b"a"),
]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(data=str(tmp_path / "data"), run=str(tmp_path / "run")))


def temporaries(store: ImageStore) -> list[str]:
    try:
        return os.listdir(store.paths.image_tmp)
    except FileNotFoundError:
        return []


def test_an_image_is_put_and_read_back(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path / "hello.aci", manifest(), FILES)
    before = time.time_ns()
    image = store.put(str(path), unpack=unpack)
    digest = hashlib.sha512(path.read_bytes()).hexdigest()
    assert image.key == f"sha512-{digest[:64]}"
    assert image.sha512 == digest
    assert (image.name, image.labels) == ("example.com/hello", (name.Label("version", "1.0.0"),))
    assert (image.size, image.compressed_size, image.compression) == (path.stat().st_size,) * 2 + ("none",)
    assert before <= image.import_time <= time.time_ns()
    assert Path(image.path, "aci").read_bytes() == path.read_bytes()
    assert b'"ImageManifest"' in image.manifest_bytes()
    assert Path(image.rootfs, "a").read_text() == "a"
    assert image.is_plain
    assert temporaries(store) == []
    assert store.get(image.key) == image
    assert list(store.list()) == [store.get(image.key)]


def test_an_image_is_put_from_a_descriptor(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path / "hello.aci", manifest(), FILES)
    with path.open("rb") as file:
        image = store.put(file.fileno(), unpack=unpack)
        assert not file.closed
        os.fstat(file.fileno())
    assert store.get(image.key).name == "example.com/hello"


def test_a_second_import_changes_nothing_but_the_last_use(store: ImageStore) -> None:
    first = put(store, manifest(), FILES)
    os.utime(f"{first.path}/info", ns=(0, 0))
    inode = os.stat(first.path).st_ino
    second = put(store, manifest(), FILES)
    assert os.stat(second.path).st_ino == inode
    assert second.import_time == first.import_time
    assert second.last_used > 0
    assert temporaries(store) == []


def test_nobody_but_root_gets_to_an_images_files(store: ImageStore) -> None:
    old = os.umask(0)
    try:
        image = put(store, manifest(), FILES)
    finally:
        os.umask(old)
    for path in (f"{store.paths.data}/cas", store.paths.images, store.paths.image_tmp, image.path):
        assert os.stat(path).st_mode & 0o7777 == 0o700


# Bad input


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda path: path.write_bytes(b"no tar"), BadImage),
        (lambda path: archive(path, b"{", FILES), BadManifest),
        (lambda path: archive(path, manifest(name="Not A Name"), FILES), BadManifest),
        (lambda path: archive(path, manifest(), rootfs=False), BadImage),
        (lambda path: archive(path, manifest(), [entry("rootfs", b"")], rootfs=False), BadImage),
        (lambda path: path.mkdir(), BadImage),
        (lambda path: None, FileNotFoundError),
    ],
    ids=["no tar", "no JSON", "bad name", "no rootfs", "rootfs a file", "a directory", "not there"],
)
def test_a_bad_image_leaves_nothing(
    store: ImageStore, tmp_path: Path, make: Callable[[Path], object], error: type[Exception]
) -> None:
    make(tmp_path / "bad.aci")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(error, match="bad.aci"):
        store.put(str(tmp_path / "bad.aci"), unpack=unpack)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert temporaries(store) == []
    assert list(store.list()) == []


FULL = """
import errno, os, subprocess, sys
from rkt_py.runtime.imagestore import ImageStore
from rkt_py.runtime.paths import Paths
from tests.runtime.state import unpack
directory, archive = sys.argv[1:]
for size in range(16, 400, 16):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "full", directory], check=True)
    store = ImageStore(Paths(data=f"{directory}/data"))
    try:
        image = store.put(archive, unpack=unpack)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        assert list(store.list()) == []
        try:
            assert os.listdir(store.paths.image_tmp) == []
        except FileNotFoundError:
            pass
        print("full", size)
    else:
        assert os.path.getsize(f"{image.rootfs}/big") == 100_000
        print("fits", size)
        break
    finally:
        subprocess.run(["umount", directory], check=True)
"""


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "big.aci", manifest(), [*FILES, entry("rootfs/big", b"x" * 100_000)])
    (tmp_path / "mount").mkdir()
    command = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        FULL,
        str(tmp_path / "mount"),
    ]
    done = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("full") > 5
    assert done.stdout.count("fits") == 1


# Others at it, and killed


def test_of_many_that_put_one_image_all_get_it(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path / "hello.aci", manifest(), [*FILES, entry("rootfs/big", b"x" * 100_000)])
    ready, go = os.pipe()

    def import_it() -> None:
        os.close(go)
        os.read(ready, 1)
        image = store.put(str(path), unpack=unpack)
        assert os.path.getsize(f"{image.rootfs}/big") == 100_000
        assert store.find(name.parse("example.com/hello")).key == image.key

    children = [Child(import_it) for _ in range(8)]
    os.close(ready)
    os.close(go)
    assert [child.wait() for child in children] == [0] * 8
    assert len(store.list()) == 1
    assert temporaries(store) == []


def test_killed_at_any_point_an_import_leaves_a_whole_image_or_none(
    store: ImageStore, tmp_path: Path
) -> None:
    dice = random.Random(1)
    files = [*FILES, *(entry(f"rootfs/{number}", b"x" * 2000) for number in range(50))]
    path = archive(tmp_path / "hello.aci", manifest(), files)
    started = time.monotonic()
    key = store.put(str(path), unpack=unpack).key
    duration = time.monotonic() - started
    store.remove(key)
    outcomes: dict[str, int] = {"none": 0, "whole": 0, "left": 0}
    for _ in range(40):
        child = Child(lambda: store.put(str(path), unpack=unpack))
        time.sleep(dice.uniform(0, duration * 1.2))
        child.kill()
        child.wait()
        images = store.list()
        assert len(images) <= 1
        for image in images:
            assert len(os.listdir(image.rootfs)) == 52
            assert sorted(os.listdir(image.path)) == ["aci", "info", "manifest", "rootfs"]
            store.remove(key)
        outcomes["whole" if images else "none"] += 1
        outcomes["left"] += len(temporaries(store)) > 0
        if dice.random() < 0.5:
            # The next one works whatever the last one left.
            assert store.put(str(path), unpack=unpack).key == key
            store.remove(key)
        store.sweep()
        assert temporaries(store) == []
    assert outcomes["none"] > 3 and outcomes["left"] > 3, outcomes


def test_what_is_being_written_is_not_swept(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path / "hello.aci", manifest(), FILES)
    seen = []

    def slow(*args: int, **options: bool | int) -> object:
        assert Child(lambda: seen.append(1) if not ImageStore(store.paths).sweep() else 1 / 0).wait() == 0
        return unpack(*args, **options)  # type: ignore[arg-type]

    store.put(str(path), unpack=slow)  # type: ignore[arg-type]
    assert len(store.list()) == 1


def test_sweep_touches_nothing_but_its_own(store: ImageStore) -> None:
    os.makedirs(f"{store.paths.image_tmp}/image-dead/rootfs")
    os.makedirs(f"{store.paths.image_tmp}/removed-dead")
    os.makedirs(f"{store.paths.image_tmp}/something")
    assert store.sweep() == ["image-dead", "removed-dead"]
    assert temporaries(store) == ["something"]
    assert ImageStore(Paths(data="/nonexistent")).sweep() == []


def test_a_damaged_image_is_said_so_and_replaced_by_the_next_import(store: ImageStore) -> None:
    image = put(store, manifest(), FILES)
    other = put(store, manifest("example.com/other"), FILES)
    for damage in (b"", b"{}", b"{", b'{"sha512":1}', b"[]"):
        Path(image.path, "info").write_bytes(damage)
        with pytest.raises(StoreError, match="is damaged"):
            store.get(image.key)
        assert [one.key for one in store.list()] == [other.key]
        assert put(store, manifest(), FILES).key == image.key
    os.unlink(f"{image.path}/info")
    with pytest.raises(StoreError, match="is damaged"):
        store.get(image.key)
    assert put(store, manifest(), FILES).key == image.key
    assert len(store.list()) == 2
    assert temporaries(store) == []


# Removal


def test_a_removed_image_is_gone(store: ImageStore) -> None:
    image = put(store, manifest(), FILES)
    store.remove(image.key)
    assert os.listdir(store.paths.images) == temporaries(store) == []
    for act in (store.remove, store.get, store.resolve):
        with pytest.raises(StoreError, match=f'no image "{image.key}" in the store'):
            act(image.key)


def test_an_image_in_use_is_not_removed(store: ImageStore) -> None:
    image = put(store, manifest(), FILES)
    first, second = store.lock(image), store.lock(image)
    for fd in (first, second):
        with pytest.raises(StoreError, match="in use by a running pod"):
            store.remove(image.key)
        os.close(fd)
    store.remove(image.key)
    with pytest.raises(StoreError, match=f'image "{image.key}" is not in the store'):
        store.lock(image)


def test_the_lock_of_an_image_goes_along_across_exec(store: ImageStore) -> None:
    image = put(store, manifest(), FILES)
    fd = store.lock(image)
    process = subprocess.Popen(["sleep", "1000"], pass_fds=[fd])
    os.close(fd)
    with pytest.raises(StoreError, match="in use"):
        store.remove(image.key)
    process.kill()
    process.wait()
    store.remove(image.key)


def test_who_locks_an_image_has_it_or_is_told(store: ImageStore, tmp_path: Path) -> None:
    path = archive(tmp_path / "hello.aci", manifest(), FILES)
    key = store.put(str(path), unpack=unpack).key
    image = store.get(key)

    def churn() -> None:
        while True:
            try:
                store.remove(key)
            except StoreError:
                pass
            store.put(str(path), unpack=unpack)

    child = Child(churn)
    outcomes = {True: 0, False: 0}
    deadline = time.monotonic() + 20
    try:
        while min(outcomes.values()) < 20 and time.monotonic() < deadline:
            try:
                fd = store.lock(image)
            except StoreError:
                outcomes[False] += 1
                continue
            assert Path(image.rootfs, "a").read_text() == "a"
            assert os.path.samestat(os.stat(image.path), os.fstat(fd))
            os.close(fd)
            outcomes[True] += 1
    finally:
        child.kill()
        child.wait()
    assert min(outcomes.values()) >= 20, outcomes


# Names


@pytest.mark.parametrize("length", [len("sha512-") + n for n in (2, 12, 63, 64, 65, 128)])
def test_a_unique_prefix_is_enough(store: ImageStore, length: int) -> None:
    image = put(store, manifest(), FILES)
    put(store, manifest("example.com/other"), FILES)
    assert store.resolve(f"sha512-{image.sha512}"[:length]).key == image.key


@pytest.mark.parametrize(
    "prefix, message",
    [
        ("sha512-", "at least two"),
        ("sha512-a", "at least two"),
        ("sha512-AB", "at least two"),
        ("sha512-zz", "at least two"),
        ("sha512-" + "0" * 129, "at least two"),
        ("sha256-ab", "at least two"),
        ("ab", "at least two"),
        ("", "at least two"),
        ("sha512-ab/../..", "at least two"),
        ("sha512-00", 'no image "sha512-00"'),
        ("sha512-" + "0" * 64, "no image"),
        ("sha512-" + "0" * 128, "no image"),
    ],
)
def test_what_is_no_image_is_said_so(store: ImageStore, prefix: str, message: str) -> None:
    put(store, manifest(), FILES)
    with pytest.raises(StoreError, match=message):
        store.resolve(prefix)


def copy(store: ImageStore, image: Image, key: str) -> None:
    """Make an image of that key, by hand: hashes cannot be chosen."""
    os.mkdir(store.paths.image(key))
    info = Path(image.path, "info").read_text().replace(image.sha512, key.removeprefix("sha512-") + "0" * 64)
    Path(store.paths.image(key), "info").write_text(info)


def test_an_ambiguous_prefix_lists_what_it_may_mean(store: ImageStore) -> None:
    image = put(store, manifest(), FILES)
    keys = ["sha512-" + "ab" * 32, "sha512-" + "ab" * 31 + "cd"]
    for key in keys:
        copy(store, image, key)
    with pytest.raises(StoreError) as caught:
        store.resolve("sha512-abab")
    assert str(caught.value) == f'"sha512-abab" is ambiguous: {keys[0]}, {keys[1]}'
    assert store.resolve(keys[1][:-1]).key == keys[1]
    with pytest.raises(StoreError, match="no image"):
        store.resolve(keys[0] + "1")


@pytest.mark.parametrize(
    "reference, version",
    [
        ("example.com/hello:1.0.0", "1.0.0"),
        ("example.com/hello:2.0.0", "2.0.0"),
        ("example.com/hello", "1.5.0"),
        ("example.com/hello:1.5.0,os=linux", "1.5.0"),
        ("example.com/hello,os=linux", "1.5.0"),
    ],
)
def test_the_newest_import_with_all_the_labels_is_found(
    store: ImageStore, reference: str, version: str
) -> None:
    for number in ("1.0.0", "2.0.0", "1.5.0"):
        labels = [{"name": "version", "value": number}, {"name": "os", "value": "linux"}]
        put(store, manifest(labels=labels), FILES)
    put(store, manifest("example.com/hello-world"), FILES)
    found = store.find(name.parse(reference))
    assert found.labels == (name.Label("version", version), name.Label("os", "linux"))


@pytest.mark.parametrize(
    "reference", ["example.com/hello:3", "example.com", "hello", "example.com/hello,os=linux"]
)
def test_what_has_other_names_and_labels_is_not_found(store: ImageStore, reference: str) -> None:
    put(store, manifest(), FILES)
    with pytest.raises(StoreError, match=f'no image "{reference}" in the store'):
        store.find(name.parse(reference))


def test_an_empty_store_is_not_made_by_asking(store: ImageStore) -> None:
    assert list(store.list()) == []
    for ask in (
        lambda: store.resolve("sha512-ab"),
        lambda: store.find(name.parse("a")),
        lambda: store.remove("x"),
    ):
        with pytest.raises(RktError):
            ask()
    assert not os.path.exists(f"{store.paths.data}/cas/image")


def test_touch_notes_the_last_use(store: ImageStore) -> None:
    image = put(store, manifest(), FILES)
    os.utime(f"{image.path}/info", ns=(0, 0))
    assert store.get(image.key).last_used == 0
    store.touch(image.key)
    assert abs(store.get(image.key).last_used - time.time_ns()) < 60 * 10**9
    store.touch("sha512-" + "0" * 64)


@pytest.mark.parametrize("how", ["get", "resolve", "find"])
def test_one_of_a_hundred_images_is_found_in_a_millisecond(store: ImageStore, how: str) -> None:
    image = put(store, manifest(), FILES)
    for number in range(99):
        copy(store, image, f"sha512-{number:02d}{'ab' * 31}")
        info = Path(store.paths.image(f"sha512-{number:02d}{'ab' * 31}"), "info")
        info.write_text(info.read_text().replace("example.com/hello", f"example.com/other-{number}"))
    reference = name.parse("example.com/hello:1.0.0")
    act: Callable[[], Image] = {
        "get": lambda: store.get(image.key),
        "resolve": lambda: store.resolve(image.key[:-1]),
        "find": lambda: store.find(reference),
    }[how]
    times = []
    for _ in range(50):
        start = time.perf_counter()
        assert act().key == image.key
        times.append(time.perf_counter() - start)
    assert min(times) < 0.001, f"{min(times) * 1000:.2f} ms"
