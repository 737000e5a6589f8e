"""Facts: what a plan needs to know of an app, looked up in its image.

Nothing of an image is opened but by `kernel.open_in_root`.
"""

from __future__ import annotations

import os
import stat

from rkt_py.runtime import capability, cgroup, kernel, passwd, plan, seccomp
from rkt_py.runtime.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rkt_py.aci.podmanifest import PodManifest, RuntimeApp
    from rkt_py.runtime.paths import Paths
    from rkt_py.runtime.plan import AppFacts
    from rkt_py.runtime.pod import RuntimeConfig
    from rkt_py.runtime.treestore import Tree

MAX_PASSWD = 1 << 20


class Root:
    """An app's root as its layers show it before it is mounted: what is in the topmost one that has it."""

    def __init__(self, lower: tuple[str, ...]) -> None:
        self._fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int | None:
        for fd in self._fds:
            try:
                return kernel.open_in_root(fd, path, flags)
            except FileNotFoundError:
                continue
        return None

    def read(self, path: str) -> bytes | None:
        """Return a regular file's bytes, None if it is not there. Raises PlanError for what is no file."""
        # O_NONBLOCK: a fifo named passwd must not hold us up. /dev/zero is no regular file either.
        try:
            fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise PlanError(f"the image's {path}: {os.strerror(error.errno or 0)}") from None
        if fd is None:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise PlanError(f"the image's {path} is not a regular file")
            if status.st_size > MAX_PASSWD:
                raise PlanError(f"the image's {path} is larger than {MAX_PASSWD >> 20} MiB")
            return os.read(fd, MAX_PASSWD)
        finally:
            os.close(fd)

    def owner(self, path: str) -> tuple[int, int] | None:
        """Return the uid and gid that own a file, None if it is not there."""
        try:
            fd = self._open(path, os.O_PATH)
        except OSError:
            return None
        if fd is None:
            return None
        try:
            status = os.fstat(fd)
            return status.st_uid, status.st_gid
        finally:
            os.close(fd)


def app_facts(paths: Paths, app: RuntimeApp, tree: Tree, config: RuntimeConfig, *, devices: bool) -> AppFacts:
    """Look up what the plan needs to know of an app. Raises PlanError."""
    assert app.app is not None
    with Root(tree.lower) as root:
        user = passwd.resolve(app.app.user, app.app.group, read=root.read, stat=root.owner)
    if config.disable_capabilities:
        capabilities = capability.every()
    else:
        capabilities = capability.bounding(app.app.isolators)
    if not devices and not config.disable_capabilities and not _retains(app):
        # Nobody but the devices controller keeps the root of a pod from making a node of the host's disk.
        capabilities &= ~(1 << capability.NUMBERS["CAP_MKNOD"])
    if config.disable_seccomp:
        program = b""
    else:
        program = seccomp.program(app.app.isolators, capabilities, paths.seccomp_cache)
    return plan.AppFacts(
        lower=tree.lower if config.overlay else (),
        uid=user.uid,
        gid=user.gid,
        groups=passwd.supplementary(app.app.supplementary_gids),
        capabilities=capabilities,
        seccomp=program,
        home=user.home,
        user=user.name,
        shell=user.shell,
    )


def _retains(app: RuntimeApp) -> bool:
    assert app.app is not None
    return app.app.isolator("os/linux/capabilities-retain-set") is not None


def check(paths: Paths, manifest: PodManifest, trees: Mapping[str, Tree], config: RuntimeConfig) -> None:
    """Refuse at once what a start of these apps would refuse. Raises PlanError."""
    for app in manifest.apps:
        assert app.app is not None
        app_facts(paths, app, trees[app.name], config, devices=True)
        cgroup.limits(app.app.isolators)
        plan.resolve_mounts(manifest, app)
    cgroup.limits(manifest.isolators)
