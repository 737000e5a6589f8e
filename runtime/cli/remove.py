"""`rkt-py rm` and `gc`."""

from __future__ import annotations

from rkt_py.runtime import gc as garbage
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.cli.uuids import each_pod


def rm(invocation: Invocation) -> int:
    """Remove the files of pods that ended or never ran; print the UUID of each."""
    return each_pod(invocation, garbage.remove, doing="remove")


def gc(invocation: Invocation) -> int:
    """Collect pods that ended, and what else nobody will ask for."""
    garbage.collect(
        invocation.paths,
        grace_period=invocation.duration("grace-period") / 1e9,
        expire_prepared=invocation.duration("expire-prepared") / 1e9,
        mark_only=invocation.flag("mark-only"),
        report=_report,
    )
    return 0


def _report(text: str) -> None:
    """As rkt: what is deleted to stdout, all else to stderr under the verb's name."""
    if text.startswith("Garbage collecting"):
        print(text, flush=True)
    else:
        complain(f"gc: {text}")
