from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import host

MOUNTINFO = """\
22 29 0:20 / /proc rw,nosuid shared:13 - proc proc rw
29 1 254:0 / / rw,relatime shared:1 master:7 - ext4 /dev/root rw
31 29 0:27 /a /mnt/b\\040c rw - tmpfs tmpfs rw
"""


def test_mounts_are_read_with_their_propagation() -> None:
    assert list(host.mounts(MOUNTINFO)) == [
        "/proc / proc proc shared",
        "/ / ext4 /dev/root shared master",
        "/mnt/b\\040c /a tmpfs tmpfs",
    ]


@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [
        ("mounts", "a", "a", []),
        ("mounts", "a", "ab", ["mounts: left b"]),
        ("mounts", "ab", "a", ["mounts: lost b"]),
        ("processes", "a", "b", ["processes: left b"]),
        ("files", "a", "", []),
    ],
)
def test_what_a_session_leaves_is_named(kind: str, before: str, after: str, expected: list[str]) -> None:
    assert host.left_behind({kind: frozenset(before)}, {kind: frozenset(after)}) == expected


@pytest.mark.root
def test_a_cgroup_left_behind_is_seen() -> None:
    parent = Path("/sys/fs/cgroup/pids")
    made = (parent if parent.is_dir() else parent.parent) / f"rkt-test-{os.getpid()}"
    before = host.observe()
    made.mkdir()
    try:
        left = host.left_behind(before, host.observe())
    finally:
        made.rmdir()
    assert f"cgroups: left {made}" in left


def test_a_program_left_running_is_seen(tmp_path: Path) -> None:
    program = tmp_path / "rkt_py/bin/supervisor"
    program.parent.mkdir(parents=True)
    program.write_bytes(Path("/bin/busybox").read_bytes())
    program.chmod(0o755)
    before = host.observe()
    # busybox runs the applet of its first argument when its own name is none.
    link = tmp_path / "cat"
    link.symlink_to(program)
    with subprocess.Popen([link], stdin=subprocess.PIPE, executable=link) as process:
        left = host.left_behind(before, host.observe())
        assert process.stdin is not None
        process.stdin.close()
    assert [line for line in left if line.startswith(f"processes: left {process.pid} {program}")]


SKIPPING = """
import pytest

def test_skips():
    pytest.skip("no reason")

@pytest.mark.may_skip("not everywhere")
def test_may_skip():
    pytest.skip("a reason")

def test_runs():
    pass
"""


@pytest.mark.parametrize(
    ("must_run", "module", "expected"),
    [
        ("0", SKIPPING, "1 passed, 2 skipped"),
        ("1", SKIPPING, "1 failed, 1 passed, 1 skipped"),
        ("0", "import pytest\npytest.skip('all', allow_module_level=True)", "1 skipped"),
        ("1", "import pytest\npytest.skip('all', allow_module_level=True)", "1 error"),
    ],
)
def test_a_skip_is_a_failure_where_all_must_run(
    tmp_path: Path, must_run: str, module: str, expected: str
) -> None:
    root = Path(__file__).parents[1]
    (tmp_path / "test_it.py").write_text(module)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", f"--rootdir={tmp_path}", str(tmp_path)]
        + ["-c", str(root / "pyproject.toml"), "-p", "no:cacheprovider"],
        cwd=root,
        env={**os.environ, "RKT_MUST_RUN": must_run, "RKT_SHARED_HOST": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert expected in done.stdout.splitlines()[-1], done.stdout
