"""The program `rkt-py`. csrc/launcher.c starts this file with `-I -S`, so Python compiles it each time:
it stays tiny, and leaves everything to rkt_py/hot.py, whose code it finds compiled."""

import gc
import marshal
import sys


def begin() -> int:
    package = __file__.rpartition("/")[0]
    path = f"{package}/__pycache__/hot.{sys.implementation.cache_tag}"
    names: dict[str, object] = {"__name__": "rkt_py.hot", "__file__": f"{package}/hot.py"}
    try:
        with open(path, "rb", 0) as file:
            modules = marshal.loads(file.read())
        exec(marshal.loads(modules["rkt_py.hot"][4]), names)
    except (OSError, ValueError, EOFError, TypeError, KeyError):
        modules = None
        with open(f"{package}/hot.py") as file:
            exec(compile(file.read(), f"{package}/hot.py", "exec"), names)
    return names["begin"](path, modules)  # type: ignore[operator, no-any-return]


if __name__ == "__main__":
    gc.disable()  # nothing here lives long enough to be worth collecting
    begin()
