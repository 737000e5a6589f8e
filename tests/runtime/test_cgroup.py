from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rkt_py.aci import isolator
from rkt_py.runtime import cgroup
from rkt_py.runtime.cgroup import CgroupDirectory, Hierarchy, Layout
from rkt_py.runtime.errors import PlanError

UUID = "6733d088-a507-4694-aabf-48e4277bd3d5"

# Machines, as their /proc/self/cgroup and /proc/self/mountinfo are, without most of what is no cgroup's.

V2 = (
    "0::/user.slice/user-0.slice/session-3.scope\n",
    """\
22 28 0:20 / /proc rw,relatime shared:12 - proc proc rw
26 21 0:23 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
""",
)
V2_SERVICE = ("0::/system.slice/app.service\n", V2[1])
V2_SUBGROUP = ("0::/system.slice/app.service/main\n", V2[1])
V2_CONTAINER = (
    "0::/\n",
    "1 2 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw\n",
)
# Debian 10 and Ubuntu 20.04: systemd's hybrid
HYBRID = (
    """\
12:devices:/system.slice/ssh.service
11:memory:/system.slice/ssh.service
10:cpuset:/
9:net_cls,net_prio:/
8:freezer:/
7:pids:/system.slice/ssh.service
6:cpu,cpuacct:/system.slice/ssh.service
5:blkio:/system.slice/ssh.service
4:perf_event:/
3:hugetlb:/
2:rdma:/
1:name=systemd:/system.slice/ssh.service
0::/system.slice/ssh.service
""",
    """\
24 29 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw
32 24 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
33 32 0:28 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
34 32 0:29 / /sys/fs/cgroup/systemd rw,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
37 32 0:33 / /sys/fs/cgroup/rdma rw,relatime shared:15 - cgroup cgroup rw,rdma
38 32 0:34 / /sys/fs/cgroup/hugetlb rw,relatime shared:16 - cgroup cgroup rw,hugetlb
39 32 0:35 / /sys/fs/cgroup/perf_event rw,relatime shared:17 - cgroup cgroup rw,perf_event
40 32 0:36 / /sys/fs/cgroup/blkio rw,relatime shared:18 - cgroup cgroup rw,blkio
41 32 0:37 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:19 - cgroup cgroup rw,cpu,cpuacct
42 32 0:38 / /sys/fs/cgroup/pids rw,relatime shared:20 - cgroup cgroup rw,pids
43 32 0:39 / /sys/fs/cgroup/freezer rw,relatime shared:21 - cgroup cgroup rw,freezer
44 32 0:40 / /sys/fs/cgroup/net_cls,net_prio rw,relatime shared:22 - cgroup cgroup rw,net_cls,net_prio
45 32 0:41 / /sys/fs/cgroup/cpuset rw,relatime shared:23 - cgroup cgroup rw,cpuset
46 32 0:42 / /sys/fs/cgroup/memory rw,relatime shared:24 - cgroup cgroup rw,memory
47 32 0:43 / /sys/fs/cgroup/devices rw,relatime shared:25 - cgroup cgroup rw,devices
""",
)
V1_CONTAINER = (
    """\
4:memory:/docker/0123abc
3:pids:/docker/0123abc
2:cpuacct,cpu:/docker/0123abc
1:name=systemd:/docker/0123abc
""",
    """\
60 59 0:29 /docker/0123abc /sys/fs/cgroup/systemd rw,nosuid,nodev - cgroup cgroup rw,xattr,name=systemd
61 59 0:41 /docker/0123abc /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev - cgroup cgroup rw,cpu,cpuacct
62 59 0:42 /docker/0123abc /sys/fs/cgroup/memory ro,nosuid,nodev - cgroup cgroup rw,memory
63 59 0:42 /docker/0123abc /sys/fs/cgroup/pids rw,nosuid,nodev - cgroup cgroup rw,pids
""",
)
# Some VMs mount each controller by itself, and no systemd is there.
SPLIT = (
    "9:name=systemd:/\n8:pids:/\n4:memory:/process_api/977e76\n2:cpuacct:/\n1:cpu:/\n0::/\n",
    """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
""",
)
NONE = ("", "22 28 0:20 / /proc rw - proc proc rw\n")

ALL = "cpuset cpu io memory hugetlb pids rdma misc"


