"""Enter: one more process in a running pod, with all that confines the app it enters."""

from __future__ import annotations

import os

from rkt_py.aci.value import replace
from rkt_py.runtime import cgroup, facts, plan, treestore
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.imagestore import ImageStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt_py.aci.podmanifest import PodManifest, RuntimeApp
    from rkt_py.runtime.plan import Plan
    from rkt_py.runtime.pod import Pod


def choose_app(manifest: PodManifest, name: str) -> RuntimeApp:
    """Return the app of a name; without one, the pod's only app. Raises PodError."""
    if name:
        app = manifest.app(name)
        if app is None:
            names = ", ".join(app.name for app in manifest.apps)
            raise PodError(f'no app "{name}" in the pod: it has {names}')
        return app
    if len(manifest.apps) != 1:
        names = ", ".join(app.name for app in manifest.apps)
        raise PodError(f'pod has multiple apps: {names}: specify one with "--app="')
    return manifest.apps[0]


def target(pod: Pod, manifest: PodManifest, app: RuntimeApp) -> int:
    """Return a pidfd of a process in the app's namespaces. Raises PodError.

    The first app shares pid 1's mount namespace; another is known by its main program.
    """
    init = pod.pid
    if pod.state != "running" or init is None:
        raise PodError(f'pod "{pod.uuid}" is not running')
    pid: int | None = init
    if app is not manifest.apps[0]:
        pid = pod.app_pid(app.name)
    try:
        if pid is None:
            raise ProcessLookupError
        pidfd = os.pidfd_open(pid)
        try:
            # A number may have become another process's; that one would not be in the pod's pid namespace.
            if os.readlink(f"/proc/{pid}/ns/pid") != os.readlink(f"/proc/{init}/ns/pid"):
                raise ProcessLookupError
            if pod.state != "running":
                raise ProcessLookupError
        except OSError:
            os.close(pidfd)
            raise
    except (ProcessLookupError, FileNotFoundError):
        raise PodError(f'app "{app.name}" of pod "{pod.uuid}" is not running') from None
    return pidfd


def make_plan(pod: Pod, app: RuntimeApp, argv: Sequence[str], *, terminal: bool) -> Plan:
    """Decide how to run `argv` as the app itself is run."""
    store = ImageStore(pod.paths)
    config = pod.runtime_config()
    tree = treestore.render(store.resolve(app.image.id), store)
    layout = cgroup.detect()
    of_app = facts.app_facts(pod.paths, app, tree, config, devices=layout.has("devices"))
    assert app.app is not None
    about_pod = plan.PodFacts(
        uuid=pod.uuid,
        directory=pod.path,
        hostname="",
        cgroups=(),
        cgroup_mounts=(),
        interactive=terminal,
        term=os.environ.get("TERM", ""),
    )
    main = plan.main_process(app.app, app.name, of_app, about_pod)
    process = replace(main, argv=tuple(argv), stdio=plan.TTY if terminal else plan.INHERIT)
    recorded = pod.read("subcgroup").decode().splitlines()
    cgroups = tuple(
        cgroup.CgroupDirectory(path, app.name, attach=True, unified=not os.path.exists(f"{path}/tasks"))
        for path in cgroup.joined(recorded, pod.uuid, app.name)
    )
    return plan.Plan("ENTER", "enter", (plan.PlanApp(app.name, "", (), (process,)),), cgroups=cgroups)
