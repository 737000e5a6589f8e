"""What all tests share: a host left as it was, no silent skips, the installed command, a real image."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import host
from tests.rkt import Rkt

BUSYBOX = Path("/bin/busybox")
MUST_RUN = os.environ.get("RKT_MUST_RUN") == "1"
SHARED_HOST = os.environ.get("RKT_SHARED_HOST") == "1"

# The same examples at each run where a failure stops somebody else; other ones each time at a desk.
# Nothing is written to the tree.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("new", database=None, deadline=None)
hypothesis.settings.load_profile("same" if MUST_RUN else "new")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces, mounts, cgroups"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With RKT_MUST_RUN=1 a skip is a failure, unless the test is marked `may_skip`."""
    report = yield
    if (
        MUST_RUN
        and report.skipped
        and not hasattr(report, "wasxfail")
        and not item.get_closest_marker("may_skip")
    ):
        report.outcome = "failed"
        report.longrepr = f"RKT_MUST_RUN=1, and it was skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that skips itself."""
    report = yield
    if MUST_RUN and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"RKT_MUST_RUN=1, and the module was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def same_host() -> Iterator[None]:
    """Fail the session when it leaves anything on the host."""
    before = host.observe()
    yield
    deadline = time.monotonic() + 5
    # The kernel removes network namespaces and cgroups a moment after their last process.
    while (left := host.left_behind(before, host.observe())) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left and not SHARED_HOST:
        pytest.fail(
            "the host is not as it was (if others run tests on it at this time, RKT_SHARED_HOST=1 says so):\n"
            + host.shown(left),
            pytrace=False,
        )


@pytest.fixture
def rkt(tmp_path: Path) -> Iterator[Rkt]:
    """The installed command, with a data directory of its own; its pods are collected at the end."""
    command = Rkt(tmp_path / "data")
    yield command
    command.close()


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of Debian's static busybox: all applets, users and groups."""
    rootfs = tmp_path_factory.mktemp("busybox") / "rootfs"
    for directory in ("bin", "etc", "home/user", "proc", "root", "sys", "dev", "tmp", "var"):
        (rootfs / directory).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, rootfs / "bin/busybox")
    for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if applet != "busybox":
            (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/:/bin/false\n"
        "user:x:1000:1000:A User:/home/user:/bin/sh\n"
    )
    (rootfs / "etc/group").write_text("root:x:0:\ndaemon:x:1:user\nuser:x:1000:\nextra:x:2000:user\n")
    return rootfs


@pytest.fixture(scope="session")
def busybox_aci(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Path:
    """An image of it, example.com/busybox:1.0.0, made by the installed command."""
    directory = tmp_path_factory.mktemp("aci")
    aci = directory / "busybox.aci"
    Rkt(directory / "data").ok(
        "image",
        "build",
        "--name=example.com/busybox",
        "--version=1.0.0",
        "--exec=/bin/sh",
        busybox_rootfs,
        aci,
    )
    return aci
