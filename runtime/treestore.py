"""Trees: images laid out as directories, to be the lower directories of overlays.

    cas/tree/ID/
        images          the keys of the images it is made of, uppermost first, one a line
        rootfs/         hard links to their files

An image by itself is its own tree. One with dependencies or a pathWhitelist is laid out once, from the
uppermost image down, so that nothing is written to be overwritten: what is there stays, directories are
merged (appc spec, Image Rendering: each dependency in listed order, depth first, then the image itself,
later files replacing earlier ones, then the whitelist).
"""

from __future__ import annotations

import os

from rkt_py.aci.value import value
from rkt_py.runtime.errors import PrepareError, StoreError
from rkt_py.runtime.imagestore import lock_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt_py.aci.imagemanifest import Dependency
    from rkt_py.runtime.imagestore import Image, ImageStore
    from rkt_py.runtime.paths import Paths

_MAX_LAYERS = 1000


@value
class Tree:
    """A root file system to run from: its lower directories, uppermost first."""

    id: str
    lower: tuple[str, ...]
    path: str  # what holds it: lock this


@value
class _Whitelist:
    """What one pathWhitelist lets through: the paths it names, and the directories on the way to them."""

    paths: frozenset[str]
    parents: frozenset[str]

    def allows(self, path: str, is_directory: bool) -> bool:
        return path in self.paths or (is_directory and path in self.parents)


@value
class _Layer:
    image: Image
    depth: int
    whitelists: tuple[_Whitelist, ...]


def render(image: Image, store: ImageStore) -> Tree:
    """Return an image's tree, laying it out first when it is of more than its own files."""
    if image.is_plain:
        return Tree(image.key, (image.rootfs,), image.path)
    layers = list(_layers(image, store, 0, (), (), set()))
    identity = _identity(layers)
    path = store.paths.tree(identity)
    if not os.path.isdir(f"{path}/rootfs"):
        _publish(layers, identity, store.paths)
    return Tree(identity, (f"{path}/rootfs",), path)


def lock(tree: Tree) -> int:
    """Open what holds a tree, share-locked: while somebody has this descriptor it is not removed."""
    return lock_directory(tree.path, f'tree "{tree.id}"')


def remove_unused(paths: Paths, used: set[str]) -> list[str]:
    """Remove the trees that are not among `used` and that no running pod holds; return their IDs."""
    from rkt_py.runtime import temporary

    removed: list[str] = []
    if not os.path.isdir(paths.trees):
        return removed
    temporary.make_directories(paths.data, paths.image_tmp)
    for identity in sorted(set(os.listdir(paths.trees)) - used):
        try:
            temporary.withdraw(paths.tree(identity), paths.image_tmp)
        except (BlockingIOError, FileNotFoundError):
            continue
        removed.append(identity)
    return removed


def _layers(
    image: Image,
    store: ImageStore,
    depth: int,
    branch: tuple[str, ...],
    above: tuple[_Whitelist, ...],
    seen: set[tuple[str, tuple[_Whitelist, ...]]],
) -> Iterator[_Layer]:
    """Yield an image and what is below it, uppermost first: the reverse of the order of extraction."""
    from rkt_py.aci import imagemanifest

    if image.key in branch:
        raise PrepareError(f'image "{image.name}" ({image.key}) is among its own dependencies')
    manifest = imagemanifest.parse(image.manifest_bytes())
    whitelists = above + ((_whitelist(manifest.path_whitelist),) if manifest.path_whitelist else ())
    # All this would bring is there already, from its place further up.
    if (image.key, whitelists) in seen:
        return
    seen.add((image.key, whitelists))
    if len(seen) > _MAX_LAYERS:
        raise PrepareError(f'image "{image.name}" has more than {_MAX_LAYERS} dependencies in all')
    yield _Layer(image, depth, whitelists)
    for dependency in reversed(manifest.dependencies):
        below = _find(dependency, image, store)
        yield from _layers(below, store, depth + 1, (*branch, image.key), whitelists, seen)


