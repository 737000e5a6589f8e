"""Plans: everything the C supervisor is to do for a pod, decided, as a value.

`make()` is pure: what it needs to know of images and host it is given. `stage1` turns the value into the
memory that C reads; `--debug` prints it; tests read it without root.
"""

from __future__ import annotations

import posixpath

from rkt_py.aci.value import value
from rkt_py.runtime.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt_py.aci.imagemanifest import App
    from rkt_py.aci.podmanifest import PodManifest, RuntimeApp, Volume
    from rkt_py.runtime.cgroup import CgroupDirectory

# mount_setattr(2), linux/mount.h
RDONLY = 0x01
NOSUID = 0x02
NODEV = 0x04
NOEXEC = 0x08

DEFAULT_PATH = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # appc spec, "Execution Environment"
)

DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)

# What tells of or changes the host. The union of what rkt, docker and runc hide, and then some.
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/config.gz", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore",
    "/proc/key-users", "/proc/keys", "/proc/kmem", "/proc/kmsg", "/proc/kpagecgroup", "/proc/kpagecount",
    "/proc/kpageflags", "/proc/latency_stats", "/proc/mem", "/proc/pagetypeinfo", "/proc/sched_debug",
    "/proc/scsi", "/proc/slabinfo", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/hypervisor", "/sys/module", "/sys/power",
    "/sys/fs/bpf", "/sys/fs/pstore", "/sys/fs/selinux", "/sys/kernel/btf", "/sys/kernel/debug",
    "/sys/kernel/notes", "/sys/kernel/security", "/sys/kernel/tracing", "/sys/kernel/vmcoreinfo",
)  # fmt: skip
PROTECTED = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

RLIMIT_NOFILE = 7

NULL, STREAM, TTY, INHERIT = "NULL", "STREAM", "TTY", "INHERIT"


@value
class Op:
    """One step that builds an app's root; kinds and flags are those of rkt.h (RKT_OP_...)."""

    kind: str
    target: str
    source: str = ""
    fstype: str = ""
    options: str = ""
    flags: tuple[str, ...] = ()
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    attributes: int = 0


@value
class Process:
    """A program to run in an app: as whom, with what, confined how."""

    role: str
    argv: tuple[str, ...]
    env: tuple[str, ...]
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    stdio: str = STREAM
    directory: str = "/"
    search_path: str = DEFAULT_PATH
    umask: int = 0o022
    oom_score_adj: int | None = None
    no_new_privs: bool = False
    capabilities: int = 0
    seccomp: bytes = b""
    rlimits: tuple[tuple[int, int, int], ...] = ((RLIMIT_NOFILE, 1024, 524288),)


@value
class PlanApp:
    """An app of the pod: how its root is built, and its processes in order."""

    name: str
    root: str
    ops: tuple[Op, ...]
    processes: tuple[Process, ...]


@value
class Plan:
    """All that a supervisor does."""

    mode: str
    verb: str
    apps: tuple[PlanApp, ...]
    flags: tuple[str, ...] = ()
    hostname: str = ""
    cgroups: tuple[CgroupDirectory, ...] = ()
    pod_ops: tuple[Op, ...] = ()
    stop_timeout: float = 10.0
    log_max_kib: int = 10 * 1024


@value
class AppFacts:
    """What is known of an app besides its manifest: looked up in its image, or decided from its isolators."""

    lower: tuple[str, ...]
    uid: int
    gid: int
    capabilities: int
    seccomp: bytes
    home: str = "/"
    user: str = "root"
    shell: str = "/bin/sh"
    groups: tuple[int, ...] = ()


@value
class PodFacts:
    """What is known of a pod besides its manifest."""

    uuid: str
    directory: str
    hostname: str
    cgroups: tuple[CgroupDirectory, ...]
    cgroup_mounts: tuple[tuple[str, str], ...]
    network: str = "none"
    ipc: str = "private"
    interactive: bool = False
    resolv_conf: str | None = None
    hosts: str | None = None
    metadata_url: str | None = None
    masks: bool = True
    term: str = ""


