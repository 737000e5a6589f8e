"""Trees: what is left of an image and its dependencies when they are laid out."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
import time
from pathlib import Path

import pytest

from rkt_py.runtime import treestore
from rkt_py.runtime.errors import PrepareError, StoreError
from rkt_py.runtime.imagestore import Image, ImageStore
from rkt_py.runtime.paths import Paths
from tests.runtime.state import Child, directory, entry, manifest, put


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(Paths(data=str(tmp_path / "data"), run=str(tmp_path / "run")))


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def make(store: ImageStore, name: str, files: str, dependencies: str = "", whitelist: str = "") -> Image:
    """Put example.com/NAME: "d/" is a directory, "d/f" a file that says whose it is, "l>d" a link."""
    entries = []
    for path in files.split():
        if path.endswith("/"):
            entries.append(directory(f"rootfs/{path[:-1]}"))
        elif ">" in path:
            entries.append(link("rootfs/" + path.partition(">")[0], path.partition(">")[2]))
        else:
            entries.append(entry(f"rootfs/{path}", name.encode()))
    content = manifest(
        f"example.com/{name}",
        dependencies=[{"imageName": f"example.com/{other}"} for other in dependencies.split()],
        pathWhitelist=[f"/{path}" for path in whitelist.split()],
    )
    return put(store, content, entries)


def shown(tree: treestore.Tree) -> str:
    """Write a tree as `make` reads it, with the owner of each file: "d/ d/f=a l>d"."""
    (lower,) = tree.lower
    items = []
    for path in sorted(Path(lower).rglob("*")):
        name = str(path.relative_to(lower))
        if path.is_symlink():
            items.append(f"{name}>{os.readlink(path)}")
        elif path.is_dir():
            items.append(f"{name}/")
        else:
            items.append(f"{name}={path.read_text()}")
    return " ".join(items)


def test_an_image_by_itself_is_its_own_tree(store: ImageStore) -> None:
    image = make(store, "a", "f")
    tree = treestore.render(image, store)
    assert tree == treestore.Tree(image.key, (image.rootfs,), image.path)
    assert not os.path.exists(store.paths.trees)


# appc spec, Image Rendering. Images from the lowest to the uppermost, the last one is rendered:
# name: files | dependencies | whitelist.
CASES = {
    "files of both": (["b: x", "a: y | b"], "x=b y=a"),
    "the upper file wins": (["b: f g", "a: f | b"], "f=a g=b"),
    "of two dependencies the later wins": (["b: f", "c: f", "a: | b c"], "f=c"),
    "depth first": (["d: w x y z", "c: x y | d", "b: y z w", "a: z | b c"], "w=d x=c y=c z=a"),
    "a shared dependency comes again": (["d: f g", "b: f | d", "c: g | d", "a: | b c"], "f=d g=c"),
    "directories are merged": (["b: d/ d/x", "a: d/ d/y | b"], "d/ d/x=b d/y=a"),
    "a file hides a directory": (["b: d/ d/x", "a: d | b"], "d=a"),
    "a directory replaces a file": (["b: d", "a: d/ d/x | b"], "d/ d/x=a"),
    "a directory replaces a link": (["b: e/ d>e", "a: d/ d/x | b"], "d/ d/x=a e/"),
    "a link hides a directory, and is not followed": (["b: d/ d/x e/", "a: d>e | b"], "d>e e/"),
    "a file under a link": (["b: e/ d/ d/x", "a: e/ d>e e/x | b"], "d>e e/ e/x=a"),
    "a link is not followed outside": (["b: etc/ etc/x", "a: etc>/tmp | b"], "etc>/tmp"),
    "whitelist of one image": (["a: x y d/ d/z || x d/z"], "d/ d/z=a x=a"),
    "whitelist of an image and all below": (["b: x y", "a: z w | b | x z"], "x=b z=a"),
    "whitelist below": (["b: x y || x", "a: y | b"], "x=b y=a"),
    "whitelist below lets lower files through": (["c: y", "b: y || x", "a: | c b"], "y=c"),
    "whitelist does not make up for what a lower one left out": (["b: x y || x", "a: | b | x y"], "x=b"),
    "two levels of whitelists": (["c: x y z", "b: w | c | x y w", "a: | b | y w z"], "w=b y=c"),
    "a directory in a whitelist is empty": (["a: d/ d/x || d"], "d/"),
    "a slash at the end": (["a: d/ d/x e/ || d/"], "d/"),
    "what a whitelist names need not be": (["a: x || x y d/z"], "x=a"),
    "a hidden upper directory and a shown lower one": (["b: d/ d/x", "a: d | b | d/x"], "d/ d/x=b"),
}  # fmt: skip


@pytest.mark.parametrize("images, expected", [pytest.param(*case, id=id) for id, case in CASES.items()])
def test_rendering(store: ImageStore, images: list[str], expected: str) -> None:
    made = []
    for text in images:
        name, _, rest = text.partition(":")
        files, dependencies, whitelist = (part.strip() for part in (rest + "||").split("|")[:3])
        made.append(make(store, name, files, dependencies, whitelist))
    image = made[-1]
    assert not image.is_plain or len(images) == 1
    assert shown(treestore.render(image, store)) == expected


def test_a_tree_is_made_once_of_links(store: ImageStore) -> None:
    lower = make(store, "b", "x")
    image = make(store, "a", "y", "b")
    tree = treestore.render(image, store)
    assert os.path.samefile(f"{tree.lower[0]}/x", f"{lower.rootfs}/x")
    inode = os.stat(tree.path).st_ino
    assert treestore.render(image, store) == tree
    assert os.stat(tree.path).st_ino == inode
    assert Path(tree.path, "images").read_text().split() == [image.key, lower.key]
    assert os.listdir(store.paths.image_tmp) == []
    assert os.stat(tree.path).st_mode & 0o7777 == os.stat(store.paths.trees).st_mode & 0o7777 == 0o700


def test_a_tree_outlives_its_images(store: ImageStore) -> None:
    lower = make(store, "b", "x")
    image = make(store, "a", "y", "b")
    tree = treestore.render(image, store)
    store.remove(lower.key)
    store.remove(image.key)
    assert shown(tree) == "x=b y=a"


def test_another_dependency_makes_another_tree(store: ImageStore) -> None:
    make(store, "b", "x")
    image = make(store, "a", "y", "b")
    before = treestore.render(image, store)
    make(store, "b", "z")
    after = treestore.render(image, store)
    assert (shown(before), shown(after)) == ("x=b y=a", "y=a z=b")


@pytest.mark.root
def test_attributes_are_the_uppermost_ones(store: ImageStore) -> None:
    def attributes(mode: int, uid: int, mtime: int) -> list[tuple[tarfile.TarInfo, bytes]]:
        return [
            entry("rootfs/d", type=tarfile.DIRTYPE, mode=mode, uid=uid, gid=uid, mtime=mtime),
            entry(f"rootfs/d/{uid}", mode=mode, uid=uid, gid=uid, mtime=mtime),
        ]

    put(store, manifest("example.com/b"), attributes(0o755, 1, 1000))
    upper = manifest("example.com/a", dependencies=[{"imageName": "example.com/b"}])
    image = put(store, upper, attributes(0o2711, 2, 2000))
    os.setxattr(f"{image.rootfs}/d", "user.a", b"1")
    (lower,) = treestore.render(image, store).lower
    found = os.stat(f"{lower}/d")
    assert stat.S_IMODE(found.st_mode) == 0o2711
    assert (found.st_uid, found.st_gid, found.st_mtime) == (2, 2, 2000)
    assert os.getxattr(f"{lower}/d", "user.a") == b"1"
    assert [os.stat(f"{lower}/d/{uid}").st_mtime for uid in (1, 2)] == [1000, 2000]
    assert stat.S_IMODE(os.stat(lower).st_mode) == 0o755


def test_a_file_with_too_many_names_is_copied(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store, "b", "x l>x")
    image = make(store, "a", "y", "b")
    os.chmod(f"{image.rootfs}/y", 0o4750)
    link = os.link

    def refuse(source: str, target: str, *, follow_symlinks: bool) -> None:
        if not os.path.islink(source):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), source)
        link(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr("os.link", refuse)
    tree = treestore.render(image, store)
    assert shown(tree) == "l>x x=b y=a"
    assert not os.path.samefile(f"{tree.lower[0]}/y", f"{image.rootfs}/y")
    assert stat.S_IMODE(os.stat(f"{tree.lower[0]}/y").st_mode) == 0o4750


# Dependencies


@pytest.mark.parametrize(
    "dependency, message",
    [
        ({"imageName": "example.com/none"}, 'depends on "example.com/none": no image'),
        (
            {"imageName": "example.com/b", "labels": [{"name": "version", "value": "2"}]},
            'depends on "example.com/b:2": no image',
        ),
        ({"imageName": "example.com/b", "imageID": "sha512-" + "0" * 128}, "no image"),
        ({"imageName": "example.com/other", "imageID": "B"}, 'but that is the image "example.com/b:1.0.0"'),
        (
            {"imageName": "example.com/b", "imageID": "B", "labels": [{"name": "version", "value": "2"}]},
            'but that is the image "example.com/b:1.0.0"',
        ),
    ],
)
def test_a_dependency_that_is_not_there_is_said_so(
    store: ImageStore, dependency: dict[str, object], message: str
) -> None:
    b = make(store, "b", "x")
    if dependency.get("imageID") == "B":
        dependency = {**dependency, "imageID": f"sha512-{b.sha512}"}
    image = put(store, manifest("example.com/a", dependencies=[dependency]), [])
    with pytest.raises(PrepareError, match='image "example.com/a" depends on "example.com/') as caught:
        treestore.render(image, store)
    assert message in str(caught.value)
    assert not os.path.exists(store.paths.trees)


def test_a_dependency_may_be_named_by_its_id(store: ImageStore) -> None:
    b = make(store, "b", "old")
    make(store, "b", "new")
    dependency = {"imageName": "example.com/b", "imageID": f"sha512-{b.sha512}"}
    image = put(store, manifest("example.com/a", dependencies=[dependency]), [])
    assert shown(treestore.render(image, store)) == "old=b"


def test_an_image_among_its_own_dependencies_is_refused(store: ImageStore) -> None:
    make(store, "b", "x")
    make(store, "a", "y", "b")
    image = make(store, "b", "z", "a")
    with pytest.raises(PrepareError, match="among its own dependencies"):
        treestore.render(image, store)


def test_what_is_there_twice_costs_once(store: ImageStore) -> None:
    image = make(store, "i0", "f")
    for number in range(1, 40):
        # Without a memory, 2 to the power of 40 images.
        image = make(store, f"i{number}", f"f{number}", f"i{number - 1} i{number - 1}")
    tree = treestore.render(image, store)
    assert len(os.listdir(tree.lower[0])) == 40


# Others at it


def test_of_many_that_render_one_tree_all_get_it(store: ImageStore) -> None:
    make(store, "b", " ".join(f"f{number}" for number in range(200)))
    image = make(store, "a", "y", "b")
    children = [
        Child(lambda: len(os.listdir(treestore.render(image, store).lower[0])) == 201 or 1 / 0)
        for _ in range(6)
    ]
    assert [child.wait() for child in children] == [0] * 6
    assert os.listdir(store.paths.image_tmp) == []


def test_killed_at_any_point_rendering_leaves_a_whole_tree_or_none(store: ImageStore) -> None:
    make(store, "b", " ".join(f"f{number}" for number in range(300)))
    image = make(store, "a", "y", "b")
    whole = 0
    for pause in range(20):
        child = Child(lambda: treestore.render(image, store))
        time.sleep(pause / 1000)
        child.kill()
        child.wait()
        for identity in os.listdir(store.paths.trees) if os.path.isdir(store.paths.trees) else []:
            assert len(os.listdir(f"{store.paths.tree(identity)}/rootfs")) == 301
            whole += 1
        treestore.remove_unused(store.paths, set())
        store.sweep()
        assert os.listdir(store.paths.image_tmp) == []
    assert whole < 20


def test_trees_nobody_uses_are_removed(store: ImageStore) -> None:
    assert treestore.remove_unused(store.paths, set()) == []
    make(store, "b", "x")
    images = [make(store, f"a{number}", "y", "b") for number in range(3)]
    used, running, unused = (treestore.render(image, store) for image in images)
    fd = treestore.lock(running)
    assert treestore.remove_unused(store.paths, {used.id}) == [unused.id]
    assert sorted(os.listdir(store.paths.trees)) == sorted([used.id, running.id])
    os.close(fd)
    assert treestore.remove_unused(store.paths, {used.id}) == [running.id]
    with pytest.raises(StoreError, match=f'tree "{running.id}" is not in the store'):
        treestore.lock(running)
    assert shown(used) == "x=b y=a0"
