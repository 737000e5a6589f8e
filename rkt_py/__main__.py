"""The program `rkt-py`, and `python -m rkt_py`.

csrc/launcher.c starts this file with `-I -S`, so Python compiles it each time: it stays tiny.
"""

import os
import sys


def add_packages() -> None:
    """Do what `site` would have done: make this package and what it needs importable."""
    parent = __file__.rpartition("/rkt_py/")[0]
    prefix = sys.executable.rpartition("/bin/")[0]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = [parent, f"{prefix}/lib/{version}/site-packages"]
    if prefix in ("/usr", "/usr/local"):
        # Not a virtual environment: Debian's Python has its packages here.
        paths += [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    sys.path += [path for path in paths if path not in sys.path]


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


if __name__ == "__main__":
    if not __package__:
        add_packages()
    from rkt_py.runtime.cli.main import main

    leave(main())
