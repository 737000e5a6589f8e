"""Prepare: a pod manifest and its images to a pod on disk."""

from __future__ import annotations

import os

from rkt_py.aci import podmanifest
from rkt_py.runtime import child, facts, treestore
from rkt_py.runtime import pod as pods
from rkt_py.runtime.errors import PrepareError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rkt_py.aci.podmanifest import PodManifest, Volume
    from rkt_py.runtime.imagestore import Image, ImageStore
    from rkt_py.runtime.paths import Paths
    from rkt_py.runtime.pod import Pod, RuntimeConfig
    from rkt_py.runtime.treestore import Tree

# statfs(2): file systems that cannot hold an overlay's upper directory.
NO_UPPER = {
    0x794C7630: "overlayfs",
    0x61756673: "aufs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x4D44: "vfat",
    0xFF534D42: "cifs",
}


def check_volumes(manifest: PodManifest) -> None:
    """Refuse a host volume whose source is not there, or is a link (appc spec, "Volume Setup")."""
    for volume in manifest.volumes:
        if volume.kind == "host":
            _check_source(volume)


def _check_source(volume: Volume) -> None:
    try:
        if os.path.islink(volume.source):
            raise PrepareError(f'volume "{volume.name}": the source {volume.source} is a symbolic link')
        os.stat(volume.source)
    except OSError as error:
        raise PrepareError(
            f'volume "{volume.name}": {volume.source}: {os.strerror(error.errno or 0)}'
        ) from None


def _manifest_bytes(manifest: PodManifest) -> bytes:
    """Write a pod manifest, some of which is from a command line, which need not be UTF-8."""
    text = podmanifest.dump(manifest)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        start, end = text.rfind('"', 0, error.start) + 1, text.find('"', error.end)
        raise PrepareError(f'"{text[start:end]}" is not UTF-8, as all of a pod manifest must be') from None


def _copy_tree(tree: Tree, target: str) -> None:
    """Copy a tree with everything it has. cp(1) does it, with reflinks where there are any."""
    argv = ["cp", "-a", "--reflink=auto", "-T", tree.lower[0], target]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    pid = os.posix_spawnp("cp", argv, environment)
    try:
        _, status = os.waitpid(pid, 0)
    except BaseException:
        child.end(pid)  # it would go on making what is being removed
        raise
    if status != 0:
        raise PrepareError(f"cannot copy {tree.lower[0]} to {target}")


def _lay_out(pod: Pod, app: str, tree: Tree, *, overlay: bool) -> None:
    root = os.stat(tree.lower[0])
    pod.write(f"appsinfo/{app}/treeStoreID", f"{tree.id}\n".encode())
    mode = root.st_mode & 0o7777
    if overlay:
        # The merged root shows the upper directory's owner and mode.
        upper = pod.mkdir(f"overlay/{app}/upper", mode)
        if (root.st_uid, root.st_gid) != (0, 0):
            os.chown(upper, root.st_uid, root.st_gid)
        pod.mkdir(f"overlay/{app}/work", 0o700)
        pod.mkdir(f"overlay/{app}/root", 0o755)
    else:
        _copy_tree(tree, pod.mkdir(f"overlay/{app}/root", mode))


def can_overlay(paths: Paths) -> bool:
    """Tell whether overlays can have their upper directories in the data directory."""
    from rkt_py.runtime import kernel

    return kernel.file_system_type(paths.data) not in NO_UPPER


def prepare(
    paths: Paths,
    manifest: PodManifest,
    images: Mapping[str, Image],
    store: ImageStore,
    config: RuntimeConfig,
) -> Pod:
    """Lay out a pod, and return it locked and still `preparing`: `to_prepared()` or `to_run()` comes next.

    `images` are by app name. Whatever fails, nothing of the pod is left.
    """
    check_volumes(manifest)
    manifest_bytes = _manifest_bytes(manifest)
    trees = {app.name: treestore.render(images[app.name], store) for app in manifest.apps}
    facts.check(paths, manifest, trees, config)
    pod = pods.create(paths)
    try:
        pod.write("pod", manifest_bytes)
        pod.write("runtime-config", config.json())
        pod.mkdir("rkt/status")
        pod.mkdir("rkt/log")
        if len(manifest.apps) > 1:
            pod.mkdir("shm")
        for app in manifest.apps:
            image = images[app.name]
            pod.write(f"appsinfo/{app.name}/manifest", image.manifest_bytes())
            _lay_out(pod, app.name, trees[app.name], overlay=config.overlay)
            pod.write(f"rkt/status/{app.name}-created", b"")
            store.touch(image.key)
        for volume in manifest.volumes:
            if volume.kind == "empty":
                path = pod.mkdir(f"sharedVolumes/{volume.name}", int(volume.mode or "0755", 8))
                os.chown(path, volume.uid or 0, volume.gid or 0)
        return pod
    except BaseException:
        from rkt_py.runtime import gc

        with pod:
            gc.remove(pod)
        raise
