"""Cgroups: where a pod's are, and what is written to them, as data.

    v1, each controller a hierarchy              v2, one for all
    MOUNT/memory/                                MOUNT/
        rkt-py/UUID/          the pod, pid 1         rkt-py/UUID/           the pod
            app-NAME/         an app with a              init/              pid 1
                              limit of its own           app-NAME/          an app

Processes are in leaves only on v2, since no cgroup there can have both them and limits for others. In the
place of MOUNT is our own cgroup where systemd delegated it to us (Delegate=yes).
"""

from __future__ import annotations

import os

from rkt_py.aci.isolator import CPU, CPU_SHARES, MEMORY, Resource
from rkt_py.aci.value import replace, value
from rkt_py.runtime.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Literal

    from rkt_py.aci.isolator import Isolator

    Kind = Literal["none", "v1", "v2", "hybrid"]
    Setting = tuple[str, str, bool]

OURS = "rkt-py"
# A cgroup of v2 that has processes gets them moved there, so that it can have limits for others.
LEAF = "rkt-py.supervisor"

PIDS_MAX = 4096
MIN_MEMORY = 4096
CPU_PERIOD = 100_000
_MIN_CPU_MILLI = 10  # of 100 ms: the kernel takes quotas from 1 ms
_MAX_QUOTA = 2**43
_MAX_MEMORY = 2**63 - 1

# null, zero, full, random, urandom, tty, console, ptmx, and all of pts
DEVICES = ("c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*")

# Hierarchies of v1 that a pod is in, by what they are for: limits, devices, and to be found by systemd.
_V1 = ("memory", "cpu", "pids", "devices", "freezer", "name=systemd")
_UNIFIED = ("memory", "cpu", "pids")


@value
class Hierarchy:
    """A mounted hierarchy of cgroups."""

    mount: str
    controllers: tuple[str, ...]
    """`name=...` is that of a named one; of v2's, those that a child of `base` can have."""
    own: str
    """The directory of the cgroup that we are in."""
    base: str
    """The directory below which ours are."""
    unified: bool = False


@value
class Layout:
    """The hierarchies of a machine that can be written to."""

    kind: Kind
    hierarchies: tuple[Hierarchy, ...]

    def of(self, controller: str) -> Hierarchy | None:
        """Return the hierarchy with a controller; v1's when one is in both."""
        found = [item for item in self.hierarchies if controller in item.controllers]
        found.sort(key=lambda item: item.unified)
        return found[0] if found else None

    def has(self, controller: str) -> bool:
        return self.of(controller) is not None


@value
class CgroupDirectory:
    """A directory to make, what to write to its files in this order, and who goes in: pid 1 if no app."""

    path: str
    app: str | None = None
    settings: tuple[Setting, ...] = ()
    """File, text, and whether it is an error when that cannot be written."""
    attach: bool = False
    unified: bool = False


@value
class Limits:
    """What the isolators of an app, or of a pod, say about its share."""

    memory: int | None = None
    cpu_milli: int | None = None
    cpu_shares: int | None = None


def _nothing(_: str) -> str:
    return ""


def _never(_: str) -> bool:
    return False


def layout(
    proc_self_cgroup: str,
    mountinfo: str,
    *,
    controllers: Callable[[str], str] = _nothing,
    delegated: Callable[[str], bool] = _never,
) -> Layout:
    """Return the layout that two files of /proc/self describe.

    `controllers` returns what cgroup.controllers of a directory of v2 says, `delegated` tells whether systemd
    gave a directory to those in it.
    """
    mounts = _mounts(mountinfo)
    found: list[Hierarchy] = []
    paths: dict[str, str] = {}
    for line in proc_self_cgroup.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        unified = number == "0" and not names
        mounted = _find(mounts, set(names.split(",")) if names else set(), unified)
        if mounted is None:
            continue
        root, mount = mounted
        own = _below(mount, root, path)
        paths[mount] = path
        found.append(Hierarchy(mount, tuple(names.split(",")) if names else (), own, mount, unified))
    given = [paths[item.mount] for item in found if _is_named(item) and delegated(item.own)]
    hierarchies = []
    for item in found:
        if item.unified:
            base = _unified_base(item, delegated)
            item = replace(item, base=base, controllers=tuple(controllers(base).split()))
        elif paths[item.mount] in given:
            item = replace(item, base=item.own)
        hierarchies.append(item)
    return Layout(_kind(hierarchies), tuple(hierarchies))


