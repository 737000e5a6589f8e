"""The file of hot modules: made once, used while it is true, never needed."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rkt_py"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the package, whose own file of hot modules is another."""
    copy = tmp_path / "rkt_py"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "bin"))
    return copy


def version(package: Path) -> str:
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(package / "__main__.py"), "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def hot(package: Path) -> Path:
    return package / "__pycache__" / f"hot.{sys.implementation.cache_tag}"


@pytest.mark.root
def test_it_is_made_by_the_first_start_and_used_by_the_next(package: Path) -> None:
    first = version(package)
    made = hot(package).read_bytes()
    before = hot(package).stat().st_mtime_ns
    assert version(package) == first
    assert (hot(package).stat().st_mtime_ns, hot(package).read_bytes()) == (before, made)


@pytest.mark.root
def test_what_it_holds_is_what_runs(package: Path) -> None:
    version(package)
    hot(package).write_bytes(hot(package).read_bytes().replace(b"unknown command", b"UNKNOWN command"))
    command = [sys.executable, "-I", "-S", str(package / "__main__.py"), "nonesuch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == 'Error: UNKNOWN command "nonesuch" for "rkt-py"\n'


@pytest.mark.root
def test_a_changed_source_counts_at_once(package: Path) -> None:
    version(package)
    main = package / "runtime" / "cli" / "main.py"
    main.write_text(main.read_text() + '\nos.write(1, b"changed\\n")\n')
    assert version(package).startswith("changed\n")
    assert version(package).startswith("changed\n")


@pytest.mark.root
def test_a_new_maker_makes_it_anew(package: Path) -> None:
    version(package)
    (package / "hot.py").write_text(
        (package / "hot.py").read_text().replace("ENTRIES = (", 'ENTRIES = ("json", ')
    )
    version(package)
    assert b"json" in marshal.loads(hot(package).read_bytes())["rkt_py.hot"][4]


@pytest.mark.root
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"garbage"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b"\xe9\x01\x00\x00\x00"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["empty", "garbage", "cut short", "a number", "a directory"],
)
def test_a_damaged_one_does_no_harm(package: Path, damage: object) -> None:
    version(package)
    assert callable(damage)
    damage(hot(package))
    assert version(package).startswith("rkt-py Version")


@pytest.mark.root
def test_a_place_that_cannot_be_written_to_does_no_harm(package: Path) -> None:
    (package / "__pycache__").write_text("not a directory")
    assert version(package).startswith("rkt-py Version")
    assert os.path.isfile(package / "__pycache__")
