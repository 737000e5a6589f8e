"""Start: a pod on disk becomes a running one.

What the plan needs to know is looked up, of the apps by facts.py and of the host here; `plan.make()` decides;
the supervisor does.
"""

from __future__ import annotations

import os
import stat

from rkt_py.aci.value import value
from rkt_py.runtime import cgroup, kernel, network, plan, stage1, treestore
from rkt_py.runtime.facts import app_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rkt_py.aci.podmanifest import PodManifest
    from rkt_py.runtime.imagestore import Image, ImageStore
    from rkt_py.runtime.network import NetworkChoice
    from rkt_py.runtime.plan import Plan, PodFacts
    from rkt_py.runtime.pod import Pod, RuntimeConfig
    from rkt_py.runtime.treestore import Tree


@value
class StartRequest:
    """What is said of one start of a pod, beyond its RuntimeConfig."""

    verb: str = "run"
    dns: tuple[str, ...] = ()
    dns_domain: str = ""
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    hosts_entries: tuple[str, ...] = ()
    debug: bool = False


def _devices(manifest: PodManifest) -> Iterator[str]:
    """Yield the devices that are volumes, as the devices controller has them."""
    for volume in manifest.volumes:
        if volume.kind != "host":
            continue
        try:
            status = os.stat(volume.source, follow_symlinks=False)
        except OSError:
            continue  # the supervisor will say so
        kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else ""
        if kind:
            # A read-only mount does not keep a device from being written.
            access = "r" if volume.read_only else "rw"
            yield f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} {access}"


def pod_facts(
    pod: Pod, manifest: PodManifest, config: RuntimeConfig, request: StartRequest, layout: cgroup.Layout
) -> tuple[PodFacts, tuple[str, ...]]:
    """Decide what the plan needs to know of a pod and its host; the second value is warnings."""
    from rkt_py.runtime.network import dns

    apps = {app.name: app.app.isolators for app in manifest.apps if app.app is not None}
    devices = (*cgroup.DEVICES, *_devices(manifest))
    directories, warnings = cgroup.plan(layout, pod.uuid, apps, manifest.isolators, devices=devices)
    choice = network.parse(config.net)
    hostname = config.hostname or f"rkt-{pod.uuid}"
    facts = plan.PodFacts(
        uuid=pod.uuid,
        directory=pod.path,
        hostname=hostname,
        cgroups=directories,
        cgroup_mounts=cgroup.mounts(layout),
        network=choice.kind,
        ipc="parent" if config.ipc_mode == "parent" else "private",
        interactive=config.interactive,
        resolv_conf=dns.resolv_conf(
            request.dns,
            domain=request.dns_domain,
            search=request.dns_search,
            options=request.dns_options,
            network=choice.kind,
        ),
        hosts=dns.hosts(request.hosts_entries, hostname=hostname),
        masks=not config.disable_paths,
        term=os.environ.get("TERM", ""),
    )
    return facts, warnings


def _join_network(pod: Pod, choice: NetworkChoice) -> int:
    """Return the fd of a network namespace that is in the networks chosen, -1 when there is none to make."""
    if choice.kind != "contained":
        return -1
    netns_fd = kernel.new_netns()
    try:
        infos = network.setup(pod.paths, pod.uuid, choice, netns_fd)
        pod.write("net-info.json", network.to_json(infos).encode())
    except BaseException:
        os.close(netns_fd)
        raise
    return netns_fd


def make_plan(
    pod: Pod,
    manifest: PodManifest,
    config: RuntimeConfig,
    trees: Mapping[str, Tree],
    request: StartRequest,
) -> tuple[Plan, tuple[str, ...]]:
    """Look up and decide everything; the second value is warnings. Raises PlanError, NetworkError."""
    layout = cgroup.detect()
    devices = layout.has("devices")
    facts = {
        app.name: app_facts(pod.paths, app, trees[app.name], config, devices=devices) for app in manifest.apps
    }
    about_pod, warnings = pod_facts(pod, manifest, config, request, layout)
    return plan.make(manifest, facts, about_pod, verb=request.verb), warnings


@value
class Ready:
    """A plan and the descriptors that go along with it."""

    plan: Plan
    netns_fd: int
    held: tuple[int, ...]
    warnings: tuple[str, ...]

    def close(self) -> None:
        """Close the descriptors here; a supervisor has its own."""
        for fd in (*self.held, self.netns_fd):
            if fd >= 0:
                os.close(fd)


def get_ready(
    pod: Pod,
    manifest: PodManifest,
    config: RuntimeConfig,
    images: Mapping[str, Image],
    store: ImageStore,
    request: StartRequest,
) -> Ready:
    """Decide all, lock the trees, join the networks: for a pod that is in `run` and locked by us."""
    trees = {name: treestore.render(image, store) for name, image in images.items()}
    held: list[int] = []
    try:
        for tree in {tree.path: tree for tree in trees.values()}.values():
            held.append(treestore.lock(tree))
        decided, warnings = make_plan(pod, manifest, config, trees, request)
        netns_fd = _join_network(pod, network.parse(config.net))
    except BaseException:
        for fd in held:
            os.close(fd)
        raise
    return Ready(decided, netns_fd, tuple(held), warnings)


def start(
    pod: Pod,
    manifest: PodManifest,
    config: RuntimeConfig,
    images: Mapping[str, Image],
    store: ImageStore,
    request: StartRequest,
) -> None:
    """Become the supervisor of a pod; returns only by raising."""
    ready = get_ready(pod, manifest, config, images, store, request)
    try:
        for warning in ready.warnings:
            os.write(2, f"{request.verb}: {warning}\n".encode())
        if request.debug:
            from rkt_py.runtime import show_plan

            os.write(2, show_plan.text(ready.plan).encode())
        stage1.run(ready.plan, pod_fd=pod.lock_fd, netns_fd=ready.netns_fd, keep=ready.held)
    except BaseException:
        network.teardown(pod.paths, pod.uuid)
        raise


def spawn(
    pod: Pod,
    manifest: PodManifest,
    config: RuntimeConfig,
    images: Mapping[str, Image],
    store: ImageStore,
    request: StartRequest,
    *,
    stdin: int = -1,
    stdout: int = -1,
    stderr: int = -1,
) -> tuple[int, int]:
    """Start the supervisor of a pod as a child of ours: its pid and a pidfd. Streams of -1 are /dev/null."""
    ready = get_ready(pod, manifest, config, images, store, request)
    try:
        return stage1.spawn(
            ready.plan,
            pod_fd=pod.lock_fd,
            netns_fd=ready.netns_fd,
            keep=ready.held,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
    except BaseException:
        network.teardown(pod.paths, pod.uuid)
        raise
    finally:
        ready.close()