def _is_named(hierarchy: Hierarchy) -> bool:
    return hierarchy.controllers == ("name=systemd",)


def _unified_base(hierarchy: Hierarchy, delegated: Callable[[str], bool]) -> str:
    """Return the directory that is ours to fill; of a unit with DelegateSubgroup= that is above our own."""
    if hierarchy.own == hierarchy.mount:
        return hierarchy.mount
    parent = os.path.dirname(hierarchy.own)
    return next((path for path in (hierarchy.own, parent) if delegated(path)), hierarchy.mount)


def _kind(hierarchies: Sequence[Hierarchy]) -> Kind:
    v1 = any(not item.unified for item in hierarchies)
    v2 = any(item.unified for item in hierarchies)
    return "hybrid" if v1 and v2 else "v1" if v1 else "v2" if v2 else "none"


def _mounts(mountinfo: str) -> list[tuple[str, str, str, set[str]]]:
    """Return root, mount point, type and options of the mounts of cgroups that can be written to."""
    result: dict[str, tuple[str, str, str, set[str]]] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kinds) < 3:
            continue
        mount = _unescaped(fields[4])
        # What is mounted at the same place later hides it.
        result.pop(mount, None)
        if kinds[0] in ("cgroup", "cgroup2"):
            options = set(kinds[2].split(","))
            if "ro" not in fields[5].split(",") and "ro" not in options:
                result[mount] = (_unescaped(fields[3]), mount, kinds[0], options)
    return list(result.values())


def _find(
    mounts: list[tuple[str, str, str, set[str]]], names: set[str], unified: bool
) -> tuple[str, str] | None:
    """Return root and mount point of a hierarchy, where most of it is to be seen."""
    fstype = "cgroup2" if unified else "cgroup"
    found = [(root, mount) for root, mount, kind, options in mounts if kind == fstype and names <= options]
    return min(found, key=lambda item: item[0].count("/") - (item[0] == "/"), default=None)


def _below(mount: str, root: str, path: str) -> str:
    """Return the directory of a cgroup in a mount that shows a hierarchy from `root` on."""
    prefix = root.rstrip("/") + "/"
    if not f"{path}/".startswith(prefix) or "/.." in path:
        return mount
    rest = path[len(prefix) :]
    return f"{mount.rstrip('/')}/{rest}" if rest else mount


def _unescaped(text: str) -> str:
    """Undo what the kernel does to space, tab, newline, and backslash in a path."""
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, character)
    return text


def detect() -> Layout:
    """Return the layout of this machine as we see it, ready to be used. Raises OSError.

    On v2 the cgroup that is to hold ours must not have processes: those are moved to a leaf of it. That is
    what systemd asks of those it delegates a cgroup to, and what has to be done in a container.
    """
    texts = []
    for name in ("cgroup", "mountinfo"):
        with open(f"/proc/self/{name}", encoding="utf-8", errors="surrogateescape") as file:
            texts.append(file.read())
    found = layout(*texts, controllers=_controllers, delegated=_is_delegated)
    for item in found.hierarchies:
        if item.unified and item.own == item.base and _used(item):
            make_room(item.base)
    return found


def _used(hierarchy: Hierarchy) -> bool:
    return any(controller in hierarchy.controllers for controller in _UNIFIED)


