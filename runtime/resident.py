"""Resident processes: what one of ours does to itself before it stays for long.

The only module that imports python-prctl. `rkt-py run` needs none of it: what stays of that is C.
"""

from __future__ import annotations

from collections.abc import Iterable

import prctl


def settle(name: str, *, parent_death_signal: int | None = None, capabilities: Iterable[str] = ()) -> None:
    """Take a name (15 bytes, as `ps` shows it) and keep no capability but these ("chown", "net_admin").

    A user 0 without capabilities still owns its files, and can do nothing to others'. With
    `parent_death_signal` this process gets that signal when the thread that started it ends. Raises OSError.
    """
    prctl.set_name(name)
    if parent_death_signal is not None:
        prctl.set_pdeathsig(parent_death_signal)
    numbers = [getattr(prctl, f"CAP_{item.upper()}") for item in capabilities]
    # In this order: the bounding set can be changed only while CAP_SETPCAP is effective.
    prctl.capbset.limit(*numbers)
    prctl.cap_inheritable.limit()
    prctl.cap_effective.limit(*numbers)
    prctl.cap_permitted.limit(*numbers)
    prctl.set_no_new_privs(1)