def layout(
    machine: tuple[str, str], controllers: str = ALL, delegated: Callable[[str], bool] = lambda path: False
) -> Layout:
    return cgroup.layout(*machine, controllers=lambda path: controllers, delegated=delegated)


def memory(limit: str) -> isolator.Isolator:
    return isolator.make(isolator.MEMORY, {"limit": limit})


def cpu(limit: str) -> isolator.Isolator:
    return isolator.make(isolator.CPU, {"limit": limit})


def shares(number: int) -> isolator.Isolator:
    return isolator.make(isolator.CPU_SHARES, number)


# Where cgroups are


@pytest.mark.parametrize(
    "machine, kind, count",
    [(V2, "v2", 1), (HYBRID, "hybrid", 13), (V1_CONTAINER, "v1", 3), (SPLIT, "hybrid", 6), (NONE, "none", 0)],
)
def test_layout_is_told_from_proc(machine: tuple[str, str], kind: str, count: int) -> None:
    found = layout(machine)
    assert found.kind == kind
    assert len(found.hierarchies) == count


@pytest.mark.parametrize(
    "machine, controller, mount, own",
    [
        (V2, "memory", "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/user-0.slice/session-3.scope"),
        (HYBRID, "memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/system.slice/ssh.service"),
        (HYBRID, "cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/system.slice/ssh.service"),
        (HYBRID, "freezer", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/freezer"),
        (HYBRID, "name=systemd", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/system.slice/ssh.service"),
        (V1_CONTAINER, "cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
        (SPLIT, "memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/process_api/977e76"),
        (V2_CONTAINER, "pids", "/sys/fs/cgroup", "/sys/fs/cgroup"),
    ],
)
def test_controller_has_its_hierarchy(
    machine: tuple[str, str], controller: str, mount: str, own: str
) -> None:
    found = layout(machine).of(controller)
    assert found is not None
    assert (found.mount, found.own, found.base) == (mount, own, mount)


@pytest.mark.parametrize(
    "machine, controller",
    [(V2, "devices"), (V2, "name=systemd"), (V1_CONTAINER, "memory"), (NONE, "memory"), (SPLIT, "devices")],
)
def test_controller_that_is_not_there_or_read_only_is_not_had(
    machine: tuple[str, str], controller: str
) -> None:
    assert not layout(machine).has(controller)


def test_v1_has_precedence_in_a_hybrid() -> None:
    found = layout(HYBRID, "memory io").of("memory")
    assert found is not None and not found.unified


@pytest.mark.parametrize(
    "proc, mountinfo, own",
    [
        # a path with a space, and what only looks like it
        ("0::/a b\n", r"1 2 0:1 / /sys/fs/cg\040roup rw - cgroup2 none rw", "/sys/fs/cg roup/a b"),
        ("0::/ab/c\n", "1 2 0:1 /a /cg rw - cgroup2 none rw", "/cg"),
        ("0::/a/c\n", "1 2 0:1 /a /cg rw - cgroup2 none rw", "/cg/c"),
        # we are outside of our cgroup namespace's root
        ("0::/../x\n", "1 2 0:1 / /cg rw - cgroup2 none rw", "/cg"),
        # the mount that shows most
        ("0::/a/b\n", "1 2 0:1 /a /part rw - cgroup2 n rw\n2 3 0:1 / /all rw - cgroup2 n rw", "/all/a/b"),
        # optional fields, a later mount that hides the first, one that is read-only
        ("0::/a\n", "1 2 0:1 / /cg rw shared:1 master:2 - cgroup2 n rw", "/cg/a"),
        (
            "0::/a\n",
            "1 2 0:1 / /cg rw - cgroup2 n rw\n2 3 0:9 / /cg rw - tmpfs n rw\n3 2 0:1 / /x rw - cgroup2 n rw",
            "/x/a",
        ),
        ("0::/a\n", "1 2 0:1 / /cg ro - cgroup2 n rw\n3 2 0:1 / /x rw - cgroup2 n rw", "/x/a"),
    ],
)
def test_own_directory_is_found_in_the_mount(proc: str, mountinfo: str, own: str) -> None:
    (found,) = layout((proc, mountinfo + "\n")).hierarchies
    assert found.own == own


@pytest.mark.parametrize("text", ["", "\n", "garbage", "1:2", "::", "0::", "x:y:z:w\n\n- - -"])
def test_garbage_is_no_layout(text: str) -> None:
    assert cgroup.layout(text, text).kind == "none"
    assert cgroup.layout(text, V2[1]).kind in ("none", "v2")


@pytest.mark.parametrize(
    "machine, delegated, base",
    [
        (V2_SERVICE, "/sys/fs/cgroup/system.slice/app.service", "/sys/fs/cgroup/system.slice/app.service"),
        # DelegateSubgroup=main
        (V2_SUBGROUP, "/sys/fs/cgroup/system.slice/app.service", "/sys/fs/cgroup/system.slice/app.service"),
        (V2_SUBGROUP, "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"),
        (V2_SERVICE, "/sys/fs/cgroup", "/sys/fs/cgroup"),
        (V2_SERVICE, "", "/sys/fs/cgroup"),
    ],
)
def test_delegated_cgroup_of_v2_is_the_base(machine: tuple[str, str], delegated: str, base: str) -> None:
    (found,) = layout(machine, delegated=lambda path: path == delegated).hierarchies
    assert found.base == base
    (directory, *_), _ = cgroup.plan(layout(machine, delegated=lambda path: path == delegated), UUID, {})
    assert directory.path == f"{base}/rkt-py/{UUID}"


def test_delegated_service_of_v1_has_its_controllers() -> None:
    own = "/sys/fs/cgroup/systemd/system.slice/ssh.service"
    found = layout(HYBRID, "", lambda path: path == own)
    bases = {item.controllers: item.base for item in found.hierarchies if not item.unified}
    assert bases["memory",] == "/sys/fs/cgroup/memory/system.slice/ssh.service"
    assert bases["name=systemd",] == own
    # systemd made no directory for the unit there
    assert bases["freezer",] == "/sys/fs/cgroup/freezer"


# What becomes of a pod


def by_path(directories: tuple[CgroupDirectory, ...]) -> dict[str, dict[str, str]]:
    return {
        item.path.removeprefix("/sys/fs/cgroup/").replace(UUID, "UUID"): {
            file: text for file, text, _ in item.settings if file != "devices.allow"
        }
        for item in directories
    }


def test_pod_on_v2_has_a_leaf_for_pid_1_and_one_for_each_app() -> None:
    directories, warnings = cgroup.plan(layout(V2), UUID, {"a": [], "b": []})
    base = f"/sys/fs/cgroup/rkt-py/{UUID}"
    assert warnings == ()
    assert directories == (
        CgroupDirectory(
            base,
            None,
            (
                ("../../cgroup.subtree_control", "+pids", True),
                ("../cgroup.subtree_control", "+pids", True),
                ("pids.max", "4096", True),
            ),
            unified=True,
        ),
        CgroupDirectory(f"{base}/init", None, (), attach=True, unified=True),
        CgroupDirectory(f"{base}/app-a", "a", (), attach=True, unified=True),
        CgroupDirectory(f"{base}/app-b", "b", (), attach=True, unified=True),
    )


def test_limits_on_v2() -> None:
    apps = {"a": [memory("64Mi"), cpu("500m")], "b": [shares(512)], "c": []}
    directories, warnings = cgroup.plan(layout(V2), UUID, apps, [memory("1Gi")])
    assert warnings == ()
    assert by_path(directories) == {
        "rkt-py/UUID": {
            "../../cgroup.subtree_control": "+cpu +memory +pids",
            "../cgroup.subtree_control": "+cpu +memory +pids",
            "memory.max": "1073741824",
            "memory.swap.max": "0",
            "pids.max": "4096",
        },
        "rkt-py/UUID/init": {"../cgroup.subtree_control": "+cpu +memory"},
        "rkt-py/UUID/app-a": {"memory.max": "67108864", "memory.swap.max": "0", "cpu.max": "50000 100000"},
        "rkt-py/UUID/app-b": {"cpu.weight": "50"},
        "rkt-py/UUID/app-c": {},
    }


def test_controllers_are_passed_on_from_the_top_before_they_are_used() -> None:
    directories, _ = cgroup.plan(layout(V2), UUID, {"a": [memory("64Mi")]})
    files = [f"{item.path}/{file}" for item in directories for file, _, _ in item.settings]
    assert [os.path.normpath(file) for file in files] == [
        "/sys/fs/cgroup/cgroup.subtree_control",
        "/sys/fs/cgroup/rkt-py/cgroup.subtree_control",
        f"/sys/fs/cgroup/rkt-py/{UUID}/pids.max",
        f"/sys/fs/cgroup/rkt-py/{UUID}/cgroup.subtree_control",
        f"/sys/fs/cgroup/rkt-py/{UUID}/app-a/memory.max",
        f"/sys/fs/cgroup/rkt-py/{UUID}/app-a/memory.swap.max",
    ]


def test_pod_on_v1_is_in_the_hierarchies_that_hold_it() -> None:
    directories, warnings = cgroup.plan(layout(HYBRID, ""), UUID, {"a": []})
    assert warnings == ()
    assert by_path(directories) == {
        "devices/rkt-py/UUID": {"devices.deny": "a"},
        "memory/rkt-py/UUID": {},
        "freezer/rkt-py/UUID": {},
        "pids/rkt-py/UUID": {"pids.max": "4096"},
        "cpu,cpuacct/rkt-py/UUID": {},
        "systemd/rkt-py/UUID": {},
    }
    assert all(item.attach and item.app is None and not item.unified for item in directories)


def test_limits_on_v1_give_apps_directories_of_their_own() -> None:
    apps = {"a": [memory("64Mi"), cpu("1500m"), shares(512)], "b": []}
    directories, _ = cgroup.plan(layout(HYBRID, ""), UUID, apps, [cpu("2")])
    found = by_path(directories)
    assert found["cpu,cpuacct/rkt-py/UUID"] == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "200000"}
    assert {path: settings for path, settings in found.items() if "/app-" in path} == {
        "memory/rkt-py/UUID/app-a": {
            "memory.limit_in_bytes": "67108864",
            "memory.memsw.limit_in_bytes": "67108864",
        },
        "cpu,cpuacct/rkt-py/UUID/app-a": {
            "cpu.cfs_period_us": "100000",
            "cpu.cfs_quota_us": "150000",
            "cpu.shares": "512",
        },
    }
    paths = [item.path for item in directories]
    assert all(paths.index(os.path.dirname(path)) < paths.index(path) for path in paths if "/app-" in path)


def test_app_gets_no_more_processor_than_its_pod_where_the_kernel_refuses_that() -> None:
    directories, _ = cgroup.plan(layout(HYBRID, ""), UUID, {"a": [cpu("4")]}, [cpu("500m")])
    assert by_path(directories)["cpu,cpuacct/rkt-py/UUID/app-a"]["cpu.cfs_quota_us"] == "50000"


def test_devices_on_v1_are_denied_then_allowed_one_by_one() -> None:
    directories, _ = cgroup.plan(layout(HYBRID, ""), UUID, {}, devices=["c 1:3", "b 7:0"])
    (settings,) = [item.settings for item in directories if "/devices/" in item.path]
    assert settings == (
        ("devices.deny", "a", True),
        ("devices.allow", "c 1:3 rwm", True),
        ("devices.allow", "b 7:0 rwm", True),
    )


def test_devices_of_a_pod_are_the_harmless_ones() -> None:
    numbers = {text[2:] for text in cgroup.DEVICES if not text.endswith("*")}
    paths = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"]
    devices = [os.stat(f"/dev/{name}") for name in paths if os.path.exists(f"/dev/{name}")]
    real = {
        f"{os.major(item.st_rdev)}:{os.minor(item.st_rdev)}" for item in devices if stat.S_ISCHR(item.st_mode)
    }
    assert real <= numbers
    assert set(cgroup.DEVICES) - {f"c {number}" for number in numbers} == {"c 136:*"}


def test_hybrid_with_a_controller_on_v2_uses_both() -> None:
    proc = "3:pids:/\n1:name=systemd:/\n0::/\n"
    mountinfo = "\n".join(
        line for line in SPLIT[1].splitlines() if "memory" not in line and "rw,cpu" not in line
    )
    directories, warnings = cgroup.plan(
        layout((proc, mountinfo), "memory pids"), UUID, {"a": [memory("64Mi")]}
    )
    assert warnings == ()
    found = by_path(directories)
    assert found["pids/rkt-py/UUID"] == {"pids.max": "4096"}
    assert found["unified/rkt-py/UUID"] == {
        "../../cgroup.subtree_control": "+memory",
        "../cgroup.subtree_control": "+memory",
    }
    assert found["unified/rkt-py/UUID/init"] == {"../cgroup.subtree_control": "+memory"}
    assert found["unified/rkt-py/UUID/app-a"] == {"memory.max": "67108864", "memory.swap.max": "0"}


def test_hybrid_whose_v2_has_no_controller_of_ours_leaves_it_alone() -> None:
    directories, _ = cgroup.plan(layout(SPLIT, "hugetlb"), UUID, {"a": []})
    assert not any(item.unified for item in directories)


@pytest.mark.parametrize(
    "machine, controllers, asked, expected",
    [
        (
            NONE,
            "",
            [memory("1G"), cpu("1"), shares(2)],
            ["resource/memory", "resource/cpu", "os/linux/cpu-shares"],
        ),
        (V2, "pids cpu", [memory("1G"), cpu("1")], ["resource/memory"]),
        (V2, "pids memory", [cpu("1"), shares(512)], ["resource/cpu", "os/linux/cpu-shares"]),
        (V1_CONTAINER, "", [memory("1G")], ["resource/memory"]),
        (V2, "", [], []),
        (NONE, "", [], []),
    ],
)
@pytest.mark.parametrize("of_pod", [True, False])
def test_limit_that_cannot_be_is_warned_of_as_rkt_does(
    machine: tuple[str, str],
    controllers: str,
    asked: list[isolator.Isolator],
    expected: list[str],
    of_pod: bool,
) -> None:
    apps = {"a": [] if of_pod else asked, "b": [] if of_pod else asked}
    directories, warnings = cgroup.plan(layout(machine, controllers), UUID, apps, asked if of_pod else [])
    assert list(warnings) == [
        f"warning: {name} isolator set but support disabled in the kernel, skipping" for name in expected
    ]
    settings = [file for item in directories for file, _, _ in item.settings]
    if "resource/memory" in expected:
        assert not any("memory" in file for file in settings)


@pytest.mark.parametrize(
    "asked, message",
    [
        # rkt: `--memory=1`, and `--memory=16m`, which is 16 thousandths of a byte
        (memory("1"), "memory limit of 1 bytes too low. Try a reasonable value, such as --memory=16M"),
        (memory("16m"), "memory limit of 1 bytes too low. Try a reasonable value, such as --memory=16M"),
        (memory("0"), "memory limit of 0 bytes too low. Try a reasonable value, such as --memory=16M"),
        (memory("4095"), "memory limit of 4095 bytes too low. Try a reasonable value, such as --memory=16M"),
        (cpu("0"), "cpu limit of 0 too low. Try a reasonable value, such as --cpu=500m"),
        (cpu("9m"), "cpu limit of 9m too low. Try a reasonable value, such as --cpu=500m"),
    ],
)
@pytest.mark.parametrize("machine", [V2, HYBRID, NONE])
def test_limit_nothing_can_run_with_is_refused(
    machine: tuple[str, str], asked: isolator.Isolator, message: str
) -> None:
    for apps, isolators in (({"a": [asked]}, []), ({}, [asked])):
        with pytest.raises(PlanError) as caught:
            cgroup.plan(layout(machine), UUID, apps, isolators)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "asked, v1, v2",
    [
        ([memory("4096")], {"memory.limit_in_bytes": "4096"}, {"memory.max": "4096"}),
        ([memory("16M")], {"memory.limit_in_bytes": "16000000"}, {"memory.max": "16000000"}),
        ([memory("1.5Gi")], {"memory.limit_in_bytes": "1610612736"}, {"memory.max": "1610612736"}),
        ([memory("1e30")], {"memory.limit_in_bytes": str(2**63 - 1)}, {"memory.max": str(2**63 - 1)}),
        ([memory("1G"), memory("2G")], {"memory.limit_in_bytes": "2000000000"}, {"memory.max": "2000000000"}),
        ([cpu("10m")], {"cpu.cfs_quota_us": "1000"}, {"cpu.max": "1000 100000"}),
        ([cpu("0.25")], {"cpu.cfs_quota_us": "25000"}, {"cpu.max": "25000 100000"}),
        ([cpu("8")], {"cpu.cfs_quota_us": "800000"}, {"cpu.max": "800000 100000"}),
        ([cpu("1e30")], {"cpu.cfs_quota_us": str(2**43)}, {"cpu.max": f"{2**43} 100000"}),
        ([shares(2)], {"cpu.shares": "2"}, {"cpu.weight": "1"}),
        ([shares(1024)], {"cpu.shares": "1024"}, {"cpu.weight": "100"}),
        ([shares(262144)], {"cpu.shares": "262144"}, {"cpu.weight": "10000"}),
    ],
)
def test_quantities_become_the_kernels_numbers(
    asked: list[isolator.Isolator], v1: dict[str, str], v2: dict[str, str]
) -> None:
    for machine, expected in ((HYBRID, v1), (V2, v2)):
        directories, _ = cgroup.plan(layout(machine, ALL if machine is V2 else ""), UUID, {"a": asked})
        (app,) = [{file: text for file, text, _ in item.settings} for item in directories if item.app]
        assert app.items() >= expected.items()


def test_request_alone_limits_nothing() -> None:
    asked = isolator.make(isolator.MEMORY, {"request": "1"})
    directories, _ = cgroup.plan(layout(HYBRID, ""), UUID, {"a": [asked]})
    assert not any(item.app for item in directories)


def test_only_what_kernels_may_lack_may_fail() -> None:
    asked = [memory("64Mi"), cpu("1"), shares(512)]
    for machine in (HYBRID, V2):
        directories, _ = cgroup.plan(layout(machine, ALL if machine is V2 else ""), UUID, {"a": asked}, asked)
        may_fail = {file for item in directories for file, _, required in item.settings if not required}
        assert may_fail == {"memory.swap.max" if machine is V2 else "memory.memsw.limit_in_bytes"}


@pytest.mark.parametrize(
    "machine, controllers, expected",
    [
        (V2, ALL, (("", "cgroup2"),)),
        (
            HYBRID,
            "",
            (
                ("devices", "devices"),
                ("memory", "memory"),
                ("freezer", "freezer"),
                ("pids", "pids"),
                ("cpu,cpuacct", "cpu,cpuacct"),
                ("systemd", "name=systemd"),
            ),
        ),
        (NONE, "", ()),
    ],
)
def test_pod_sees_the_hierarchies_it_is_in(
    machine: tuple[str, str], controllers: str, expected: tuple[tuple[str, str], ...]
) -> None:
    assert cgroup.mounts(layout(machine, controllers)) == expected


def test_who_enters_joins_the_app_or_else_the_pod() -> None:
    apps = {"a": [memory("64Mi")], "b": []}

    def joined(machine: tuple[str, str], controllers: str, app: str) -> set[str]:
        directories, _ = cgroup.plan(layout(machine, controllers), UUID, apps)
        paths = cgroup.joined([item.path for item in directories], UUID, app)
        assert len(set(paths)) == len(paths)
        return {path.removeprefix("/sys/fs/cgroup/").replace(UUID, "U") for path in paths}

    pod = {f"{name}/rkt-py/U" for name in ("devices", "freezer", "pids", "cpu,cpuacct", "systemd")}
    assert joined(HYBRID, "", "a") == pod | {"memory/rkt-py/U/app-a"}
    assert joined(HYBRID, "", "b") == pod | {"memory/rkt-py/U"}
    assert joined(V2, "cpu memory pids", "b") == {"rkt-py/U/app-b"}


# The kernel's


@contextmanager
def sleeper() -> Iterator[int]:
    """A process that waits to be killed."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def remove(*paths: str) -> None:
    for path in paths:
        deadline = time.monotonic() + 5
        while os.path.exists(path):
            try:
                os.rmdir(path)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def test_this_machine_has_a_layout() -> None:
    found = cgroup.detect()
    for item in found.hierarchies:
        assert os.path.isdir(item.mount)
        assert os.path.isdir(item.own)
        assert os.path.isdir(item.base)
        assert str(os.getpid()) in Path(item.own, "cgroup.procs").read_text().split()


@pytest.mark.root
def test_plan_can_be_carried_out_here() -> None:
    """What the supervisor does with it, in the same order; then the kernel says what it took."""
    found = cgroup.detect()
    uuid = f"test-{os.getpid()}"
    asked = [memory("64Mi"), cpu("500m"), shares(512)]
    directories, warnings = cgroup.plan(found, uuid, {"a": asked}, [cpu("1")])
    assert warnings == ()
    try:
        with sleeper() as pid:
            for item in directories:
                os.makedirs(item.path)
                for file, text, required in item.settings:
                    try:
                        Path(item.path, file).write_text(text)
                    except OSError:
                        assert not required, (item.path, file, text)
            for path in cgroup.joined([item.path for item in directories], uuid, "a"):
                Path(path, "cgroup.procs").write_text(str(pid))
                assert Path(path, "cgroup.procs").read_text().split() == [str(pid)]
            values = {
                file: Path(item.path, file).read_text().strip()
                for item in directories
                if item.app
                for file, _, required in item.settings
                if required
            }
            v1 = {
                "memory.limit_in_bytes": "67108864",
                "cpu.cfs_period_us": "100000",
                "cpu.cfs_quota_us": "50000",
                "cpu.shares": "512",
            }
            v2 = {"memory.max": "67108864", "cpu.max": "50000 100000", "cpu.weight": "50"}
            assert values == (v2 if found.kind == "v2" else v1)
            for item in directories:
                if item.path.endswith(f"/pids/rkt-py/{uuid}"):
                    assert Path(item.path, "pids.max").read_text() == "4096\n"
                if item.path.endswith(f"/devices/rkt-py/{uuid}"):
                    allowed = Path(item.path, "devices.list").read_text().splitlines()
                    assert sorted(allowed) == sorted(f"{device} rwm" for device in cgroup.DEVICES)
    finally:
        remove(*[item.path for item in reversed(directories)])
        for parent in {os.path.dirname(item.path) for item in directories if item.path.endswith(uuid)}:
            try:
                os.rmdir(parent)
            except OSError:
                pass  # another pod's


@pytest.fixture
def unified() -> Iterator[str]:
    """A cgroup of v2."""
    mounts = [item.mount for item in cgroup.detect().hierarchies if item.unified]
    if not mounts:
        pytest.skip("no cgroup v2 is mounted here")
    path = f"{mounts[0]}/rkt-py-test-{os.getpid()}"
    os.mkdir(path)
    try:
        yield path
    finally:
        remove(f"{path}/{cgroup.LEAF}", path)


@pytest.mark.root
@pytest.mark.may_skip("a machine may have v1 alone")
def test_processes_of_a_delegated_cgroup_make_room(unified: str) -> None:
    with sleeper() as first, sleeper() as second:
        for pid in (first, second):
            Path(unified, "cgroup.procs").write_text(str(pid))
        cgroup.make_room(unified)
        assert Path(unified, "cgroup.procs").read_text() == ""
        in_leaf = Path(unified, cgroup.LEAF, "cgroup.procs").read_text().split()
        assert sorted(map(int, in_leaf)) == sorted((first, second))
        cgroup.make_room(unified)


@pytest.mark.root
@pytest.mark.may_skip("a machine may have v1 alone")
def test_true_root_has_to_make_no_room(unified: str) -> None:
    root = os.path.dirname(unified)
    if os.path.exists(f"{root}/cgroup.type"):
        pytest.skip("the root of v2 here is a container's")
    cgroup.make_room(root)
    assert not os.path.exists(f"{root}/{cgroup.LEAF}")


@pytest.mark.root
@pytest.mark.may_skip("a machine may have v1 alone")
@pytest.mark.parametrize("name", ["trusted.delegate", "user.delegate"])
def test_delegation_is_an_attribute_systemd_sets(unified: str, name: str) -> None:
    assert not cgroup._is_delegated(unified)
    os.setxattr(unified, name, b"0")
    assert not cgroup._is_delegated(unified)
    os.setxattr(unified, name, b"1")
    assert cgroup._is_delegated(unified)


def test_value_of_a_hierarchy_is_told_apart() -> None:
    one = Hierarchy("/a", ("cpu",), "/a", "/a")
    two = Hierarchy("/b", ("cpu",), "/b", "/b", unified=True)
    assert Layout("hybrid", (two, one)).of("cpu") == one