def escape_option(path: str) -> str:
    """Escape a path for overlayfs's options, where `:` parts layers and `,` options."""
    for character in "\\:,":
        path = path.replace(character, "\\" + character)
    return path


def _root(app: RuntimeApp, facts: AppFacts, directory: str) -> Op:
    base = f"{directory}/overlay/{app.name}"
    if not facts.lower:
        return Op("ROOT", f"{base}/root", source=f"{base}/root")
    lower = ":".join(escape_option(path) for path in facts.lower)
    options = f"lowerdir={lower},upperdir={escape_option(base)}/upper,workdir={escape_option(base)}/work"
    # volatile: without it, the last umount waits until the pod's files are on disk. A pod does not outlive
    # the machine's uptime, and its volumes are not on the overlay.
    return Op("ROOT", f"{base}/root", fstype="overlay", options=f"{options},volatile")


def _kernel_file_systems(facts: PodFacts, shm: Op) -> list[Op]:
    """Return the steps for /proc, /sys and /dev. None may be or be reached through a link of the image's."""
    own = ("NO_SYMLINKS",)
    strict = NOSUID | NODEV | NOEXEC
    dev = "mode=0755,size=65536k,nr_inodes=4096"
    pts = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    ops = [
        Op("MOUNT", "/proc", fstype="proc", attributes=strict, flags=own, mode=0o555),
        Op("MOUNT", "/sys", fstype="sysfs", attributes=strict | RDONLY, flags=own, mode=0o555),
        Op("MOUNT", "/dev", fstype="tmpfs", options=dev, attributes=NOSUID | NOEXEC, flags=own),
    ]
    for name, major, minor in DEVICES:
        ops.append(Op("DEVICE", f"/dev/{name}", device=(major, minor), mode=0o666))
    if not facts.interactive:
        ops.append(Op("DEVICE", "/dev/console", device=(1, 3), mode=0o600))
    for name, target in DEVICE_LINKS:
        ops.append(Op("SYMLINK", f"/dev/{name}", source=target))
    ops.append(Op("MOUNT", "/dev/pts", fstype="devpts", options=pts, attributes=NOSUID | NOEXEC))
    ops.append(shm)
    ops.append(Op("MOUNT", "/dev/mqueue", fstype="mqueue", attributes=strict))
    return ops


def _files(facts: PodFacts) -> list[Op]:
    """Return the steps for what the pod gives to every image's /etc, and for /tmp."""
    ops = [
        Op("MKDIR", "/tmp", mode=0o1777),
        Op("MKDIR", "/etc", flags=("NO_SYMLINKS",)),
        Op("FILE", "/etc/hostname", source=f"{facts.hostname}\n", mode=0o644),
        Op("SYMLINK", "/etc/mtab", source="/proc/self/mounts", flags=("IF_MISSING",)),
    ]
    if facts.resolv_conf is not None:
        ops.append(Op("FILE", "/etc/resolv.conf", source=facts.resolv_conf, mode=0o644))
    if facts.hosts is not None:
        ops.append(Op("FILE", "/etc/hosts", source=facts.hosts, mode=0o644))
    else:
        fallback = f"127.0.0.1 localhost {facts.hostname}\n::1 localhost ip6-localhost ip6-loopback\n"
        ops.append(Op("FILE", "/etc/hosts", source=fallback, mode=0o644, flags=("IF_MISSING",)))
    return ops


