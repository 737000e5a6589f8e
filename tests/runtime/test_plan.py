"""Plans are decided without root: tables over values."""

from __future__ import annotations

import pytest

from rkt_py.aci.imagemanifest import App, EnvironmentVariable, EventHandler, MountPoint
from rkt_py.aci.isolator import make as isolator
from rkt_py.aci.podmanifest import Mount, PodManifest, RuntimeApp, RuntimeImage, Volume
from rkt_py.aci.value import replace
from rkt_py.runtime import plan
from rkt_py.runtime.errors import PlanError
from rkt_py.runtime.plan import RDONLY, AppFacts, Op, Plan, PodFacts

IMAGE = RuntimeImage("sha512-" + "ab" * 32)
FACTS = AppFacts(lower=("/store/rootfs",), uid=0, gid=0, capabilities=0xA80425FB, seccomp=bytes(8))
POD = PodFacts(uuid="u", directory="/pods/u", hostname="rkt-u", cgroups=(), cgroup_mounts=())


def app(
    name: str = "a", *, mounts: tuple[Mount, ...] = (), read_only: bool = False, **fields: object
) -> RuntimeApp:
    whole = App(**{"exec": ("/a",), "user": "0", "group": "0", **fields})  # type: ignore[arg-type]
    return RuntimeApp(name, IMAGE, whole, read_only_rootfs=read_only, mounts=mounts)


def make(
    *apps: RuntimeApp, volumes: tuple[Volume, ...] = (), pod: PodFacts = POD, facts: AppFacts = FACTS
) -> Plan:
    apps = apps or (app(),)
    return plan.make(PodManifest(apps=apps, volumes=volumes), {item.name: facts for item in apps}, pod)


def targets(ops: tuple[Op, ...], kind: str) -> list[str]:
    return [op.target for op in ops if op.kind == kind]


def test_the_root_comes_first_and_masks_after_what_they_mask() -> None:
    ops = make().apps[0].ops
    assert ops[0].kind == "ROOT"
    first_mask = next(index for index, op in enumerate(ops) if op.kind == "MASK")
    assert all(index < first_mask for index, op in enumerate(ops) if op.target in ("/proc", "/sys", "/dev"))


def test_what_the_kernel_provides_is_never_mounted_through_a_link() -> None:
    for op in make().apps[0].ops:
        if op.target in ("/proc", "/sys", "/dev"):
            assert "NO_SYMLINKS" in op.flags


@pytest.mark.parametrize(
    "path", ["/proc/kcore", "/proc/keys", "/proc/kallsyms", "/sys/firmware", "/sys/module"]
)
def test_what_tells_of_the_host_is_masked(path: str) -> None:
    assert path in targets(make().apps[0].ops, "MASK")
    assert path not in targets(make(pod=replace(POD, masks=False)).apps[0].ops, "MASK")


@pytest.mark.parametrize("path", ["/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/irq"])
def test_what_changes_the_host_is_read_only(path: str) -> None:
    assert path in targets(make().apps[0].ops, "PROTECT")


def test_layer_paths_are_escaped_for_overlayfs() -> None:
    op = make(facts=replace(FACTS, lower=("/a:b", "/c,d", "/e\\f"))).apps[0].ops[0]
    assert op.options.startswith("lowerdir=/a\\:b:/c\\,d:/e\\\\f,upperdir=/pods/u/overlay/a/upper,")


def test_without_layers_the_copied_root_is_used() -> None:
    op = make(facts=replace(FACTS, lower=())).apps[0].ops[0]
    assert (op.fstype, op.source, op.target) == ("", "/pods/u/overlay/a/root", "/pods/u/overlay/a/root")


@pytest.mark.parametrize(
    ("volume", "point", "attributes"),
    [(None, False, 0), (None, True, RDONLY), (True, False, RDONLY), (False, True, RDONLY), (False, False, 0)],
)
def test_a_volume_is_read_only_when_either_side_says_so(
    volume: bool | None, point: bool, attributes: int
) -> None:
    made = make(
        app(mount_points=(MountPoint("d", "/d", point),)), volumes=(Volume("d", "host", "/s", volume),)
    )
    assert [op.attributes for op in made.apps[0].ops if op.kind == "BIND" and op.target == "/d"] == [
        attributes
    ]


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/x", "/sys/fs", "/dev", "/dev/shm", "//proc/../proc/1"])
def test_a_volume_cannot_hide_what_the_kernel_provides(path: str) -> None:
    with pytest.raises(PlanError, match="cannot be mounted"):
        make(app(mounts=(Mount("d", path),)), volumes=(Volume("d", "host", "/s"),))


