"""Imports point down, C has one door, `rkt-py run` imports little (docs/architecture.md, "Rules")."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rkt import Rkt

ROOT = Path(__file__).parents[1]
LAYERS = ["aci", "discovery", "runtime", "cluster"]

# Only these may import what is C.
DOORS = {"_core": "rkt_py.runtime.kernel", "_seccomp": "rkt_py.runtime.seccomp"}

# Where the hot path starts, and what it may load from outside: each module more costs 1 to 20 ms of 10.
HOT = [
    f"rkt_py.runtime.{name}" for name in ("cli.main", "imagestore", "treestore", "prepare", "plan", "stage1")
]
QUICK = {
    "__future__", "_cffi_backend", "_json", "_posixsubprocess", "_random", "_signal", "_socket", "_stat",
    "errno", "fcntl", "gc", "marshal", "os", "os.path", "posix", "posixpath", "select", "stat", "sys", "time",
}  # fmt: skip

# What the interpreter loads before the first line.
START = {
    "_abc", "_codecs", "_collections_abc", "_frozen_importlib", "_frozen_importlib_external", "_imp", "_io",
    "_thread", "_warnings", "_weakref", "abc", "builtins", "codecs", "encodings", "encodings.aliases",
    "encodings.utf_8", "genericpath", "io", "winreg", "zipimport",
}  # fmt: skip


class Import(NamedTuple):
    """One import: who, what, where, and whether it happens when the module is loaded."""

    importer: str
    imported: str
    line: int
    at_load: bool


def modules() -> dict[str, Path]:
    found = {}
    for path in [
        *(ROOT / "rkt_py").glob("*.py"),
        *(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")),
    ]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = [part for part in parts if part not in ("rkt_py", "__init__")]
        found[".".join(["rkt_py", *own])] = path
    return found


MODULES = modules()


def imports(importer: str) -> list[Import]:
    path = MODULES[importer]
    return list(walk(importer, ast.parse(path.read_text(), path.name), at_load=True))


def walk(importer: str, node: ast.AST, *, at_load: bool) -> Iterator[Import]:
    """Find imports; those in functions and in `except` happen later if at all, `if TYPE_CHECKING:` never."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(importer, alias.name, child.lineno, at_load)
        elif isinstance(child, ast.ImportFrom):
            source = "." * child.level + (child.module or "")
            for alias in child.names:
                full = f"{source}.{alias.name}"
                # `from package import module` and `from module import name` look the same.
                is_module = full in MODULES or alias.name in DOORS
                yield Import(importer, full if is_module else source, child.lineno, at_load)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from walk(importer, ast.Module([statement], []), at_load=False)
            for statement in child.orelse:
                yield from walk(importer, ast.Module([statement], []), at_load=at_load)
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ExceptHandler)
            yield from walk(importer, child, at_load=at_load and not later)


def layer_of(module: str) -> int | None:
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[0] == "rkt_py" and parts[1] in LAYERS else None


def points_up(found: Import) -> bool:
    importer, imported = layer_of(found.importer), layer_of(found.imported)
    return importer is not None and imported is not None and imported > importer


def sees_cli(found: Import) -> bool:
    cli = "rkt_py.runtime.cli"
    starts_it = found.importer in ("rkt_py.__main__", "rkt_py.hot")
    own = starts_it or f"{found.importer}.".startswith(f"{cli}.")
    return f"{found.imported}.".startswith(f"{cli}.") and not own


def sees_c(found: Import) -> bool:
    door = DOORS.get(found.imported.rpartition(".")[2])
    return door is not None and found.importer != door


def has_another_name(found: Import) -> bool:
    """`aci` from the tree is another module than `rkt_py.aci`, with other classes in it."""
    return found.imported.startswith(".") or found.imported.split(".")[0] in [*LAYERS, "csrc", "tests"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("broken", [points_up, sees_cli, sees_c, has_another_name])
def test_no_import_of(module: str, broken) -> None:  # type: ignore[no-untyped-def]
    assert [found for found in imports(module) if broken(found)] == []


@pytest.mark.parametrize(
    ("importer", "source", "broken"),
    [
        ("rkt_py.aci.name", "from rkt_py.runtime import paths", points_up),
        ("rkt_py.aci.name", "def f():\n    import rkt_py.discovery", points_up),
        ("rkt_py.runtime.pod", "from rkt_py.cluster import store", points_up),
        ("rkt_py.runtime.pod", "from rkt_py.runtime.cli import table", sees_cli),
        ("rkt_py.cluster", "import rkt_py.runtime.cli.main", sees_cli),
        ("rkt_py.runtime.pod", "from rkt_py.runtime import _core", sees_c),
        ("rkt_py.runtime.pod", "from rkt_py.runtime._core import ffi, lib", sees_c),
        ("rkt_py.runtime.kernel", "from rkt_py.runtime import _seccomp", sees_c),
        ("rkt_py.runtime.pod", "from aci import name", has_another_name),
        ("rkt_py.runtime.pod", "from . import name", has_another_name),
    ],
)
def test_a_broken_rule_is_found(importer: str, source: str, broken) -> None:  # type: ignore[no-untyped-def]
    assert [found for found in walk(importer, ast.parse(source), at_load=True) if broken(found)]


@pytest.mark.parametrize(
    ("source", "at_load"),
    [
        ("import re", True),
        ("try:\n    import re\nexcept ImportError:\n    pass", True),
        ("class A:\n    import re", True),
        ("def f():\n    import re", False),
        ("try:\n    pass\nexcept ImportError:\n    import re", False),
        ("TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import re", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import re", True),
    ],
)
def test_what_is_imported_at_load_is_known(source: str, at_load: bool) -> None:
    assert [found.at_load for found in walk("m", ast.parse(source), at_load=True)] == [at_load]


def loaded_by(*arguments: str) -> list[str]:
    """Return the modules a command loads, in order, up to where C takes over."""
    package = Path(ROOT, "rkt_py/__main__.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-X", "importtime", package, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    return [row[2].strip() for row in rows[1:]]


def foreign(names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in QUICK | START and name.split(".")[0] != "rkt_py"]


def hot_modules() -> list[str]:
    """Return what the hot path loads of ours, by the text alone: needs no root."""
    found = [name for name in HOT if name in MODULES]
    for name in found:
        own = [one.imported for one in imports(name) if one.at_load and one.imported in MODULES]
        found += [other for other in own if other not in found]
    return found


@pytest.mark.parametrize("module", hot_modules())
def test_hot_module_asks_for_nothing_slow(module: str) -> None:
    assert [one for one in imports(module) if one.at_load and foreign([one.imported])] == []


@pytest.mark.parametrize("command", ["version", "list", "image list"])
def test_a_command_loads_nothing_slow(command: str, tmp_path: Path) -> None:
    loaded = loaded_by(f"--dir={tmp_path}", *command.split())
    assert "rkt_py.runtime.cli.main" in loaded
    assert foreign(loaded) == []


@pytest.mark.root
def test_run_loads_nothing_slow(rkt: Rkt, busybox_aci: Path) -> None:
    image = rkt.ok("--insecure-options=image", "fetch", busybox_aci).strip()
    arguments = ["run", "--net=none", image, "--exec=/bin/true"]
    rkt.ok(*arguments)  # compiles the seccomp filter, once for all
    loaded = loaded_by(f"--dir={rkt.data}", *arguments)
    assert "rkt_py.runtime.stage1" in loaded
    assert foreign(loaded) == []
