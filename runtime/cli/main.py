"""The program: a command line understood, its verb called, its errors told.

The only place that prints an error and makes an exit code of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # builtin; `signal` makes enums of it, which takes 3 ms
import os
import sys

from rkt_py.aci.errors import RktError
from rkt_py.runtime.cli import options
from rkt_py.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rkt_py.runtime.cli.options import Invocation

OWN_ERROR = 254


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return the exit code."""
    invocation: Invocation | None = None
    verb = options.PROGRAM
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        # The launcher blocked it, for want of anybody to catch it until here.
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
        invocation = options.parse(sys.argv[1:] if argv is None else argv)
        verb = invocation.command.path[-1]
        if invocation.command.needs_root and os.geteuid() != 0:
            raise RktError("cannot be run as this user: root is needed")
        code = _function(invocation)(invocation)
        sys.stdout.flush()
        return code
    except UsageError as error:
        _print_help(error, verb)
        return error.exit_code
    except RktError as error:
        _debug(invocation)
        complain(f"{verb}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read our output has had enough; the interpreter's own flush must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        _debug(invocation)
        about = f"{error.filename}: " if error.filename else ""
        complain(f"{verb}: {about}{error.strerror or error}")
        return OWN_ERROR
    except MemoryError:
        complain(f"{verb}: out of memory")
        return OWN_ERROR
    except Exception as error:
        _debug(invocation)
        complain(
            f"{verb}: internal error: {type(error).__name__}: {error} (--debug shows where; please report it)"
        )
        return OWN_ERROR
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)


def complain(text: str) -> None:
    """Write a message to stderr as one line, without what a terminal would obey."""
    shown = "".join(character if character.isprintable() else _escape(character) for character in text)
    try:
        os.write(2, f"{shown}\n".encode(errors="backslashreplace"))
    except OSError:
        pass


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii", "replace")


def _function(invocation: Invocation) -> Callable[[Invocation], int]:
    module, _, name = invocation.command.run.partition(":")
    full = f"rkt_py.runtime.cli.{module}"
    # importlib.import_module without importlib, which takes 2 ms to import.
    __import__(full)
    function: Callable[[Invocation], int] = getattr(sys.modules[full], name)
    return function


def _debug(invocation: Invocation | None) -> None:
    if invocation is not None and invocation.flag("debug"):
        import traceback

        traceback.print_exc()


def _print_help(error: UsageError, verb: str) -> None:
    """As rkt: the help on stdout, the error on stderr."""
    from rkt_py.runtime.cli import help

    try:
        sys.stdout.write(help.render(help.find(error.command)))
        sys.stdout.flush()
    except (OSError, UsageError):
        pass
    complain(f"Error: {error}" if verb == options.PROGRAM else f"{verb}: {error}")
