"""The hot modules: the code of everything `rkt-py run` imports, in one file.

It is to them what a .pyc file is to one: made of the sources when there is none or it is old, used only
when every source has the time and size it was made of, and only by the Python that made it. To look for 30
modules and their 30 .pyc files takes Python longer than everything they then do.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    # source, is it a package, its mtime in ns and its size, marshalled code
    Modules = dict[str, tuple[str, bool, int, int, bytes]]

ENTRIES = ("rkt_py.runtime.cli.main", "rkt_py.runtime.cli.run", "rkt_py.runtime.network.dns")


class Finder:
    """Finds and loads the hot modules."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        from _frozen_importlib import ModuleSpec

        source, is_package, *_ = self.modules[name]
        loader: Any = self
        spec = ModuleSpec(name, loader, origin=source, is_package=is_package)
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(source.rpartition("/")[0])
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(marshal.loads(self.modules[module.__name__][4]), module.__dict__)


def add_packages(package: str) -> None:
    """Do what `site` would have done: make this package and what it needs importable."""
    prefix = sys.executable.rpartition("/bin/")[0]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = [package.rpartition("/")[0], f"{prefix}/lib/{version}/site-packages"]
    if prefix in ("/usr", "/usr/local"):
        # Not a virtual environment: Debian's Python has its packages here.
        paths += [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    sys.path += [path for path in paths if path not in sys.path]


def is_fresh(modules: Modules) -> bool:
    """Tell whether the sources are those the code was made of."""
    try:
        for source, _, mtime, size, _ in modules.values():
            found = os.stat(source)
            if found.st_mtime_ns != mtime or found.st_size != size:
                return False
    except OSError:
        return False
    return True


def without_docstrings(source: bytes) -> ast.Module:
    """Parse a module without what only people read: a third of the file, which is read at each start."""
    import ast

    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, False):
            # A body may not be empty, and nothing may stand before `from __future__`.
            if len(node.body) > 1:
                del node.body[0]
            else:
                node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
    return tree


def write(path: str) -> None:
    """Write the file of hot modules; where that cannot be, everything works without."""
    for name in ENTRIES:
        __import__(name)
    modules: Modules = {}
    sources = {
        name: (getattr(module, "__file__", None) or "", hasattr(module, "__path__"))
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "rkt_py"
    }
    sources["rkt_py.hot"] = (__file__, False)
    try:
        for name, (source, is_package) in sorted(sources.items()):
            if not source.endswith(".py"):
                continue
            status = os.stat(source)
            with open(source, "rb") as file:
                code = compile(without_docstrings(file.read()), source, "exec", dont_inherit=True)
            stamp = (status.st_mtime_ns, status.st_size)
            modules[name] = (source, is_package, *stamp, marshal.dumps(code))
        temporary = f"{path}.{os.getpid()}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(marshal.dumps(modules))
        os.rename(temporary, path)
    except OSError:
        pass


def leave(code: int) -> None:
    """Exit without taking the interpreter down (0.5 ms), when nobody waits for that."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            os.write(2, f"rkt-py: cannot write to standard output: {error.strerror}\n".encode())
        os._exit(254)
    if "threading" in sys.modules or "atexit" in sys.modules:
        sys.exit(code)
    os._exit(code)


def begin(path: str, modules: Modules | None) -> None:
    """Run the program, with these hot modules if they are."""
    if sys.flags.no_site:  # else it is `python -m rkt_py`, and what is importable is so already
        add_packages(__file__.rpartition("/")[0])
        if modules is not None and is_fresh(modules):
            sys.meta_path.insert(0, Finder(modules))
        elif os.geteuid() == 0:
            # Not our own: what runs here may be the code of the old file.
            from rkt_py import hot

            hot.write(path)
    from rkt_py.runtime.cli.main import main

    leave(main())
