"""rkt-py: signed application images as ordinary processes.

`run` and its `Result` are imported when they are first asked for: the command line has no use for them.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt_py.aci.errors import RktError as RktError
    from rkt_py.runtime.library import Result as Result
    from rkt_py.runtime.library import run as run
    from rkt_py.runtime.paths import Paths as Paths

_HOMES = {
    "RktError": "rkt_py.aci.errors",
    "Paths": "rkt_py.runtime.paths",
    "Result": "rkt_py.runtime.library",
    "run": "rkt_py.runtime.library",
}
__all__ = ["Paths", "Result", "RktError", "run"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rkt_py' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