def normal_path(path: str) -> str:
    """Return a mount point's path inside the root, absolute and without `.`, `..` or doubled slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def resolve_mounts(manifest: PodManifest, app: RuntimeApp) -> list[tuple[Volume, str, bool]]:
    """Return an app's mounts as (volume, target, read-only), parents before what lies in them.

    A mount of the pod manifest names a volume and a path, or a mount point of the app by its path; a mount
    point that no mount names takes the volume of its own name (appc spec, "Pod Manifest Schema").
    Raises PlanError for a mount without volume, two on one path, or one on a path that is not the image's.
    """
    assert app.app is not None
    volumes = {volume.name: volume for volume in manifest.volumes}
    points = {normal_path(point.path): point for point in app.app.mount_points}
    result: dict[str, tuple[Volume, str, bool]] = {}
    for mount in app.mounts:
        target = normal_path(mount.path)
        volume = mount.app_volume or volumes.get(mount.volume)
        if volume is None:
            raise PlanError(f'dangling mount point "{mount.path}": volume "{mount.volume}" not found')
        if target in result:
            raise PlanError(f'app "{app.name}": two volumes for the path "{target}"')
        point = points.get(target)
        result[target] = (volume, target, bool(volume.read_only or (point and point.read_only)))
    for target, point in points.items():
        if target in result:
            continue
        volume = volumes.get(point.name)
        if volume is None:
            raise PlanError(f'app "{app.name}": no volume for the mount point "{point.name}" ({point.path})')
        result[target] = (volume, target, bool(volume.read_only or point.read_only))
    for target in result:
        if target == "/" or any(target == top or target.startswith(top + "/") for top in ("/proc", "/sys")):
            raise PlanError(f'app "{app.name}": a volume cannot be mounted on "{target}"')
        if target in ("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"):
            raise PlanError(f'app "{app.name}": a volume cannot be mounted on "{target}"')
    return sorted(result.values(), key=lambda item: item[1].split("/"))


def _volumes(manifest: PodManifest, app: RuntimeApp, directory: str) -> list[Op]:
    ops = []
    for volume, target, read_only in resolve_mounts(manifest, app):
        attributes = RDONLY if read_only else 0
        if volume.kind == "empty":
            source = f"{directory}/sharedVolumes/{volume.name}"
            ops.append(Op("BIND", target, source=source, attributes=attributes))
        else:
            # rkt's default, and docker's: what is mounted below the source comes along.
            recursive = () if volume.recursive is False else ("RECURSIVE",)
            ops.append(Op("BIND", target, source=volume.source or "", attributes=attributes, flags=recursive))
    return ops


def _cgroup_mounts(facts: PodFacts) -> list[Op]:
    """Return the steps that show the pod its cgroups, read-only."""
    strict = NOSUID | NODEV | NOEXEC
    own = ("OPTIONAL",)
    if not facts.cgroup_mounts:
        return []
    if facts.cgroup_mounts == (("", "cgroup2"),):
        return [Op("MOUNT", "/sys/fs/cgroup", fstype="cgroup2", attributes=strict | RDONLY, flags=own)]
    ops = [
        Op(
            "MOUNT",
            "/sys/fs/cgroup",
            fstype="tmpfs",
            options="mode=0755,size=0,nr_inodes=64",
            attributes=strict,
        )
    ]
    for name, controllers in facts.cgroup_mounts:
        target = f"/sys/fs/cgroup/{name}"
        shown = strict | RDONLY
        ops.append(Op("MOUNT", target, fstype="cgroup", options=controllers, attributes=shown, flags=own))
    ops.append(Op("ATTRIBUTES", "/sys/fs/cgroup", attributes=strict | RDONLY))
    return ops


def environment(app: App, name: str, facts: AppFacts, pod: PodFacts) -> tuple[str, ...]:
    """Return an app's environment: what the spec and rkt give it, under what its manifest says."""
    variables = {
        "PATH": DEFAULT_PATH,
        "HOME": facts.home,
        "USER": facts.user,
        "LOGNAME": facts.user,
        "SHELL": facts.shell,
        "container": "rkt-py",
    }
    if pod.interactive:
        variables["TERM"] = pod.term or "xterm"
    for variable in app.environment:
        variables[variable.name] = variable.value
    variables["AC_APP_NAME"] = name
    if pod.metadata_url is not None:
        variables["AC_METADATA_URL"] = pod.metadata_url
    return tuple(f"{key}={text}" for key, text in variables.items())


def _isolator(app: App, name: str) -> object:
    found = app.isolator(name)
    return None if found is None else found.value