def _controllers(directory: str) -> str:
    try:
        with open(f"{directory}/cgroup.controllers", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _is_delegated(directory: str) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:
            pass
    return False


def make_room(directory: str) -> None:
    """Move the processes of a cgroup of v2 to a leaf of it; of the true root nothing must. Raises OSError."""
    if not os.path.exists(f"{directory}/cgroup.type"):
        return
    leaf = f"{directory}/{LEAF}"
    # Some may fork while they are moved.
    for _ in range(10):
        with open(f"{directory}/cgroup.procs", encoding="utf-8") as file:
            pids = file.read().split()
        if not pids:
            return
        os.makedirs(leaf, exist_ok=True)
        for pid in pids:
            try:
                with open(f"{leaf}/cgroup.procs", "w", encoding="utf-8") as file:
                    file.write(pid)
            except ProcessLookupError:
                pass


def limits(isolators: Iterable[Isolator]) -> Limits:
    """Return what isolators say about a share. Raises PlanError for less than anything can run with."""
    last = {isolator.name: isolator.value for isolator in isolators}
    memory, cpu, shares = last.get(MEMORY), last.get(CPU), last.get(CPU_SHARES)
    bytes_, milli = None, None
    if isinstance(memory, Resource) and memory.limit is not None:
        bytes_ = min(memory.limit.value(), _MAX_MEMORY)
        # 16m is milli-bytes: rkt says the same at the same point.
        if bytes_ < MIN_MEMORY:
            raise PlanError(
                f"memory limit of {bytes_} bytes too low. Try a reasonable value, such as --memory=16M"
            )
    if isinstance(cpu, Resource) and cpu.limit is not None:
        milli = cpu.limit.milli()
        if milli < _MIN_CPU_MILLI:
            raise PlanError(f"cpu limit of {cpu.limit} too low. Try a reasonable value, such as --cpu=500m")
    return Limits(bytes_, milli, shares if isinstance(shares, int) else None)


def plan(
    layout: Layout,
    uuid: str,
    apps: Mapping[str, Iterable[Isolator]],
    isolators: Iterable[Isolator] = (),
    *,
    devices: Sequence[str] = DEVICES,
) -> tuple[tuple[CgroupDirectory, ...], tuple[str, ...]]:
    """Return the directories of a pod's cgroups, parents first, and warnings about what cannot be limited.

    `apps` has each app's isolators, `isolators` are the pod's own; `devices` may be used, as v1 writes them.
    Raises PlanError.
    """
    of_pod = limits(isolators)
    of_apps = {name: limits(items) for name, items in apps.items()}
    warnings = tuple(_warnings(layout, [of_pod, *of_apps.values()]))
    directories: list[CgroupDirectory] = []
    # v2 last: who makes the pod's namespace there has to be in the pod's other cgroups.
    for item in sorted(layout.hierarchies, key=lambda item: item.unified):
        # In a hybrid, a controller is in one of them; both have it only until it is first used.
        ours = [name for name in _V1 if name in item.controllers and layout.of(name) == item]
        if item.unified and (layout.kind == "v2" or ours):
            directories += _plan_v2(item, uuid, ours, of_pod, of_apps)
        elif ours and not item.unified:
            directories += _plan_v1(item, uuid, ours, of_pod, of_apps, devices)
    return tuple(directories), warnings


def _warnings(layout: Layout, shares: Iterable[Limits]) -> Iterator[str]:
    asked = list(shares)
    for name, controller, is_set in (
        (MEMORY, "memory", any(item.memory is not None for item in asked)),
        (CPU, "cpu", any(item.cpu_milli is not None for item in asked)),
        (CPU_SHARES, "cpu", any(item.cpu_shares is not None for item in asked)),
    ):
        if is_set and not layout.has(controller):
            yield f"warning: {name} isolator set but support disabled in the kernel, skipping"


def _plan_v1(
    hierarchy: Hierarchy,
    uuid: str,
    controllers: Sequence[str],
    of_pod: Limits,
    of_apps: Mapping[str, Limits],
    devices: Sequence[str],
) -> Iterator[CgroupDirectory]:
    path = f"{hierarchy.base}/{OURS}/{uuid}"
    settings = _settings_v1(controllers, of_pod)
    if "pids" in controllers:
        settings.append(("pids.max", str(PIDS_MAX), True))
    if "devices" in controllers:
        settings.append(("devices.deny", "a", True))
        settings += [
            ("devices.allow", device if device.count(" ") == 2 else f"{device} rwm", True)
            for device in devices
        ]
    yield CgroupDirectory(path, None, tuple(settings), attach=True)
    for name, wanted in of_apps.items():
        if wanted.cpu_milli is not None and of_pod.cpu_milli is not None:
            # The kernel refuses a child more than its parent has.
            wanted = replace(wanted, cpu_milli=min(wanted.cpu_milli, of_pod.cpu_milli))
        settings = _settings_v1(controllers, wanted)
        if settings:
            yield CgroupDirectory(f"{path}/app-{name}", name, tuple(settings), attach=True)


def _settings_v1(controllers: Sequence[str], wanted: Limits) -> list[Setting]:
    settings: list[Setting] = []
    if "memory" in controllers and wanted.memory is not None:
        settings.append(("memory.limit_in_bytes", str(wanted.memory), True))
        # Memory and swap together: no swap. Kernels without swap accounting have no such file.
        settings.append(("memory.memsw.limit_in_bytes", str(wanted.memory), False))
    if "cpu" in controllers and wanted.cpu_milli is not None:
        settings.append(("cpu.cfs_period_us", str(CPU_PERIOD), True))
        settings.append(("cpu.cfs_quota_us", str(_quota(wanted.cpu_milli)), True))
    if "cpu" in controllers and wanted.cpu_shares is not None:
        settings.append(("cpu.shares", str(wanted.cpu_shares), True))
    return settings


def _plan_v2(
    hierarchy: Hierarchy, uuid: str, controllers: Sequence[str], of_pod: Limits, of_apps: Mapping[str, Limits]
) -> Iterator[CgroupDirectory]:
    path = f"{hierarchy.base}/{OURS}/{uuid}"
    pod = _settings_v2(controllers, of_pod)
    if "pids" in controllers:
        pod.append(("pids.max", str(PIDS_MAX), True))
    leaves = {name: _settings_v2(controllers, wanted) for name, wanted in of_apps.items()}
    for_apps = _needed(setting for settings in leaves.values() for setting in settings)
    for_pod = _needed(pod) | for_apps
    # A controller is there for a cgroup when each above it passes it on, from the top down.
    settings = [
        (f"{above}cgroup.subtree_control", _enabled(for_pod), True) for above in ("../../", "../") if for_pod
    ]
    settings += pod
    yield CgroupDirectory(path, None, tuple(settings), unified=True)
    # With the first leaf: until then the pod's namespace is made in the directory, where nobody may be after.
    passed_on = [("../cgroup.subtree_control", _enabled(for_apps), True)] if for_apps else []
    yield CgroupDirectory(f"{path}/init", None, tuple(passed_on), attach=True, unified=True)
    for name, items in leaves.items():
        yield CgroupDirectory(f"{path}/app-{name}", name, tuple(items), attach=True, unified=True)


def _settings_v2(controllers: Sequence[str], wanted: Limits) -> list[Setting]:
    settings: list[Setting] = []
    if "memory" in controllers and wanted.memory is not None:
        settings.append(("memory.max", str(wanted.memory), True))
        settings.append(("memory.swap.max", "0", False))
    if "cpu" in controllers and wanted.cpu_milli is not None:
        settings.append(("cpu.max", f"{_quota(wanted.cpu_milli)} {CPU_PERIOD}", True))
    if "cpu" in controllers and wanted.cpu_shares is not None:
        settings.append(("cpu.weight", str(weight(wanted.cpu_shares)), True))
    return settings


def _needed(settings: Iterable[Setting]) -> set[str]:
    """Return the controllers whose files are written."""
    return {file.partition(".")[0] for file, _, _ in settings}


def _enabled(controllers: set[str]) -> str:
    return " ".join(f"+{name}" for name in sorted(controllers))


def _quota(milli: int) -> int:
    return min(milli * CPU_PERIOD // 1000, _MAX_QUOTA)


def weight(shares: int) -> int:
    """Return v2's weight for v1's shares, as systemd has it: 1024 shares are 100, what is not asked for."""
    return max(1, min(shares * 100 // 1024, 10000))


def mounts(layout: Layout) -> tuple[tuple[str, str], ...]:
    """Return what a pod sees its cgroups by: names below /sys/fs/cgroup, and the options of cgroup mounts.

    Only v2 is one mount at /sys/fs/cgroup itself: ("", "cgroup2").
    """
    if layout.kind == "v2":
        return (("", "cgroup2"),)
    found: dict[str, str] = {}
    for item in layout.hierarchies:
        if not item.unified and any(layout.of(name) == item for name in _V1 if name in item.controllers):
            found[os.path.basename(item.mount)] = ",".join(item.controllers)
    return tuple(found.items())


def joined(recorded: Sequence[str], uuid: str, app: str) -> tuple[str, ...]:
    """Return the directories of an app's processes, of all its pod has made: its own, else the pod's.

    Of what was recorded, not of what would be planned now: who enters may be in another unit than who
    started.
    """
    own, shared = f"/{uuid}/app-{app}", f"/{uuid}"
    return tuple(
        path
        for path in recorded
        if path.endswith(own)
        or (path.endswith(shared) and f"{path}/app-{app}" not in recorded and f"{path}/init" not in recorded)
    )