def test_a_mount_without_volume_and_two_on_one_path_are_refused() -> None:
    with pytest.raises(PlanError, match='dangling mount point "/x": volume "d" not found'):
        make(app(mounts=(Mount("d", "/x"),)))
    with pytest.raises(PlanError, match="two volumes"):
        make(app(mounts=(Mount("d", "/x"), Mount("d", "/x/"))), volumes=(Volume("d", "host", "/s"),))


def test_outer_volumes_are_mounted_before_those_in_them() -> None:
    mounts = (Mount("d", "/a/b"), Mount("d", "/a-c"), Mount("d", "/a"))
    made = make(app(mounts=mounts), volumes=(Volume("d", "host", "/s"),))
    found = [op.target for op in made.apps[0].ops if op.source == "/s"]
    assert found.index("/a") < found.index("/a/b")


def test_the_environment_has_what_the_spec_asks_for() -> None:
    made = make(
        app(environment=(EnvironmentVariable("PATH", "/x"), EnvironmentVariable("AC_APP_NAME", "liar")))
    )
    env = dict(text.split("=", 1) for text in made.apps[0].processes[0].env)
    assert env["PATH"] == "/x"
    assert env["AC_APP_NAME"] == "a"
    assert env["container"] == "rkt-py"
    assert "AC_METADATA_URL" not in env and "TERM" not in env
    assert (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in make().apps[0].processes[0].env
    )


def test_handlers_run_around_the_main_program_as_root() -> None:
    handlers = (EventHandler("post-stop", ("/post",)), EventHandler("pre-start", ("/pre",)))
    made = make(app(event_handlers=handlers), facts=replace(FACTS, uid=7, gid=8))
    shown = [(process.role, process.argv, process.uid) for process in made.apps[0].processes]
    assert shown == [("PRE_START", ("/pre",), 0), ("MAIN", ("/a",), 7), ("POST_STOP", ("/post",), 0)]


@pytest.mark.parametrize(
    ("uid", "seccomp", "isolators", "expected"),
    [
        (0, bytes(8), (), False),
        (1, bytes(8), (), True),
        (1, b"", (), False),
        (0, b"", (isolator("os/linux/no-new-privileges", True),), True),
        (0, b"", (isolator("os/linux/no-new-privileges", False),), False),
    ],
)
def test_no_new_privileges_is_forced_for_users_with_a_filter(
    uid: int, seccomp: bytes, isolators: tuple[object, ...], expected: bool
) -> None:
    made = make(app(isolators=isolators), facts=replace(FACTS, uid=uid, seccomp=seccomp))
    assert made.apps[0].processes[0].no_new_privs is expected


@pytest.mark.parametrize(
    ("network", "flags"),
    [("none", {"NEW_NET", "LOOPBACK"}), ("host", set()), ("contained", set())],
)
def test_only_net_none_makes_a_network_namespace_in_c(network: str, flags: set[str]) -> None:
    made = set(make(pod=replace(POD, network=network)).flags)
    assert made & {"NEW_NET", "LOOPBACK"} == flags


def test_the_ipc_namespace_is_the_parents_only_when_asked() -> None:
    assert "NEW_IPC" in make().flags
    assert "NEW_IPC" not in make(pod=replace(POD, ipc="parent")).flags


def test_apps_of_a_pod_share_dev_shm() -> None:
    made = make(app("a"), app("b"))
    assert [op.target for op in made.pod_ops] == ["/pods/u/shm"]
    for planned in made.apps:
        assert [op.source for op in planned.ops if op.target == "/dev/shm"] == ["/pods/u/shm"]
    assert make().pod_ops == ()


def test_a_read_only_root_is_made_so_last() -> None:
    ops = make(app(read_only=True)).apps[0].ops
    assert (ops[-1].kind, ops[-1].target, ops[-1].attributes) == ("ATTRIBUTES", "/", RDONLY)


def test_a_terminal_has_no_null_console_and_a_term() -> None:
    made = make(pod=replace(POD, interactive=True, term="vt100"))
    assert "/dev/console" not in targets(made.apps[0].ops, "DEVICE")
    assert made.apps[0].processes[0].stdio == "TTY"
    assert "TERM=vt100" in made.apps[0].processes[0].env


def test_cgroups_are_shown_read_only() -> None:
    v1 = make(pod=replace(POD, cgroup_mounts=(("memory", "memory"), ("cpu,cpuacct", "cpu,cpuacct"))))
    shown = [op for op in v1.apps[0].ops if op.fstype == "cgroup"]
    assert [op.target for op in shown] == ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct"]
    assert all(op.attributes & RDONLY for op in shown)
    v2 = make(pod=replace(POD, cgroup_mounts=(("", "cgroup2"),)))
    assert [op.target for op in v2.apps[0].ops if op.fstype == "cgroup2"] == ["/sys/fs/cgroup"]