def _find(dependency: Dependency, image: Image, store: ImageStore) -> Image:
    from rkt_py.aci.name import Reference

    reference = Reference(dependency.image_name, tuple(dependency.labels))
    try:
        if not dependency.image_id:
            return store.find(reference)
        found = store.resolve(dependency.image_id)
    except StoreError as error:
        raise PrepareError(f'image "{image.name}" depends on "{reference}": {error}') from None
    if found.name != reference.name or not set(reference.labels) <= set(found.labels):
        raise PrepareError(
            f'image "{image.name}" depends on "{reference}" with ID {dependency.image_id},'
            f' but that is the image "{Reference(found.name, found.labels)}"'
        )
    return found


def _whitelist(paths: tuple[str, ...]) -> _Whitelist:
    named = frozenset("/".join(part for part in path.split("/") if part not in ("", ".")) for path in paths)
    parents = {""}
    for path in named:
        while "/" in path:
            path = path.rpartition("/")[0]
            parents.add(path)
    return _Whitelist(named, frozenset(parents))


def _identity(layers: list[_Layer]) -> str:
    # The keys stand for the manifests too, so with their depths for all that decides the outcome.
    from hashlib import sha512

    text = "".join(f"{layer.depth} {layer.image.key}\n" for layer in layers)
    return f"deps-sha512-{sha512(text.encode()).hexdigest()[:64]}"


def _publish(layers: list[_Layer], identity: str, paths: Paths) -> None:
    from rkt_py.runtime import temporary

    temporary.make_directories(paths.data, paths.trees, paths.image_tmp)
    with temporary.Temporary(paths.image_tmp, "tree") as fresh:
        with open(f"{fresh.path}/images", "w") as images:
            images.writelines(f"{layer.image.key}\n" for layer in layers)
            images.flush()
            os.fsync(images.fileno())
        os.mkdir(f"{fresh.path}/rootfs")
        _lay_out(layers, f"{fresh.path}/rootfs")
        # Links and directories are metadata, which a file system keeps in order: when the final name
        # survives a power cut, so does what came before it. Copied bytes were synced one by one.
        fresh.publish(paths.tree(identity))


def _lay_out(layers: list[_Layer], target: str) -> None:
    """Link the files of all layers into an empty directory."""
    is_directory = {"": True}
    directories = [("", layers[0].image.rootfs)]
    for layer in layers:
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            with os.scandir(f"{layer.image.rootfs}/{directory}") as entries:
                for entry in entries:
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    kind = entry.is_dir(follow_symlinks=False)
                    if not all(whitelist.allows(path, kind) for whitelist in layer.whitelists):
                        continue
                    known = is_directory.get(path)
                    if kind and known is not False:
                        waiting.append(path)
                    if known is not None:
                        continue
                    is_directory[path] = kind
                    if kind:
                        os.mkdir(f"{target}/{path}", 0o700)
                        directories.append((path, entry.path))
                    else:
                        _link(entry.path, f"{target}/{path}")
    # Last, since what is put into a directory changes its mtime; from below, since a mode may shut the way.
    for path, source in reversed(directories):
        _copy_attributes(source, f"{target}/{path}" if path else target)


def _link(source: str, target: str) -> None:
    import errno

    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        # A file has at most 65,000 names on ext4.
        if error.errno != errno.EMLINK or not os.path.isfile(source) or os.path.islink(source):
            raise
        _copy(source, target)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        while os.sendfile(new.fileno(), old.fileno(), None, 1 << 30):
            pass
        os.fsync(new.fileno())
    _copy_attributes(source, target)


def _copy_attributes(source: str, target: str) -> None:
    """Give a directory or file the owner, mode, extended attributes and times of another."""
    status = os.stat(source, follow_symlinks=False)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    for name in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