def main_process(app: App, name: str, facts: AppFacts, pod: PodFacts) -> Process:
    """Return an app's main program as a process; enter's is this one with other arguments."""
    env = environment(app, name, facts, pod)
    path = next(text[5:] for text in env if text.startswith("PATH="))
    oom_score_adj = _isolator(app, "os/linux/oom-score-adj")
    # Without it a filter of the app's would be something to attack a setuid program with; rkt does the same.
    no_new_privs = _isolator(app, "os/linux/no-new-privileges") is True or (
        facts.uid != 0 and bool(facts.seccomp)
    )
    return Process(
        "MAIN",
        argv=app.exec,
        env=env,
        uid=facts.uid,
        gid=facts.gid,
        groups=facts.groups,
        stdio=TTY if pod.interactive else STREAM,
        directory=app.working_directory or "/",
        search_path=path,
        oom_score_adj=oom_score_adj if isinstance(oom_score_adj, int) else None,
        no_new_privs=no_new_privs,
        capabilities=facts.capabilities,
        seccomp=facts.seccomp,
    )


def _processes(runtime_app: RuntimeApp, facts: AppFacts, pod: PodFacts) -> tuple[Process, ...]:
    app = runtime_app.app
    assert app is not None
    main = main_process(app, runtime_app.name, facts, pod)
    handlers = {handler.name: handler.exec for handler in app.event_handlers}
    processes = []
    for role, handler in (("PRE_START", "pre-start"), ("MAIN", ""), ("POST_STOP", "post-stop")):
        argv = main.argv if role == "MAIN" else handlers.get(handler, ())
        if argv:
            # rkt runs handlers as root of the app (its functional test "pre-start handler runs as root").
            uid, gid = (main.uid, main.gid) if role == "MAIN" else (0, 0)
            fields = {**main.__dict__, "role": role, "argv": argv, "uid": uid, "gid": gid}
            processes.append(Process(**fields))
    return tuple(processes)


def make(manifest: PodManifest, apps: dict[str, AppFacts], pod: PodFacts, *, verb: str = "run") -> Plan:
    """Decide all of a pod's run. Pure. Raises PlanError for what the manifest asks and cannot have."""
    plan_apps = []
    shared_shm = len(manifest.apps) > 1
    shm = Op(
        "MOUNT",
        "/dev/shm",
        fstype="tmpfs",
        options="mode=1777,size=65536k",
        attributes=NOSUID | NODEV | NOEXEC,
    )
    pod_ops: tuple[Op, ...] = ()
    if shared_shm:
        # POSIX shared memory is the pod's, as its ipc namespace is; its apps' mount namespaces are not.
        pod_ops = (
            Op(
                "MOUNT",
                f"{pod.directory}/shm",
                fstype="tmpfs",
                options="mode=1777,size=65536k",
                attributes=shm.attributes,
            ),
        )
        shm = Op("BIND", "/dev/shm", source=f"{pod.directory}/shm", flags=("NO_SYMLINKS",))
    for app in manifest.apps:
        facts = apps[app.name]
        ops = [_root(app, facts, pod.directory)]
        ops += _kernel_file_systems(pod, shm)
        ops += _files(pod)
        ops += _volumes(manifest, app, pod.directory)
        if pod.masks:
            ops += [Op("MASK", path) for path in MASKED]
            ops += [Op("PROTECT", path, attributes=RDONLY, flags=("RECURSIVE",)) for path in PROTECTED]
        ops += _cgroup_mounts(pod)
        if app.read_only_rootfs:
            ops.append(Op("ATTRIBUTES", "/", attributes=RDONLY))
        root = f"{pod.directory}/overlay/{app.name}/root"
        plan_apps.append(PlanApp(app.name, root, tuple(ops), _processes(app, facts, pod)))
    flags = ["NEW_UTS", "NEW_CGROUP"]
    if pod.ipc != "parent":
        flags.append("NEW_IPC")
    if pod.network == "none":
        flags += ["NEW_NET", "LOOPBACK"]
    return Plan(
        "RUN",
        verb,
        tuple(plan_apps),
        flags=tuple(flags),
        hostname=pod.hostname,
        cgroups=pod.cgroups,
        pod_ops=pod_ops,
    )
