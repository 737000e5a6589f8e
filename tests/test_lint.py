from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.prefix, "bin")


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-fix"],
        ["ruff", "format", "--check", "--diff"],
        ["mypy", "--strict", "--no-error-summary"],
        ["pyright", "--warnings"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_tree_is_clean_for(command: list[str]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


C_FILES = sorted((ROOT / "csrc").glob("*.c"))


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c_compiles_without_a_warning(compiler: str, path: Path) -> None:
    flags = "-std=gnu11 -O2 -D_FORTIFY_SOURCE=3 -Wall -Wextra -Wformat=2 -Werror -c -o /dev/null".split()
    done = subprocess.run([compiler, *flags, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", [ROOT / ".ci/run", *sorted(ROOT.glob("docs/*.sh"))], ids=lambda path: path.name
)
def test_shell_scripts_parse(path: Path) -> None:
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o111 == 0o111
    assert "set -euo pipefail" in path.read_text()
