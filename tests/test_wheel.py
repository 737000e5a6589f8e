"""The wheel and the source distribution: what is in them, and that what is installed from them runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.rkt import Rkt

ROOT = Path(__file__).parents[1]
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def copy_tree(target: Path) -> Path:
    """Copy what is not ignored, as a repository of its own."""
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    run("git", "init", "--quiet", cwd=target)
    run("git", "add", "--all", cwd=target)
    return target


def build_wheel(source: Path, output: Path) -> Path:
    options: list[str | Path] = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        output,
    ]
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=output.parent, env=EPOCH)
    (wheel,) = output.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    output = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, output, cwd=tree, env=EPOCH)
    (archive,) = output.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, sdist: Path) -> Path:
    """Built from the source distribution: what that lacks, this would lack."""
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A fresh virtual environment with the wheel, and what it requires as links: no network is needed."""
    prefix = tmp_path_factory.mktemp("environment") / "venv"
    run(sys._base_executable, "-m", "venv", "--without-pip", prefix, cwd=prefix.parent)  # type: ignore[attr-defined]
    site = prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for path in required_paths():
        (site / path.name).symlink_to(path)
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    python = prefix / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=prefix)
    return prefix


def required_paths() -> set[Path]:
    """Return the top-level files and directories of everything rkt-py requires, directly or not."""
    wanted, seen, paths = ["rkt-py"], set(), set()
    while wanted:
        found = distribution(wanted.pop())
        for requirement in map(Requirement, found.requires or []):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed and requirement.name not in seen:
                seen.add(requirement.name)
                wanted.append(requirement.name)
        if found.metadata["Name"] != "rkt-py":
            tops = {file.parts[0] for file in found.files or [] if ".." not in file.parts}
            paths |= {Path(str(found.locate_file(top))) for top in tops - {"__pycache__"}}
    return paths


def test_wheel_is_for_every_python_from_3_11(wheel: Path) -> None:
    assert wheel.name.endswith(f"-cp311-abi3-linux_{os.uname().machine}.whl")


def test_wheel_has_one_name_at_its_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.startswith("rkt_py-")} == {"rkt_py"}
    assert len(names) == len(set(names))


def test_wheel_holds_every_module_and_program(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        f"rkt_py/{path.relative_to(ROOT)}"
        for layer in ("aci", "discovery", "runtime", "cluster")
        for path in (ROOT / layer).rglob("*.py")
    }
    modules |= {f"rkt_py/{path.name}" for path in (ROOT / "rkt_py").glob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert names >= {
        "rkt_py/py.typed",
        "rkt_py/runtime/_core.abi3.so",
        "rkt_py/runtime/_seccomp.abi3.so",
        "rkt_py/bin/supervisor",
        "rkt_py/bin/unpack",
    }


def test_wheel_installs_programs_as_programs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        programs = [
            info for info in archive.infolist() if "/bin/" in info.filename or "/scripts/" in info.filename
        ]
        assert {info.filename.rpartition("/")[2] for info in programs} == {"rkt-py", "supervisor", "unpack"}
        for info in programs:
            assert info.external_attr >> 16 & 0o777 == 0o755
            assert archive.read(info)[:4] == b"\x7fELF"


def test_wheel_is_the_same_from_another_directory(
    tmp_path_factory: pytest.TempPathFactory, tree: Path, wheel: Path
) -> None:
    """And the same from the tree as from the source distribution."""
    again = build_wheel(tree, tmp_path_factory.mktemp("again"))
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        different = [name for name in one.namelist() if one.read(name) != other.read(name)]
    assert different == []
    assert again.read_bytes() == wheel.read_bytes()


def test_building_leaves_the_tree_clean(tree: Path, wheel: Path) -> None:
    assert run("git", "ls-files", "--others", "--exclude-standard", cwd=tree) == ""
    assert run("git", "diff", cwd=tree) == ""


def test_sdist_holds_the_source_of_what_is_c(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    csrc = {f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir() if path.suffix in (".c", ".h", ".py")}
    assert names >= csrc | {"LICENSE", "README.md", "NEWS.md", "setup.py", "pyproject.toml"}
    assert not [
        name for name in names if name.endswith((".so", ".o", ".pyc")) or name.startswith("rkt_py/bin/")
    ]


def test_installed_command_runs_from_anywhere(environment: Path, tmp_path: Path) -> None:
    """Through a link, in a directory and an environment that would mislead a script."""
    (tmp_path / "rkt_py.py").write_text("raise SystemExit('the wrong one')")
    link = tmp_path / "rkt-py"
    link.symlink_to(environment / "bin/rkt-py")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PATH": ""}
    version = run(link, "version", cwd=tmp_path, env=hostile)
    assert version.startswith("rkt-py Version: ")
    assert version == run(environment / "bin/python", "-m", "rkt_py", "version", cwd=environment)


def test_environment_has_one_name_of_ours(environment: Path) -> None:
    for name in ("aci", "discovery", "runtime", "cluster", "csrc", "tests", "benchmarks"):
        done = subprocess.run(
            [environment / "bin/python", "-I", "-c", f"import {name}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ModuleNotFoundError" in done.stderr, name


def test_installed_package_loads_its_c_core(environment: Path) -> None:
    code = (
        "import rkt_py.runtime.kernel as k, rkt_py.runtime.seccomp as s; print(k.__file__); print(s.__file__)"
    )
    for line in run(environment / "bin/python", "-I", "-c", code, cwd=environment).splitlines():
        assert Path(line).is_relative_to(environment)


@pytest.mark.root
def test_installed_command_runs_a_pod(environment: Path, busybox_aci: Path, tmp_path: Path) -> None:
    rkt = Rkt(tmp_path / "data", environment / "bin/rkt-py")
    image = rkt.ok("--insecure-options=image", "fetch", busybox_aci).strip()
    assert rkt.ok("run", "--net=none", image, "--exec=/bin/echo", "--", "it runs") == "it runs\n"
    rkt.close()
