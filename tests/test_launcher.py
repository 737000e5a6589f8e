"""csrc/launcher.c: which Python it starts, for each way to be installed, and that nothing else has a say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[1] / "rkt_py/bin/rkt-py"

# A "Python" that shows how it was started.
ECHO = '#!/bin/sh\nprintf \'%s\\n\' "$0" "$@"\n'
QUICK = ["-I", "-S", "-X", "utf8"]
BY_NAME = ["-I", "-X", "utf8", "-m", "rkt_py"]

SITE = "lib/python3.11/site-packages"
MAIN = "rkt_py/__main__.py"
FINDER = "__editable___rkt_py_0_1_0_finder.py"


def install(prefix: Path, files: list[str], pythons: list[str]) -> Path:
    launcher = prefix / "bin/rkt-py"
    launcher.parent.mkdir(parents=True)
    shutil.copy(LAUNCHER, launcher)
    for name in files:
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).touch()
    for name in pythons:
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(ECHO)
        (prefix / name).chmod(0o755)
    return launcher


def start(launcher: Path, *args: str, cwd: Path | None = None, **env: str) -> list[str]:
    done = subprocess.run(
        [launcher, *args], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("files", "pythons", "expected"),
    [
        ([f"{SITE}/{MAIN}"], ["bin/python3.11"], ["bin/python3.11", f"{SITE}/{MAIN}"]),
        (["lib64/python3.12/site-packages/rkt_py/__main__.py"], ["bin/python3.12", "bin/python3.11"],
         ["bin/python3.12", "lib64/python3.12/site-packages/rkt_py/__main__.py"]),
        (["lib/python3.11/dist-packages/rkt_py/__main__.py"], ["bin/python3.11"],
         ["bin/python3.11", "lib/python3.11/dist-packages/rkt_py/__main__.py"]),
        (["lib/python3/dist-packages/rkt_py/__main__.py"], ["bin/python3"],
         ["bin/python3", "lib/python3/dist-packages/rkt_py/__main__.py"]),
        # Of two Pythons, the one that has the package.
        (["lib/python3.13/site-packages/pip.py", f"{SITE}/{MAIN}"], ["bin/python3.11", "bin/python3.13"],
         ["bin/python3.11", f"{SITE}/{MAIN}"]),
        (["lib/python3.x/site-packages/rkt_py/__main__.py", "lib/python2.7/site-packages/rkt_py/__main__.py",
          f"{SITE}/{MAIN}"], ["bin/python3.11", "bin/python3.x", "bin/python2.7"],
         ["bin/python3.11", f"{SITE}/{MAIN}"]),
    ],
)  # fmt: skip
def test_starts_the_package_beside_it(
    tmp_path: Path, files: list[str], pythons: list[str], expected: list[str]
) -> None:
    # A virtual environment may be called rkt_py: then it looks like a source tree's rkt_py/bin.
    prefix = tmp_path / "rkt_py"
    python, script = (str(prefix / path) for path in expected)
    assert start(install(prefix, files, pythons), "list", "") == [python, *QUICK, script, "list", ""]


def test_follows_links_to_itself(tmp_path: Path) -> None:
    launcher = install(tmp_path / "venv", [f"{SITE}/{MAIN}"], ["bin/python3.11"])
    other = install(tmp_path / "other", [f"{SITE}/{MAIN}"], ["bin/python3.11"])
    other.unlink()
    other.symlink_to(launcher)
    assert start(other) == [
        str(tmp_path / "venv/bin/python3.11"),
        *QUICK,
        str(tmp_path / "venv" / SITE / MAIN),
    ]


def test_finds_the_tree_of_an_editable_install(tmp_path: Path) -> None:
    tree = tmp_path / "a tree"
    launcher = install(tmp_path / "venv", [f"{SITE}/{FINDER}", f"{SITE}/other.py"], ["bin/python3.11"])
    finder = tmp_path / "venv" / SITE / FINDER
    (tree / "rkt_py").mkdir(parents=True)
    (tree / MAIN).touch()
    finder.write_text(
        f"import sys\n\nMAPPING: dict[str, str] = { ({'rkt_py': str(tree / 'rkt_py')})!r}\nX = 1\n"
    )
    assert start(launcher) == [str(tmp_path / "venv/bin/python3.11"), *QUICK, str(tree / MAIN)]


def test_runs_from_a_source_tree_with_the_python_of_its_venv(tmp_path: Path) -> None:
    launcher = install(tmp_path / "rkt_py", ["__main__.py"], ["../.venv/bin/python3"])
    assert start(launcher) == [str(tmp_path / ".venv/bin/python3"), *QUICK, str(tmp_path / MAIN)]


def test_lets_site_find_the_packages_of_the_system_when_the_environment_shows_them(tmp_path: Path) -> None:
    launcher = install(tmp_path / "venv", [f"{SITE}/{MAIN}"], ["bin/python3.11"])
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    assert start(launcher, "gc") == [str(tmp_path / "venv/bin/python3.11"), *BY_NAME, "gc"]


def test_without_a_package_beside_it_asks_python_for_it(tmp_path: Path) -> None:
    launcher = install(tmp_path / "venv", [], ["bin/python3"])
    assert start(launcher) == [str(tmp_path / "venv/bin/python3"), *BY_NAME]


@pytest.mark.parametrize(
    "line", ["{'rkt_py': 'rkt_py'}", "{'rkt_py': '/a\\\\b/rkt_py'}", "{'rkt_py': '/a", ""]
)
def test_a_finder_it_cannot_read_is_left_to_python(tmp_path: Path, line: str) -> None:
    launcher = install(tmp_path / "venv", [f"{SITE}/{FINDER}"], ["bin/python3.11", "bin/python3"])
    (tmp_path / "venv" / SITE / FINDER).write_text(line)
    assert start(launcher, cwd=tmp_path) == [str(tmp_path / "venv/bin/python3"), *BY_NAME]


def test_environment_and_directory_have_no_say(tmp_path: Path) -> None:
    """The real Python: code offered by PYTHON*, PATH, HOME or the current directory is not run."""
    evil = tmp_path / "evil"
    (evil / "rkt_py").mkdir(parents=True)
    for name in ("rkt_py/__main__.py", "rkt_py/__init__.py", "os.py", "sitecustomize.py", "startup.py"):
        (evil / name).write_text("raise SystemExit('evil')")
    (evil / "python3").write_text("#!/bin/sh\necho evil")
    (evil / "python3").chmod(0o755)
    launcher = install(tmp_path / "venv", [], [])
    done = subprocess.run(
        [launcher, "version"],
        cwd=evil,
        env={name: str(evil) for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PATH", "HOME")}
        | {"PYTHONSTARTUP": str(evil / "startup.py"), "PYTHONINSPECT": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert "evil" not in done.stdout + done.stderr.replace(str(evil), "")


def test_streams_that_are_closed_are_not_left_to_the_next_open(tmp_path: Path) -> None:
    launcher = install(tmp_path / "venv", [f"{SITE}/{MAIN}"], ["bin/python3.11"])
    (tmp_path / "venv/bin/python3.11").write_text(
        '#!/bin/sh\nseen=$(readlink /proc/$$/fd/0 /proc/$$/fd/1)\necho "$seen" >&2\n'
    )
    done = subprocess.run(
        ["sh", "-c", f"exec '{launcher}' <&- >&-"], stderr=subprocess.PIPE, text=True, check=True
    )
    assert done.stderr == "/dev/null\n/dev/null\n"


def test_the_installed_command_hands_over_to_python_at_once() -> None:
    """No shell, no second process: exec of the launcher, then of Python."""
    installed = Path(sys.prefix, "bin/rkt-py")
    assert installed.read_bytes() == LAUNCHER.read_bytes(), "run `make build`"
    trace = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=execve,clone,fork,vfork,clone3", installed, "version"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert trace.stderr.count("execve(") == 2, trace.stderr
    assert not any(call in trace.stderr for call in ("clone(", "clone3(", "fork("))


def test_a_name_that_is_not_its_own_is_an_error(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copy(LAUNCHER, other)
    done = subprocess.run([other], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (254, "")
    assert done.stderr.startswith("rkt-py: ") and str(other) in done.stderr
